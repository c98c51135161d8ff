"""A disk that becomes read-only under a store with a journal: it says so, and loses and doubles nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.failing_disk import FailingDisk
from support.patience import PATIENCE
from support.stores import contents, running_server, stores

COUNT = 20
# It does one thing for each line that it is told, and says one line.
PROGRAM = """
import asyncio, sys
from aldis.errors import DeliveryFailed
from aldis.identity.keys import Identity
from aldis.identity.pins import FilePins
from support.stores import new_store

async def main(url, folder, count):
    identity = Identity.load_or_create(folder + "/key.pem")
    store = new_store(identity=identity, pins=FilePins(folder + "/pins"), journal=folder + "/journal")
    await store.connect_to_signaling(url, "alice")
    say = lambda *words: print(*words, flush=True)
    hear = lambda: asyncio.to_thread(sys.stdin.readline)
    say("connected")
    while word := (await hear()).strip():
        match word:
            case "queue":
                for number in range(int(count)):
                    await store.send("bob", number).when_stored()
                say("queued", store.state.peers["bob"].queued)
            case "late":
                try:
                    await store.send("bob", "late")
                except DeliveryFailed as error:
                    say("refused", error)
            case "error":
                error = store.state.journal_error
                say(type(error).__name__, error)
            case "listen":
                store.on_message(lambda message: say("got", message.content, message.redelivered))
            case "drain":
                await store.drain()
                say("drained")
    await store.disconnect()
    say("ended")

asyncio.run(main(*sys.argv[1:]))
"""


class Program:
    """A program on the disk, which is told what to do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def ask(self, word: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        return await self.hear()

    async def hear(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self._process.stdout.readline()).decode().strip()

    async def end(self) -> tuple[str, str]:
        """What it says last, and all of standard error."""
        async with asyncio.timeout(PATIENCE):
            output, errors = await self._process.communicate(b"\n")
        return output.decode().strip(), errors.decode()


TESTS = Path(__file__).parents[1]


@asynccontextmanager
async def alice_on(disk: FailingDisk, url: str) -> AsyncIterator[Program]:
    pipe = asyncio.subprocess.PIPE
    command = disk.around(sys.executable, "-c", PROGRAM, url, str(disk.path), str(COUNT))
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=TESTS)
    try:
        program = Program(process)
        if await program.hear() != "connected":
            raise AssertionError(await program.end())
        yield program
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_journal_on_a_disk_that_becomes_read_only_says_so_and_keeps_what_it_had(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path)
    async with running_server() as server, stores(server.url, "carol") as (carol,):
        async with alice_on(disk, server.url) as alice:
            await carol.send("alice", "hello")
            assert await alice.ask("listen") == "got hello False"
            assert await alice.ask("queue") == f"queued {COUNT}"
            disk.fail(alice.pid)
            assert (await alice.ask("late")).startswith("refused ")
            said = await alice.ask("error")
            assert said.startswith("JournalReadOnly "), said
            assert "is read-only" in said
            delivery = carol.send("alice", "are you there?")
            await delivery.when_sent()
            assert (await alice.ask("late")).startswith("refused ")
            assert not delivery.done
            last, log = await alice.end()
            assert last == "ended"
            told = [line.rpartition("; ")[2] for line in log.splitlines()]
            assert told == ["new messages fail, and what arrives is not acknowledged", "what was not stored is lost"]
        disk.repair()
        async with alice_on(disk, server.url) as alice, stores(server.url, "bob") as (bob,):
            assert await alice.ask("error") == "NoneType None"
            assert await alice.ask("listen") == "got are you there? False"
            await delivery
            assert await contents(bob, COUNT) == list(range(COUNT))
            assert await alice.ask("drain") == "drained"
            assert await alice.end() == ("ended", "")
