"""Two programs exchange numbered messages, while everything around them and they themselves die and come back:

    .venv/bin/python -m benchmarks.chaos.run --seed 1 --messages 10000

alice and bob are programs with journals (`talker.py`; with `--browser` alice is a page in Chromium), each in a network
of its own, with a server that runs a TURN server beside it (`benchmarks.recovery.lab`). A controller with a seed
strikes again and again: it kills or stops the server, the TURN server or a program, cuts paths, and changes addresses.
At the end all is there again. Then every number that was accepted must have arrived at the other program once, and in
order.

It prints what it does, and for each kind of fault how often it struck and the longest stall (`judge.py`).

Needs root on Linux, and coturn. The exit code is 1 if a number is missing, doubled or out of order.
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
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.chaos.judge import Arrival, Fault, Sent, first_arrivals, problems_of, read_got, read_sent, stall
from benchmarks.recovery.lab import SERVER, Lab

ROOT: Final = Path(__file__).parents[2]
PORT: Final = 8765
USERS: Final = ("alice", "bob")
PATIENCE: Final = 120.0  # seconds for the rest of the messages, when all is there again
STARTING: Final = 30.0  # seconds for a server to start


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

    async def start(self, who: str) -> None:
        """Start the server or a user, in its network."""
        url = f"ws://{SERVER}:{PORT}"
        if who == "server":
            words = [
                *("-m", "aldis", "serve", "--host", SERVER, "--port", str(PORT), "--admin-port", "none"),
                *("--data", str(self.place / "data"), "--turn-server", "--turn-address", SERVER),
            ]
        else:
            peer = USERS[1 - USERS.index(who)]
            folder = self.place / who
            folder.mkdir(exist_ok=True)
            program = "browser_talker" if self.browser and who == USERS[0] else "talker"
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
        log = (self.place / f"{who}.log").open("ab")
        self.running[who] = await asyncio.create_subprocess_exec(
            *self.lab.inside(who, [sys.executable, *words]),
            cwd=ROOT, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        log.close()

        async def end() -> None:
            await self.kill(who)

        self.stack.push_async_callback(end)

    async def kill(self, who: str) -> None:
        """As `kill -9` does: a user's program with all that it has started, or the server alone."""
        process = self.running[who]
        if process.returncode is None:
            self.signal(who, signal.SIGCONT)
            self.signal(who, signal.SIGKILL)
        await process.wait()

    def signal(self, who: str, number: int) -> None:
        """Send a signal to a user's program with all that it has started, or to the server alone."""
        for pid in [self.running[who].pid] if who == "server" else self.lab.processes(who):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

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
        return [problem for who in USERS for problem in problems_of(who, self.sent(who), self.got_by_peer(who))]

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


async def run(seed: int, messages: int, rate: float, pause: float, *, browser: bool) -> int:
    """Let it happen; returns the exit code."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    async with AsyncExitStack() as stack:
        lab = stack.enter_context(Lab())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        world = World(stack, lab, place, messages, rate, browser)
        for who in ("server", *USERS):
            await world.start(who)
        assert await comes(lambda: all(world.got(who) for who in USERS), STARTING), "the two do not talk"
        began = time.monotonic()
        # Each kind once before any comes again.
        kinds: list[str] = []
        while any(len(world.sent(who).tried) < messages for who in USERS):
            await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
            if not kinds:
                kinds = list(STRIKES)
                chance.shuffle(kinds)
            kind = kinds.pop()
            fault = Fault(kind, time.time())
            print(f"{time.monotonic() - began:7.1f} s  {kind}", flush=True)
            await STRIKES[kind](world, chance)
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
            sent, got = world.sent(who), world.got_by_peer(who)
            told_again = sum(each.again for each in got)
            print(f"{who}: {len(sent.accepted)} accepted, {len(sent.tried - sent.accepted)} tried when it was killed; "
                  f"{len(first_arrivals(got))} arrived, {told_again} that may be known")  # fmt: skip
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
    parser.add_argument("--browser", action="store_true", help="let alice be a page in Chromium")
    options = parser.parse_args()
    chosen = (options.seed, options.messages, options.rate, options.pause)
    return asyncio.run(run(*chosen, browser=options.browser))


if __name__ == "__main__":
    sys.exit(main())
