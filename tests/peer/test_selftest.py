"""The self-test of a machine's WebRTC: what a STUN server may answer, and what an engine can do by itself."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from aldis.peer.engine import EngineConfig
from aldis.peer.engines.catalog import load_engine
from aldis.peer.selftest import ask_stun, gather, loop_back

COOKIE = 0x2112A442


def answer(request: bytes, attribute: bytes, *, kind: int = 0x0101) -> bytes:
    return struct.pack(">HHI", kind, len(attribute), COOKIE) + request[8:20] + attribute


def mapped(request: bytes, address: str, port: int) -> bytes:
    """An XOR-MAPPED-ADDRESS attribute (RFC 8489 section 14.2)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    mask = struct.pack(">I", COOKIE) + request[8:20]
    masked = bytes(a ^ b for a, b in zip(socket.inet_pton(family, address), mask, strict=False))
    return struct.pack(">HHBBH", 0x20, 4 + len(masked), 0, 2 if ":" in address else 1, port ^ (COOKIE >> 16)) + masked


@asynccontextmanager
async def stun_server(*replies: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """A server that sends all these answers to each request; gives its port."""

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            for reply in replies:
                transport.sendto(reply(data), addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("address", "shown"), [("203.0.113.7", "203.0.113.7:5004"), ("2001:db8::1", "[2001:db8::1]:5004")]
)
async def test_a_stun_server_tells_as_whom_it_sees_us(address: str, shown: str) -> None:
    async with stun_server(lambda request: answer(request, mapped(request, address, 5004))) as port:
        assert await ask_stun("127.0.0.1", port) == shown


async def test_what_is_no_answer_to_our_request_is_not_believed() -> None:
    forged: list[Callable[[bytes], bytes]] = [
        lambda _: b"",
        lambda _: b"hello, I am no STUN server at all",
        lambda request: answer(bytes(20), mapped(request, "203.0.113.66", 1)),  # of another transaction
        lambda request: answer(request, mapped(request, "203.0.113.66", 1), kind=0x0111),  # an error
        lambda request: answer(request, mapped(request, "203.0.113.66", 1)[:6]),  # cut short
        lambda request: answer(request, struct.pack(">HH", 0x8022, 3) + b"abc\0" + mapped(request, "203.0.113.7", 9)),
    ]
    async with stun_server(*forged) as port:
        assert await ask_stun("127.0.0.1", port) == "203.0.113.7:9"


async def test_no_answer_is_a_time_out() -> None:
    async with stun_server() as port:
        with pytest.raises(TimeoutError):
            await ask_stun("127.0.0.1", port, within=0.2)


@pytest.mark.parametrize("name", ["wrtc", "aiortc"])
async def test_an_engine_finds_candidates_and_talks_to_itself(name: str) -> None:
    config = EngineConfig(allow_loopback=True)
    gathered = await gather(load_engine(name), config)
    assert gathered.finished
    assert set(gathered.by_kind) == {"host"}
    assert not [place for place in gathered.by_kind["host"] if ":9/tcp" in place]
    result = await loop_back(load_engine(name), config)
    assert 0 < result.open_seconds < 15
    assert 0 < result.round_trip < 15
