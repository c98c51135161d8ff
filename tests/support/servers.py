"""A signaling server as a process of its own, which can be killed and started again at the same address."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

from support.commands import Piped
from support.patience import PATIENCE
from support.ports import free_port
from support.server_process import ServerProcess

_LISTENS = re.compile(r"Aldis listens at (ws://127\.0\.0\.1:(\d+))")


class Server:
    """`aldis serve` on a free port, with its data and the home of everybody who uses it under `folder`."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self._words = ["--data", str(folder / "server"), "--admin-port", "none", "--resume-window", "1", *words]

    async def __aenter__(self) -> Server:
        await self._start(str(free_port()))
        return self

    async def _start(self, port: str) -> None:
        self.process = Piped("serve", "--port", port, *self._words, home=self.home)
        await self.process.__aenter__()
        text = await self.process.says("Ctrl-C stops the server")
        found = _LISTENS.search(text)
        assert found, text
        self.url, self.port = found[1], found[2]

    async def kill(self) -> None:
        """As by kill -9."""
        self.process.process.kill()
        await self.process.end()

    async def start_again(self) -> None:
        """On the same port, with the same data."""
        await self.process.__aexit__(None, None, None)
        async with asyncio.timeout(PATIENCE):
            await self._start(self.port)

    async def __aexit__(self, *_: object) -> None:
        await self.process.__aexit__(None, None, None)


class QuickServer:
    """A `Server` for tests of the programs that use one: forked, so that no imports are paid for."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self._folder = folder
        self._port = free_port()
        self._server = self._made()
        self.url, self.port = f"ws://127.0.0.1:{self._port}", str(self._port)

    def _made(self) -> ServerProcess:
        return ServerProcess(self._folder, port=self._port, resume_window=1)

    async def __aenter__(self) -> QuickServer:
        await self._server.start()
        return self

    async def kill(self) -> None:
        """As by kill -9."""
        self._server.signal(signal.SIGKILL)
        await self._server.wait()

    async def start_again(self) -> None:
        """On the same port, with the same data."""
        self._server = self._made()
        await self._server.start()

    async def __aexit__(self, *_: object) -> None:
        await self._server.__aexit__(None, None, None)
