"""The clock of peer connections: it stands still while the event loop does.

A busy loop, or a process that was stopped, reads late what arrived long ago. That is our own fault and not the peer's.
So a time-out counts only the time in which the loop ran: between two ticks the clock advances by little more than
`TICK`, however late the second tick comes.

It also knows when this machine or process has slept (`on_wake`): what was open may be dead, and nobody has told.

All alarms of a loop share one timer of asyncio, and alarms that are due at nearly the same time ring together. So a
hundred idle connections wake the process a few times a second, not a few hundred times.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable
from itertools import count
from typing import Final
from weakref import WeakKeyDictionary, ref

# How often the clock checks whether the loop is late. The shortest time-out in use is three times as long.
TICK: Final = 0.25
# A loop that is late by less than this is only busy, and no time-out need be longer for it.
_LATE: Final = 0.05
# Timers of `_LONG` seconds or more are due at multiples of `_GRID`, so that many are due together. Sums of a power of
# two are exact.
_GRID: Final = 1 / 16
_LONG: Final = 2.0
# Seconds between two ticks, after which the machine or the process has slept. A busy loop is hardly late by so much.
ASLEEP: Final = 5.0


def _wall() -> float:
    """Seconds, which pass while the machine sleeps too."""
    # The clock of an event loop stands still in the meantime on Linux and macOS.
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if clock is None else time.clock_gettime(clock)


class Alarm:
    """A call at a later time."""

    __slots__ = ("_clock", "callback", "waits")

    def __init__(self, callback: Callable[[], None], clock: LoopClock) -> None:
        self.callback: Callable[[], None] | None = callback
        self.waits = True  # in the clock's heap
        self._clock = clock

    def cancel(self) -> None:
        """Cancel the call. Idempotent."""
        if self.callback is not None:
            self.callback = None
            if self.waits:
                self._clock.cancelled()

    def ring(self) -> None:
        """Make the call, unless it was cancelled a moment ago."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class LoopClock:
    """The clock of one event loop, see the module. Get it with `LoopClock.of(loop)`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop_ref = ref(loop)  # weak, or the table of clocks would keep the loop
        self._ticked = loop.time()  # the loop's time of the last tick
        self._time = self._ticked  # ours, then
        self._alarms: list[tuple[float, int, Alarm]] = []  # a heap
        self._numbers = count()  # so that alarms which are due together ring in order
        self._dead = 0  # cancelled alarms in the heap
        self._handle: asyncio.TimerHandle | asyncio.Handle | None = None
        self._wakes_at = math.inf  # by the loop's time
        self._running = False  # a tick
        self._wall = _wall()  # at the last tick
        self._wakers: dict[object, Callable[[], None]] = {}

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop_ref()
        assert loop is not None  # this runs on a loop  # noqa: S101
        return loop

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopClock:
        """The clock of this loop, made at the first call."""
        clock = _clocks.get(loop)
        if clock is None:
            clock = _clocks[loop] = cls(loop)
        return clock

    def time(self) -> float:
        """Monotonic seconds, without the time in which the loop stood still while alarms waited."""
        passed = self._loop.time() - self._ticked
        return self._time + (min(passed, TICK + _LATE) if self._handle is not None or self._running else passed)

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Alarm:
        """Call `callback` in `delay` seconds; from two seconds up, as much as a sixteenth of a second later."""
        now = self.time()
        if self._handle is None and not self._running:
            self._time, self._ticked, self._wall = now, self._loop.time(), _wall()
        alarm = Alarm(callback, self)
        due = now + max(delay, 0.0)
        if delay >= _LONG:
            due = math.ceil(due / _GRID) * _GRID
        heapq.heappush(self._alarms, (due, next(self._numbers), alarm))
        self._set()
        return alarm

    def on_wake(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after the machine or the process has slept for `ASLEEP` or more, within `TICK` of waking
        while alarms wait. Returns what ends it."""
        key = object()
        self._wakers[key] = callback

        def end() -> None:
            self._wakers.pop(key, None)

        return end

    def cancelled(self) -> None:
        """Note that an alarm was cancelled."""
        self._dead += 1
        if self._dead > len(self._alarms) // 2:
            self._alarms = [entry for entry in self._alarms if entry[2].callback is not None]
            heapq.heapify(self._alarms)
            self._dead = 0
        if not self._alarms and self._handle is not None:
            self._time, self._ticked = self.time(), self._loop.time()
            self._handle.cancel()
            self._handle = None

    def _set(self) -> None:
        if self._running or not self._alarms:
            return
        wakes_at = self._loop.time() + min(max(self._alarms[0][0] - self.time(), 0.0), TICK)
        if self._handle is not None:
            if self._wakes_at <= wakes_at:
                return
            self._handle.cancel()
        self._wakes_at = wakes_at
        self._handle = self._loop.call_at(wakes_at, self._tick)

    def _slept(self) -> bool:
        """Whether the time since the last tick was far longer than a tick."""
        before, self._wall = self._wall, _wall()
        return self._wall - before >= ASLEEP

    def _tick(self) -> None:
        self._time, self._ticked = self.time(), self._loop.time()
        self._handle = None
        self._running = True
        slept = self._slept()
        try:
            while self._alarms and self._alarms[0][0] <= self._time:
                _, _, alarm = heapq.heappop(self._alarms)
                alarm.waits = False
                if alarm.callback is None:
                    self._dead -= 1
                else:
                    # Each is a separate call, so that an exception in one does not affect the others.
                    self._loop.call_soon(alarm.ring)
            if slept:
                for waker in self._wakers.values():
                    self._loop.call_soon(waker)
        finally:
            self._running = False
            self._set()


_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClock] = WeakKeyDictionary()
