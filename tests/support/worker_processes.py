"""A server of several workers, in processes of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from support.patience import PATIENCE
from support.redis_server import RedisServer
from support.server_process import ServerProcess


class Workers(ServerProcess):
    """A `ServerProcess` of a supervisor; `toml` is what is in the file that SIGHUP reads."""

    def __init__(self, folder: Path, redis: RedisServer, toml: str = "", **settings: Any) -> None:
        self.file = folder / "aldis.toml"
        self.file.write_text(toml)
        more = {"workers": 2, **settings}
        super().__init__(folder, redis=redis.url(), config=str(self.file), **more)
        for name in [name for name, value in self.settings.items() if value is None]:
            del self.settings[name]

    async def start(self) -> None:
        await super().start()
        await self.wait_for_line("all workers serve")

    def serving(self) -> list[dict[str, Any]]:
        """What the log says of each worker that came to serve."""
        return [line for line in self.lines() if line["event"] == "a worker serves"]

    def pids(self) -> dict[int, int]:
        """The process of each worker that serves, by its number."""
        return {line["worker"]: line["pid"] for line in self.serving()}

    async def hang_up(self, outcome: str = "all workers are new", number: int = 1) -> dict[str, Any]:
        """Ask for new settings, and return the line of the log that tells the outcome, the first or the second one."""
        before = len(self.serving())
        self.signal(signal.SIGHUP)
        if outcome == "all workers are new":
            # On a machine that has too much to do each of them needs all of the patience.
            await self.wait_for_line("a worker serves", number=before + 1)
        return await self.wait_for_line(outcome, number=number)


async def ended(pid: int) -> None:
    """Return when a process that may not be a child of ours has ended."""
    loop = asyncio.get_running_loop()
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    over = asyncio.Event()
    loop.add_reader(process, over.set)
    try:
        async with asyncio.timeout(PATIENCE):
            await over.wait()
    finally:
        loop.remove_reader(process)
        os.close(process)
