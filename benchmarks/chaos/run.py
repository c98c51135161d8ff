"""Two programs exchange numbered messages, while everything around them and they themselves die and come back:

    .venv/bin/python -m benchmarks.chaos.run --seed 1 --messages 10000

alice and bob are programs with journals (`talker.py`; with `--browser` alice is a page in Chromium), each in a network
of its own, with a server that runs a TURN server beside it (`benchmarks.recovery.lab`). A controller with a seed
strikes again and again: it kills or stops the server, the TURN server or a program, cuts paths, changes addresses, and
fills and breaks disks (`disk.py`): each user's journal and the server's data are on a disk of their own. At the end all
is there again. Then every number that was accepted must have arrived at the other program once, and in order. What a
full or broken disk could not take must have been refused with the journal's error, and must not have arrived.

It prints what it does, and for each kind of fault how often it struck and the longest stall (`judge.py`).

Needs root on Linux, and coturn; for the faults of disks also loop devices and strace. The exit code is 1 if a number is
missing, doubled or out of order, or if one was refused without a cause.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.chaos.disk import MIB, Disk
from benchmarks.chaos.judge import (
    Arrival,
    DiskFault,
    Fault,
    Sent,
    first_arrivals,
    problems_of,
    read_got,
    read_sent,
    stall,
)
from benchmarks.load.termination import until_terminated
from benchmarks.recovery.lab import SERVER, Lab

ROOT: Final = Path(__file__).parents[2]
PORT: Final = 8765
USERS: Final = ("alice", "bob")
PATIENCE: Final = 120.0  # seconds for the rest of the messages, when all is there again
STARTING: Final = 60.0  # seconds until the two talk
RESTARTING: Final = 1.0  # seconds until a program that has ended by itself is started again
BROWSER_MIB: Final = 512  # a profile needs more room than a journal


@dataclass
class World:
    """All that runs."""

    stack: AsyncExitStack
    lab: Lab
    place: Path
    messages: int
    rate: float
    browser: bool
    running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    supervisors: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    disk_faults: dict[str, list[DiskFault]] = field(default_factory=lambda: defaultdict(list))

    def runs_browser(self, who: str) -> bool:
        """Whether this user is a page."""
        return self.browser and who == USERS[0]

    def add_disks(self) -> None:
        """Give the server and each user a disk of its own. Before they start."""
        for who in ("server", *USERS):
            disk = Disk(self.place / who, BROWSER_MIB if self.runs_browser(who) else MIB)
            self.disks[who] = self.stack.enter_context(disk)

    async def start(self, who: str) -> None:
        """Start the server or a user, in its network."""
        url = f"ws://{SERVER}:{PORT}"
        if who == "server":
            words = [
                *("-m", "aldis", "serve", "--host", SERVER, "--port", str(PORT), "--admin-port", "none"),
                *("--data", str(self.place / who / "disk" / "data"), "--turn-server", "--turn-address", SERVER),
            ]
        else:
            peer = USERS[1 - USERS.index(who)]
            folder = self.place / who
            (folder / "disk").mkdir(parents=True, exist_ok=True)
            program = "browser_talker" if self.runs_browser(who) else "talker"
            words = [
                "-m",
                f"benchmarks.chaos.{program}",
                who,
                peer,
                url,
                str(folder),
                str(self.messages),
                str(self.rate),
            ]
        command = [sys.executable, *words]
        if who in self.disks:
            command = self.disks[who].around(command, ROOT)
        log = (self.place / f"{who}.log").open("ab")
        self.running[who] = await asyncio.create_subprocess_exec(
            *self.lab.inside(who, command),
            cwd=ROOT, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        log.close()
        self.supervisors[who] = asyncio.create_task(self._restart(who, self.running[who]))

    async def end(self) -> None:
        """End all that runs."""
        for who in self.running:
            self.supervisors[who].cancel()
            await self.kill(who)

    async def kill(self, who: str) -> None:
        """As `kill -9` does: a user's program with all that it has started, or the server alone."""
        process = self.running[who]
        self.killed.add(process.pid)
        if process.returncode is None:
            self.signal(who, signal.SIGCONT)
            self.signal(who, signal.SIGKILL)
        await process.wait()

    def signal(self, who: str, number: int) -> None:
        """Send a signal to a user's program with all that it has started, or to the server alone."""
        for pid in [self.running[who].pid] if who == "server" else self.lab.processes(who):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def kill_all(self, who: str) -> None:
        """As `kill`, with all that the server has started, too."""
        await self.kill(who)
        for pid in self.lab.processes(who):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def runs_again(self, who: str) -> None:
        """Return when it runs, and has for a second."""
        while True:
            process = self.running[who]
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 1)
            if process.returncode is None:
                return
            while self.running[who] is process:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def _restart(self, who: str, process: asyncio.subprocess.Process) -> None:
        """Start what ends by itself again, as systemd does: a server and a browser do where the disk is full."""
        await process.wait()
        if process.pid not in self.killed:
            await asyncio.sleep(RESTARTING)
            await self.start(who)

    @contextmanager
    def disk_fault(self, who: str, *errors: str, loses: bool = False) -> Iterator[Disk]:
        """What is done to the disk of the server or a user; the errors of the journal that go with it."""
        fault = DiskFault(frozenset(errors), time.time(), time.time() + 3600, loses)
        self.disk_faults[who].append(fault)
        yield self.disks[who]
        fault.end = time.time()

    def turn_servers(self) -> list[int]:
        """The process ids of coturn."""
        found = []
        for pid in self.lab.processes("server"):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "turnserver":
                    found.append(pid)
        return found

    def sent(self, who: str) -> Sent:
        """What a user's store was given."""
        return read_sent(self._lines(who, "sent"))

    def got(self, who: str) -> list[Arrival]:
        """What a user's application was handed."""
        return read_got(self._lines(who, "got"))

    def got_by_peer(self, who: str) -> list[Arrival]:
        """What was handed to the one to whom a user sends."""
        return self.got(USERS[1 - USERS.index(who)])

    def problems(self) -> list[str]:
        """What is wrong with the messages of both."""
        faults = self.disk_faults
        return [
            problem
            for who, other in (USERS, USERS[::-1])
            for problem in problems_of(who, self.sent(who), self.got(other), faults[who], faults[other])
        ]

    def _lines(self, who: str, name: str) -> list[str]:
        path = self.place / who / name
        return path.read_text().splitlines() if path.exists() else []


