"""Work of the hub that is put off: a part of it in each turn of the loop, or after some time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic


class PutOff:
    """Calls `work` when it is due."""

    def __init__(self, work: Callable[[float], float | None], fault: Callable[[Exception], None]) -> None:
        """`work` gets the time in monotonic seconds, and returns after how many seconds to call again, if at all.
        `fault` gets what it raises."""
        self._work = work
        self._fault = fault
        self._call: asyncio.Handle | None = None
        # When it comes, by the loop's clock. uvloop's handle of a call at once does not tell.
        self._due = 0.0

    def wake(self, seconds: float) -> None:
        """There is work to do after so many seconds."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._call is not None:
            if self._due <= due:
                return
            self._call.cancel()
        self._call, self._due = loop.call_later(seconds, self._run), due

    def cancel(self) -> None:
        """Do not call any more."""
        if self._call is not None:
            self._call.cancel()

    def _run(self) -> None:
        self._call = None
        try:
            seconds = self._work(monotonic())
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and must not stop the rest of the work
            self._fault(error)
            seconds = 0.0
        if seconds is not None:
            self.wake(seconds)
