"""`SignalingClient` and a real server on loopback: registration, requests, losses, restarts, kill -9, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
    Closed,
    Disconnected,
    GoingAway,
    OfferReceived,
    PresenceChanged,
    Registered,
    RequestsDelayed,
    SignalingEvent,
    SignalingState,
)
from aldis.errors import ConnectionClosed, MessageTooLarge, RequestFailed, ServerUnreachable, StateError
from aldis.identity.keys import Identity
from aldis.protocol.messages import Candidate, Capabilities, Description, Proof
from aldis.server.app import SignalingServer
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import RawClient
from support.server_process import ServerProcess
from support.settings import config

AT_ONCE = Backoff(first=0.02, most=0.1)
E = TypeVar("E", bound=SignalingEvent)


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config()) as server:
        yield server


class Watched:
    """A registered client and the events that it has told."""

    def __init__(self, client: SignalingClient) -> None:
        self.client = client
        self.events: list[SignalingEvent] = []
        self._changed = asyncio.Event()
        client.subscribe(self._note)

    def _note(self, event: SignalingEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, kind: type[E], fits: Callable[[E], bool] = lambda _: True) -> E:
        """Take events out up to the first that fits, and return that."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self.events:
                    event = self.events.pop(0)
                    if isinstance(event, kind) and fits(event):
                        return event
                self._changed.clear()
                await self._changed.wait()

    async def until_told(self, kind: type[SignalingEvent]) -> list[SignalingEvent]:
        """All events up to the first of a kind."""
        async with asyncio.timeout(PATIENCE):
            while not any(isinstance(event, kind) for event in self.events):
                self._changed.clear()
                await self._changed.wait()
        return self.events

    def cut(self) -> None:
        """The connection breaks, without a word to either side."""
        transport = self.client._transport
        assert transport is not None
        transport._ws.underlying_transport.abort()


@asynccontextmanager
async def online(url: str, user_id: str, *, identity: Identity | None = None, **more: Any) -> AsyncIterator[Watched]:
    more.setdefault("backoff", AT_ONCE)
    async with SignalingClient(url, user_id, **more) as client:
        watched = Watched(client)
        await client.register(identity or Identity.generate())
        await watched.until(Registered)
        yield watched


# --- conversations --------------------------------------------------------------------------------------------------


async def test_two_clients_say_to_each_other_all_there_is_to_say(server: SignalingServer) -> None:
    proof = Proof("k", "n", "s")
    async with online(server.url, "alice") as alice, online(server.url, "bob", device="phone") as bob:
        found = await alice.client.discover("bob")
        assert bob.client.identity is not None
        assert (found.online, found.public_key, found.devices) == (True, bob.client.identity.public_key, ("phone",))
        await alice.client.send_offer(
            "bob", "v=0", connection="c1", proof=proof, capabilities=Capabilities(trickle=False)
        )
        assert await bob.until(OfferReceived) == OfferReceived(
            "alice", Description("offer", "v=0"), "c1", proof, Capabilities(trickle=False)
        )
        await bob.client.send_answer("alice", "v=1", connection="c1", proof=proof)
        assert await alice.until(AnswerReceived) == AnswerReceived(
            "bob/phone", Description("answer", "v=1"), "c1", proof, Capabilities()
        )
        candidate = Candidate("candidate:1", "0", 0)
        await alice.client.send_ice_candidate("bob/phone", candidate, connection="c1")
        await alice.client.send_ice_candidate("bob/phone", None, connection="c1")
        assert await bob.until(CandidateReceived) == CandidateReceived("alice", candidate, "c1")
        assert await bob.until(CandidateReceived) == CandidateReceived("alice", None, "c1")
        await bob.client.send_bye("alice", connection="c1", reason="enough")
        assert await alice.until(ByeReceived) == ByeReceived("bob/phone", "c1", "enough")
        assert 0 < await alice.client.ping() < PATIENCE
        assert (await alice.client.ice_servers()).ttl > 0


