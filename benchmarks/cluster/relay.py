"""What a message between two servers of a cluster costs, beside one that stays at its server; and registrations.

    .venv/bin/python -m benchmarks.cluster.relay                  # about three minutes
    .venv/bin/python -m benchmarks.cluster.relay --rounds 3 --clients 200

Pairs of clients send each other offers with proof and acknowledgement (`benchmarks.load`), in turns: at a server alone,
at one server of a cluster of two, and each at another server of it. First one message is on its way for every client,
then there is a pace. Then clients register, all at one server of the cluster, or half of them at each, or at a server
with one or two workers (`--workers`), where the kernel chooses the worker.

Processor time is that of each process (clock_getcpuclockid(3)), divided by the messages that arrived. All servers
share one core, and Redis and the clients the other, so rates say less than processor times. Linux only, with Redis.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import uvloop

from benchmarks.load import servers
from benchmarks.load.dialects import DIALECTS, Dialect
from benchmarks.load.generator import QUANTILES, Client, Load, Window, collect_no_more
from benchmarks.load.process import busy_seconds, choose_cores, processor_seconds, running_on

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.redis_server import RedisServer

DIALECT: Final = "aldis-complete"
CONCURRENCY: Final = 32
# As in `benchmarks.cluster.world`.
DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "everysec")


@dataclass(frozen=True)
class Place:
    """Where clients are: the ports of their servers in turn, and the processes that work for them, by name."""

    ports: tuple[int, ...]
    processes: Mapping[str, int]


class PlacedLoad(Load):
    """Clients that take the ports of a place in turn: so partners are at different servers, if there are two."""

    def __init__(self, place: Place) -> None:
        super().__init__(DIALECT, place.ports[0], next(iter(place.processes.values())), collects=False)
        self.place = place
        self.costs: dict[str, float] = {}
        self._ports: dict[str, int] = {}

    def _dialects(self, count: int) -> list[Dialect]:
        made = sorted(super()._dialects(count), key=lambda dialect: dialect.user)  # partners are neighbours
        ports = self.place.ports
        self._ports.update((dialect.user, ports[number % len(ports)]) for number, dialect in enumerate(made))
        return made

    async def _connect(self, dialect: Dialect) -> Client:
        self._port = self._ports[dialect.user]  # it is read before anything is waited for
        return await super()._connect(dialect)

    async def measure(self, seconds: float) -> Window:
        before = self._times()
        window = await super().measure(seconds)
        self.costs = {name: (now - before[name]) / window.messages * 1e6 for name, now in self._times().items()}
        return window

    def _times(self) -> dict[str, float]:
        return {name: processor_seconds(pid) for name, pid in self.place.processes.items()}

    async def register_all(self, dialects: list[Dialect]) -> dict[str, float]:
        """Register all, and leave: how many in a second, and what one costs in microseconds."""
        busy, own = busy_seconds(self._cores), processor_seconds(os.getpid())
        before, began = self._times(), perf_counter()
        await self.connect(dialects, CONCURRENCY)
        seconds = perf_counter() - began
        spent = {name: now - before[name] for name, now in self._times().items()}
        others = busy_seconds(self._cores) - busy - sum(spent.values())
        others -= processor_seconds(os.getpid()) - own
        await self.leave()
        for dialect in dialects:
            dialect.registered = False
        costs = {f"{name}_us": each / len(dialects) * 1e6 for name, each in spent.items()}
        return {"per_second": len(dialects) / seconds, "disturbance": others / seconds, **costs}


async def relay(places: Mapping[str, Place], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Messages: the rounds of each place."""
    loads = {name: PlacedLoad(place) for name, place in places.items()}
    for load in loads.values():
        await load.pair_up(options.clients // 2)
        await load.saturate(0.2, options.seconds)  # not counted
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in places}

    async def one(load: PlacedLoad, work: Callable[[], Awaitable[Window]]) -> dict[str, float]:
        window = await work()
        latencies = sorted(window.latencies)
        at = {name: latencies[int(len(latencies) * share)] * 1e6 for name, share in QUANTILES.items()}
        costs = {f"{name}_us": each for name, each in load.costs.items()}
        ours = sum(load.costs.values()) * window.messages / 1e6 + window.own_processor
        return {
            "per_second": window.messages / window.seconds,
            "disturbance": (window.busy - ours) / window.seconds,
            **costs,
            **{f"latency_{name}_us": each for name, each in at.items()},
        }

    for number in range(options.rounds):
        for name, load in loads.items() if number % 2 == 0 else reversed(loads.items()):
            saturated = await one(load, lambda load=load: load.saturate(0.1, options.seconds))  # type: ignore[misc]
            paced = await one(load, lambda load=load: load.pace(0.1, options.seconds, options.rate))  # type: ignore[misc]
            results[name].append({"saturated": saturated, "paced": paced})
    for load in loads.values():
        await load.leave()
    return results


