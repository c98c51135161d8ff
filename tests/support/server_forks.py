"""Servers that start at once: each is a process of its own, forked from one that has imported everything.

Some hundred tests have a server of their own. Half a second of processor time goes into the imports alone, so each test
process does them once.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# What the program of a server consists of: `serve` runs it, and ends the process.
RUN: Final = """
import json, sys
from pathlib import Path
from aldis.errors import AldisError
from aldis.server import process
from aldis.server.config import load_config
from aldis.server.tuning import Tuning

def serve(settings, tuning):
    file = Path(settings.pop("config")) if "config" in settings else None
    try:
        def read():
            return load_config(settings, {}, file)
        sys.exit(process.run(read(), tuning=Tuning(**tuning), reread=read))
    except AldisError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(3)
"""
_MOST: Final = 64 * 1024  # bytes of a request: settings, and the environment

# It answers each request with one number. It ends when the test process has closed its end of the socket.
_TEMPLATE: Final = f"""
import os, signal, socket
{RUN}
control = socket.socket(fileno=int(sys.argv[1]))
while True:
    request, descriptors, _, _ = socket.recv_fds(control, {_MOST}, 1)
    if not request:
        break
    wanted = json.loads(request)
    if "pid" in wanted:
        answer = os.waitstatus_to_exitcode(os.waitpid(wanted["pid"], 0)[1])
    else:
        answer = os.fork()
        if not answer:
            control.close()
            os.dup2(descriptors[0], 2)
            os.close(descriptors[0])
            os.chdir(wanted["folder"])
            os.environ.clear()
            os.environ.update(wanted["environment"])
            serve(wanted["settings"], wanted["tuning"])
        os.close(descriptors[0])
    control.send(str(answer).encode())
control.close()
"""


class ForkedProcess:
    """What a `ServerProcess` needs of `asyncio.subprocess.Process`."""

    def __init__(self, template: ServerTemplate, pid: int, stderr: asyncio.StreamReader) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stderr = stderr
        self._template = template

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    async def wait(self) -> int:
        if self.returncode is None:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            process = os.pidfd_open(self.pid)
            loop.add_reader(process, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(process)
                os.close(process)
            self.returncode = self._template.exit_code(self.pid)
        return self.returncode


class ServerTemplate:
    """The process from which servers are forked."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-W", "default", "-c", _TEMPLATE, str(number)]
            self._process = subprocess.Popen(command, pass_fds=[number])

    def close(self) -> None:
        self._control.close()
        self._process.wait()

    async def fork(
        self, settings: dict[str, Any], tuning: dict[str, float], environment: Mapping[str, str]
    ) -> ForkedProcess:
        """Start a server with these settings."""
        request = {
            "settings": settings,
            "tuning": tuning,
            "folder": str(Path.cwd()),
            "environment": dict(environment),
        }
        reading, writing = os.pipe()
        try:
            pid = self._ask(request, writing)
        finally:
            os.close(writing)
        reader = asyncio.StreamReader()
        pipe = os.fdopen(reading, "rb", buffering=0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        return ForkedProcess(self, pid, reader)

    def exit_code(self, pid: int) -> int:
        """That of a server that has ended."""
        return self._ask({"pid": pid})

    def _ask(self, request: dict[str, Any], *descriptors: int) -> int:
        socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        return int(self._control.recv(100))


@functools.cache
def template() -> ServerTemplate:
    """That of this test process. It ends with it."""
    made = ServerTemplate()
    atexit.register(made.close)
    return made