async def test_the_server_refuses_with_its_codes(server: SignalingServer) -> None:
    async with online(server.url, "alice") as alice:
        with pytest.raises(RequestFailed) as caught:
            await alice.client.send_offer("nobody", "v=0")
        assert caught.value.code == "not-online"
        with pytest.raises(MessageTooLarge):
            await alice.client.send_offer("alice", "x" * 70_000)
        async with SignalingClient(server.url, "alice") as thief:
            with pytest.raises(RequestFailed) as caught:
                await thief.register(Identity.generate())
            assert caught.value.code == "key-mismatch"
            with pytest.raises(StateError):
                await thief.discover("alice")
        assert (await alice.client.discover("alice")).online


async def test_presence_and_its_end(server: SignalingServer) -> None:
    identity = Identity.generate()
    async with online(server.url, "alice") as alice:
        await alice.client.watch("bob")
        assert not (await alice.until(PresenceChanged)).online
        async with online(server.url, "bob", identity=identity) as bob:
            came = await alice.until(PresenceChanged)
            assert (came.online, came.public_key) == (True, identity.public_key)
            await bob.client.unregister()
            assert not (await alice.until(PresenceChanged)).online
            assert bob.client.state is SignalingState.CONNECTING
        await alice.client.unwatch("bob")
        alice.events.clear()
        async with online(server.url, "bob", identity=identity):
            await alice.client.ping()
        assert alice.events == []


async def test_a_rotated_key_is_the_one_that_registers_from_then_on(server: SignalingServer) -> None:
    old, new = Identity.generate(), Identity.generate()
    async with online(server.url, "alice", identity=old) as alice:
        await alice.client.rotate(new)
        alice.cut()
        await alice.until(Registered)
        assert (await alice.client.discover("alice")).public_key == new.public_key
    async with SignalingClient(server.url, "alice") as late:
        with pytest.raises(RequestFailed):
            await late.register(old)
        await late.register(new)


async def test_a_thousand_lookups_at_once_are_answered(tmp_path: Path) -> None:
    """The names are not known, so each has to be looked up on the disk."""
    async with ServerProcess(tmp_path) as process:
        async with SignalingClient(f"ws://127.0.0.1:{process.port}", "alice") as alice:
            await alice.register(Identity.generate())
            found = await asyncio.gather(*(alice.discover(f"user{number}") for number in range(1000)))
        assert [one.user_id for one in found] == [f"user{number}" for number in range(1000)]


