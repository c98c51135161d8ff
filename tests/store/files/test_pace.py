from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.store.files.pace import BEGIN, DELAY, LEAST, Pace
from aldis.store.files.window import WINDOW
from aldis.store.messages.control import MAX_PIECE
from support.patience import PATIENCE
from support.transfers import a_file, a_folder, sides


class Line:
    """A line that passes so many bytes a second, and takes so many seconds besides."""

    def __init__(self, rate: float, latency: float = 0.0) -> None:
        self.pace = Pace()
        self.rate = rate
        self.latency = latency
        self.time = 0.0
        self._free_at = 0.0
        self._pieces: list[tuple[float, float, int]] = []  # when acknowledged, when said, with how much

    @property
    def on_its_way(self) -> int:
        return len(self._pieces) * MAX_PIECE

    def send(self, count: int) -> None:
        """Send so many pieces as soon as they may go."""
        for _ in range(count):
            while self.pace.limits and not self.pace.allows(self.on_its_way):
                self._wait()
            while self.on_its_way >= WINDOW:
                self._wait()
            self._free_at = max(self._free_at, self.time) + MAX_PIECE / self.rate
            self._pieces.append((self._free_at + self.latency, self.time, self.on_its_way + MAX_PIECE))

    def _wait(self) -> None:
        self.time, said, on_its_way = self._pieces.pop(0)
        self.pace.took(on_its_way, self.time - said)

    @property
    def delay(self) -> float:
        """How long a message waits that is said now."""
        return max(self._free_at - self.time, 0.0)


@pytest.mark.parametrize("latency", [0.0, 0.02, 0.3, 0.6])
@pytest.mark.parametrize("rate", [15e3, 25e3, 100e3, 1e6, 10e6])
def test_a_message_waits_for_little_more_than_half_a_second_or_one_piece(rate: float, latency: float) -> None:
    line = Line(rate, latency)
    line.send(20)
    for _ in range(50):
        line.send(1)
        assert line.delay <= max(DELAY + min(latency + MAX_PIECE / rate, 0.5), LEAST / rate) + MAX_PIECE / rate


@pytest.mark.parametrize("latency", [0.0, 0.02, 0.3, 0.6])
@pytest.mark.parametrize("rate", [25e3, 100e3, 1e6])
def test_a_line_is_used_nearly_as_much_as_it_can_be(rate: float, latency: float) -> None:
    line = Line(rate, latency)
    line.send(20)
    began = line.time
    line.send(100)
    usual = MAX_PIECE / rate if LEAST / rate > DELAY else 0.0
    assert (line.time - began) * rate / (100 * MAX_PIECE) < 1.15 + (latency / usual if usual else 0.0)


def test_a_quick_line_is_not_limited_after_the_first_answers() -> None:
    line = Line(50e6, 0.02)
    assert line.pace.limits
    line.send(2 * BEGIN // MAX_PIECE)
    assert not line.pace.limits


def test_a_line_that_becomes_slow_or_quick_is_noticed() -> None:
    line = Line(50e6, 0.02)
    line.send(100)
    line.rate = 50e3
    line.send(40)
    assert line.delay <= LEAST / line.rate + DELAY + 1.5
    line.rate = 50e6
    line.send(60)
    assert not line.pace.limits


async def test_before_the_first_answer_little_of_a_file_is_on_its_way(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        bob.take_files()
        transfer = await alice.send("peer", a_file(tmp_path, 3 * WINDOW), None)
        await bob.heard(1)
        alice.silent = True
        bob.incoming[0].accept(a_folder(tmp_path))
        await alice.signal.until(lambda: len(alice.pieces) * MAX_PIECE == BEGIN, "what may be said")
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(alice.pieces) * MAX_PIECE == BEGIN
        alice.direct()
        async with asyncio.timeout(PATIENCE):
            await transfer


@given(st.lists(st.tuples(st.integers(1, 2 * WINDOW), st.floats(0, 1e6))))
def test_one_piece_may_always_go(answers: list[tuple[int, float]]) -> None:
    pace = Pace()
    for on_its_way, seconds in answers:
        pace.took(on_its_way, seconds)
        assert pace.allows(0)
