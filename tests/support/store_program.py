"""A program with a store of its own, in a process of its own, for tests that kill it.

Commands come in as JSON lines: `["send", "bob", value]`, `["connect", "bob"]`, `["take files", folder]`,
`["offer file", "bob", path]`; events go out as JSON lines: `["ready"]`, `["message", sender, value]`,
`["delivered", n]` (n-th send), `["connected", "bob"]`, `["taking", folder]`, `["resumed", name]` of a file.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from support.forks import ForkedProcess, Template
from support.patience import PATIENCE

_PROGRAM: Final = """
import wrtc
from support import store_program, stores

def run(*arguments):
    store_program.main(*arguments)
    sys.exit()
"""


@functools.cache
def _template() -> Template:
    """The process from which these programs are forked."""
    return Template(_PROGRAM)


class StoreProcess:
    """`async with StoreProcess(url, "bob", seed) as bob`: the program, seen from the test."""

    def __init__(
        self,
        url: str,
        name: str,
        seed: bytes,
        engine: str = "wrtc",
        folder: Path | None = None,
        journal: Path | None = None,
    ) -> None:
        """With a `folder`, it takes files from the start."""
        self._arguments = [
            url,
            name,
            seed.hex(),
            engine,
            *("" if each is None else str(each) for each in (folder, journal)),
        ]
        self._process: ForkedProcess | None = None

    async def __aenter__(self) -> StoreProcess:
        streams = {0: None, 1: None}
        self._process = await _template().fork(*self._arguments, environment=os.environ, streams=streams)
        while (event := await self.event()) != ["ready"]:
            assert event[0] == "resumed"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.kill()

    async def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process is not None
        if self._process.returncode is not None:
            return
        self._process.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        await self._process.stdout.read()
        await self._process.wait()

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def command(self, *command: Any) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def event(self) -> Any:
        """The next thing that it says."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self._process.stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)


def _say(*event: Any) -> None:
    print(json.dumps(event), flush=True)


async def _main(url: str, name: str, seed: str, engine: str, folder: str, journal: str) -> None:
    from aldis.identity.keys import Identity
    from support.stores import new_store

    store = new_store(identity=Identity.from_seed(bytes.fromhex(seed)), engine=engine, journal=journal or None)
    store.on_resumed_file(lambda transfer: _say("resumed", transfer.name))
    if folder:
        store.on_file(lambda transfer, folder=folder: transfer.accept(folder))
    await store.connect_to_signaling(url, name)
    _say("ready")
    store.on_message(lambda message: _say("message", message.sender, message.content))  # some may be here already
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    sent = 0

    async def delivered(delivery: Any, number: int) -> None:
        await delivery
        _say("delivered", number)

    while line := await reader.readline():
        match json.loads(line):
            case ["send", to, value]:
                sent += 1
                spawn(delivered(store.send(to, value), sent))
            case ["connect", to]:
                await store.connect_to_peer(to)
                _say("connected", to)
            case ["take files", folder]:
                store.on_file(lambda transfer, folder=folder: transfer.accept(folder))
                _say("taking", folder)
            case ["offer file", to, path]:
                await store.send_file(to, path)
    await store.disconnect()


def main(*arguments: str) -> None:
    """Be this program."""
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process
    asyncio.run(_main(*arguments))