Strike = Callable[[World, random.Random], Awaitable[None]]


async def _kill(world: World, who: str, seconds: float) -> None:
    await world.kill(who)
    await asyncio.sleep(seconds)
    await world.start(who)


async def _stop(world: World, who: str, seconds: float) -> None:
    world.signal(who, signal.SIGSTOP)
    await asyncio.sleep(seconds)
    world.signal(who, signal.SIGCONT)


async def _cut(world: World, pairs: list[tuple[str, str]], seconds: float) -> None:
    cuts = [world.lab.cut(*pair) for pair in pairs]
    await asyncio.sleep(seconds)
    for cut in cuts:
        world.lab.mend(cut)


async def kill_server(world: World, chance: random.Random) -> None:
    await _kill(world, "server", chance.uniform(0, 5))


async def stop_server(world: World, chance: random.Random) -> None:
    await _stop(world, "server", chance.uniform(1, 10))


async def kill_program(world: World, chance: random.Random) -> None:
    await _kill(world, chance.choice(USERS), chance.uniform(0, 4))


async def stop_program(world: World, chance: random.Random) -> None:
    await _stop(world, chance.choice(USERS), chance.uniform(1, 12))


async def kill_both(world: World, chance: random.Random) -> None:
    await asyncio.gather(*(_kill(world, who, chance.uniform(0, 3)) for who in USERS))


async def cut_path(world: World, chance: random.Random) -> None:
    await _cut(world, [USERS], chance.uniform(1, 20))


async def cut_server(world: World, chance: random.Random) -> None:
    await _cut(world, [(chance.choice(USERS), "server")], chance.uniform(1, 15))


async def cut_all(world: World, chance: random.Random) -> None:
    who = chance.choice(USERS)
    other = USERS[1 - USERS.index(who)]
    await _cut(world, [(who, other), (who, "server")], chance.uniform(1, 15))


