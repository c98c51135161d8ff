"""Ends this process when its event loop stands still, so that what started it starts it again.

Rules:

* The time is kept by a thread that needs no lock of the interpreter (`faulthandler`). So it also ends a process in
  which a regular expression or a library holds that lock for good.
* First it writes to stderr what each thread was doing. A stderr that nobody reads does not keep it from ending.
* Process 1 of a container ignores each signal that it has no handler for, SIGKILL from inside too (pid_namespaces(7)).
  So no health check can end it, and no timer that sends a signal.

A process that was stopped as a whole (SIGSTOP, `docker pause`) is ended when it goes on. While it is stopped, only
another process can end it: a supervisor does that with its workers, and systemd with a service.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# Between two signs of life, as a part of the time after which the process ends.
_INTERVALS: Final = 10
_STDERR: Final = 2


class Watchdog:
    """Ends the process `seconds` after the last sign of life. It waits for the first one; 0: it never ends anything."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._output = _own_stderr() if seconds else _STDERR

    @property
    def interval(self) -> float | None:
        """Seconds between two signs of life; None when nobody waits for them."""
        return self._seconds / _INTERVALS or None

    def alive(self) -> None:
        """A sign of life."""
        if self._seconds:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._output)

    def stop(self) -> None:
        """Wait for no more signs of life."""
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()


async def signs_of_life(alive: Callable[[], None], interval: float | None) -> None:
    """Give one each `interval` seconds, as long as the event loop turns; none, when nobody waits for them."""
    while interval is not None:
        alive()
        await asyncio.sleep(interval)


def _own_stderr() -> int:
    """A descriptor of stderr that does not block, and leaves the one of the others as it is."""
    with suppress(OSError, AttributeError):  # no /proc, a socket of systemd, or another user's pipe; Windows
        return os.open(f"/proc/self/fd/{_STDERR}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY)
    return _STDERR
