"""How long a conversation stalls when the network fails and comes back:

    .venv/bin/python -m benchmarks.recovery.run

Two users in network namespaces of their own (`lab.py`) send each other a number every 100 ms, through faults. For each
fault it prints the longest stall in seconds, over both directions, and checks that every number has arrived once and in
order. Where something comes back, the stall counts from that moment. alice, who has the fault, is a Python program with
`wrtc`, one with `aiortc`, or a Chromium with the SDK; bob is a Python program.

`--beside NAME=FOLDER` does the same with another checkout of the project. Needs root on Linux, coturn and Chromium.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final, Protocol

from benchmarks.recovery.lab import SERVER, Lab

ROOT: Final = Path(__file__).parents[2]
PORT: Final = 8765
TURN_PORT: Final = 3478
SECRET: Final = "recovery"  # of a TURN server inside of the lab
STEADY: Final = 12.0  # seconds of conversation before a fault: a connection that stands, as pauses count it
LONGEST: Final = 60.0  # seconds that a case waits for the conversation to go on
SETTLED: Final = 3.0  # seconds of conversation after that
RELAY_ADDRESS: Final = SERVER
PARTIES: Final = ("wrtc", "aiortc", "browser")


class Party(Protocol):
    """A user who talks."""

    async def say(self, word: str) -> None: ...
    async def expect(self, word: str) -> list[Any]: ...
    async def arrival(self) -> None: ...
    def pause(self, signal_number: int) -> None: ...

    @property
    def got(self) -> list[tuple[int, float]]: ...


async def run_process(stack: AsyncExitStack, command: list[str], **options: Any) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(*command, **options)

    async def end() -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()

    stack.push_async_callback(end)
    return process


class Program:
    """A `talker` in a namespace."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._words: asyncio.Queue[list[Any]] = asyncio.Queue()
        self.got: list[tuple[int, float]] = []
        self._arrived = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, *rest = json.loads(line)
            if word == "got":
                self.got.append((rest[0], rest[1]))
                self._arrived.set()
            else:
                self._words.put_nowait([word, *rest])

    async def say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        await self._process.stdin.drain()

    async def expect(self, word: str) -> list[Any]:
        async with asyncio.timeout(LONGEST):
            said = await self._words.get()
        assert said[0] == word, said
        return said

    async def arrival(self) -> None:
        """Return when another number has arrived."""
        self._arrived.clear()
        await self._arrived.wait()

    def pause(self, signal_number: int) -> None:
        self._process.send_signal(signal_number)


@dataclass(slots=True)
class Scene:
    """What a case works with."""

    lab: Lab
    alice: Party
    bob: Party
    stop_server: Callable[[], Awaitable[None]]
    start_server: Callable[[], Awaitable[None]]
    back: float | None = None
    """When all was there again; None: from the fault on."""
    open_end: list[int] = field(default_factory=list)


async def address(scene: Scene) -> None:
    scene.lab.change_address("alice")


async def short_cut(scene: Scene) -> None:
    cuts = [scene.lab.cut("alice", "bob"), scene.lab.cut("alice", "server")]
    await asyncio.sleep(12)
    for cut in cuts:
        scene.lab.mend(cut)
    scene.back = time.time()


async def direct_gone(scene: Scene) -> None:
    scene.lab.cut("alice", "bob")


async def no_server(scene: Scene) -> None:
    await scene.stop_server()
    cut = scene.lab.cut("alice", "bob")
    await asyncio.sleep(30)
    scene.lab.mend(cut)
    await asyncio.sleep(5)
    await scene.start_server()
    scene.back = time.time()


async def long_outage(scene: Scene) -> None:
    await scene.stop_server()
    cut = scene.lab.cut("alice", "bob")
    await asyncio.sleep(45)
    scene.lab.mend(cut)
    await asyncio.sleep(25)
    await scene.start_server()
    scene.back = time.time()


async def sleep(scene: Scene) -> None:
    """alice's program sleeps for half a minute, and wakes with another address."""
    scene.alice.pause(signal.SIGSTOP)
    await asyncio.sleep(30)
    scene.lab.change_address("alice")
    scene.alice.pause(signal.SIGCONT)
    scene.back = time.time()


@dataclass(frozen=True, slots=True)
class Case:
    title: str
    target: float
    fault: Callable[[Scene], Awaitable[None]]
    turn: bool = False
    path: str = "direct"  # which paths the stores may use


CASES: Final = {
    "address": Case("own address changes", 3, address),
    "cut": Case("all cut for 12 s; from its return", 1, short_cut),
    "turn": Case("direct path gone, TURN there", 5, direct_gone, turn=True),
    "relay": Case("direct path gone, the relay there", 5, direct_gone, path="auto"),
    "no-server": Case("server away, path lost for 30 s; from the server's return", 1, no_server),
    "outage": Case("server away for 70 s, peers disconnected; from its return", 3, long_outage),
    "sleep": Case("asleep for 30 s, other address; from waking", 3, sleep),
}


def stall(got: Sequence[tuple[int, float]], fault: float, back: float | None) -> float:
    """The longest time without a number, after the fault or from the return on."""
    begin = fault - 1 if back is None else back
    times = [when for _, when in got if when >= begin]
    # A program that wakes finds numbers that had come before; what counts is how long it then has to wait.
    return max((after - before for before, after in pairwise([begin, *times])), default=LONGEST)