async def change_address(world: World, chance: random.Random) -> None:
    world.lab.change_address(chance.choice(USERS))


async def kill_turn(world: World, chance: random.Random) -> None:
    for pid in world.turn_servers():
        os.kill(pid, signal.SIGKILL)


async def cut_and_kill_server(world: World, chance: random.Random) -> None:
    await asyncio.gather(cut_path(world, chance), kill_server(world, chance))


async def _fill(world: World, who: str, seconds: float, *, kill: bool = False) -> None:
    with world.disk_fault(who, "JournalDiskFull") as disk:
        disk.fill()
        if kill:
            await asyncio.sleep(seconds / 3)
            await _kill(world, who, seconds / 3)
        await asyncio.sleep(seconds / 3 if kill else seconds)
        disk.empty()
        await world.runs_again(who)


def _small_disk(world: World, chance: random.Random) -> str:
    """A user whose disk may be full, or report errors. Not a page: Chromium may delete its database then."""
    return USERS[1] if world.browser else chance.choice(USERS)


async def _fail(world: World, who: str, seconds: float) -> None:
    # A browser does not say what fails.
    error = "JournalError" if world.runs_browser(who) else "JournalReadOnly"
    with world.disk_fault(who, error, loses=True) as disk:
        disk.fail()
        await asyncio.sleep(seconds)
        await world.kill_all(who)
        await disk.repair()
        await world.start(who)


async def fill_journal(world: World, chance: random.Random) -> None:
    await _fill(world, _small_disk(world, chance), chance.uniform(2, 15))


async def fill_both_journals(world: World, chance: random.Random) -> None:
    users = USERS[1:] if world.browser else USERS
    await asyncio.gather(*(_fill(world, who, chance.uniform(2, 10)) for who in users))


async def fill_and_kill(world: World, chance: random.Random) -> None:
    await _fill(world, _small_disk(world, chance), chance.uniform(2, 15), kill=True)


async def fail_journal(world: World, chance: random.Random) -> None:
    await _fail(world, chance.choice(USERS), chance.uniform(1, 8))


async def errors_of_journal(world: World, chance: random.Random) -> None:
    who = _small_disk(world, chance)
    files = chance.choice([("journal", "journal-wal", "journal-hands"), ("journal-wal",), ("journal-hands",)])
    when = chance.choice(["1+", "1+3", "2+2"])
    with world.disk_fault(who, "JournalError") as disk:
        async with disk.errors(world.running[who].pid, files, when):
            await asyncio.sleep(chance.uniform(1, 8))


async def errors_and_kill(world: World, chance: random.Random) -> None:
    who = _small_disk(world, chance)
    when = chance.choice(["1+", "1+3", "2+2"])
    with world.disk_fault(who, "JournalError") as disk:
        async with disk.errors(world.running[who].pid, ("journal", "journal-wal", "journal-hands"), when):
            await asyncio.sleep(chance.uniform(0.5, 4))
            await world.kill(who)
        await world.start(who)


async def fill_server(world: World, chance: random.Random) -> None:
    await _fill(world, "server", chance.uniform(2, 10))


async def fill_and_kill_server(world: World, chance: random.Random) -> None:
    await _fill(world, "server", chance.uniform(2, 10), kill=True)


async def fail_server(world: World, chance: random.Random) -> None:
    await _fail(world, "server", chance.uniform(1, 8))


DISK_STRIKES: Final[dict[str, Strike]] = {
    "a journal's disk is full": fill_journal,
    "both journals' disks are full": fill_both_journals,
    "a journal's disk is full, its program killed": fill_and_kill,
    "a journal's disk becomes read-only, its program is killed": fail_journal,
    "a journal's disk reports errors": errors_of_journal,
    "a journal's disk reports errors, its program is killed": errors_and_kill,
    "the server's disk is full": fill_server,
    "the server's disk is full, the server killed": fill_and_kill_server,
    "the server's disk becomes read-only, the server is killed": fail_server,
}
STRIKES: Final[dict[str, Strike]] = {
    "the server is killed": kill_server,
    "the server stands still": stop_server,
    "a program is killed": kill_program,
    "a program stands still": stop_program,
    "both programs are killed": kill_both,
    "the path between the two is cut": cut_path,
    "a path to the server is cut": cut_server,
    "a user is cut off": cut_all,
    "an address changes": change_address,
    "the TURN server is killed": kill_turn,
    "the path is cut, the server killed": cut_and_kill_server,
}


