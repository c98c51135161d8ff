"""A server is killed (kill -9) and started again: how long do its clients need until all are back?

    .venv/bin/python -m benchmarks.storm.run                                # 5,000 clients, all cases: five minutes
    .venv/bin/python -m benchmarks.storm.run --clients 2000 --only tls

The clients are `SignalingClient`s with default settings, in several processes (`benchmarks.storm.clients`). The server
is `aldis serve` with its default limits and a directory on SQLite. Times count from the moment at which the server is
ready again, since only then can anybody be back. A case with a pause leaves the server away for as long, so clients
have failed several times before. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.load import servers
from benchmarks.load.helpers import helper
from benchmarks.load.process import choose_cores, processor_seconds

ROOT: Final = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.certificates import make_certificates  # noqa: E402

PROCESSES: Final = 4
# The clients are at one address and their names are new: that is no part of what is measured.
LIMITS: Final = {"ALDIS_NEW_NAMES_PER_ADDRESS": "0"}


@dataclass(frozen=True)
class Case:
    """`pause`: seconds for which the server stays away."""

    name: str
    tls: bool = False
    watches: int = 0
    pause: float = 0.0


CASES: Final = {
    case.name: case
    for case in (
        Case("plain"),
        Case("tls", tls=True),
        Case("plain-watches", watches=50),
        Case("tls-watches", tls=True, watches=50),
        Case("plain-away", pause=5.0),
        Case("tls-away", tls=True, pause=5.0),
    )
}


@dataclass(frozen=True)
class Result:
    """Seconds from the server's start until so many clients were back. `tries`: failed attempts of one client.

    `server_cpu` and `clients_cpu`: the processor seconds that it took.
    """

    case: str
    clients: int
    half: float
    p90: float
    p99: float
    last: float
    tries: float
    most_tries: int
    server_cpu: float
    clients_cpu: float
    reasons: dict[str, int]


def measure(case: Case, clients: int) -> Result:
    """Let it happen once."""
    cores = choose_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aldis-storm-")))
        port = servers.free_port()
        limits, more = dict(LIMITS), []
        if case.tls:
            files = make_certificates(folder)
            limits |= {"ALDIS_TLS_CERT": str(files.cert), "ALDIS_TLS_KEY": str(files.key)}
            more = [str(files.ca)]
        url = f"{'wss' if case.tls else 'ws'}://127.0.0.1:{port}"
        share = -(-clients // PROCESSES)
        with servers.started_in(folder, servers.ALDIS_SQLITE, port, cores.server, limits) as first:
            crowds = []
            for begin in range(0, clients, share):
                words = map(str, (url, begin, min(share, clients - begin), case.watches, *more))
                crowds.append(stack.enter_context(helper(cores.generator, "benchmarks.storm.clients", *words)))
            for crowd in crowds:
                crowd.tell("again")
            os.kill(first.pid, signal.SIGKILL)
        time.sleep(case.pause)
        with servers.started_in(folder, servers.ALDIS_SQLITE, port, cores.server, limits) as second:
            began = time.monotonic()
            before = processor_seconds(second.pid)
            for crowd in crowds:
                crowd.tell("back")
            cpu = processor_seconds(second.pid) - before
            seen = [json.loads(crowd.finish()) for crowd in crowds]
    back = sorted(moment - began for each in seen for moment in each["back"])
    tries = [count for each in seen for count in each["tries"]]
    reasons: Counter[str] = sum((Counter(each["reasons"]) for each in seen), Counter())
    return Result(
        case=case.name,
        clients=len(back),
        half=back[len(back) // 2],
        p90=back[int(0.9 * len(back))],
        p99=back[int(0.99 * len(back))],
        last=back[-1],
        tries=sum(tries) / len(tries),
        most_tries=max(tries),
        server_cpu=cpu,
        clients_cpu=sum(each["cpu"] for each in seen),
        reasons=dict(reasons.most_common(5)),
    )


HEAD: Final = (
    "| case | clients | half back, s | 90 % | 99 % | last | failures each | most | server, CPU s | clients, CPU s |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(result: Result) -> str:
    """A line of the table."""
    return (
        f"| {result.case} | {result.clients} | {result.half:.1f} | {result.p90:.1f} | {result.p99:.1f} "
        f"| {result.last:.1f} | {result.tries:.1f} | {result.most_tries} "
        f"| {result.server_cpu:.1f} | {result.clients_cpu:.1f} |"
    )


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=5000, help="(%(default)s)")
    parser.add_argument("--only", metavar="CASE", choices=CASES, action="append", help=f"of {', '.join(CASES)}")
    parser.add_argument("--watches", type=int, help="of each client in the cases with watches (50)")
    parser.add_argument("--pause", type=float, help="seconds in the cases with a pause (5)")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args(words)
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this needs Linux")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception ends the other processes, too
    print(HEAD, flush=True)
    results = []
    for name in options.only or CASES:
        case = CASES[name]
        if case.watches and options.watches is not None:
            case = replace(case, watches=options.watches)
        if case.pause and options.pause is not None:
            case = replace(case, pause=options.pause)
        results.append(measure(case, options.clients))
        print(row(results[-1]), flush=True)
        print(f"    {results[-1].reasons}", file=sys.stderr, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in results], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
