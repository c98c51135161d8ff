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
JOB_SECONDS: Final = 400.0  # three times what the longest takes on a machine that has nothing else to do
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
    awake: bool = True  # whether the load generator keeps from sleeping


FULL: Final = Plan(
    rounds=15,
    pairs=100,
    warm=0.1,
    saturated=0.4,
    paced=0.4,
    rate=5000,
    register_rounds=3,
    connections=2000,
    settle=0.5,
)
QUICK: Final = Plan(
    rounds=5,
    pairs=100,
    warm=0.1,
    saturated=0.3,
    paced=0.3,
    rate=5000,
    register_rounds=1,
    connections=1000,
    settle=0.3,
)


def _where(running: Running) -> dict[str, object]:
    contender = running.contender
    return {
        "dialect": contender.dialect,
        "port": running.port,
        "pid": running.pid,
        "collects": contender.on_node,
    }


def _job(cores: Cores, **job: object) -> Any:
    with running_on(cores.generator):
        try:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.load.generator"],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                cwd=ROOT,
                timeout=JOB_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise JobFailed(f"the load generator took more than {JOB_SECONDS:.0f} s") from None
    if done.returncode:
        raise JobFailed(done.stderr[-2000:])
    return json.loads(done.stdout)


def relay(contenders: Sequence[Contender], plan: Plan, cores: Cores, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Relaying: every contender's results, one a round. All servers run throughout, and one at a time has work."""
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        relays = {}
        for contender in contenders:
            if contender.server not in running:
                running[contender.server] = stack.enter_context(started(contender, cores.server))
            server = running[contender.server]
            relays[contender.name] = _where(Running(contender, server.port, server.pid))
        say(f"relaying through {', '.join(contender.title for contender in contenders)}, {plan.rounds} rounds")
        results: dict[str, list[dict[str, Any]]] = _job(
            cores,
            job="relay",
            relays=relays,
            rounds=plan.rounds,
            pairs=plan.pairs,
            warm=plan.warm,
            saturated=plan.saturated,
            paced=plan.paced,
            rate=plan.rate,
            awake=plan.awake,
        )
        return results


def register(contenders: Sequence[Contender], plan: Plan, cores: Cores, say: Say) -> dict[str, list[dict[str, Any]]]:
    """Registration, and memory of those who stay; a fresh server for each."""
    results: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    for number in range(plan.register_rounds):
        for contender in contenders:
            with started(contender, cores.server) as running:
                result = _job(
                    cores,
                    job="register",
                    relay=_where(running),
                    count=plan.connections,
                    concurrency=min(CONCURRENCY, plan.connections),
                    settle=plan.settle,
                )
            results[contender.name].append(result)
            rate, size = result["first"]["per_second"], result["memory"]["pss"] / 1000
            say(
                f"registering, round {number + 1} of {plan.register_rounds}: {contender.title}: "
                f"{rate:.0f} a second, {size:.1f} KB each"
            )
    return results