async def converse(case: Case, party: str, source: Path) -> float:
    """Play a case once; returns the stall."""
    async with AsyncExitStack() as stack:
        lab = stack.enter_context(Lab())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environ = {**os.environ, "PYTHONPATH": f"{source}:{ROOT}"}
        settings = ["--host", SERVER, "--port", str(PORT), "--admin-port", "none", "--data", str(place / "data")]
        if case.turn:
            settings += ["--turn", f"turn:{SERVER}:{TURN_PORT}", "--turn-secret", SECRET]
            await start_turn(stack, lab, place)
        running: list[asyncio.subprocess.Process] = []

        async def start_server() -> None:
            command = lab.inside("server", [sys.executable, "-m", "aldis", "serve", *settings])
            server = await run_process(stack, command, env=environ, stderr=asyncio.subprocess.PIPE)
            running.append(server)
            await read_until(server, "serving")

        async def stop_server() -> None:
            running[-1].kill()
            await running[-1].wait()

        await start_server()
        url = f"http://{SERVER}:{PORT}"
        engines = ("wrtc", "aiortc")

        async def program(name: str, peer: str, engine: str) -> Program:
            command = [sys.executable, "-m", "benchmarks.recovery.talker", name, peer, engine, url, case.path]
            pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
            return Program(await run_process(stack, lab.inside(name, command), env=environ, cwd=ROOT, **pipes))

        alice: Party
        if party in engines:
            alice = await program("alice", "bob", party)
        else:
            from benchmarks.recovery.browser import open_browser  # Playwright need not be there

            alice = await open_browser(stack, lab, url, "alice", "bob", case.path, place)
        bob = await program("bob", "alice", party if party in engines else "wrtc")
        both = (alice, bob)
        for each in both:
            await each.expect("registered")
        await alice.say("connect")
        await alice.expect("connected")
        for each in both:
            await each.say("talk")
        await asyncio.sleep(STEADY)
        scene = Scene(lab, alice, bob, stop_server, start_server)
        fault = time.time()
        await case.fault(scene)
        await flows_again(both, scene.back or fault)
        for each in both:
            await each.say("hush")
        sent = [(await each.expect("sent"))[1] for each in both]
        for each, count in zip(reversed(both), sent, strict=True):
            await complete(each, count)
        return max(stall(each.got, fault, scene.back) for each in both)


async def flows_again(both: Sequence[Party], since: float) -> None:
    """Return when numbers arrive at both again, one soon after the other."""
    until = time.time() + LONGEST
    while time.time() < until:
        await asyncio.sleep(0.5)
        now = time.time()
        fresh = all(len(party.got) > 1 and party.got[-1][1] > now - 1 and now - since > SETTLED + 6 for party in both)
        if fresh:
            await asyncio.sleep(SETTLED)
            return
    raise RuntimeError("the conversation does not go on")


async def complete(party: Party, count: int) -> None:
    """Check that every number has arrived, once and in order."""
    async with asyncio.timeout(LONGEST):
        while len(party.got) < count:
            await party.arrival()
    numbers = [number for number, _ in party.got]
    if numbers != list(range(count)):
        raise RuntimeError(f"{count} numbers were sent; what has arrived is not that: {numbers}")


async def start_turn(stack: AsyncExitStack, lab: Lab, place: Path) -> None:
    executable = shutil.which("turnserver")
    assert executable, "there is no turnserver on the path"
    command = [
        *(executable, "-n", "-v", "--listening-ip", SERVER, "--listening-port", str(TURN_PORT)),
        *("--relay-ip", RELAY_ADDRESS, "--use-auth-secret", "--static-auth-secret", SECRET, "--realm", "lab"),
        *("--no-cli", "--no-tls", "--no-dtls", "--userdb", str(place / "turndb"), "--log-file", "stdout"),
        *("--pidfile", str(place / "turnserver.pid")),
    ]
    turn_server = await run_process(
        stack,
        lab.inside("server", command),
        cwd=place,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    await read_until(turn_server, "IO method (auth thread)")


async def read_until(process: asyncio.subprocess.Process, words: str) -> None:
    """Return when the process has said these words; what it says later is read and dropped."""
    stream = process.stderr or process.stdout
    assert stream is not None
    said = b""
    while words.encode() not in said:
        line = await stream.readline()
        if not line:
            raise RuntimeError(f"a server has not started:\n{said.decode()}")
        said += line
    task = asyncio.create_task(stream.read())
    task.add_done_callback(lambda done: done.cancelled() or done.exception())


async def measure(cases: Sequence[str], parties: Sequence[str], rounds: int, sources: dict[str, Path]) -> None:
    print(f"{'':60} {'target':>7} " + " ".join(f"{name + ' ' + party:>24}" for party in parties for name in sources))
    for name in cases:
        case = CASES[name]
        pairs = [(party, folder) for party in parties for folder in sources.values()]
        # All at once: they wait, most of the time, and a round lasts for a minute or two.
        played = [
            await asyncio.gather(*(converse(case, party, folder) for party, folder in pairs)) for _ in range(rounds)
        ]
        cells = [
            f"{median(stalls):.1f} ({min(stalls):.1f} to {max(stalls):.1f})" for stalls in zip(*played, strict=True)
        ]
        print(f"{case.title:60} {case.target:7g} " + " ".join(f"{cell:>24}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery.run", description=__doc__.partition(":")[0])
    parser.add_argument("--cases", default=",".join(CASES), help="those to play (%(default)s)")
    parser.add_argument("--parties", default=",".join(PARTIES), help="what alice is (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is played (%(default)s)")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=FOLDER", help="another checkout")
    options = parser.parse_args()
    sources = {
        name: Path(folder).resolve() / "src" for name, _, folder in (one.partition("=") for one in options.beside)
    }
    sources["ours"] = ROOT / "src"
    asyncio.run(measure(options.cases.split(","), options.parties.split(","), options.rounds, sources))


if __name__ == "__main__":
    main()
