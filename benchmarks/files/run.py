"""How fast a file is, and how much memory it takes, beside the bare engine in the same run:

    tools/netns.sh .venv/bin/python -m benchmarks.files.run [--size 2000]

Sender and receiver are two processes. By turns, the bare engine (wrtc) sends `--size` MB in messages of 16 KiB, which
come from no disk and go to none, and two stores send a file of that size: read, checked and written. The speed counts
from the first byte to the confirmation of the last. It prints the median of each, their ratio, and the most memory that
the two programs of the stores ever had.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from statistics import median
from typing import Final

from benchmarks.load import servers
from benchmarks.load.process import choose_cores
from benchmarks.stream.run import connect

MESSAGE: Final = 16 * 1024
RATIO: Final = 0.8
MOST_MEMORY: Final = 150e6  # bytes
SLOWEST: Final = 2e6  # bytes a second, on a machine that does much else


async def run(size: int, rounds: int) -> bool:
    """Measure and print; whether all targets are met."""
    count = size * 1_000_000 // MESSAGE
    speeds: dict[str, list[float]] = {"bare": [], "file": []}
    most = {"sender": 0, "receiver": 0}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(servers.started(servers.ALDIS, choose_cores().server))
        for _ in range(rounds):
            for way, found in speeds.items():
                async with AsyncExitStack() as ends:
                    folder = ends.enter_context(tempfile.TemporaryDirectory())
                    sender, receiver = await connect(ends, way, f"ws://127.0.0.1:{server.port}", folder)
                    sender.patience += count * MESSAGE / SLOWEST
                    for part in (count // 20, count):  # the first one is to warm up
                        sender.tell("send", part, MESSAGE)
                        seconds, _, memory = await sender.until("done")
                    found.append(count * MESSAGE / seconds / 1e6)
                    assert receiver.process.stdin is not None
                    receiver.process.stdin.close()
                    (received,) = await receiver.until("memory")
                    if way == "file":
                        most = {"sender": max(most["sender"], memory), "receiver": max(most["receiver"], received)}
    ratios = [ours / bare for ours, bare in zip(speeds["file"], speeds["bare"], strict=True)]
    print(f"| {size} MB | MB/s |\n|---|---:|")
    for way, found in speeds.items():
        print(f"| {way} | {median(found):.1f} ({min(found):.1f} to {max(found):.1f}) |")
    print(f"\nof the bare engine: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), target {RATIO}")
    print(f"most memory: sender {most['sender'] / 1e6:.0f} MB, receiver {most['receiver'] / 1e6:.0f} MB, target 150 MB")
    return median(ratios) >= RATIO and max(most.values()) <= MOST_MEMORY


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=200, help="MB of the file")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    return 0 if asyncio.run(run(options.size, options.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
