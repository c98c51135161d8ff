"""A server in a process of its own, with its log: for tests of signals, of `kill -9`, and of what the log holds."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from support.patience import PATIENCE
from support.ports import free_port
from support.server_forks import RUN, template

# Of the log, when a test fails.
_LAST_LINES = 100

_PROGRAM = f"{RUN}\nserve(*map(json.loads, sys.argv[1:]))"


class Process(Protocol):
    """What a server is run in."""

    @property
    def pid(self) -> int: ...
    @property
    def stderr(self) -> asyncio.StreamReader | None: ...
    @property
    def returncode(self) -> int | None: ...
    def send_signal(self, number: int, /) -> None: ...
    async def wait(self) -> int: ...


class ServerProcess:
    """`async with ServerProcess(folder, auth="open") as server`: settings by name. Its port is a
    free one; the admin port takes time to start, and is there only for who wants it (`admin_port=0`: a free one).

    It is forked from a process that has imported everything. With `own_program=True`, or `sockets`, it is a new Python.
    `close_timeout`: seconds that a client has to answer a close, where a test waits for a client that does not.
    `tuning`: other constants of `Tuning`. The setting `config` names a file with more settings, which
    SIGHUP reads again. `sockets`: listening sockets that it is given, as by systemd, by their names. `environ`: more
    variables.
    """

    def __init__(
        self,
        folder: Path,
        *,
        close_timeout: float | None = None,
        tuning: Any = None,
        sockets: Any = None,
        environ: Any = None,
        own_program: Any = False,
        **settings: Any,
    ) -> None:
        self._own_program = own_program or bool(sockets)
        self._sockets: dict[str, socket.socket] = dict(sockets or {})
        self._environ = {**os.environ, **(environ or {})}
        self._tuning = dict(tuning or {}) if close_timeout is None else {"close_timeout": close_timeout}
        self.settings = {
            "port": free_port(),
            "admin_port": "none",
            "data": str(folder / "data"),
            "log_format": "json",
            "log_level": "debug",
            **settings,
        }
        self.port = 0
        self.admin_port = 0
        self._process: Process | None = None
        self._log: list[str] = []
        self._grown = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start, and return when it serves; raises `AssertionError` with its log when it does not."""
        self._process = await self._spawn()
        self._reading = asyncio.create_task(self._read_log())
        try:
            line = await self.wait_for_line("serving")
        except TimeoutError as error:
            self._show_log(error)
            raise
        self.port = int(line["url"].rpartition(":")[2])
        self.admin_port = int(line["admin"].rpartition(":")[2]) if line["admin"] else 0

    async def _spawn(self) -> Process:
        if not self._own_program:
            return await template().fork(self.settings, self._tuning, environment=self._environ, streams={2: None})
        command: tuple[str, ...] = (
            sys.executable,
            "-W",
            "default",
            "-c",
            _PROGRAM,
            json.dumps(self.settings),
            json.dumps(self._tuning),
        )
        given = [one.fileno() for one in self._sockets.values()]
        environ = self._environ
        if given:
            # As systemd does it: from descriptor 3 on, with the number of this process.
            moves = "".join(f"exec {3 + number}<&{descriptor}; " for number, descriptor in enumerate(given))
            command = ("bash", "-c", f'export LISTEN_PID=$$; {moves}exec "$@"', "-", *command)
            environ = {**environ, "LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": ":".join(self._sockets)}
        return await asyncio.create_subprocess_exec(
            *command, stderr=asyncio.subprocess.PIPE, env=environ, pass_fds=given
        )

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            async with self._grown:
                self._log.append(line.decode())
                self._grown.notify_all()
        async with self._grown:
            self._grown.notify_all()

    async def wait_for_line(self, event: str, *, number: int = 1) -> dict[str, Any]:
        """The first line of the log with this event, once there is one; or the second, or the third."""

        def found() -> dict[str, Any] | None:
            lines = [line for line in self.lines() if line["event"] == event]
            return lines[number - 1] if len(lines) >= number else None

        async with asyncio.timeout(PATIENCE), self._grown:
            while (line := found()) is None:
                assert self._reading is not None
                assert not self._reading.done(), self.log_text()
                await self._grown.wait()
            return line

    def log_text(self) -> str:
        return "".join(self._log)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self._log if line.startswith("{")]

    def assert_clean_log(self) -> None:
        """The log holds no traceback, nothing that is not a line of ours, and nothing above a warning."""
        text = self.log_text()
        assert "Traceback" not in text, text
        assert all(line.startswith("{") for line in text.splitlines()), text
        bad = [line for line in self.lines() if line["level"] not in ("debug", "info", "warning")]
        assert not bad, bad
        traced = [line for line in self.lines() if "exception" in line]
        assert not traced, traced

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self) -> int:
        """The exit code, once it has ended."""
        assert self._reading is not None
        async with asyncio.timeout(PATIENCE):
            await self._reading
            return await self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop, and return the exit code."""
        if self.process.returncode is None:
            self.signal(signal.SIGTERM)
        return await self.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            await self.wait()
        if isinstance(error, Exception):
            self._show_log(error)

    def _show_log(self, error: Exception) -> None:
        """Have pytest show the log below this error: those of all servers that run, each with its port."""
        port = self.port or self.settings["port"]
        error.add_note("".join([f"The end of the log of the server at port {port}:\n", *self._log[-_LAST_LINES:]]))
