"""The rounds: which contender does what when, and the raw numbers of each.

Contenders take turns within a round (A B C, A B C, ...), so that what the machine does meanwhile hits them all. A ratio
is taken within a round, and the median of the rounds is what is reported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load.process import Cores, running_on
from benchmarks.load.servers import Contender, Running, started

ROOT: Final = Path(__file__).parents[2]
JOB_SECONDS: Final = 120.0
# How many clients register at a time: enough to keep a server busy, few enough to fit any backlog of listen(2).
CONCURRENCY: Final = 32

Say = Callable[[str], None]


class JobFailed(Exception):
    """The load generator gave up; its words are the text."""


@dataclass(frozen=True)
class Plan:
    """How much is measured. Times in seconds."""

    rounds: int
    pairs: int
    warm: float
    saturated: float
    paced: float
    rate: int  # messages a second while paced
    register_rounds: int
    connections: int
    settle: float


FULL: Final = Plan(
    rounds=5, pairs=100, warm=0.5, saturated=2.0, paced=2.0, rate=5000, register_rounds=3, connections=2000, settle=0.5
)
QUICK: Final = Plan(
    rounds=2, pairs=100, warm=0.3, saturated=1.0, paced=1.0, rate=5000, register_rounds=1, connections=1000, settle=0.3
)


def _job(running: Running, cores: Cores, **job: object) -> dict[str, Any]:
    contender = running.contender
    order = {
        "dialect": contender.dialect,
        "port": running.port,
        "pid": running.pid,
        "collects": contender.on_node,
        **job,
    }
    with running_on(cores.generator):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.load.generator"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=JOB_SECONDS,
            check=False,
        )
    if done.returncode:
        raise JobFailed(f"{contender.title}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def relay(contenders: Sequence[Contender], plan: Plan, cores: Cores, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Relaying: every contender's results, one a round. The servers run throughout, so that all are warm."""
    results: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    with ExitStack() as stack:
        running = {}
        for contender in contenders:
            if contender.server not in running:
                running[contender.server] = stack.enter_context(started(contender, cores.server))
        for number in range(plan.rounds):
            # Every other round backwards: whoever comes after a busy one does not always come after the same.
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                server = running[contender.server]
                result = _job(
                    Running(contender, server.port, server.pid),
                    cores,
                    job="relay",
                    pairs=plan.pairs,
                    warm=plan.warm,
                    saturated=plan.saturated,
                    paced=plan.paced,
                    rate=plan.rate,
                )
                results[contender.name].append(result)
                cpu = result["saturated"]["cpu_us"]
                say(f"round {number + 1} of {plan.rounds}: {contender.title}: {cpu:.1f} us of processor time a message")
    return results


def register(contenders: Sequence[Contender], plan: Plan, cores: Cores, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Registration, and memory of those who stay; a fresh server for each."""
    results: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    for number in range(plan.register_rounds):
        for contender in contenders:
            with started(contender, cores.server) as running:
                result = _job(
                    running,
                    cores,
                    job="register",
                    count=plan.connections,
                    concurrency=min(CONCURRENCY, plan.connections),
                    settle=plan.settle,
                )
            results[contender.name].append(result)
            rate, size = result["first"]["per_second"], result["memory"]["pss"] / 1000
            say(
                f"round {number + 1} of {plan.register_rounds}: {contender.title}: "
                f"{rate:.0f} registrations a second, {size:.1f} KB each"
            )
    return results
