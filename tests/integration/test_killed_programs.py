"""Two programs with journals in processes of their own, killed again and again while numbers flow both ways."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from support.numbering_program import read
from support.patience import PATIENCE
from support.stores import running_server

COUNT = 600
KILLS = 6
BETWEEN = 60  # numbers that arrive between two kills


class Numbering:
    """One of the programs, which may be started again."""

    def __init__(self, url: str, name: str, other: str, folder: Path) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self._arguments = [url, name, other, str(self.folder), str(COUNT)]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "support.numbering_program"),
            *self._arguments,
            cwd=Path(__file__).parent.parent,
            stdout=asyncio.subprocess.PIPE,
        )
        await self.until("ready")

    async def until(self, what: str, times: int = 1) -> None:
        """Wait until it has said something so many times, or that it has nothing more to do."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while times:
                line = await self._process.stdout.readline()
                assert line, "the program has ended"
                times -= line.decode().strip() == what

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def check(self, other: Numbering) -> None:
        """What has come here is what the other one has sent."""
        got = read(self.folder / "got")
        numbers = [int(each.rstrip("!")) for each in got]
        fresh = [int(each) for each in got if not each.endswith("!")]
        assert fresh == sorted(set(fresh)), "a number came twice, or out of order"
        # One that was in the program's hands comes again, right behind itself, and says so. It may have been killed
        # before it could write it down the first time.
        assert numbers == sorted(numbers), "a number that came again came late"
        assert set(map(int, read(other.folder / "accepted"))) <= set(numbers), "a number that was accepted is missing"
        assert len(got) - len(set(numbers)) <= KILLS


async def test_each_number_arrives_once_and_in_order_whoever_is_killed(tmp_path: Path) -> None:
    async with running_server() as server:
        programs = [Numbering(server.url, "a", "b", tmp_path), Numbering(server.url, "b", "a", tmp_path)]
        for program in programs:
            await program.start()
        try:
            for turn in range(KILLS):
                victim = programs[turn % 2]
                await victim.until("got", BETWEEN)
                await victim.kill()
                await victim.start()
            await asyncio.gather(*(program.until("drained") for program in programs))
            for program, other in (programs, programs[::-1]):
                async with asyncio.timeout(PATIENCE):
                    while int(read(program.folder / "got")[-1].rstrip("!")) != COUNT - 1:
                        await program.until("got")
                program.check(other)
        finally:
            for program in programs:
                await program.kill()