async def register(places: Mapping[str, Place], options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Registrations: the rounds of each place."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in places}
    for number in range(options.rounds):
        for name, place in sorted(places.items(), reverse=number % 2 == 1):
            load = PlacedLoad(place)
            dialects = load._dialects(options.registrations)
            first = await load.register_all(dialects)
            results[name].append({"first": first, "again": await load.register_all(dialects)})
    return results


async def measure(
    relaying: Mapping[str, Place], registering: Mapping[str, Place], options: argparse.Namespace
) -> dict[str, Any]:
    """All of it."""
    relayed = await relay(relaying, options)
    collect_no_more()
    return {"relay": relayed, "register": await register(registering, options)}


def pids_of(redis: RedisServer) -> int:
    return int(redis.say("info", "server").partition("process_id:")[2].split()[0])


def workers_of(supervisor: servers.Running, count: int) -> list[int]:
    """The processes of a server's workers, once all of them listen."""
    listening = f":{supervisor.port:04X} 00000000:0000 0A "  # in the state LISTEN
    deadline = perf_counter() + servers.START_SECONDS
    while Path("/proc/net/tcp").read_text().count(listening) < count:
        if perf_counter() > deadline:
            raise servers.ServerFailed(f"there are no {count} workers")
        time.sleep(0.05)
    tasks = Path(f"/proc/{supervisor.pid}/task").glob("*/children")
    return [int(pid) for task in tasks for pid in task.read_text().split()]


def tables(results: dict[str, Any]) -> str:
    """What people read."""
    lines = []
    for part, title in (("saturated", "one message on its way for every client"), ("paced", "with a pace")):
        lines += [
            f"Messages, {title}:",
            "",
            "| where | a second | server, us | other server, us | Redis, us | all, us | p50, ms | p99, ms |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for name, rounds in results["relay"].items():
            slices = [each[part] for each in rounds]
            row = [_of(slices, "per_second", 0), *_costs(slices)]
            row += [_of(slices, f"latency_{at}_us", 2, 1000) for at in ("p50", "p99")]
            lines.append(f"| {name} | {' | '.join(row)} |")
        lines.append("")
    for part, title in (("first", "new names"), ("again", "known names")):
        lines += [
            f"Registrations, {title}:",
            "",
            "| where | a second | server, us | other server, us | Redis, us | all, us |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for name, rounds in results["register"].items():
            slices = [each[part] for each in rounds]
            lines.append(f"| {name} | {' | '.join([_of(slices, 'per_second', 0), *_costs(slices)])} |")
        lines.append("")
    return "\n".join(lines)


def _costs(slices: Sequence[dict[str, float]]) -> list[str]:
    names = [f"{name}_us" for name in ("server", "other", "redis") if f"{name}_us" in slices[0]]
    costs = [_of(slices, f"{name}_us", 1) for name in ("server", "other", "redis")]
    return [*costs, f"{median(sum(each[name] for name in names) for each in slices):,.1f}"]


def _of(slices: Sequence[dict[str, float]], key: str, digits: int, scale: float = 1.0) -> str:
    if key not in slices[0]:
        return ""
    return f"{median(each[key] for each in slices) / scale:,.{digits}f}"


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.relay", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200, help="that send each other messages (%(default)s)")
    parser.add_argument("--registrations", type=int, default=1000, help="in each round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each slice (%(default)s)")
    parser.add_argument("--rate", type=int, default=1000, help="messages a second of the pace (%(default)s)")
    parser.add_argument("--json", type=Path, help="write all rounds into this file, too")
    options = parser.parse_args(words)
    assert DIALECT in DIALECTS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aldis-relay-")))
        cores = choose_cores()
        with running_on(cores.generator):
            redis = stack.enter_context(RedisServer(folder / "redis", *DURABLE))
        alone, one, two = (
            stack.enter_context(servers.started(servers.ALDIS, cores.server, {**servers.UNLIMITED, **more}))
            for more in ({}, {"ALDIS_REDIS": redis.url()}, {"ALDIS_REDIS": redis.url()})
        )
        ones = {"server": one.pid, "redis": pids_of(redis)}
        both = {"server": one.pid, "other": two.pid, "redis": pids_of(redis)}
        at_one, at_both = Place((one.port,), ones), Place((one.port, two.port), both)
        at_alone = Place((alone.port,), {"server": alone.pid})
        relaying = {"a server alone": at_alone, "one server of a cluster": at_one, "between two servers": at_both}
        registering = {
            "a server alone, in memory": at_alone,
            "one server, Redis": at_one,
            "two servers, Redis": at_both,
        }
        for count, title in ((1, "one worker, Redis"), (2, "two workers, Redis")):
            with running_on(cores.generator):
                own = stack.enter_context(RedisServer(folder / title, *DURABLE))
            limits = {**servers.UNLIMITED, "ALDIS_REDIS": own.url(), "ALDIS_WORKERS": str(count)}
            supervisor = stack.enter_context(servers.started(servers.ALDIS, cores.server, limits))
            pids = dict(zip(("server", "other"), workers_of(supervisor, count), strict=False))
            registering[title] = Place((supervisor.port,), {**pids, "redis": pids_of(own)})
        with running_on(cores.generator):
            results = uvloop.run(measure(relaying, registering, options))
    print(tables(results))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
