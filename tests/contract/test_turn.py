"""Which TURN server an engine takes of several, with a real coturn, and without any other path between two peers."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import pytest

from aldis.client.events import CandidateReceived
from aldis.errors import PeerConnectionFailed
from aldis.peer.connection import PeerState
from aldis.peer.engine import Engine, EngineConfig, EngineConnection, EngineListener
from aldis.peer.engines import aiortc_ice
from aldis.peer.transport import PeerTiming
from aldis.protocol.messages import Candidate, IceServer
from support.certificates import make_certificates
from support.coturn import CREDENTIAL, USERNAME, Coturn
from support.peers import EngineEnd, Link, Passed, Side, nothing_left_behind
from support.ports import free_port

each = pytest.mark.parametrize("name", ["wrtc", "aiortc"])


def turn(*urls: str, credential: str = CREDENTIAL) -> IceServer:
    return IceServer(list(urls), USERNAME, credential)


def only_relay(sdp: str) -> str:
    """A description without the candidates that lead past the TURN server."""
    return re.sub(r"a=candidate:(?!.* typ relay).*\r\n", "", sdp)


def is_relay(candidate: Candidate | None) -> bool:
    return candidate is not None and " typ relay" in candidate.candidate


async def relays(source: EngineEnd, target: EngineEnd) -> None:
    """Pass on what the TURN server gave, as soon as it is there: a dead server holds up the end of gathering."""
    if source.engine.capabilities.trickle:
        await source.until(lambda: any(map(is_relay, source.candidates)), "a relay candidate")
        for candidate in filter(is_relay, list(source.candidates)):
            await target.connection.add_candidate(candidate)


async def talk_over_a_relay(name: str, *servers: IceServer, way: str) -> None:
    """Two ends that have no address but the one at the TURN server, which each reaches by `way`.

    Of an end that also has its own sockets, the pair of such a socket and the other's relay could answer first: the
    server permits a peer by its IP, and here all have the same one.
    """
    config = EngineConfig(ice_servers=servers, allow_loopback=True, relay_only=True)
    async with nothing_left_behind():
        offerer, answerer = EngineEnd(name, config), EngineEnd(name, config)
        try:
            offerer.connection.open_channel("aldis.v1")
            offer = only_relay(await offerer.connection.offer())
            answer = only_relay(await answerer.connection.answer(offer))
            await offerer.connection.accept(answer)
            await asyncio.gather(relays(offerer, answerer), relays(answerer, offerer))
            for end in (offerer, answerer):
                await end.until(lambda end=end: bool(end.channels), "a channel over the relay")
            offerer.end.channel.send(b"relayed")
            await answerer.until(lambda: answerer.end.received == [b"relayed"], "the message")
            stats = await offerer.connection.stats()
            assert stats.relayed
            assert stats.local is not None
            assert stats.local.relay_protocol == way
        finally:
            await offerer.connection.close()
            await answerer.connection.close()


@each
async def test_an_end_that_may_only_relay_tells_no_address_of_its_own(name: str, tmp_path: Path) -> None:
    async with Coturn(tmp_path) as server, nothing_left_behind():
        servers = (turn(f"turn:127.0.0.1:{server.port}?transport=udp"),)
        end = EngineEnd(name, EngineConfig(ice_servers=servers, allow_loopback=True, relay_only=True))
        try:
            end.connection.open_channel("aldis.v1")
            offer = await end.connection.offer()
            if end.engine.capabilities.trickle:
                await end.until(lambda: None in end.candidates, "the end of gathering")
            told = re.findall("a=candidate:.* typ (.*)", offer)
            told += [candidate.candidate for candidate in end.candidates if candidate is not None]
            assert told
            assert all("relay" in candidate for candidate in told)
            assert not any("typ host" in candidate for candidate in told)
        finally:
            await end.connection.close()


@each
async def test_behind_blocked_udp_the_next_url_of_the_list_is_taken(name: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))  # takes every datagram and answers none, as a firewall does
        blocked = f"turn:127.0.0.1:{silent.getsockname()[1]}"
        async with Coturn(tmp_path, "--no-udp") as server:
            await talk_over_a_relay(name, turn(blocked, f"turn:127.0.0.1:{server.port}?transport=tcp"), way="tcp")


@each
async def test_a_dead_first_server_is_replaced(name: str, tmp_path: Path) -> None:
    async with Coturn(tmp_path) as server:
        dead = f"turn:127.0.0.1:{free_port()}"
        await talk_over_a_relay(name, turn(dead), turn(f"turn:127.0.0.1:{server.port}"), way="udp")


@each
async def test_a_server_that_refuses_the_credentials_is_replaced(name: str, tmp_path: Path) -> None:
    async with Coturn(tmp_path) as server:
        url = f"turn:127.0.0.1:{server.port}"
        await talk_over_a_relay(name, turn(url, credential="wrong"), turn(f"{url}?transport=tcp"), way="tcp")


async def test_turn_over_tls_is_taken_when_nothing_else_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # wrtc trusts the authorities that libwebrtc has built in, and cannot be told of ours.
    files = make_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    async with Coturn(tmp_path, "--no-udp", "--cert", str(files.cert), "--pkey", str(files.key)) as server:
        servers = turn(f"turns:127.0.0.1:{server.tls_port}", f"turn:127.0.0.1:{free_port()}")
        await talk_over_a_relay("aiortc", servers, way="tls")


async def test_of_several_stun_servers_one_that_answers_is_enough(tmp_path: Path) -> None:
    # libwebrtc tells no reflexive candidate that is its host candidate, as it is without a NAT.
    async with Coturn(tmp_path, "--stun-only") as server, nothing_left_behind():
        urls = [f"stun:127.0.0.1:{free_port()}", f"stun:127.0.0.1:{server.port}?transport=udp"]
        end = EngineEnd("aiortc", EngineConfig(ice_servers=(IceServer(urls),), allow_loopback=True))
        end.connection.open_channel("aldis.v1")
        assert " typ srflx" in await end.connection.offer()
        await end.connection.close()


async def test_a_stun_server_that_does_not_answer_holds_a_description_up_for_its_own_time_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aiortc_ice, "_GATHER_SECONDS", 3600.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        servers = (IceServer([f"stun:127.0.0.1:{silent.getsockname()[1]}"]),)
        async with nothing_left_behind():
            end = EngineEnd("aiortc", EngineConfig(ice_servers=servers, allow_loopback=True))
            end.connection.open_channel("aldis.v1")
            assert " typ host" in await end.connection.offer()
            await end.connection.close()


class BehindFirewall:
    """An engine of which the other side learns the relay candidates only, as if all else were blocked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.capabilities = engine.capabilities

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        connection = self._engine.create(config, listener)
        offer, answer = connection.offer, connection.answer

        async def make_offer(*, restart_ice: bool = False) -> str:
            return only_relay(await offer(restart_ice=restart_ice))

        async def make_answer(offer_sdp: str) -> str:
            return only_relay(await answer(offer_sdp))

        setattr(connection, "offer", make_offer)  # noqa: B010 - as an assignment mypy would refuse it
        setattr(connection, "answer", make_answer)  # noqa: B010
        return connection


