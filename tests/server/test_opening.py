"""What is kept of requests that are not whole yet, and for how long, without a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import uvloop

from aldis.server.addresses import AddressLimits
from aldis.server.admission import Admission, Place
from aldis.server.arrivals import Arrivals
from aldis.server.opening import LATE_AT_ONCE, SHORT_HEAD, Opening, OpeningLimits, Openings
from aldis.server.scheduler import FairScheduler


class Timer:
    def cancel(self) -> None:
        pass


class Answering:
    """Who would answer, and how often it was asked."""

    asked = 0

    def refuse_old(self, transport: asyncio.Transport) -> None:
        self.asked += 1

    def refuse_tls(self, transport: asyncio.Transport) -> None:
        self.asked += 1

    def answer(self, transport: asyncio.Transport, place: Place, address: str) -> asyncio.BufferedProtocol:
        self.asked += 1
        raise RuntimeError("there is nobody to answer")

    def fault(self, error: Exception) -> None:
        pass


def opening_limits(head_bytes: int, timeout: float = 10.0) -> OpeningLimits:
    return OpeningLimits(handshake_timeout=timeout, tls_handshakes=10, partial_requests_bytes=head_bytes)


@dataclass
class Port:
    """A port whose connections are numbers: which ones were ended."""

    head_bytes: int = 10 * SHORT_HEAD
    ended: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        limits = AddressLimits(connections_per_address=5, connects_per_address=1, connects_per_second=2000, now=0.0)
        self.admission = Admission(limits, max_connections=100, handshakes=100, max_refusals=2)
        self.soon: list[Callable[[], None]] = []
        scheduler = FairScheduler(soon=self.soon.append, later=lambda seconds, call: Timer(), clock=lambda: 0.0)
        self.openings = Openings(self.admission, Arrivals(scheduler), opening_limits(self.head_bytes))
        self.number = 0

    def begin(self, now: float = 0.0) -> Place:
        number = self.number = self.number + 1
        place = self.admission.arrive(None, now, lambda: self.ended.append(number), lambda: False)
        assert place is not None
        self.openings.expect(place, now)
        return place

    def end(self, place: Place) -> None:
        """As a protocol does that hears of its end."""
        self.openings.forget(place)
        place.leave()


def test_of_long_requests_that_are_not_whole_the_oldest_go_when_all_take_too_much() -> None:
    port = Port()
    places = [port.begin() for _ in range(6)]
    for place in places:
        port.openings.grown(place, 2 * SHORT_HEAD)
    assert port.ended == [1]
    assert port.admission.refusals["heads"] == 1
    port.end(places[0])
    port.openings.grown(places[5], 4 * SHORT_HEAD)
    assert port.ended == [1, 2]


def test_a_request_that_becomes_whole_or_ends_counts_no_more() -> None:
    port = Port()
    for _ in range(50):
        place = port.begin()
        port.openings.grown(place, 8 * SHORT_HEAD)
        port.openings.turn(place, "somebody", lambda: None)
        gone = port.begin()
        port.openings.grown(gone, 8 * SHORT_HEAD)
        port.end(gone)
    assert port.ended == []


def test_short_requests_are_never_ended_for_their_size() -> None:
    port = Port()
    for _ in range(50):
        port.openings.grown(port.begin(), SHORT_HEAD)
    assert port.ended == []


def test_a_client_that_takes_too_long_is_ended_and_one_that_waits_for_its_turn_is_not() -> None:
    port = Port()
    slow, waiting, later = port.begin(0.0), port.begin(0.0), port.begin(5.0)
    port.openings.turn(waiting, "somebody", lambda: None)
    port.openings.tick(9.9)
    assert port.ended == []
    port.openings.tick(10.0)
    assert port.ended == [1]
    port.openings.expect(later, 12.0)
    port.openings.tick(15.0)
    assert port.ended == [1]
    port.openings.tick(22.0)
    assert port.ended == [1, 3]
    assert port.admission.refusals["late"] == 2
    slow.leave()


def test_of_many_that_are_late_together_each_turn_of_the_loop_ends_some() -> None:
    port = Port()
    for _ in range(2 * LATE_AT_ONCE + 1):
        port.begin()
    assert not port.openings.tick(9.9)
    for ended in (LATE_AT_ONCE, 2 * LATE_AT_ONCE):
        assert port.openings.tick(10.0)
        assert len(port.ended) == ended
    assert not port.openings.tick(10.0)
    assert len(port.ended) == 2 * LATE_AT_ONCE + 1


def test_a_connection_whose_opening_is_cancelled_is_not_answered() -> None:
    """uvloop closes its transport, and tells neither the protocol nor `is_closing`."""
    port = Port()
    answering = Answering()

    async def cancelled() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            accepted, _ = server.accept()
            accepted.setblocking(False)
            opening = Opening(port.openings, answering, port.begin(), "somebody")
            opened = asyncio.create_task(loop.connect_accepted_socket(lambda: opening, accepted))
            while not port.soon:
                if hasattr(opening, "_transport"):
                    opened.cancel()
                await asyncio.sleep(0)
            port.soon.pop()()
            accepted.close()
            await asyncio.gather(opened, return_exceptions=True)

    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        runner.run(cancelled())
    assert answering.asked == 0