async def comes(is_so: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so; False when it is not in time. It is in files of other processes, so: look often."""
    last = time.monotonic() + seconds
    while not is_so() and time.monotonic() < last:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    return is_so()


def show_logs(place: Path) -> None:
    """What the programs have said last."""
    for log in sorted(place.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text()[-3000:]}")


def told(sent: Sent, got: list[Arrival]) -> str:
    """What has become of the messages of a user."""
    errors = sorted(Counter(refusal.error for refusal in sent.refused.values()).items())
    named = f" ({', '.join(f'{count} {error}' for error, count in errors)})" if errors else ""
    return (
        f"{len(sent.accepted)} accepted, {len(sent.refused)} refused{named}, "
        f"{len(sent.unknown)} tried when it was killed; {len(first_arrivals(got))} arrived, "
        f"{sum(each.again for each in got)} that may be known"
    )


SETS: Final = {"all": STRIKES | DISK_STRIKES, "world": STRIKES, "disks": DISK_STRIKES}


async def run(seed: int, messages: int, rate: float, pause: float, *, browser: bool, faults_of: str) -> int:
    """Let it happen; returns the exit code."""
    chance = random.Random(seed)
    strikes = SETS[faults_of]
    faults: list[Fault] = []
    async with AsyncExitStack() as stack:
        lab = stack.enter_context(Lab())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        world = World(stack, lab, place, messages, rate, browser)
        if faults_of != "world":
            world.add_disks()
        stack.push_async_callback(world.end)
        for who in ("server", *USERS):
            await world.start(who)
        if not await comes(lambda: all(world.got(who) for who in USERS), STARTING):
            show_logs(place)
            raise AssertionError("the two do not talk")
        began = time.monotonic()
        # Each kind once before any comes again.
        kinds: list[str] = []
        while any(len(world.sent(who).tried) < messages for who in USERS):
            await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
            if not kinds:
                kinds = list(strikes)
                chance.shuffle(kinds)
            kind = kinds.pop()
            fault = Fault(kind, time.time())
            print(f"{time.monotonic() - began:7.1f} s  {kind}", flush=True)
            await strikes[kind](world, chance)
            fault.end = time.time()
            faults.append(fault)
        print(f"{time.monotonic() - began:7.1f} s  all is there again", flush=True)
        await comes(lambda: not world.problems(), PATIENCE)
        problems = world.problems()
        longest: dict[str, list[float]] = defaultdict(list)
        for fault in faults:
            longest[fault.kind].append(max(stall(world.got(who), fault, faults) for who in USERS))
        print("\n| what happens | times | longest stall, s |\n|---|---:|---:|")
        for kind, stalls in sorted(longest.items()):
            print(f"| {kind} | {len(stalls)} | {max(stalls):.1f} |")
        for who in USERS:
            print(f"{who}: {told(world.sent(who), world.got_by_peer(who))}")
        for problem in problems:
            print(f"WRONG: {problem}")
        if problems:
            show_logs(place)
    return 1 if problems else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="the same one makes the same faults (default: 1)")
    parser.add_argument("--messages", type=int, default=10_000, help="of each user (default: 10000)")
    parser.add_argument("--rate", type=float, default=50.0, help="messages a second of each user (default: 50)")
    parser.add_argument("--pause", type=float, default=6.0, help="seconds between two faults (default: 6)")
    parser.add_argument("--faults", choices=SETS, default="all", help="those of disks, all others, or all (default)")
    parser.add_argument("--browser", action="store_true", help="let alice be a page in Chromium")
    options = parser.parse_args()
    chosen = (options.seed, options.messages, options.rate, options.pause)
    return asyncio.run(until_terminated(run(*chosen, browser=options.browser, faults_of=options.faults)))


if __name__ == "__main__":
    sys.exit(main())
