"""Who reaches whom: every kind of router against every other one (`lab.py`), without a TURN server.

    .venv/bin/python -m benchmarks.nat.run

alice sends bob a message, and bob answers, as soon as both are registered. Each cell shows after how many milliseconds
the first message was acknowledged, over which path, and after how many seconds the path was direct, if it became so
within the time for that (`--settle`). A cell passes if both messages arrive, the first one at once (`--at-once`), and
if the path becomes direct where it can: not through a router that lets no UDP out, nor from a symmetric one to one that
filters by port. There the relay has to carry both.

`--path direct` shows what there is without the sealed relay; then a cell passes without the relay, and at any time.
Needs root on Linux and nftables.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.nat.lab import KINDS, SERVER, NatLab

PORT: Final = 8765
SETTLED: Final = 12.0  # seconds that a connection attempt may take
AT_ONCE: Final = 1.0  # seconds for the first message, without waiting for an attempt; it takes some 40 ms
PATIENCE: Final = 30.0  # seconds for the messages
ROOT: Final = Path(__file__).parents[2]


def can_be_direct(alice: str, bob: str) -> bool:
    """Whether hole punching works between two kinds of routers (RFC 5128, section 3.3)."""
    kinds = {alice, bob}
    if "no-udp" in kinds:
        return False
    return "symmetric" not in kinds or not kinds <= {"symmetric", "port-restricted"}


@dataclass
class Cell:
    """What came of one pair."""

    alice: str
    bob: str
    first: float | None = None  # seconds until the first message was acknowledged
    path: str = ""  # over which it went
    answered: bool = False
    direct: float | None = None  # seconds until the path was direct
    relayed: bool = True  # whether there is the relay
    at_once: float = AT_ONCE  # seconds that the first message may take with it

    @property
    def passed(self) -> bool:
        if self.first is None or not self.answered:
            return False
        possible = can_be_direct(self.alice, self.bob)
        if self.relayed and (self.first > self.at_once or (not possible and self.path != "relay")):
            return False
        return self.direct is not None or not possible

    def __str__(self) -> str:
        if self.first is None:
            return "nothing arrives"
        direct = "" if self.direct is None else f", direct {self.direct:.1f} s"
        return f"{self.first * 1000:.0f} ms {self.path}{direct}{'' if self.passed else ' (!)'}"


class Talker:
    """A `talker` in a namespace, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Condition()
        self.said: list[list[Any]] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._changed:
                self.said.append(json.loads(line))
                self._changed.notify_all()

    def send(self) -> None:
        """Send a message to the peer."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"send\n")

    async def until(self, *words: str, seconds: float) -> list[Any] | None:
        """Wait until it has said something that begins so; None when it does not in time."""

        def found() -> list[Any] | None:
            return next((said for said in self.said if said[: len(words)] == list(words)), None)

        try:
            async with asyncio.timeout(max(seconds, 0)), self._changed:
                await self._changed.wait_for(lambda: found() is not None)
        except TimeoutError:
            return None
        return found()


async def start(stack: AsyncExitStack, command: Sequence[str], **options: Any) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, **options)

    async def end() -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()

    stack.push_async_callback(end)
    return process


async def measure(alice: str, bob: str, path: str, settle: float, at_once: float) -> Cell:
    """Let the two talk."""
    cell = Cell(alice, bob, relayed=path != "direct", at_once=at_once)
    pipe = asyncio.subprocess.PIPE
    async with AsyncExitStack() as stack:
        lab = stack.enter_context(NatLab(alice, bob))
        serve = ["-m", "aldis", "serve", "--host", SERVER, "--port", str(PORT), "--data", ":memory:"]
        server = await start(
            stack, lab.inside("server", [sys.executable, *serve]), stderr=pipe, stdout=asyncio.subprocess.DEVNULL
        )
        assert server.stderr is not None
        while b"serving" not in (line := await asyncio.wait_for(server.stderr.readline(), PATIENCE)):
            assert line, "the server has ended"
        url, talkers = f"ws://{SERVER}:{PORT}", []
        for name, peer in (("alice", "bob"), ("bob", "alice")):
            words = [sys.executable, "-m", "benchmarks.nat.talker", name, peer, url, path]
            talkers.append(Talker(await start(stack, lab.inside(name, words), stdin=pipe, stdout=pipe)))
            stack.callback(talkers[-1].reading.cancel)
        one, other = talkers
        for talker in talkers:
            assert await talker.until("registered", seconds=PATIENCE), talker.said
        began = time.monotonic()
        one.send()
        sent = await one.until("sent", seconds=PATIENCE)
        if sent is not None:
            cell.first = sent[1]
            before = [said[1] for said in one.said[: one.said.index(sent)] if said[0] == "path"]
            cell.path = before[-1] if before else "?"
            other.send()
            cell.answered = await one.until("got", seconds=PATIENCE) is not None
            direct = await one.until("path", "direct", seconds=began + settle - time.monotonic())
            cell.direct = None if direct is None else direct[2]
    return cell


async def run(kinds: Sequence[str], path: str, settle: float, at_once: float) -> bool:
    """Print the matrix; whether all of it passes."""
    print("| alice \\ bob | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    cells: list[Cell] = []
    for alice in kinds:
        row = []
        for bob in kinds:
            row.append(await measure(alice, bob, path, settle, at_once))
            print(".", end="", file=sys.stderr, flush=True)
        cells += row
        print(f"| {alice} | " + " | ".join(map(str, row)) + " |", flush=True)
    delivered = sum(cell.first is not None and cell.answered for cell in cells)
    direct = sum(cell.direct is not None for cell in cells)
    could = sum(can_be_direct(cell.alice, cell.bob) for cell in cells)
    print(f"\n{delivered} of {len(cells)} deliver; {direct} are direct, of {could} that can be.")
    return all(cell.passed for cell in cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=list(KINDS), help="only these kinds; give it several times")
    parser.add_argument("--path", default="auto", help="the `path` of both stores (default: auto)")
    parser.add_argument("--settle", type=float, default=SETTLED, help="seconds for a direct path (default: 12)")
    parser.add_argument("--at-once", type=float, default=AT_ONCE, help="seconds for the first message (default: 1)")
    options = parser.parse_args()
    passed = asyncio.run(run(options.only or list(KINDS), options.path, options.settle, options.at_once))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
