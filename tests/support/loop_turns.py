"""What happens in one turn of the event loop."""

from __future__ import annotations

import asyncio


class Turns:
    """Counts the turns of the event loop while it is entered, and what happens in each."""

    def __init__(self) -> None:
        self.busiest = 0
        self._here = 0
        self._task: asyncio.Task[None] | None = None

    def happens(self) -> None:
        self._here += 1
        self.busiest = max(self.busiest, self._here)

    async def _count(self) -> None:
        while True:
            self._here = 0
            await asyncio.sleep(0)

    async def __aenter__(self) -> Turns:
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
