from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aldis.client.timers import GRACE, LATE, Timer, earliest


class Handle:
    """What `call_at` returns."""

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due, self.callback, self.cancelled = due, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """The part of an event loop that a timer needs; the test turns it, and may be late."""

    def __init__(self) -> None:
        self.now = 100.0
        self.handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, callback: Callable[[], None]) -> Handle:
        self.handles.append(Handle(due, callback))
        return self.handles[-1]

    def at(self, now: float) -> None:
        """It is `now`, and the loop calls what is due."""
        self.now = now
        due = [handle for handle in self.handles if handle.due <= now]
        self.handles = [handle for handle in self.handles if handle.due > now]
        for handle in due:
            if not handle.cancelled:
                handle.callback()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def timer_of(clock: Clock) -> tuple[Timer, list[float]]:
    calls: list[float] = []
    return Timer(lambda: calls.append(clock.now)), calls


def test_a_timer_calls_back_once_at_its_time(clock: Clock) -> None:
    timer, calls = timer_of(clock)
    timer.set(103.0)
    clock.at(102.9)
    assert calls == []
    clock.at(103.0)
    clock.at(110.0)
    assert calls == [103.0]


def test_a_time_that_moves_away_leaves_the_timer_that_is_set(clock: Clock) -> None:
    timer, calls = timer_of(clock)
    timer.set(103.0)
    timer.set(105.0)
    assert len(clock.handles) == 1
    timer.set(102.0)
    clock.at(102.0)
    clock.at(104.0)
    assert calls == [102.0]
    timer.set(106.0)
    timer.set(None)
    timer.set(107.0)
    timer.cancel()
    timer.cancel()
    clock.at(110.0)
    assert calls == [102.0]


@pytest.mark.parametrize(("late", "called"), [(LATE, 0.0), (LATE + 0.1, GRACE), (3600.0, GRACE)])
def test_a_timer_that_is_very_late_waits_a_moment_for_what_has_arrived(
    clock: Clock, late: float, called: float
) -> None:
    timer, calls = timer_of(clock)
    timer.set(103.0)
    clock.at(103.0 + late)
    if called:
        assert calls == []
        clock.at(103.0 + late + called)
    assert calls == [103.0 + late + called]


def test_a_timer_is_excused_once_and_then_once_more_after_it_has_called(clock: Clock) -> None:
    timer, calls = timer_of(clock)
    for start in (200.0, 300.0):
        timer.set(start)
        clock.at(start + 10)
        clock.at(start + 50)
    assert calls == [250.0, 350.0]


def test_what_arrives_in_the_moment_of_grace_may_move_the_time(clock: Clock) -> None:
    timer, calls = timer_of(clock)
    timer.set(103.0)
    clock.at(150.0)
    timer.set(175.0)
    clock.at(150.0 + GRACE)
    assert calls == [150.0 + GRACE]  # it looks, and sets itself again
    timer.set(175.0)
    clock.at(175.0)
    assert calls == [150.0 + GRACE, 175.0]


def test_the_real_loop_calls_back() -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        rung: asyncio.Future[Any] = loop.create_future()
        timer = Timer(lambda: rung.set_result(None))
        begun = loop.time()
        timer.set(begun + 0.01)
        async with asyncio.timeout(10):
            await rung
        return loop.time() - begun

    assert asyncio.run(run()) >= 0.01


def test_the_earliest_of_some_times_is_found_and_none_never_comes() -> None:
    assert earliest(None, 3.0, 2.0) == 2.0
    assert earliest(None, None) is None
