"""How long many stores in one process need until each is connected to each other:

    tools/netns.sh .venv/bin/python -m benchmarks.mesh.run --stores 60 --engine wrtc

All stores call all others at the same moment, so each pair is called from both sides, and one processor or two have to
make `stores * (stores - 1) / 2` connections. The server is a process of its own. Beside each engine the bare engine
makes the same number of connections, a few at a time, without a server, proofs or stores: the least that the run can
cost. A ratio is taken within a run; the times mean nothing on another machine.

An *end* is one store's view of one peer. The run prints the connected ends over time, the engine connections that were
made (more than two for each pair were wasted), the most that were in the making at once, and what failed.

It tells what it has found; it keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

os.environ["WRTC_ALLOW_LOOPBACK"] = "1"

from aldis.errors import AldisError
from aldis.peer.connection import PeerState
from aldis.peer.engine import EngineChannel, EngineConfig, EngineConnection, EngineListener
from aldis.peer.engines.catalog import ENGINES, load_engine
from aldis.protocol.messages import Capabilities
from aldis.store.store import NetworkStore
from benchmarks.load import servers
from benchmarks.load.process import choose_cores, processor_seconds
from benchmarks.mesh.bare import connect_bare

SAMPLE_SECONDS: Final = 0.5
AT_ONCE: Final = 8  # connections that the bare engine makes at the same time


class WatchedEngine:
    """An engine, and what is made with it."""

    def __init__(self, name: str) -> None:
        self._engine = load_engine(name)
        self.made = 0
        self.under_way = 0  # made, and neither open nor closed
        self.most = 0

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        attempt = _Attempt(self, listener)
        connection = self._engine.create(config, attempt)
        close = connection.close

        async def closed() -> None:
            attempt.over()
            await close()

        connection.close = closed  # type: ignore[method-assign]
        self.made += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return connection


class _Attempt:
    """Passes on what an engine connection tells, and notes when it is open or given up."""

    def __init__(self, engine: WatchedEngine, listener: EngineListener) -> None:
        self._engine = engine
        self._over = False
        self.candidate_gathered = listener.candidate_gathered
        self.state_changed = listener.state_changed
        self.alive = listener.alive
        self._listener = listener

    def over(self) -> None:
        if not self._over:
            self._over = True
            self._engine.under_way -= 1

    def channel_opened(self, channel: EngineChannel) -> None:
        self.over()
        self._listener.channel_opened(channel)


@dataclass(slots=True)
class Figures:
    """What came of one run."""

    engine: str
    stores: int
    ends: int  # that there are
    connected: int  # of them, at the end
    seconds: float  # until the last, or until the limit
    processor: float  # seconds, all threads of the process
    made: int  # engine connections
    most: int  # of them in the making at once
    errors: dict[str, int] = field(default_factory=dict)
    over_time: list[tuple[float, int]] = field(default_factory=list)
    bare: float = 0.0  # seconds for the bare engine


async def run(stores: int, engine: str, limit: float) -> Figures:
    """Connect all with all, for `limit` seconds at the most."""
    ends = stores * (stores - 1)
    names = [f"store-{number:03}" for number in range(stores)]
    watched = WatchedEngine(engine)
    figures = Figures(engine, stores, ends, 0, 0.0, 0.0, 0, 0)
    async with AsyncExitStack() as stack:
        server = stack.enter_context(servers.started(servers.ALDIS, choose_cores().server))
        made = [await stack.enter_async_context(NetworkStore(engine=watched, ice_servers=[])) for _ in names]
        for store, name in zip(made, names, strict=True):
            await store.connect_to_signaling(f"ws://127.0.0.1:{server.port}", name)

        def connected() -> int:
            return sum(view.state is PeerState.CONNECTED for store in made for view in store.state.peers.values())

        async def call(store: NetworkStore, name: str) -> None:
            try:
                await store.connect_to_peer(name, timeout=limit)
            except AldisError as error:
                reason = f"{type(error).__name__}: {error}".replace(name, "PEER")
                figures.errors[reason] = figures.errors.get(reason, 0) + 1

        async def sample() -> None:
            while True:
                figures.over_time.append((round(perf_counter() - began, 1), connected()))
                await asyncio.sleep(SAMPLE_SECONDS)

        began, processor = perf_counter(), processor_seconds(os.getpid())
        sampling = asyncio.create_task(sample())
        calls = [
            asyncio.create_task(call(store, name))
            for number, store in enumerate(made)
            for other, name in enumerate(names)
            if other != number
        ]
        try:
            _, late = await asyncio.wait(calls, timeout=limit)
            if late:
                figures.errors[f"not there after {limit:g} s"] = len(late)
            figures.seconds = perf_counter() - began
            figures.processor = processor_seconds(os.getpid()) - processor
            figures.connected = connected()
            figures.made, figures.most = watched.made, watched.most
        finally:
            for task in (sampling, *calls):
                task.cancel()
            await asyncio.wait([sampling, *calls])
    return figures


async def run_bare(connections: int, engine: str) -> float:
    """Seconds in which the bare engine makes as many connections, `AT_ONCE` at the same time."""
    waiting = iter(range(connections))
    closings: list[Callable[[], Awaitable[None]]] = []

    async def work() -> None:
        for _ in waiting:
            close = await connect_bare(engine)
            closings.append(close)

    began = perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
        return perf_counter() - began
    finally:
        await asyncio.gather(*(close() for close in closings))


def tell(figures: Figures) -> None:
    """Print what came of it."""
    print(f"\n{figures.engine}: {figures.stores} stores, all with all")
    print(f"  ends connected         {figures.connected} of {figures.ends} in {figures.seconds:.1f} s")
    print(f"  processor              {figures.processor:.1f} s")
    print(f"  engine connections     {figures.made} ({figures.made / figures.ends:.2f} for each end)")
    print(f"  in the making at once  {figures.most}")
    if figures.bare:
        print(f"  the bare engine alone  {figures.bare:.1f} s: a ratio of {figures.seconds / figures.bare:.2f}")
    for reason, count in sorted(figures.errors.items(), key=lambda item: -item[1])[:8]:
        print(f"  failed, {count} times: {reason}")
    steps = figures.over_time[:: max(1, len(figures.over_time) // 12)]
    print("  over time              " + ", ".join(f"{seconds:g} s: {ends}" for seconds, ends in steps))


def main(words: Sequence[str] | None = None) -> int:
    """The command; 1 when an end was not connected."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mesh.run", description=__doc__.partition(":")[0])
    parser.add_argument("--stores", type=int, default=60, help="how many (%(default)s)")
    parser.add_argument("--engine", choices=ENGINES, action="append", help="which engines; both when not given")
    parser.add_argument("--limit", type=float, default=120, help="seconds for a run (%(default)s)")
    parser.add_argument("--no-bare", action="store_true", help="without the bare engine")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args(words)
    all_figures = []
    for engine in options.engine or ENGINES:
        figures = asyncio.run(run(options.stores, engine, options.limit))
        if not options.no_bare:
            figures.bare = asyncio.run(run_bare(figures.ends // 2, engine))
        all_figures.append(figures)
        tell(figures)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in all_figures]))
    return int(any(each.connected < each.ends for each in all_figures))


if __name__ == "__main__":
    raise SystemExit(main())
