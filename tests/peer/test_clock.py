"""The clock of peer connections: a loop that stands still makes time-outs longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from aldis.peer.clock import TICK, LoopClock
from support.peers import FakeTimer, FakeTimers


class FakeLoop(FakeTimers):
    """As much of an event loop as the clock uses. `stall` lets time pass without calling anybody."""

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        return self.call_later(when - self.time(), callback)

    def call_soon(self, callback: Callable[[], None]) -> FakeTimer:
        return self.call_later(0, callback)

    def stall(self, seconds: float) -> None:
        self._now += seconds

    @property
    def clock(self) -> LoopClock:
        return LoopClock(cast(asyncio.AbstractEventLoop, self))


def test_it_goes_as_the_loop_does() -> None:
    loop = FakeLoop()
    clock = loop.clock
    rung: list[float] = []
    began = clock.time()
    for delay in (0, 0.01, 1.5, 10):
        clock.call_later(delay, lambda: rung.append(clock.time() - began))
    loop.advance(20)
    assert rung == pytest.approx([0, 0.01, 1.5, 10], abs=0.07)
    assert clock.time() - began == pytest.approx(20)
    assert loop.waiting == 0  # nobody waits: nothing ticks


def test_a_loop_that_stood_still_makes_a_time_out_longer() -> None:
    loop = FakeLoop()
    clock = loop.clock
    rung: list[str] = []
    clock.call_later(5, lambda: rung.append("late"))
    loop.advance(1)
    for _ in range(4):
        loop.stall(60)  # a callback that takes a minute, and a moment for all others
        assert clock.time() - 1000 < 4
        loop.advance(TICK)
    assert rung == []
    loop.advance(4)
    assert rung == ["late"]


def test_a_loop_that_is_only_a_little_late_is_no_reason() -> None:
    loop = FakeLoop()
    clock = loop.clock
    rung: list[float] = []
    clock.call_later(5, lambda: rung.append(loop.time()))
    for _ in range(120):
        loop.stall(0.03)
        loop.advance(0.02)
    assert rung[0] - 1000 < 5.5


def test_alarms_of_nearly_the_same_time_wake_the_loop_once() -> None:
    loop = FakeLoop()
    clock = loop.clock
    rung: list[float] = []
    for number in range(50):
        clock.call_later(2.94 + number / 1000, lambda: rung.append(loop.time()))
    loop.advance(4)
    assert len(rung) == 50
    assert len(set(rung)) == 1


def test_what_is_cancelled_does_not_ring_also_in_the_tick_in_which_it_is_due() -> None:
    loop = FakeLoop()
    clock = loop.clock
    rung: list[str] = []
    alarms: list[Any] = []

    def first() -> None:
        rung.append("first")
        alarms[1].cancel()
        alarms[1].cancel()

    alarms.append(clock.call_later(1, first))
    alarms.append(clock.call_later(1, lambda: rung.append("second")))
    clock.call_later(2, lambda: rung.append("third"))
    clock.call_later(3, lambda: rung.append("fourth")).cancel()
    loop.advance(5)
    assert rung == ["first", "third"]
    assert loop.waiting == 0


def test_it_rests_as_soon_as_all_is_cancelled() -> None:
    loop = FakeLoop()
    clock = loop.clock
    alarms = [clock.call_later(number, lambda: None) for number in range(1, 9)]
    for alarm in alarms:
        alarm.cancel()
    assert loop.waiting == 0
    before = clock.time()
    loop.stall(100)
    assert clock.time() - before == 100  # nobody waits


async def test_a_loop_has_one_and_an_alarm_that_raises_leaves_the_others_alone() -> None:
    loop = asyncio.get_running_loop()
    clock = LoopClock.of(loop)
    assert LoopClock.of(loop) is clock
    faults: list[Any] = []
    loop.set_exception_handler(lambda _, context: faults.append(context["exception"]))
    rung = asyncio.Event()

    def broken() -> None:
        raise RuntimeError("broken")

    clock.call_later(0, broken)
    clock.call_later(0, rung.set)
    async with asyncio.timeout(10):
        await rung.wait()
    assert [str(fault) for fault in faults] == ["broken"]


@pytest.mark.parametrize("asleep", ["the machine", "the process"])
def test_a_sleep_is_told_soon_after_waking(monkeypatch: pytest.MonkeyPatch, asleep: str) -> None:
    loop = FakeLoop()
    slept = 0.0  # of the machine, in which the clock of the loop stands still
    monkeypatch.setattr("aldis.peer.clock._wall", lambda: loop.time() + slept)
    clock = loop.clock
    woken: list[float] = []
    end = clock.on_wake(lambda: woken.append(loop.time()))
    clock.call_later(1000, lambda: None)
    loop.advance(10)
    loop.stall(2)  # a busy loop
    loop.advance(10)
    assert woken == []
    if asleep == "the machine":
        slept += 60
    else:
        loop.stall(60)
    began = loop.time()
    loop.advance(1)
    assert len(woken) == 1
    assert woken[0] - began <= TICK
    end()
    loop.stall(60)
    loop.advance(1)
    assert len(woken) == 1


def test_a_clock_that_nobody_has_used_for_long_does_not_think_that_it_slept() -> None:
    loop = FakeLoop()
    clock = loop.clock
    woken: list[float] = []
    clock.on_wake(lambda: woken.append(loop.time()))
    clock.call_later(1, lambda: None)
    loop.advance(100)
    clock.call_later(1, lambda: None)
    loop.advance(2)
    assert woken == []
