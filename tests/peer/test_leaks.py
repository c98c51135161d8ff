"""After attempts that went wrong in all ways nothing is left: no descriptor, no task, no thread."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
from aioice import stun
from aioice.turn import make_integrity_key

from aldis.client.events import AnswerReceived, CandidateReceived, OfferReceived
from aldis.peer.engine import EngineConfig, EngineRefused, EngineState
from aldis.peer.slots import AttemptSlots
from aldis.protocol.messages import Candidate, IceServer
from support.patience import PATIENCE
from support.peers import EngineEnd, Link, Side, connected, nothing_left_behind, pass_candidates

ENGINES = ["wrtc", "aiortc"]
_NAME = ".local 50000 typ host"


def descriptors() -> dict[str, str]:
    """What is open: sockets, pipes, files."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found[entry.name] = str(entry.readlink())
    return {name: target for name, target in found.items() if not target.startswith("/proc/")}


async def describe(offerer: EngineEnd, answerer: EngineEnd, change: Callable[[str], str] = lambda sdp: sdp) -> None:
    """Exchange descriptions; `change` is applied to the answer."""
    offerer.connection.open_channel("aldis.v1")
    answer = await answerer.connection.answer(await offerer.connection.offer())
    await offerer.connection.accept(change(answer))


async def close(*ends: EngineEnd) -> None:
    for end in ends:
        await end.connection.close()


async def closed_at_once(engine: str) -> None:
    await close(EngineEnd(engine))


async def closed_while_it_makes_an_offer(engine: str) -> None:
    end = EngineEnd(engine)
    end.connection.open_channel("aldis.v1")
    offering = asyncio.create_task(end.connection.offer())
    await asyncio.sleep(0)
    await close(end)
    with suppress(EngineRefused, asyncio.CancelledError):
        await offering


