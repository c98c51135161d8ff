"""Many connections with churn for a long time: does the server keep anything that it should not?

    nice .venv/bin/python -m benchmarks.soak.run                       # 5,000 connections, 30 minutes
    .venv/bin/python -m benchmarks.soak.run --connections 500 --minutes 3

A real `aldis serve` with its default limits and a directory on SQLite. Clients (`benchmarks.soak.visitors`) come, go,
lose their connections and resume, make offers, watch, and break rules. Meanwhile the server's memory, descriptors and
tables are read, and the lag of its event loop: the time of a request to its admin port.

A value is flat if a line fitted through its samples, without those of the first two fifths, grows over the run by less
than its bound. At the end all leave. When their resume windows are over, the server must have as many descriptors as at
the start, and nothing in its tables. Linux only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import linear_regression, mean, median
from typing import Any, Final

from benchmarks.load import servers
from benchmarks.load.helpers import helper
from benchmarks.load.process import choose_cores, memory, processor_seconds

# The part of a run that does not count: pools fill, each kind of thing happens for the first time, and those who came
# at the start leave by and by. With the defaults, half of them have after six minutes.
WARM: Final = 0.4
# By how much a value may grow over a run: this share of its mean, or this much, whichever is more.
BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "memory": (0.05, 4.0),  # MiB
    "descriptors": (0.01, 16.0),
    "lag": (0.0, 5.0),  # ms; the median of an interval
}
# The tables of the server that are empty when nobody is there.
TABLES: Final = (
    *("aldis_connections", "aldis_connections_accepted", "aldis_handshakes_pending", "aldis_users_online"),
    *("aldis_detached_sessions", "aldis_detached_bytes", "aldis_watches_bytes", "aldis_connections_waiting"),
    *("aldis_directory_pending", "aldis_faults_total"),
)
# Seconds beyond the resume window after which nothing may be left of clients that have gone.
EMPTY_AFTER: Final = 10.0
PROBE_EVERY: Final = 0.25


@dataclass(frozen=True)
class Sample:
    """What the server had at one moment, and the lag of its event loop since the last sample, in ms."""

    seconds: float
    memory: float  # MiB, resident
    descriptors: int
    connections: float
    users: float
    detached: float
    lag: float  # the median
    lag_p99: float
    cpu: float  # share of a core


class Watcher:
    """Reads what a server has."""

    def __init__(self, server: servers.Running) -> None:
        self._pid = server.pid
        # One connection for all requests, so that they change no count.
        self._admin = http.client.HTTPConnection("127.0.0.1", server.admin, timeout=60)
        self._began = self._last = time.monotonic()
        self._cpu = processor_seconds(self._pid)

    def metrics(self) -> dict[str, float]:
        """All metrics without labels."""
        lines = self._get("/metrics").decode().splitlines()
        words = [line.split() for line in lines if not line.startswith("#") and "{" not in line]
        return {name: float(value) for name, value in words}

    def descriptors(self) -> int:
        """How many descriptors are open."""
        return len(os.listdir(f"/proc/{self._pid}/fd"))

    def sample(self, seconds: float) -> Sample:
        """Look for so long."""
        lags: list[float] = []
        end = time.monotonic() + seconds
        while not lags or time.monotonic() < end:
            began = time.perf_counter()
            self._get("/healthz")
            lags.append((time.perf_counter() - began) * 1000)
            time.sleep(min(PROBE_EVERY, seconds))
        now, cpu, lags = time.monotonic(), processor_seconds(self._pid), sorted(lags)
        found = self.metrics()
        share, self._last, self._cpu = (cpu - self._cpu) / (now - self._last), now, cpu
        return Sample(
            seconds=now - self._began,
            memory=memory(self._pid).rss / 2**20,
            descriptors=self.descriptors(),
            connections=found["aldis_connections"],
            users=found["aldis_users_online"],
            detached=found["aldis_detached_sessions"],
            lag=median(lags),
            lag_p99=lags[int(0.99 * len(lags))],
            cpu=share,
        )

    def left(self, seconds: float) -> dict[str, float]:
        """What is still in the server's tables, at the latest after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.metrics()
            left = {name: found[name] for name in TABLES if found[name]}
            if not left or time.monotonic() >= deadline:
                return left
            time.sleep(0.2)

    def close(self) -> None:
        """End the connection to the admin port."""
        self._admin.close()

    def _get(self, path: str) -> bytes:
        self._admin.request("GET", path)
        return self._admin.getresponse().read()


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """By how much a value grows over the run, by the line that fits best, and how much it may."""
    values = [float(getattr(each, name)) for each in samples]
    times = [each.seconds for each in samples]
    share, least = BOUNDS[name]
    return linear_regression(times, values).slope * (times[-1] - times[0]), max(share * mean(values), least)


