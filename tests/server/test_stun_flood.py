"""A flood of datagrams at the STUN port: who is left out, and what the kernel drops before it is read."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress

import pytest

from aldis.protocol.stun import BINDING_REQUEST, write_message
from aldis.server.stun import MAX_REQUEST, StunAnswers
from aldis.server.stun_filter import program
from aldis.server.stun_flood import ENOUGH, LEFT_OUT, MOST, READS, WINDOW, StunFlood
from aldis.server.stun_port import StunPort
from support.patience import PATIENCE

REQUEST = write_message(BINDING_REQUEST, bytes(range(12)))
ONE, OTHER = bytes([192, 0, 2, 1]), bytes.fromhex("20010db800000001")
# At 20 answers a second 40 are read at once. The rest is too little to be left out for once more.
FLOOD = [REQUEST] * 50
linux = pytest.mark.skipif(sys.platform != "linux", reason="other kernels take no such program")


def flooded(flood: StunFlood, network: bytes, now: float, count: int = ENOUGH) -> None:
    for _ in range(count):
        flood.unanswered(network, now)


def test_datagrams_are_read_four_times_as_often_as_they_are_answered() -> None:
    flood = StunFlood()
    flood.limit(100, 200, 0.0)
    assert sum(flood.may_read(0.0) for _ in range(1000)) == 200
    assert sum(flood.may_read(number / 1000) for number in range(1000)) == pytest.approx(READS * 100, abs=2)


def test_a_network_that_gets_no_answers_in_a_flood_is_left_out_for_a_while() -> None:
    flood = StunFlood()
    flooded(flood, ONE, 0.0)
    flooded(flood, OTHER, 0.0, ENOUGH - 1)
    assert flood.left_out == ()
    assert flood.look(0.1)
    assert flood.left_out == (ONE,)
    assert not flood.look(LEFT_OUT)
    assert flood.look(0.1 + LEFT_OUT)
    assert flood.left_out == ()


def test_the_kernel_is_told_again_of_one_that_comes_all_the_same() -> None:
    """Another worker has put its own program at the socket that they share."""
    flood = StunFlood()
    flooded(flood, ONE, 0.0)
    assert flood.look(0.1)
    flooded(flood, ONE, 0.2)
    assert flood.look(0.3)
    assert not flood.look(0.4)
    assert flood.left_out == (ONE,)


def test_what_came_long_before_does_not_count() -> None:
    flood = StunFlood()
    flooded(flood, ONE, 0.0, ENOUGH - 1)
    flooded(flood, ONE, WINDOW, ENOUGH - 1)
    flooded(flood, OTHER, WINDOW)
    flooded(flood, ONE, 3 * WINDOW, 1)
    assert not flood.look(3 * WINDOW)


def test_no_more_networks_are_left_out_than_the_kernel_is_to_compare() -> None:
    flood = StunFlood()
    for number in range(MOST + 10):
        flooded(flood, bytes([10, 0, number // 256, number % 256]), 0.0)
    flood.look(0.1)
    assert len(flood.left_out) == MOST


# --- the kernel -------------------------------------------------------------------------------------------------------


class Port:
    """A STUN port on loopback whose time stands still until it is told to go on."""

    def __init__(self, per_second: int) -> None:
        self.now = 0.0
        self.answers = StunAnswers(per_second, 1, self.now)
        self.faults: list[Exception] = []
        self.port = StunPort(self.answers, clock=lambda: self.now, fault=self.faults.append)

    def send(self, source: str, *datagrams: bytes) -> None:
        with closing(client(source)) as sender:
            for each in datagrams:
                sender.sendto(each, (loopback(source), self.port.port))

    async def answer(self, source: str) -> bytes:
        with closing(client(source)) as sender:
            sender.sendto(REQUEST, (loopback(source), self.port.port))
            async with asyncio.timeout(PATIENCE):
                return await asyncio.get_running_loop().sock_recv(sender, 2048)

    def dropped(self) -> int:
        self.port.count()
        return self.answers.outcomes["dropped"]

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():  # noqa: ASYNC110 - the kernel and the port tell nobody what they count
                await asyncio.sleep(0)


def client(source: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((source, 0))
    return made


def loopback(source: str) -> str:
    return "::1" if ":" in source else "127.0.0.1"


@asynccontextmanager
async def opened(per_second: int = 20) -> AsyncIterator[Port]:
    port = Port(per_second)
    await port.port.listen("::", 0)
    try:
        yield port
        assert port.faults == []
    finally:
        port.port.close()


@linux
async def test_what_is_no_request_is_dropped_by_the_kernel() -> None:
    head = REQUEST[:4]
    junk = [
        b"",
        REQUEST[:19],
        b"\x01\x01" + REQUEST[2:],  # an answer
        b"\x00\x11" + REQUEST[2:],  # an indication
        head + bytes(4) + REQUEST[8:],  # another cookie
        REQUEST + bytes(MAX_REQUEST - len(REQUEST) + 1),
    ]
    async with opened() as port:
        for source in ("127.0.0.1", "::1"):
            port.send(source, *junk)
            assert len(await port.answer(source)) > len(REQUEST)
        port.send("127.0.0.1", REQUEST + bytes(MAX_REQUEST - len(REQUEST)))
        await port.until(lambda: port.answers.outcomes["ignored"] == 1)
        assert port.dropped() == 2 * len(junk)
        assert port.answers.outcomes == {"answered": 2, "refused": 0, "ignored": 1, "limited": 0, "dropped": 12}


@linux
@pytest.mark.parametrize(("attacker", "others"), [("127.0.0.1", ["127.0.0.2", "::1"]), ("::1", ["127.0.0.1"])])
async def test_who_floods_is_dropped_by_the_kernel_and_others_get_their_answers(
    attacker: str, others: list[str]
) -> None:
    async with opened() as port:
        port.send(attacker, *FLOOD)
        await port.until(lambda: bool(port.answers.flood.left_out))
        before = port.dropped()
        port.send(attacker, *[REQUEST] * 10)
        assert port.dropped() == before + 10
        port.now += 1  # what was in the buffer is read
        for other in others:
            assert await port.answer(other)
        assert port.dropped() == before + 10
        port.now += LEFT_OUT
        await port.until(lambda: not port.answers.flood.left_out)
        assert await port.answer(attacker)


@linux
async def test_nothing_of_a_flood_is_left_in_a_socket_that_goes_on() -> None:
    """As one that systemd holds, or that workers share."""
    async with opened() as port:
        (shared,) = [each.dup() for each in port.port._sockets]
        with closing(shared):
            port.send("127.0.0.1", *FLOOD)
            await port.until(lambda: bool(port.answers.flood.left_out))
            port.port.close()
            with suppress(BlockingIOError):
                while True:
                    shared.recv(2048)
            again = Port(20)
            number = shared.getsockname()[1]
            await again.port.listen("", 0, [shared])
            assert again.port.port == number
            again.now = 60.0
            assert await again.answer("127.0.0.1")
            again.port.close()


def test_a_program_is_no_longer_than_the_kernel_takes() -> None:
    most = 4096  # BPF_MAXINSNS
    assert len(program([bytes([32, 1, *number.to_bytes(6, "big")]) for number in range(MOST)])) <= most * 8
