"""The tasks of a store: each has an owner, ends with it, and takes nobody along when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress

_log = logging.getLogger(__name__)


class Tasks:
    """Some tasks that belong together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start a task. What it raises is logged."""
        task = asyncio.get_running_loop().create_task(work, name=f"aldis store: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed", task.get_name(), exc_info=error)

    async def finish(self, seconds: float) -> None:
        """Wait for all of them, those that they start included, and cancel what takes longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        await self.cancel()

    async def cancel(self) -> None:
        """Cancel all of them, and wait until they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