def judge(samples: Sequence[Sample]) -> list[str]:
    """What is not flat, in words."""
    counted = samples[int(WARM * len(samples)) :]
    if len(counted) < 3:
        return ["too short to tell"]
    problems = []
    for name in BOUNDS:
        grown, most = growth(counted, name)
        if grown > most:
            problems.append(f"{name} grows by {grown:.1f}, more than {most:.1f}")
    return problems


def soak(
    *, connections: int, minutes: float, rate: float, seed: int, every: float, limits: dict[str, str]
) -> dict[str, Any]:
    """Run it, and return all figures."""
    cores = choose_cores()
    window = float(limits.get("ALDIS_RESUME_WINDOW", "30"))
    samples: list[Sample] = []
    with ExitStack() as stack:
        limits = {"ALDIS_NEW_NAMES_PER_ADDRESS": "0", **limits}
        server = stack.enter_context(servers.started(servers.ALDIS_SQLITE, cores.server, limits))
        watcher = Watcher(server)
        stack.callback(watcher.close)
        watcher.metrics()
        before = watcher.descriptors()
        words = map(str, (server.port, connections, rate, seed))
        visitors = stack.enter_context(helper(cores.generator, "benchmarks.soak.visitors", *words))
        visitors.tell("enter")
        visitors.tell("churn")
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end:
            samples.append(watcher.sample(min(every, max(end - time.monotonic(), 0.0))))
            print(row(samples[-1]), flush=True)
        visitors.tell("leave")
        left = watcher.left(window + EMPTY_AFTER)
        after = watcher.descriptors()
        at_rest = memory(server.pid).rss / 2**20
        seen = json.loads(visitors.finish())
    return {
        "connections": connections,
        "minutes": minutes,
        "rate": rate,
        "seed": seed,
        "samples": [asdict(each) for each in samples],
        "descriptors": [before, after],
        "memoryAfter": at_rest,
        "left": left,
        "done": seen["done"],
        "faults": seen["faults"],
        "faultCount": seen["faultCount"],
    }


HEAD: Final = (
    "| minute | memory, MiB | descriptors | connections | users | lost | lag p50, ms | p99 | server busy |\n"
    "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(sample: Sample) -> str:
    """A line of the table."""
    return (
        f"| {sample.seconds / 60:.1f} | {sample.memory:.1f} | {sample.descriptors} | {sample.connections:.0f} "
        f"| {sample.users:.0f} | {sample.detached:.0f} | {sample.lag:.1f} | {sample.lag_p99:.1f} | {sample.cpu:.0%} |"
    )


def main(words: Sequence[str] | None = None) -> int:
    """The command. Returns 1 if anything grew, was left, or went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.run", description=__doc__.partition(":")[0])
    parser.add_argument("--connections", type=int, default=5000, help="at a time (%(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="with churn (%(default)s)")
    parser.add_argument("--rate", type=float, default=25.0, help="things that happen in a second (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what happens (%(default)s)")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two samples (%(default)s)")
    parser.add_argument("--resume-window", type=float, default=30.0, help="of the server, in seconds (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args(words)
    if not Path("/proc/self/fd").exists() or not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this needs Linux")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception ends the other processes, too
    print(HEAD, flush=True)
    figures = soak(
        connections=options.connections,
        minutes=options.minutes,
        rate=options.rate,
        seed=options.seed,
        every=options.every,
        limits={"ALDIS_RESUME_WINDOW": str(options.resume_window)},
    )
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    samples = [Sample(**each) for each in figures["samples"]]
    problems = judge(samples)
    before, after = figures["descriptors"]
    if after != before:
        problems.append(f"{after} descriptors at the end, {before} at the start")
    problems += [f"{name} is {value:g} at the end" for name, value in figures["left"].items()]
    if figures["faultCount"]:
        problems.append(f"{figures['faultCount']} went wrong, such as: {'; '.join(figures['faults'][:3])}")
    print(f"\n{sum(figures['done'].values())} things happened: {figures['done']}")
    for name in BOUNDS if len(samples) > 2 else ():
        grown, most = growth(samples[int(WARM * len(samples)) :], name)
        print(f"{name}: {grown:+.2f} over the run (at most {most:.2f})")
    print(f"After all have left: {figures['memoryAfter']:.1f} MiB, {after} descriptors (at the start {before}).")
    print("Not flat: " + "; ".join(problems) if problems else "Flat.")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
