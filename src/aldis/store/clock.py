"""Whether the wall clock was set.

What waits in a journal has an age, by the wall clock: no other one goes on while no program runs. That clock may be set
while one does, by years, where a battery is dead or an operator is mistaken. What waits has not grown older by that.

Pure but for `running`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# Seconds. Smaller steps count as age: a machine that sleeps makes them, too, where no clock counts its sleep.
SMALLEST_STEP: Final = 24 * 60 * 60.0


def wall() -> float:
    """Seconds since 1970, by a clock that anybody may set."""
    return time.time()


def running() -> float:
    """Seconds since an arbitrary moment, of sleep as well where the system counts them."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)  # Linux
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class ClockSteps:
    """Compares the wall clock with one that nobody can set."""

    def __init__(self, wall: Callable[[], float] = wall, steady: Callable[[], float] = running) -> None:
        """Both in seconds."""
        self._wall = wall
        self._steady = steady
        self._difference = wall() - steady()

    def step(self) -> float:
        """By how many seconds the wall clock was set since this was asked last; 0 for less than `SMALLEST_STEP`."""
        before, self._difference = self._difference, self._wall() - self._steady()
        step = self._difference - before
        return step if abs(step) >= SMALLEST_STEP else 0.0