async def test_a_thousand_watches_and_messages_at_once(server: SignalingServer) -> None:
    async with online(server.url, "alice") as alice, online(server.url, "bob") as bob:
        await alice.client.watch(*(f"user-{n}" for n in range(3000)))
        await asyncio.gather(*(alice.client.send_bye("bob", reason=str(n)) for n in range(1000)))
        for n in range(1000):
            assert (await bob.until(ByeReceived)).reason == str(n)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_works_on_both_kinds_of_event_loops(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def conversation() -> None:
        async with SignalingServer(config()) as server, online(server.url, "alice") as alice:
            alice.cut()
            assert (await alice.until(Registered)).resumed
            await alice.client.ping()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(conversation())


# --- losses ---------------------------------------------------------------------------------------------------------


async def test_a_lost_connection_is_resumed_and_nothing_is_missed(server: SignalingServer) -> None:
    async with online(server.url, "alice") as alice, online(server.url, "bob") as bob:
        await bob.client.watch("alice")
        for round_number in range(5):
            bob.cut()
            await bob.until(Disconnected)
            await asyncio.gather(*(alice.client.send_bye("bob", reason=f"{round_number}.{n}") for n in range(20)))
            assert (await bob.until(Registered)).resumed
            for n in range(20):
                assert (await bob.until(ByeReceived)).reason == f"{round_number}.{n}"


async def test_messages_beyond_a_limit_reach_a_client_that_comes_back_all_and_in_order() -> None:
    door = asyncio.Event()  # while it is not set, whoever dials is cut off
    door.set()

    async def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if door.is_set():
            there, back = await asyncio.open_connection("127.0.0.1", server.port)
            await asyncio.gather(pass_on(reader, back), pass_on(there, writer))
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async with await asyncio.start_server(come, "127.0.0.1", 0) as relay:
        host = f"127.0.0.1:{relay.sockets[0].getsockname()[1]}"
        url = f"ws://{host}"
        async with (
            SignalingServer(config(names=(host,))) as server,
            online(url, "alice") as alice,
            online(url, "bob") as bob,
            online(url, "carol") as carol,
        ):
            door.clear()
            bob.cut()
            await bob.until(Disconnected)
            sends = [asyncio.ensure_future(alice.client.send_bye("bob", reason=str(n))) for n in range(120)]
            delayed = await alice.until(RequestsDelayed)
            assert (delayed.request, delayed.to, delayed.error.code) == ("bye", "bob", "rate-limited")
            await alice.client.send_bye("carol", reason="not held up")
            assert (await carol.until(ByeReceived)).reason == "not held up"
            door.set()
            for n in range(120):
                assert (await bob.until(ByeReceived)).reason == str(n)
            await asyncio.gather(*sends)


async def test_a_newer_connection_of_the_same_address_ends_the_older_for_good(server: SignalingServer) -> None:
    identity = Identity.generate()
    async with (
        online(server.url, "alice", identity=identity) as old,
        online(server.url, "alice", identity=identity) as new,
    ):
        closed = await old.until(Closed)
        assert isinstance(closed.error, ConnectionClosed)
        assert closed.error.code == 4001
        with pytest.raises(ConnectionClosed):
            await old.client.ping()
        assert old.client.state is SignalingState.DISCONNECTED
        await new.client.ping()


async def test_a_graceful_restart_is_announced_and_survived() -> None:
    async with SignalingServer(config()) as server:
        url, port = server.url, server.port
        identity = Identity.generate()
        client = SignalingClient(url, "alice", backoff=AT_ONCE)
        await client.connect()
        alice = Watched(client)
        await client.register(identity)
        await client.watch("bob")
    await alice.until(GoingAway)
    gone = await alice.until(Disconnected)
    assert gone.code == 4000
    async with SignalingServer(config(port=port)) as server:
        assert not (await alice.until(Registered)).resumed
        assert (await alice.until(PresenceChanged)).user_id == "bob"
        await client.close()


async def test_after_kill_9_and_a_restart_everything_is_as_it_was(tmp_path: Path) -> None:
    process = ServerProcess(tmp_path)
    async with process:
        url = f"ws://127.0.0.1:{process.port}"
        process.settings["port"] = process.port
        # What alice asks while the server is away waits until there is another process of it.
        async with online(url, "alice", request_timeout=PATIENCE) as alice, online(url, "bob") as bob:
            await alice.client.watch("bob")
            assert (await alice.until(PresenceChanged)).online
            process.signal(signal.SIGKILL)
            await process.wait()
            for one in (alice, bob):
                lost = await one.until(Disconnected)
                assert lost.code == 1006
                # Before that, the kernel may take a call for a listener that is just going.
                refused = await one.until(Disconnected, lambda event: "refused" in event.reason)
                assert refused.retry_in is not None
                assert 0 <= refused.retry_in <= 0.1
            # Asked while nobody is there to answer.
            asking = asyncio.create_task(alice.client.discover("alice"))
            async with ServerProcess(tmp_path, port=process.port) as again:
                for one in (alice, bob):
                    assert not (await one.until(Registered)).resumed
                assert (await asking).online
                await alice.until(PresenceChanged, lambda event: event.online)
                await alice.client.send_bye("bob", reason="here again")
                assert (await bob.until(ByeReceived)).reason == "here again"
                await alice.client.close()
                await bob.client.close()
                assert await again.stop() == 0
                again.assert_clean_log()


# --- TLS ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def secure_server(folder: Path, **more: Any) -> AsyncIterator[tuple[SignalingServer, Path]]:
    files = make_certificates(folder, **more)
    async with SignalingServer(config(tls_cert=files.cert, tls_key=files.key)) as server:
        yield server, files.ca


async def test_a_server_with_a_certificate_of_our_own_authority_is_trusted(tmp_path: Path) -> None:
    async with secure_server(tmp_path) as (server, ca):
        url = f"wss://127.0.0.1:{server.port}"
        async with online(url, "alice", ca_file=ca) as alice:
            assert (await alice.client.discover("alice")).online
            alice.cut()
            assert (await alice.until(Registered)).resumed
        context = ssl.create_default_context(cafile=ca)
        async with online(url, "bob", ssl_context=context) as bob:
            await bob.client.ping()


async def _refused(url: str, **more: Any) -> str:
    with pytest.raises(ServerUnreachable) as caught:
        await SignalingClient(url, "alice", **more).connect()
    return caught.value.reason


async def test_a_certificate_that_nobody_vouches_for_is_refused_in_plain_words(tmp_path: Path) -> None:
    async with secure_server(tmp_path) as (server, _):
        assert "certificate is not trusted" in await _refused(f"wss://127.0.0.1:{server.port}")


def test_tls_on_uvloop_is_the_same(tmp_path: Path) -> None:
    async def conversation() -> None:
        async with secure_server(tmp_path) as (server, ca):
            url = f"wss://127.0.0.1:{server.port}"
            async with online(url, "alice", ca_file=ca) as alice:
                await alice.client.ping()
            assert "certificate is not trusted" in await _refused(url)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(conversation())


async def test_a_certificate_for_another_host_is_refused_in_plain_words(tmp_path: Path) -> None:
    async with secure_server(tmp_path, host="other.example") as (server, ca):
        reason = await _refused(f"wss://127.0.0.1:{server.port}", ca_file=ca)
        assert "certificate is not trusted" in reason
        assert "127.0.0.1" in reason


async def test_an_expired_certificate_is_refused_in_plain_words(tmp_path: Path) -> None:
    async with secure_server(tmp_path, expired=True) as (server, ca):
        assert "expired" in await _refused(f"wss://127.0.0.1:{server.port}", ca_file=ca)


async def test_dialling_a_plain_server_with_tls_is_explained(server: SignalingServer) -> None:
    reason = await _refused(server.url.replace("ws://", "wss://"))
    assert reason == "it does not speak TLS on this port; is it a ws:// server?"


async def test_dialling_something_else_without_tls_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reason = await _refused(f"wss://127.0.0.1:{silent.getsockname()[1]}", connect_timeout=1.0)
    assert reason == "no answer within 1 s; is it a ws:// server?"


async def test_dialling_a_server_with_tls_without_it_is_explained(tmp_path: Path) -> None:
    async with secure_server(tmp_path) as (server, _):
        reason = await _refused(f"ws://127.0.0.1:{server.port}")
    assert reason == "the server closed the connection instead of answering; is it a wss:// server?"


async def test_a_server_that_hangs_up_during_the_tls_handshake_is_a_lost_line_and_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        assert await _refused(f"wss://127.0.0.1:{port}")
    assert [record for record in caplog.records if record.exc_info] == []


async def test_dialling_a_secure_server_without_tls_fails_cleanly(tmp_path: Path) -> None:
    async with secure_server(tmp_path) as (server, _):
        assert await _refused(f"ws://127.0.0.1:{server.port}", connect_timeout=5.0)


async def test_a_peer_that_nests_as_deep_as_the_server_can_read_does_not_cut_us_off(server: SignalingServer) -> None:
    """A client may have less stack left than the server, which passes on what it can read itself."""
    async with online(server.url, "bob") as bob, await RawClient.connect(server.port) as mallory:
        await mallory.register("mallory")
        for depth in range(700, 1000, 2):
            mallory.send('{"type":"offer","to":"bob","offer":{"a":' + "[" * depth + "]" * depth + "}}")
        mallory.send({"type": "bye", "to": "bob", "reason": "done"})
        events = await bob.until_told(ByeReceived)
        assert not [event for event in events if isinstance(event, Disconnected)]