def only_relay_passes(message: Passed) -> list[Passed]:
    event = message.event
    blocked = isinstance(event, CandidateReceived) and event.candidate is not None and not is_relay(event.candidate)
    return [] if blocked else [message]


@each
@pytest.mark.parametrize("credential", ["wrong", CREDENTIAL])
async def test_an_attempt_that_failed_for_want_of_a_relay_says_so(name: str, credential: str, tmp_path: Path) -> None:
    async with Coturn(tmp_path) as server, nothing_left_behind():
        url = f"turn:127.0.0.1:{server.port}"
        link = Link()
        link.middle = only_relay_passes
        alice, bob = (
            Side(link, local, remote, engine=name, timing=PeerTiming(attempt=4.0))
            for local, remote in (("alice", "bob"), ("bob", "alice"))
        )
        for side in (alice, bob):
            side.config = EngineConfig(ice_servers=(turn(url, credential=credential),), allow_loopback=True)
            setattr(side.peer, "_engine", BehindFirewall(side.peer._engine))  # noqa: B010
        alice.peer.connect()
        if credential == CREDENTIAL:
            await alice.until_state(PeerState.CONNECTED)
        else:
            for side in (alice, bob):
                await side.until_state(PeerState.FAILED)
                (error,) = side.told.errors
                assert isinstance(error, PeerConnectionFailed)
                assert f"; no relay candidate from {url}: " in error.reason, error.reason
                # aiortc does not tell of a refusal.
                assert error.turn == ("refused" if name == "wrtc" else "unreachable")
        await asyncio.gather(alice.peer.close(), bob.peer.close())


def test_servers_beyond_those_that_aiortc_asks_are_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    most = aiortc_ice._MAX_SERVERS
    urls = [f"{kind}:{number}.example" for kind in ("stun", "turn") for number in range(most)]
    aiortc_ice.Servers([turn(*urls)])
    assert caplog.text == ""
    aiortc_ice.Servers([turn(*urls, "turn:one.more.example", "turn:another.example")])
    assert (
        f"of {most + 2} TURN servers, aiortc asks {most}; left out: turn:one.more.example, turn:another" in caplog.text
    )
