"""What one attacker can do to everybody else:

    .venv/bin/python -m benchmarks.attack.run --only pings --only watches

A real `aldis serve` with its default limits, its names on the disk, has a core of its own. Honest users
(`benchmarks.attack.honest`) and one attacker are two more processes on the other core. Quiet slices and slices under
attack alternate, and the attack is compared with the quiet around it, since other programs disturb both. Each attack
gets a fresh server.

With `--cluster` the server is one of two, joined by a Redis. One of the honest pair is at the other one, so what they
say crosses both. The other server and Redis share the second core with honest users and attacker.

An attack passes if the honest pair's 99th percentile under it is below `FACTOR` times that in quiet, and below
`LATEST`; if the server's memory grows by `GROWTH` at most; and if nothing honest was refused or lost. It does not
either when the percentile in quiet is above `DISTURBED`; `--again` measures such an attack anew. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.attack.catalogue import ATTACKS
from benchmarks.attack.priority import put_server_first, put_users_first, waited_seconds
from benchmarks.attack.scenes import scene_of
from benchmarks.attack.wire import KEEP_PRIORITIES
from benchmarks.load import servers
from benchmarks.load.helpers import helper
from benchmarks.load.process import choose_cores, memory, processor_seconds, running_on
from support.redis_server import RedisServer

# The bounds.
FACTOR: Final = 3.0
LATEST: Final = 25.0  # ms
ENTERED: Final = 1000.0  # ms, the median of newcomers until they are registered
DISTURBED: Final = 3.0  # ms, in quiet: on a machine that is so busy a slow server does not show
GROWTH: Final = 64.0  # MiB, from the quiet server to its peak
# Seconds after an attack before it counts as quiet again, and until the server has done what the attack has left it: it
# then needs less than this share of its core. At most so many seconds.
SETTLE: Final = 0.5
IDLE: Final = 0.15
LONGEST: Final = 15.0


@dataclass
class Slice:
    """Milliseconds of the messages that the honest pair sent in one slice."""

    under_attack: bool
    begin: float
    end: float
    cpu: float  # of the server, as a share of one core
    waited: float  # the same: when the server was ready to run and other programs had its core
    latencies: list[float] = field(default_factory=list)


@dataclass
class Result:
    """What came of one attack."""

    name: str
    title: str
    addresses: int  # of the attacker
    quiet_p50: float
    quiet_p99: float
    attack_p50: float
    attack_p99: float
    attack_max: float
    ratio: float
    late_p99: float  # under attack: how late the honest pair sent, which the server has no part in
    newcomer: float  # ms, the median, under attack
    newcomer_max: float
    server_cpu: float
    server_waited: float
    memory_quiet: float  # MiB
    memory_peak: float
    journeys: int
    lost: list[str]
    refused: list[str]
    failures: list[str]
    disturbed: bool
    """Whether other programs delayed the pair in quiet, and only times are to be complained of: it says nothing."""
    before: int = 0
    """How many times this attack was measured before, and was disturbed."""


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; infinite when there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("inf")


def peak(pid: int) -> float:
    """The most memory that a process has had since `forget_peak`, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def forget_peak(pid: int) -> None:
    """Let the peak be what the process has now (proc(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def let_settle(pid: int) -> None:
    """Return when a server has nothing left to do."""
    deadline = time.monotonic() + LONGEST
    share = 1.0
    while share > IDLE and time.monotonic() < deadline:
        cpu = processor_seconds(pid)
        time.sleep(SETTLE)
        share = (processor_seconds(pid) - cpu) / SETTLE


@contextmanager
def redis_on(core: int) -> Iterator[str]:
    """A Redis for the length of the block: its URL."""
    with TemporaryDirectory(prefix="aldis-bench-") as folder, running_on(core):
        redis = RedisServer(Path(folder), "--save", "")
        with redis:
            put_users_first(redis.pid)
            yield redis.url()


def measure(name: str, seconds: float, rounds: int, limits: dict[str, str], *, cluster: bool = False) -> Result:
    """Let one attack happen."""
    cores = choose_cores()
    slices: list[Slice] = []
    with ExitStack() as stack:
        if cluster:
            limits = limits | {"ALDIS_REDIS": stack.enter_context(redis_on(cores.generator))}
        scene = stack.enter_context(scene_of(ATTACKS[name], cores.generator))
        limits = limits | scene.variables
        first = servers.started(servers.ALDIS_SQLITE, cores.server, limits | scene.ports, own_session=True)
        server = stack.enter_context(first)
        put_server_first(server.pid)
        targets = [scene.target(server)]
        if cluster:
            second = servers.started(servers.ALDIS_SQLITE, cores.generator, limits, own_session=True)
            other = stack.enter_context(second)
            put_users_first(other.pid)
            targets.append(scene.target(other))
        honest = stack.enter_context(helper(cores.generator, "benchmarks.attack.honest", *map(str, targets)))
        attacker = stack.enter_context(helper(cores.generator, "benchmarks.attack.attacker", str(targets[0]), name))

        def look(under_attack: bool) -> None:
            begin, cpu, waited = time.monotonic(), processor_seconds(server.pid), waited_seconds(server.pid)
            time.sleep(seconds)
            end = time.monotonic()
            share = (processor_seconds(server.pid) - cpu) / (end - begin)
            slices.append(Slice(under_attack, begin, end, share, (waited_seconds(server.pid) - waited) / (end - begin)))

        time.sleep(SETTLE)
        forget_peak(server.pid)
        quiet_memory = memory(server.pid).rss / 2**20
        look(under_attack=False)
        for _ in range(rounds):
            attacker.tell("strike")
            look(under_attack=True)
            attacker.tell("rest")
            let_settle(server.pid)
            look(under_attack=False)
        highest = peak(server.pid)
        seen = json.loads(honest.finish())
    return evaluate(name, slices, seen, quiet_memory, highest)


def evaluate(name: str, slices: list[Slice], seen: dict[str, Any], quiet_memory: float, highest: float) -> Result:
    """Put the figures together, and compare them with the bounds."""
    for one in slices:
        one.latencies = [took * 1000 for sent, took in seen["messages"] if one.begin <= sent < one.end]
    quiet = [value for one in slices if not one.under_attack for value in one.latencies]
    attack = [value for one in slices if one.under_attack for value in one.latencies]
    entered = [
        took * 1000
        for began, took in seen["newcomers"]
        if any(one.under_attack and one.begin <= began < one.end for one in slices)
    ]
    late = [
        took * 1000
        for due, took in seen["late"]
        if any(one.under_attack and one.begin <= due < one.end for one in slices)
    ]
    before, under = percentile(quiet, 0.99), percentile(attack, 0.99)
    lost, refused = [text for _, text in seen["lost"]], [text for _, text in seen["refused"]]
    failures = []
    disturbed = before > DISTURBED
    if not under < FACTOR * before:
        failures.append(f"p99 is {under / before:.1f} times that in quiet")
    if disturbed:
        failures.append(f"p99 in quiet is {before:.1f} ms, too much to tell")
    if not under < LATEST:
        failures.append(f"p99 is {under:.1f} ms")
    if not entered or median(entered) > ENTERED:
        failures.append(f"a newcomer took {median(entered) if entered else float('inf'):.0f} ms")
    grown = highest - quiet_memory > (ATTACKS[name].growth or GROWTH)
    if grown:
        failures.append(f"memory grew by {highest - quiet_memory:.0f} MiB")
    if lost:
        failures.append(f"{len(lost)} lost")
    if refused:
        failures.append(f"{len(refused)} refused")
    return Result(
        name=name,
        addresses=ATTACKS[name].addresses,
        title=(ATTACKS[name].__doc__ or "").partition("\n")[0],
        quiet_p50=percentile(quiet, 0.5),
        quiet_p99=before,
        attack_p50=percentile(attack, 0.5),
        attack_p99=under,
        attack_max=max(attack, default=float("inf")),
        ratio=under / before,
        late_p99=percentile(late, 0.99),
        newcomer=median(entered) if entered else float("inf"),
        newcomer_max=max(entered, default=float("inf")),
        server_cpu=median(one.cpu for one in slices if one.under_attack),
        server_waited=median(one.waited for one in slices if one.under_attack),
        memory_quiet=quiet_memory,
        memory_peak=highest,
        journeys=seen["journeys"],
        lost=lost[:10],
        refused=refused[:10],
        failures=failures,
        disturbed=disturbed and not (grown or lost or refused),
    )


_COLUMNS: Final = (
    *("attack", "from", "p50 quiet", "p50", "p99 quiet", "p99", "ratio", "max"),
    *("late", "newcomer", "server busy", "waited", "memory", ""),
)
HEAD: Final = f"| {' | '.join(_COLUMNS)} |\n|---|{'---:|' * (len(_COLUMNS) - 2)}---|"


def row(result: Result) -> str:
    """A line of the table."""
    verdict = "; ".join(result.failures) or "pass"
    if result.before:
        verdict += f" (measured {result.before + 1} times)"
    grown = result.memory_peak - result.memory_quiet
    return (
        f"| {result.name} | {result.addresses} | {result.quiet_p50:.2f} | {result.attack_p50:.2f} "
        f"| {result.quiet_p99:.2f} | {result.attack_p99:.2f} | {result.ratio:.1f} "
        f"| {result.attack_max:.0f} | {result.late_p99:.2f} | {result.newcomer:.1f} "
        f"| {result.server_cpu:.0%} | {result.server_waited:.1%} "
        f"| {result.memory_peak:.0f} (+{grown:.0f}) | {verdict} |"
    )


_AGAIN: Final = "measure an attack again, N times at most, when other programs delayed the pair in quiet (%(default)s)"


def main(words: Sequence[str] | None = None) -> int:
    """The command. Returns 1 if an attack does not pass."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack.run", description=__doc__.partition(":")[0])
    parser.add_argument("--only", metavar="ATTACK", choices=ATTACKS, action="append", help="only these attacks")
    parser.add_argument("--list", action="store_true", help="list the attacks, and do nothing")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a slice (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="slices under attack (%(default)s)")
    parser.add_argument("--cluster", action="store_true", help="on one of two servers that are joined by a Redis")
    parser.add_argument("--unlimited", action="store_true", help="without rates: what fair turns alone are worth")
    parser.add_argument("--keep-priorities", action="store_true", help="for a machine that does nothing else")
    parser.add_argument("--again", type=int, default=0, metavar="N", help=_AGAIN)
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    options = parser.parse_args(words)
    if options.list:
        for name, kind in ATTACKS.items():
            print(f"{name:24} {(kind.__doc__ or '').partition(chr(10))[0]}")
        return 0
    if not Path("/proc/self/clear_refs").exists() or not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this needs Linux")
    if options.keep_priorities:
        os.environ[KEEP_PRIORITIES] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception ends the other processes, too
    print(HEAD, flush=True)
    results = []
    limits = servers.UNLIMITED if options.unlimited else {}
    for name in options.only or ATTACKS:
        for before in range(options.again + 1):
            result = measure(name, options.seconds, options.rounds, limits, cluster=options.cluster)
            result.before = before
            if not result.disturbed:
                break
        results.append(result)
        print(row(results[-1]), flush=True)
        for text in (results[-1].lost + results[-1].refused)[:3]:
            print(f"    {text}", file=sys.stderr)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(each) for each in results], indent=1))
    bad = [each.name for each in results if each.failures]
    print(f"\n{len(results) - len(bad)} of {len(results)} pass." + (f" Not: {', '.join(bad)}." if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