async def closed_while_it_gathers(engine: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, socket.socket() as deaf:
        silent.bind(("127.0.0.1", 0))  # a server that takes all and says nothing
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()

        async def gather(port: int, kind: str) -> None:
            end = EngineEnd(engine, turn(f"turn:127.0.0.1:{port}?transport={kind}"))
            end.connection.open_channel("aldis.v1")
            offering = asyncio.create_task(end.connection.offer())
            await asyncio.sleep(0)
            offering.cancel()  # as the worker of a transport that is dropped
            with suppress(EngineRefused, asyncio.CancelledError):
                await offering
            await close(end)

        await asyncio.gather(gather(silent.getsockname()[1], "udp"), gather(deaf.getsockname()[1], "tcp"))


def turn(url: str) -> EngineConfig:
    """A configuration with this TURN server."""
    return EngineConfig((IceServer([url], "user", "secret"),), allow_loopback=True)


class DyingTurn(asyncio.DatagramProtocol):
    """A TURN server that makes an allocation, and says nothing afterwards."""

    def __init__(self) -> None:
        self.allocated = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = stun.parse_message(data)
        if request.message_method != stun.Method.ALLOCATE:
            return
        response = stun.Message(
            message_method=request.message_method,
            message_class=stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        if "USERNAME" not in request.attributes:
            response.message_class = stun.Class.ERROR
            response.attributes |= {"ERROR-CODE": (401, "who?"), "REALM": "test", "NONCE": b"nonce"}
        else:
            self.allocated += 1
            relayed = ("127.0.0.1", 50000 + self.allocated)
            response.attributes |= {"XOR-RELAYED-ADDRESS": relayed, "XOR-MAPPED-ADDRESS": addr, "LIFETIME": 600}
            response.add_message_integrity(make_integrity_key("user", "test", "secret"))
        self.transport.sendto(bytes(response), addr)


async def with_a_relay_that_dies(engine: str) -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(DyingTurn, local_addr=("127.0.0.1", 0))
    try:
        end = EngineEnd(engine, turn(f"turn:127.0.0.1:{transport.get_extra_info('sockname')[1]}?transport=udp"))
        end.connection.open_channel("aldis.v1")
        sdp = await end.connection.offer()
        await end.until(lambda: " typ relay" in sdp + "".join(each.candidate for each in end.candidates if each))
        assert server.allocated > 0
        await close(end)
    finally:
        transport.close()


async def closed_before_the_answer(engine: str) -> None:
    end = EngineEnd(engine)
    end.connection.open_channel("aldis.v1")
    await end.connection.offer()
    await close(end)


async def closed_while_it_connects(engine: str) -> None:
    ends = offerer, answerer = EngineEnd(engine), EngineEnd(engine)
    await describe(offerer, answerer)
    await close(*ends)


async def without_a_path(engine: str) -> None:
    ends = offerer, answerer = EngineEnd(engine), EngineEnd(engine)
    await describe(offerer, answerer, lambda sdp: re.sub(r"a=candidate:.*\r\n", "", sdp))
    for name in (f"candidate:1 1 udp 2113937151 {index}f0e1d2c-0000-4000-8000-000000000000{_NAME}" for index in "123"):
        with suppress(EngineRefused):
            await offerer.connection.add_candidate(Candidate(name, "0", 0))
    await offerer.connection.add_candidate(None)
    await close(*ends)


async def with_another_certificate(engine: str) -> None:
    ends = offerer, answerer = EngineEnd(engine), EngineEnd(engine)
    forged = "a=fingerprint:sha-256 " + ":".join(["AA"] * 32)
    await describe(offerer, answerer, lambda sdp: re.sub(r"a=fingerprint:.*", forged, sdp).replace("\r\n\n", "\r\n"))
    await asyncio.gather(pass_candidates(offerer, answerer), pass_candidates(answerer, offerer))
    await offerer.until(lambda: bool({EngineState.FAILED, EngineState.CLOSED} & {*offerer.states}), "the refusal")
    assert offerer.channels == []
    await close(*ends)


async def with_a_peer_that_goes_away(engine: str) -> None:
    ends = offerer, answerer = EngineEnd(engine), EngineEnd(engine)
    await describe(offerer, answerer)
    await asyncio.gather(pass_candidates(offerer, answerer), pass_candidates(answerer, offerer))
    await offerer.until(lambda: bool(offerer.channels), "the channel")
    await close(answerer)
    await close(*ends)


async def with_nonsense(engine: str) -> None:
    end = EngineEnd(engine)
    with pytest.raises(EngineRefused):
        await end.connection.answer("v=0\r\nm=application 9 x\r\na=fingerprint:x\r\n")
    await close(end)


STAGES: list[Callable[[str], Awaitable[None]]] = [
    closed_at_once,
    closed_while_it_makes_an_offer,
    closed_while_it_gathers,
    closed_before_the_answer,
    closed_while_it_connects,
    without_a_path,
    with_another_certificate,
    with_a_peer_that_goes_away,
    with_nonsense,
    with_a_relay_that_dies,
]


async def settled(before: dict[str, str], threads: int) -> None:
    """Wait until all is as before."""
    try:
        async with asyncio.timeout(PATIENCE):
            while len(descriptors()) > len(before) or threading.active_count() > threads:  # noqa: ASYNC110
                await asyncio.sleep(0)  # transports close in a call of their own
    except TimeoutError:
        now = descriptors()
        left = {name: target for name, target in now.items() if before.get(name) != target}
        raise AssertionError(f"left open: {left}; threads: {threading.enumerate()}") from None


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
async def test_an_engine_connection_leaves_nothing_open(engine: str, stage: Callable[[str], Awaitable[None]]) -> None:
    # What is made once for the process or the loop, and stays; wrtc makes some of it when its first event arrives.
    await closed_before_the_answer(engine)
    await stage(engine)
    before, threads = descriptors(), threading.active_count()
    async with nothing_left_behind():
        for _ in range(3):
            await stage(engine)
        await settled(before, threads)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("last", [OfferReceived, AnswerReceived, CandidateReceived, None])
async def test_an_attempt_that_is_given_up_at_any_stage_leaves_nothing_open(engine: str, last: type | None) -> None:
    if engine == "aiortc" and last is CandidateReceived:
        last = AnswerReceived  # it has no candidates of its own

    async def attempt() -> None:
        link = Link()
        sides = [Side(link, *names, engine=engine) for names in (("alice", "bob"), ("bob", "alice"))]
        sides[0].peer.connect()
        if last is None:
            await connected(*sides)
            sides[0].peer.connect()
        else:
            await link.until_sent(last)
        await asyncio.gather(*(side.peer.close() for side in sides))
        slots = AttemptSlots.of(asyncio.get_running_loop())
        assert (slots.calls.held, slots.answers.held) == (0, 0)

    await attempt()
    before, threads = descriptors(), threading.active_count()
    async with nothing_left_behind():
        for _ in range(3):
            await attempt()
        await settled(before, threads)
