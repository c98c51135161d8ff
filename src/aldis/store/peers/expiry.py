"""Gives up what has waited for too long, from time to time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from aldis.store.clock import ClockSteps

_log = logging.getLogger(__name__)

EXPIRY_SECONDS: Final = 60.0  # how often it is looked


class Waiting(Protocol):
    """A peer, or the service for files."""

    def expire(self, age: float) -> None:
        """Give up what waits for longer than so many seconds."""

    def clock_was_set(self, step: float) -> None:
        """The wall clock was set by so many seconds: nothing that waits has grown older by that."""


class Expiry:
    """Looks at all that waits."""

    def __init__(self, waiting: Callable[[], Iterable[Waiting]], age: float, clock: ClockSteps | None = None) -> None:
        """`age` in seconds."""
        self._waiting = waiting
        self._age = age
        self._clock = clock or ClockSteps()
        self._due = 0.0

    def pulse(self, now: float) -> None:
        """To be called again and again: see whether the clock was set, and look if it is time. `now` in monotonic
        seconds."""
        if now >= self._due:
            self._due = now + EXPIRY_SECONDS
            self.look()
        else:
            self.note_clock()

    def note_clock(self) -> None:
        """See whether the clock was set. To be called before something begins to wait, whose time is that of the clock
        as it is now, and before the end: the next run cannot see it."""
        if step := self._clock.step():
            _log.warning("the clock was set by %.0f s: what waits counts as no older than before", step)
            for each in self._waiting():
                each.clock_was_set(step)

    def look(self) -> None:
        """Look now."""
        self.note_clock()
        for each in self._waiting():
            each.expire(self._age)
