"""How much of a connection with TLS is read at a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from aldis.server import tls_reading
from aldis.server.tls_reading import LEAST_READ, MANY_RECORDS, MOST_READ, MOST_UNSENT, SLOW_READ, TlsReading

RECORDS = (b"\x17\3\3\0\x16" + bytes(22)) * 1000


class Tls:
    """TLS that needs a while for each record."""

    def __init__(self) -> None:
        self.buffer = bytearray(256 * 1024)
        self.seconds = 0.0
        self.now = 0.0
        self.unsent = 0
        self.unread = 0

    def connection_made(self, transport: Any) -> None:
        pass

    def get_buffer(self, size: int) -> memoryview:
        return memoryview(self.buffer)

    def buffer_updated(self, size: int) -> None:
        self.now += self.seconds

    def _get_app_transport(self) -> Any:
        return SimpleNamespace(
            get_write_buffer_size=lambda: self.unsent,
            get_read_buffer_size=lambda: self.unread,
            get_read_buffer_limits=lambda: (2048, 8192),
        )


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.reads = True
        self.aborted = False

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted


class Scheduler:
    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def add_unread(self, flow: Any, when: float, now: float) -> None:
        self.waiting.append(flow)

    def charge(self, seconds: float) -> None:
        pass


class Line:
    """A connection, and what comes on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tls, self.transport, self.scheduler = Tls(), Transport(), Scheduler()
        connections: Any = SimpleNamespace(scheduler=self.scheduler, most_unsent=1024)
        self.reading = TlsReading(self.tls, connections)
        self.reading.connection_made(self.transport)
        monkeypatch.setattr(tls_reading, "monotonic", lambda: self.tls.now)

    def come(self, data: bytes) -> int:
        """The kernel has this. Return how much of it was read."""
        buffer = self.reading.get_buffer(65536)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        self.reading.buffer_updated(size)
        return size


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    return Line(monkeypatch)


def test_a_connection_whose_records_open_quickly_is_read_by_more_and_more(line: Line) -> None:
    sizes = [line.come(RECORDS) for _ in range(10)]
    assert sizes[0] == LEAST_READ
    assert sizes == sorted(sizes)
    assert sizes[-1] == MOST_READ
    assert line.transport.reads


def test_one_whose_many_records_take_long_is_read_by_less_and_waits_for_its_turn(line: Line) -> None:
    for _ in range(10):
        line.come(RECORDS)
    line.tls.seconds = 2 * SLOW_READ
    line.come(RECORDS)
    assert not line.transport.reads
    assert line.scheduler.waiting == [line.reading]
    line.come(RECORDS)  # TLS has taken it for its own pause, and reads on
    assert line.scheduler.waiting == [line.reading]
    assert line.reading.run(8, 0.0) is None
    assert line.transport.reads
    while (size := line.come(RECORDS)) > LEAST_READ:
        pass
    assert size == LEAST_READ


def test_one_long_message_that_takes_long_does_not_wait(line: Line) -> None:
    line.tls.seconds = 2 * SLOW_READ
    line.come((b"\x17\3\3\0\x16" + bytes(22)) * (MANY_RECORDS - 1))
    assert line.transport.reads


def test_what_tls_keeps_back_is_not_read_on(line: Line) -> None:
    line.tls.seconds = 2 * SLOW_READ
    line.come(RECORDS)
    line.tls.unread = 8192
    line.reading.run(8, 0.0)
    assert not line.transport.reads


def test_a_client_that_reads_no_answers_of_tls_is_cut_off(line: Line) -> None:
    line.tls.seconds = 2 * SLOW_READ
    line.tls.unsent = MOST_UNSENT + 1
    line.come(RECORDS)
    assert line.transport.aborted
    assert not line.scheduler.waiting
