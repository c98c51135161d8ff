"""The timer of a client, which does not mistake its own lateness for the server's.

A process that was stopped, or whose event loop is busy, looks at its clock late. It may not have read yet what has
arrived, because uvloop calls timers before it reads. A time-out would then blame a server that has answered. So a timer
that is very late waits once more, for a moment (docs/architecture.md, "Late timers").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# Seconds. The same as in the SDK: more than the second by which browsers delay the timers of a hidden page.
LATE: Final = 2.0
# Seconds. How long a late timer waits, so that arrived data is read first.
GRACE: Final = 1.0


class Timer:
    """Calls back at a time of the running loop. The time can be changed."""

    __slots__ = ("_callback", "_due", "_excused", "_handle")

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._excused = False

    def set(self, due: float | None) -> None:
        """Call back at this time at the latest; None: never. It may call back too early, but never too late."""
        if self._handle is not None:
            # Most deadlines move to a later time before they are reached, so the timer that is set will do.
            if due is not None and self._due <= due:
                return
            self.cancel()
        if due is not None:
            self._start(due)

    def cancel(self) -> None:
        """Cancel the call. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _start(self, due: float) -> None:
        self._due = due
        self._handle = asyncio.get_running_loop().call_at(due, self._ring)

    def _ring(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._due > LATE and not self._excused:
            self._excused = True
            self._start(now + GRACE)
            return
        self._excused = False
        self._handle = None
        self._callback()


def earliest(*times: float | None) -> float | None:
    """The first of some times, where None never comes."""
    return min((at for at in times if at is not None), default=None)
