"""How a node reads what comes from Redis (aldis.cluster.bus_link), without Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from aldis.cluster import bus_link
from aldis.cluster.bus_link import Link, Sent
from aldis.cluster.messages import Missed


class Owner:
    """Notes what it is told. `end_at`: the link ends when this comes."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.end_at = ""
        self.link: Link | None = None

    def received(self, channel: bytes, data: bytes) -> None:
        self.told.append(data.decode())
        if self.link is not None and self.end_at == data.decode():
            self.link.end("of the test")

    def answered(self, sent: Sent, receivers: int | Exception) -> None:
        self.told.append(f"answered {receivers}")

    def left(self, link: Link, channel: bytes) -> None:
        self.told.append(f"left {channel.decode()}")

    def ended(self, link: Link, why: str, unanswered: Sequence[Sent]) -> None:
        self.told.append(f"ended with {len(unanswered)}")


class Socket(asyncio.Transport):
    """A connection that notes whether it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        pass


def opened(owner: Owner) -> tuple[Link, Socket]:
    link, socket = Link(owner, ("redis", 6379), sharded=False), Socket()
    link.connection_made(socket)
    owner.link = link
    return link, socket


def pushed(*texts: str) -> bytes:
    return b"".join(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%d\r\n%b\r\n" % (len(each), each.encode()) for each in texts)


async def test_much_that_comes_together_is_handled_in_several_turns_and_not_read_on_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus_link, "TURN", 0.0)  # one in each turn
    owner = Owner()
    link, socket = opened(owner)
    link.publish(b"", Sent("n1", Missed(), 1))
    link.data_received(pushed("a", "b") + b":1\r\n>3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n" + pushed("c")[:-4])
    assert (owner.told, socket.reading) == (["a"], False)
    link.data_received(pushed("c")[-4:] + pushed("d"))
    assert owner.told == ["a"], "what was read all the same has to wait for its turn, too"
    await asyncio.sleep(0)
    assert (owner.told, socket.reading) == (["a", "b"], False)
    for _ in range(8):
        await asyncio.sleep(0)
    assert socket.reading
    assert owner.told == ["a", "b", "answered 1", "left c", "c", "d"]
    link.data_received(pushed("e"))
    assert owner.told[-1] == "e"


async def test_what_has_come_before_the_end_of_a_connection_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_link, "TURN", 0.0)
    owner = Owner()
    link, _ = opened(owner)
    for _ in range(2):
        link.publish(b"", Sent("n1", Missed(), 1))
    link.data_received(pushed("a", "b") + b":1\r\n")
    link.connection_lost(None)
    assert owner.told == ["a", "b", "answered 1", "ended with 1"]
    await asyncio.sleep(0)
    assert owner.told[-1] == "ended with 1"


async def test_nothing_is_handled_behind_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_link, "TURN", 0.0)
    for end_at, told in (("a", ["a", "ended with 0"]), ("b", ["a", "b", "ended with 0"])):
        owner = Owner()
        owner.end_at = end_at
        link, _ = opened(owner)
        link.data_received(pushed("a", "b", "c"))
        for _ in range(4):
            await asyncio.sleep(0)
        assert owner.told == told


async def test_what_is_not_of_the_protocol_ends_the_connection_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_link, "TURN", 0.0)
    owner = Owner()
    link, _ = opened(owner)
    link.data_received(pushed("a") + b"noise\r\n")
    await asyncio.sleep(0)
    assert owner.told == ["a", "ended with 0"]
