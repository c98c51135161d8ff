"""Clients of a cluster exchange numbered messages, while servers and Redis die, hang, are cut off, and come back:

    tools/netns.sh .venv/bin/python -m benchmarks.cluster.chaos --clients 300  # all events, a Redis alone
    .venv/bin/python -m benchmarks.cluster.chaos --sentinel --event master     # a master is killed, a replica follows
    .venv/bin/python -m benchmarks.cluster.chaos --cluster --event master      # the same in a Redis Cluster
    .venv/bin/python -m benchmarks.cluster.chaos --workers 2 --event worker    # a worker of a server is killed

Three servers, each with a way to Redis that can be closed, behind an nginx with `least_conn`. The clients are
`SignalingClient`s with default settings, in four processes (`benchmarks.cluster.crowd`). A part of them leaves on
purpose in the middle of each event (`benchmarks.cluster.events`). After it, the servers and the watchers among the
clients have to know within `PATIENCE` seconds who is online, and each server how many are, as its operator is told; no
message that was acknowledged is lost (`benchmarks.cluster.ledger`), none has come twice, and no log has an exception.
In the end, metrics and `aldis top` have to be right. The exit code is 1 otherwise, and the first contradictions are
shown.

Needs Redis and nginx on Linux; for packets that are lost also nftables, and a network namespace (`tools/netns.sh`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from aldis.errors import RequestTimeout
from benchmarks.cluster.crowd import name_of
from benchmarks.cluster.events import EVENTS, OF_PACKETS, OF_WORKERS, Event
from benchmarks.cluster.ledger import Arrived, Judgement, LostSession, Sent, judge, longest_gap, slowest
from benchmarks.cluster.packets import can_be_lost
from benchmarks.cluster.world import World
from benchmarks.load.helpers import Helper, helper
from benchmarks.load.process import choose_cores
from benchmarks.load.termination import until_terminated

PROCESSES: Final = 4
PATIENCE: Final = 10.0
"""Seconds from the end of an event until presence is right."""
GIVE_UP: Final = 60.0  # seconds
ARRIVING: Final = 10.0  # seconds for what was acknowledged to arrive in a busy process
LEAVING: Final = 20  # one of so many clients leaves in each event
SAMPLE: Final = 40  # users about whom each server is asked
SHOWN: Final = 10
# Seconds of traffic before an event.
BEFORE: Final = 2.0


@dataclass
class Outcome:
    """What came of one event. Times in seconds, `right` and `back` from its end: presence, and the last client."""

    event: str
    what: str
    seconds: float = 0.0
    right: float | None = None
    back: float | None = None
    reconnects: int = 0
    resumed: int = 0
    messages: int = 0
    per_second: float = 0.0
    gap: float = 0.0
    slowest: float = 0.0
    again: int = 0
    excused: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass
class Seen:
    """What the clients have reported since the last event."""

    sent: list[Sent] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    lost: list[LostSession] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0
    resumed: int = 0

    def add(self, report: dict[str, Any]) -> None:
        self.sent += (Sent(*each) for each in report["sent"])
        self.arrived += (Arrived(*each) for each in report["arrived"])
        self.lost += (LostSession(*each) for each in report["lost"])
        self.faults += report["faults"]
        self.reasons.update(report["reasons"])
        self.reconnects += report["reconnects"]
        self.resumed += report["resumed"]

    def judged(self) -> Judgement:
        return judge(self.sent, self.arrived, self.lost)


class Crowds:
    """The clients of all processes."""

    def __init__(self, helpers: Sequence[Helper], clients: int, rate: float) -> None:
        self._helpers = helpers
        self.clients = clients
        self._rate = rate

    async def ask(self, line: str) -> list[str]:
        """Say the same to all, and return their answers."""
        return await asyncio.gather(*(asyncio.to_thread(each.ask, line) for each in self._helpers))

    async def talk(self) -> None:
        await self.ask(f"talk {self._rate / len(self._helpers)}")

    async def truth(self) -> str:
        """A character for each client."""
        return "".join(line.strip() for line in await self.ask("truth"))

    async def wrong(self, truth: str) -> list[str]:
        """What watchers believe that is not so."""
        found = [json.loads(line) for line in await self.ask(f"believe {truth}")]
        count = sum(each["count"] for each in found)
        some = [text for each in found for text in each["some"]]
        return [*some[:SHOWN], f"{count} wrong beliefs of watchers in all"] if count else []

    async def collect(self, seen: Seen) -> None:
        for line in await self.ask("report"):
            seen.add(json.loads(line))


async def happen(
    event: str, happens: Event, world: World, crowds: Crowds, chance: random.Random, options: argparse.Namespace
) -> Outcome:
    """Let one event happen, and judge."""
    outcome, seen = Outcome(event, ""), Seen()
    began = time.monotonic()
    await crowds.talk()
    await asyncio.sleep(BEFORE)
    struck = time.monotonic()
    strike = asyncio.ensure_future(happens(world, chance))
    await asyncio.sleep(chance.uniform(0.5, 2.0))
    leaving = chance.randrange(LEAVING)
    await crowds.ask(f"leave {LEAVING} {leaving}")
    outcome.what = await strike
    ended = time.monotonic()
    outcome.seconds = ended - struck
    await _until_right(outcome, world, crowds, chance, ended, options)
    stopped = time.monotonic()
    await crowds.ask("return")
    open_ones = sum(map(int, await crowds.ask("halt")))
    if open_ones:
        outcome.faults.append(f"{open_ones} messages have no acknowledgement")
    judgement = await _arrived(crowds, seen)
    outcome.faults += judgement.faults
    outcome.excused = judgement.excused
    outcome.again = len(judgement.absent)
    outcome.gap = longest_gap(seen.arrived, struck, stopped)
    outcome.per_second = sum(each.at < stopped for each in seen.arrived) / (stopped - began)
    if judgement.absent:
        absent = json.dumps(judgement.absent, separators=(",", ":"))
        await crowds.ask(f"say {absent}")
        left = (await _arrived(crowds, seen)).absent
        outcome.faults += [
            f"message {number} of {sender} to {to} has not come, sent again" for sender, to, number in left
        ]
    outcome.faults += await _wrong_figures(world, crowds, options)
    outcome.messages = len({each[:3] for each in seen.sent})
    others = [each for each in seen.sent if leaving not in (each.sender % LEAVING, each.to % LEAVING)]
    outcome.slowest, attempts = slowest(others, seen.arrived)
    silent = [each for each in seen.sent if each.outcome == RequestTimeout.__name__]
    for each in [*attempts, *silent[:SHOWN]]:
        when = f"{each.begun - struck:.1f} s to {each.ended - struck:.1f} s"
        print(f"    {each.sender} to {each.to}, {when}: {each.outcome}", file=sys.stderr, flush=True)
    outcome.outcomes = dict(Counter(each.outcome for each in seen.sent))
    outcome.reconnects, outcome.resumed = seen.reconnects, seen.resumed
    outcome.faults += seen.faults
    outcome.faults += [problem for node in world.nodes for problem in node.problems()]
    print(f"    {dict(seen.reasons.most_common(5))}", file=sys.stderr, flush=True)
    return outcome


async def _until_right(
    outcome: Outcome, world: World, crowds: Crowds, chance: random.Random, ended: float, options: argparse.Namespace
) -> None:
    """Wait until all know who is online, and for as long as is to be looked: what is late may make it wrong again."""
    told = False
    while True:
        looked = time.monotonic() - ended
        truth = await crowds.truth()
        known = [number for number, sign in enumerate(truth) if sign in "01"]
        some = chance.sample(known, min(SAMPLE, len(known)))
        some += [number for number in known if truth[number] == "0"][:SAMPLE]
        wrong = await crowds.wrong(truth)
        away = truth.count("?")
        online = None if away or "-" in truth else truth.count("1")
        wrong += await world.wrong_at_nodes({name_of(number): truth[number] == "1" for number in some}, online)
        if outcome.back is None and not away:
            outcome.back = looked
        if wrong:
            outcome.right = None
        elif outcome.right is None:
            outcome.right = looked
        if wrong and looked > options.patience and not told:
            told = True
            outcome.faults += [f"{looked:.1f} s after it: {text}" for text in wrong]
        if wrong or away:
            some_wrong = f", as {wrong[0]}" if wrong else ""
            print(f"    {looked:.1f} s: {len(wrong)} wrong, {away} away{some_wrong}", file=sys.stderr, flush=True)
        if looked > max(GIVE_UP, options.patience) and (wrong or away):
            outcome.faults.append(f"after {looked:.0f} s {len(wrong)} are wrong, {away} clients are not back")
            return
        if looked > options.hold and not wrong and not away:
            return
        await asyncio.sleep(0.2)


async def _wrong_figures(world: World, crowds: Crowds, options: argparse.Namespace) -> list[str]:
    """What an operator is told that is not so, now that all clients are there."""
    last = time.monotonic() + options.patience
    while True:
        wrong = await world.wrong_figures(crowds.clients)
        if not wrong or time.monotonic() > last:
            return wrong
        await asyncio.sleep(0.5)


async def _arrived(crowds: Crowds, seen: Seen) -> Judgement:
    """Judge, when all is read that will be."""
    last = time.monotonic() + ARRIVING
    await crowds.collect(seen)
    while (judgement := seen.judged()).absent and time.monotonic() < last and judgement.lost:
        await asyncio.sleep(0.5)
        await crowds.collect(seen)
    return judgement


HEAD: Final = (
    "| event | seconds | presence right, s | all back, s | reconnects | resumed | messages | a second "
    "| longest gap, s | slowest message, s | unread at a loss | faults |\n"
    "|---|" + "---:|" * 11
)


def row(one: Outcome) -> str:
    """A line of the table."""
    right, back = ("never" if each is None else f"{each:.1f}" for each in (one.right, one.back))
    return (
        f"| {one.event} | {one.seconds:.1f} | {right} | {back} | {one.reconnects} | {one.resumed} | {one.messages} "
        f"| {one.per_second:.0f} | {one.gap:.1f} | {one.slowest:.1f} | {one.excused} | {len(one.faults)} |"
    )


async def run(options: argparse.Namespace) -> list[Outcome]:
    """Let all chosen events happen."""
    chance = random.Random(options.seed)
    outcomes = []
    left_out = set() if await can_be_lost() else OF_PACKETS
    if options.workers == 1:
        left_out = left_out | OF_WORKERS
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aldis-cluster-")))
        kind = {"sentinel": options.sentinel, "cluster": options.cluster, "workers": options.workers}
        async with World(folder, **kind) as world:
            crowds = await enter(stack, world, options)
            print(HEAD, flush=True)
            for event in options.event or [each for each in EVENTS if each not in left_out]:
                outcomes.append(await happen(event, EVENTS[event], world, crowds, chance, options))
                tell(outcomes[-1], world, options.logs)
    return outcomes


async def enter(stack: ExitStack, world: World, options: argparse.Namespace) -> Crowds:
    """Start the processes of the clients, and return when all are registered."""
    cores, helpers = choose_cores(), []
    share = -(-options.clients // PROCESSES)
    for first in range(0, options.clients, share):
        words = map(str, (world.url, options.clients, first, min(share, options.clients - first)))
        entering = helper(cores.generator, "benchmarks.cluster.crowd", *words)
        helpers.append(await asyncio.to_thread(stack.enter_context, entering))
    return Crowds(helpers, options.clients, options.rate)


def tell(outcome: Outcome, world: World, logs: Path | None) -> None:
    """Print what came of an event, and keep the logs in a folder when something was wrong."""
    print(row(outcome), flush=True)
    print(f"    {outcome.what}; {outcome.outcomes}", file=sys.stderr, flush=True)
    for fault in outcome.faults[:SHOWN]:
        print(f"WRONG: {fault}", flush=True)
    if outcome.faults and logs is not None:
        _keep_logs(world, logs, outcome.event)


def _keep_logs(world: World, folder: Path, event: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for node in world.nodes:
        text = "".join(f"--- run {number}\n{run.log_text()}" for number, run in enumerate(node.runs, 1))
        (folder / f"{event}-{node.name}.log").write_text(text)
    for name, log in world.redis_logs().items():
        (folder / f"{event}-{name}.log").write_bytes(log)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all commands of this kind have."""
    parser.add_argument("--seed", type=int, default=1, help="the same one makes the same events (%(default)s)")
    parser.add_argument(
        "--hold", type=float, default=PATIENCE, help="seconds for which to look after each (%(default)s)"
    )
    parser.add_argument(
        "--patience", type=float, default=PATIENCE, help="seconds until presence has to be right (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="write what came of it into this file, too")
    parser.add_argument("--logs", type=Path, help="keep the logs of the servers in this folder when something is wrong")


def carry_out(work: Coroutine[Any, Any, list[Outcome]], file: Path | None) -> int:
    """Do it, and write the outcomes into a file; the exit code of the command. SIGTERM ends all that runs, too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for nginx and the servers, too
    outcomes = asyncio.run(until_terminated(work))
    if file is not None:
        file.write_text(json.dumps([asdict(each) for each in outcomes], indent=1))
    return 1 if any(each.faults for each in outcomes) else 0


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=2000, help="at least 20 (%(default)s)")
    parser.add_argument("--rate", type=float, default=300.0, help="messages a second of all clients (%(default)s)")
    parser.add_argument("--event", choices=EVENTS, action="append", help=f"of {', '.join(EVENTS)}; default: each once")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--sentinel", action="store_true", help="have a master, a replica and a Sentinel")
    kind.add_argument("--cluster", action="store_true", help="have a Redis Cluster: three masters, a replica of each")
    parser.add_argument("--workers", type=int, default=1, help="processes of each server (%(default)s)")
    add_options(parser)
    options = parser.parse_args(words)
    if options.workers == 1 and not OF_WORKERS.isdisjoint(options.event or ()):
        parser.error("this event needs --workers 2, or more")
    return carry_out(run(options), options.json)


if __name__ == "__main__":
    raise SystemExit(main())
