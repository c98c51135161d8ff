"""Programs that start at once: each is a process of its own, forked from one that has imported everything.

Some hundred tests start servers, commands and stores. Half a second of processor time goes into the imports of each, so
each test process does them once for each kind. Where the start itself is looked at, a program has to be a new Python.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_MOST: Final = 64 * 1024  # bytes of a request: arguments or settings, and the environment

# It answers each request with one number. It ends when the test process has closed its end of the socket. `program`
# defines `run`, which ends the process.
_TEMPLATE: Final = """
import json, os, socket, sys
{program}
control = socket.socket(fileno=int(sys.argv[1]))
while True:
    request, descriptors, _, _ = socket.recv_fds(control, {most}, 3)
    if not request:
        break
    wanted = json.loads(request)
    if "pid" in wanted:
        answer = os.waitstatus_to_exitcode(os.waitpid(wanted["pid"], 0)[1])
    else:
        answer = os.fork()
        if not answer:
            control.close()
            for number, descriptor in zip(wanted["streams"], descriptors, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.chdir(wanted["folder"])
            os.environ.clear()
            os.environ.update(wanted["environment"])
            run(*wanted["arguments"])
        for descriptor in descriptors:
            os.close(descriptor)
    control.send(str(answer).encode())
control.close()
"""


class ForkedProcess:
    """What tests need of `asyncio.subprocess.Process`. Its `returncode` is there once somebody has waited for it."""

    def __init__(self, template: Template, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._template = template

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """As `kill -9` does."""
        self.send_signal(9)

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


class Template:
    """The process from which others are forked. It ends with this one.

    `program` is its text: it imports everything, and defines `run`, which ends the process that calls it.
    """

    def __init__(self, program: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            number = theirs.fileno()
            text = _TEMPLATE.format(program=program, most=_MOST)
            self._process = subprocess.Popen(
                [sys.executable, "-W", "default", "-c", text, str(number)],
                pass_fds=[number],
                cwd=Path(__file__).parents[1],
            )
        atexit.register(self._close)

    def _close(self) -> None:
        self._control.close()
        self._process.wait()

    async def fork(
        self,
        *arguments: Any,
        environment: Mapping[str, str],
        streams: Mapping[int, int | None],
        limit: int = 64 * 1024,
    ) -> ForkedProcess:
        """Start a program: have a process call `run` with these arguments.

        `streams` are those that it does not have from this process, by number: a descriptor, or None for a pipe.
        `limit`: of what is read from a pipe and not taken.
        """
        pipes: dict[int, int] = {}
        theirs: list[int] = []
        given: list[int] = []
        for number, descriptor in streams.items():
            if descriptor is None:
                reading, writing = os.pipe()
                pipes[number], descriptor = (writing, reading) if number == 0 else (reading, writing)
                theirs.append(descriptor)
            given.append(descriptor)
        try:
            request = {
                "arguments": arguments,
                "streams": list(streams),
                "folder": str(Path.cwd()),
                "environment": dict(environment),
            }
            process = ForkedProcess(self, self._ask(request, given))
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for number, descriptor in pipes.items():
            if number == 0:
                process.stdin = await _writer(descriptor)
            else:
                setattr(process, {1: "stdout", 2: "stderr"}[number], await _reader(descriptor, limit))
        return process

    def exit_code(self, pid: int) -> int:
        """That of a process that has ended."""
        return self._ask({"pid": pid}, [])

    def _ask(self, request: dict[str, Any], descriptors: list[int]) -> int:
        socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
        return int(self._control.recv(100))


async def _reader(descriptor: int, limit: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=limit)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "wb", buffering=0)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, pipe)
    return asyncio.StreamWriter(transport, protocol, None, loop)
