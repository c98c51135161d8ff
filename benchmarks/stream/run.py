"""How fast a stream of messages is, beside the bare engine in the same run:

    tools/netns.sh .venv/bin/python -m benchmarks.stream.run

Sender and receiver are two processes. For each size, the bare engine (wrtc), two stores, and two stores with journals
send the same messages by turns, `--rounds` times. The speed counts from the first message to the acknowledgement of the
last. It prints the median of each, and the ratio to the bare engine: the median over the rounds, and their range. The
processor time is that of all threads of both programs. With 16 KiB two cores are busy with the bare engine alone, so
there nothing can be faster than that time says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.load import servers
from benchmarks.load.process import choose_cores

WAYS: Final = ("bare", "store", "journal")
# Messages of one slice, by their size in bytes: about a second of the bare engine.
COUNTS: Final = {100: 40_000, 16 * 1024: 6_000}
TARGETS: Final = {(100, "store"): 0.6, (100, "journal"): 0.3, (16 * 1024, "store"): 0.9, (16 * 1024, "journal"): 0.5}
PATIENCE: Final = 120.0
ROOT: Final = Path(__file__).parents[2]


class End:
    """A `worker`. It has `patience` seconds for all that it is told to do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.patience = PATIENCE

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words).encode() + b"\n")

    async def said(self) -> list[Any]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), self.patience)
        assert line, "a worker has ended"
        words: list[Any] = json.loads(line)
        return words

    @property
    def used(self) -> float:
        """Seconds of processor time that its threads have used (proc(5): `utime` and `stime`)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def done(self) -> float:
        """Seconds that the messages took."""
        return float((await self.until("done"))[0])

    async def until(self, word: str) -> list[Any]:
        """What it says with this word."""
        while (words := await self.said())[0] != word:
            assert words[0] == "signal"  # a late candidate
        return words[1:]


async def start(stack: AsyncExitStack, way: str, role: str, url: str, folder: str) -> End:
    pipe = asyncio.subprocess.PIPE
    words = [sys.executable, "-m", "benchmarks.stream.worker", way, role, url, folder]
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, cwd=ROOT, limit=2**20)

    async def end() -> None:
        process.kill()
        await process.wait()

    stack.push_async_callback(end)
    return End(process)


async def connect(stack: AsyncExitStack, way: str, url: str, folder: str) -> tuple[End, End]:
    """Start both ends, carry what they have to say to each other, and return the sender and the receiver."""
    receiver = await start(stack, way, "receiver", url, folder)
    if way != "bare":
        assert await receiver.said() == ["ready"]
    sender = await start(stack, way, "sender", url, folder)
    if way != "bare":
        assert await sender.said() == ["ready"]
        return sender, receiver

    async def carry(one: End, other: End) -> None:
        while (words := await one.said()) != ["ready"]:
            other.tell(*words)

    await asyncio.gather(carry(sender, receiver), carry(receiver, sender))
    return sender, receiver


async def run(ways: list[str], rounds: int) -> bool:
    """Measure and print; whether all targets are met."""
    met = True
    async with AsyncExitStack() as stack:
        server = stack.enter_context(servers.started(servers.ALDIS, choose_cores().server))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        speeds: dict[tuple[int, str], list[float]] = {(size, way): [] for way in ways for size in COUNTS}
        costs: dict[tuple[int, str], list[float]] = {case: [] for case in speeds}
        for _ in range(rounds):
            for way in ways:
                async with AsyncExitStack() as ends:
                    base = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
                    sender, receiver = await connect(ends, way, f"ws://127.0.0.1:{server.port}", base)
                    for size, count in COUNTS.items():
                        for part in (count // 10, count):  # the first one is to warm up
                            used = sender.used + receiver.used
                            sender.tell("send", part, size)
                            seconds = await sender.done()
                        speeds[size, way].append(count / seconds)
                        costs[size, way].append((sender.used + receiver.used - used) / count * 1e6)
    print("| size | way | messages a second | MB/s | of the bare engine | target | processor us a message |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for (size, way), found in speeds.items():
        ratios = [ours / bare for ours, bare in zip(found, speeds[size, "bare"], strict=True)]
        target = TARGETS.get((size, way))
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        met = met and (target is None or median(ratios) >= target)
        speed = median(found)
        print(
            f"| {size} | {way} | {speed:,.0f} | {speed * size / 1e6:.1f} | {ratio} | {target or ''} "
            f"| {median(costs[size, way]):.1f} |"
        )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", action="append", choices=WAYS[1:], help="beside the bare engine; default: all")
    options = parser.parse_args()
    return 0 if asyncio.run(run(["bare", *(options.way or WAYS[1:])], options.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
