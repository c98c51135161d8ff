"""What a connection costs that nobody uses, beside the bare engine:

    tools/netns.sh .venv/bin/python -m benchmarks.idle.run --stores 11 --engine aiortc

Some stores of one process are connected to each other and say nothing; another process has as many connections of the
bare engine, both ends of each. The processor time of the process, over all its threads, is divided by the ends.
Both are measured at the same time, so what else the machine does is in both; a ratio is taken within each round, and
the median of all rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

os.environ["WRTC_ALLOW_LOOPBACK"] = "1"

from aldis.peer.engines.catalog import ENGINES
from aldis.store.store import NetworkStore
from benchmarks.load import servers
from benchmarks.load.process import choose_cores, processor_seconds
from benchmarks.mesh.bare import connect_bare

SETTLE: Final = 20.0  # seconds after the last connection, before anything is measured: the start was busy


@dataclass(slots=True)
class Figures:
    """Milliseconds of processor a second, for each end of a connection."""

    engine: str
    ends: int
    ours: list[float]
    bare: list[float]

    @property
    def ratio(self) -> float:
        """The median over the rounds."""
        return median(ours / bare for ours, bare in zip(self.ours, self.bare, strict=True))


async def stores(number: int, engine: str, url: str) -> None:
    """Be that many stores, all connected to all."""
    names = [f"idle-{engine}-{index}" for index in range(number)]
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(NetworkStore(engine=engine, ice_servers=[])) for _ in names]
        for store, name in zip(made, names, strict=True):
            await store.connect_to_signaling(url, name)
        for index, store in enumerate(made):
            for name in names[:index]:
                await store.connect_to_peer(name)
        await wait()


async def bare(connections: int, engine: str) -> None:
    """Be that many connections of the bare engine."""
    closings = [await connect_bare(engine) for _ in range(connections)]
    await wait()
    for close in closings:
        await close()


async def wait() -> None:
    """Say that all is connected, and stay until standard input is closed."""
    print("connected", flush=True)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    transport.close()


async def start(stack: AsyncExitStack, *words: str) -> asyncio.subprocess.Process:
    """A process of this module that is connected."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.idle.run", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )

    async def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()

    stack.push_async_callback(end)
    assert process.stdout is not None
    if await process.stdout.readline() != b"connected\n":
        raise SystemExit(f"{' '.join(words)} did not connect")
    return process


async def measure(number: int, engine: str, rounds: int, seconds: float, settle: float) -> Figures:
    """Both, in turns."""
    connections = number * (number - 1) // 2
    figures = Figures(engine, 2 * connections, [], [])
    async with AsyncExitStack() as stack:
        server = stack.enter_context(servers.started(servers.ALDIS, choose_cores().server))
        url = f"ws://127.0.0.1:{server.port}"
        ours = await start(stack, "--be-stores", str(number), "--engine", engine, "--url", url)
        plain = await start(stack, "--be-bare", str(connections), "--engine", engine)
        await asyncio.sleep(settle)
        for _ in range(rounds):
            before = [processor_seconds(process.pid) for process in (ours, plain)]
            await asyncio.sleep(seconds)
            after = [processor_seconds(process.pid) for process in (ours, plain)]
            for spent, start_, end in zip((figures.ours, figures.bare), before, after, strict=True):
                spent.append((end - start_) / seconds / figures.ends * 1000)
    return figures


def tell(figures: Figures) -> None:
    """Print what came of it."""
    print(f"\n{figures.engine}: {figures.ends} ends of connections that nobody uses")
    for name, values in (("stores", figures.ours), ("bare engine", figures.bare)):
        spread = f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        print(f"  {name:12} {spread} ms of processor a second for each end")
    print(f"  {'ratio':12} {figures.ratio:.2f}")


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle.run", description=__doc__.partition(":")[0])
    parser.add_argument("--stores", type=int, default=11, help="how many, all connected to all (%(default)s)")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="which engines; both when not given")
    parser.add_argument("--rounds", type=int, default=3, help="how often both are measured (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of a measurement (%(default)s)")
    parser.add_argument("--settle", type=float, default=SETTLE, help="seconds before the first (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    parser.add_argument("--be-stores", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--be-bare", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    engines = options.engine or ENGINES
    if options.be_stores:
        asyncio.run(stores(options.be_stores, engines[0], options.url))
        return 0
    if options.be_bare:
        asyncio.run(bare(options.be_bare, engines[0]))
        return 0
    all_figures = [
        asyncio.run(measure(options.stores, each, options.rounds, options.seconds, options.settle)) for each in engines
    ]
    for figures in all_figures:
        tell(figures)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) | {"ratio": each.ratio} for each in all_figures]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
