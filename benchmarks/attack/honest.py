"""The honest users, in a process of their own: `python -m benchmarks.attack.honest TARGET [OTHER]`.

A target is the text of one (`wire.Target`). With `OTHER`, another server of the same cluster, one of the pair and
the traveller's friend are there.

* A pair exchanges 100 messages a second through the server, whatever becomes of those before: so a server that stands
  still for a second shows as a hundred late messages, and not as one.
* A newcomer connects, registers, and leaves, a few times a second.
* A traveller loses its connection again and again. A friend sends to it meanwhile, and it resumes: nothing is lost.
* Others use the server's other ports, if these are open (`benchmarks.attack.bystanders`).

It says `ready`, and at the end of its standard input everything that it has seen, as JSON, with times of the
monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any, Final

import uvloop

from aldis.identity.keys import Identity
from benchmarks.attack.bystanders import bystanders
from benchmarks.attack.priority import put_users_first
from benchmarks.attack.wire import Refused, Target, Wire, text

PER_SECOND: Final = 100
# The names that attackers know.
PAIR: Final = ("honest-a", "honest-b")
TRAVELLER: Final = "honest-traveller"
FRIEND: Final = "honest-friend"
# What has not come after so many seconds counts as lost, or as refused.
LOST_AFTER: Final = 10.0
NEWCOMER_EVERY: Final = 0.3
# A confirmation after so many messages, as the project's own client has it.
CONFIRM_EVERY: Final = 28


@dataclass(slots=True)
class Seen:
    """What the honest users have seen."""

    messages: list[tuple[float, float]] = field(default_factory=list)  # when sent, and seconds until it came
    late: list[tuple[float, float]] = field(default_factory=list)  # when one was due, and how late it was sent
    newcomers: list[tuple[float, float]] = field(default_factory=list)  # when, and seconds until registered
    journeys: int = 0  # how often the traveller was back with everything
    lost: list[tuple[float, str]] = field(default_factory=list)
    refused: list[tuple[float, str]] = field(default_factory=list)  # when, and what the server said


class Pair:
    """Two users who talk."""

    def __init__(self, target: Target, other: Target, seen: Seen) -> None:
        self._targets = (target, other)
        self._seen = seen
        self._wires: list[Wire] = []
        self._under_way: dict[str, float] = {}

    async def enter(self) -> None:
        pair = zip(self._targets, PAIR, strict=True)
        self._wires = [await Wire.register(target, name, Identity.generate()) for target, name in pair]

    async def listen(self, index: int) -> None:
        """Be one of the two, as long as the server lets it."""
        wire, count = self._wires[index], 0
        try:
            while True:
                message = await wire.receive()
                match message["type"]:
                    case "ice-candidate" if message["from"] == PAIR[1 - index]:
                        sent = self._under_way.pop(message["connection"], None)
                        if sent is not None:
                            self._seen.messages.append((sent, monotonic() - sent))
                    case "error":
                        self._seen.refused.append((monotonic(), f"{PAIR[index]}: {message}"))
                if message["type"] in ("ice-candidate", "bye", "offer", "answer", "relay", "presence"):
                    count += 1
                    if count % CONFIRM_EVERY == 0:
                        await wire.send(text({"type": "received", "count": count}))
        except OSError as error:
            self._seen.refused.append((monotonic(), f"{PAIR[index]}: {error}"))

    async def talk(self) -> None:
        """Send, on and on."""
        due = monotonic()
        number = 0
        while True:
            due += 1 / PER_SECOND
            await asyncio.sleep(due - monotonic())
            self._seen.late.append((due, monotonic() - due))
            number += 1
            sender = number % 2
            message = {"type": "ice-candidate", "to": PAIR[1 - sender], "candidate": None, "connection": str(number)}
            self._under_way[str(number)] = monotonic()
            try:
                async with asyncio.timeout(LOST_AFTER):
                    await self._wires[sender].send(text(message | {"id": number}))
            except (OSError, TimeoutError):
                return  # who listens has said why

    async def settle(self) -> None:
        """Wait for what is under way, and count the rest as lost."""
        end = monotonic() + LOST_AFTER
        while self._under_way and monotonic() < end:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.05)
        self._seen.lost += [(sent, f"message {number}") for number, sent in self._under_way.items()]


async def come_and_go(target: Target, seen: Seen) -> None:
    """Be a newcomer, again and again."""
    names = [(f"honest-newcomer-{number}", Identity.generate()) for number in range(8)]
    number = 0
    while True:
        name, identity = names[number % len(names)]
        number += 1
        began = monotonic()
        try:
            async with asyncio.timeout(LOST_AFTER):
                wire = await Wire.register(target, name, identity, source="127.0.0.2")
            seen.newcomers.append((began, monotonic() - began))
            await wire.send(text({"type": "unregister"}))
            await wire.receive()
            wire.sock.close()
        except (Refused, OSError, TimeoutError) as error:
            seen.refused.append((began, f"{name}: {str(error) or 'no answer'}"))
        await asyncio.sleep(NEWCOMER_EVERY)


class Traveller:
    """A client that reads what comes, and confirms it as a client of this project does."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._identity = Identity.generate()
        self._ticket: dict[str, Any] = {}
        self._reading: asyncio.Task[None] | None = None
        self._received = 0
        self.came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        """The messages, in order. What is missing when the connection is lost does not come."""

    async def arrive(self, *, resume: bool = False) -> bool:
        """Register, and resume the session if that is wanted. Returns whether it goes on."""
        self._wire = await Wire.open(self._target, "127.0.0.3")
        fields = {"resume": {**self._ticket, "received": self._received}} if resume else {}
        session = await self._wire.enter(TRAVELLER, self._identity, **fields)
        self._ticket = {"session": session["session"], "secret": session["secret"]}
        if not session["resumed"]:
            self._received = 0
        self._confirmed = self._received
        self._reading = asyncio.create_task(self._read())
        if not session["resumed"]:
            # As a store watches whom it talks to: so the friend is one for the server, too.
            await self._wire.send(text({"type": "watch", "userIds": [FRIEND]}))
        return bool(session["resumed"])

    async def _read(self) -> None:
        with suppress(ConnectionError):
            while True:
                message = await self._wire.receive()
                self._received += message["type"] in ("bye", "offer", "answer", "ice-candidate", "relay", "presence")
                self.came.put_nowait(message)
                if self._received - self._confirmed >= CONFIRM_EVERY:
                    self._confirmed = self._received
                    await self._wire.send(text({"type": "received", "count": self._received}))

    async def leave(self) -> None:
        """Lose the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            self._wire.abort()


async def travel(target: Target, other: Target, seen: Seen) -> None:
    """Be a client that loses its connection and resumes, and the friend that sends to it meanwhile."""
    friend = await Wire.register(other, FRIEND, Identity.generate(), source="127.0.0.3")
    traveller = Traveller(target)
    await traveller.arrive()
    number = 0
    while True:
        await asyncio.sleep(0.3)
        began = monotonic()
        try:
            async with asyncio.timeout(LOST_AFTER):
                await traveller.leave()
                awaited = [f"{number + index}" for index in range(3)]
                number += 3
                for connection in awaited:
                    message = {"type": "bye", "to": TRAVELLER, "connection": connection}
                    await friend.send(text(message))
                await asyncio.sleep(0.4)
                if not await traveller.arrive(resume=True):
                    seen.lost.append((began, "the session of the traveller"))
                    continue
                while awaited:
                    message = await traveller.came.get()
                    if message.get("from") == FRIEND and message["connection"] in awaited:
                        awaited.remove(message["connection"])
                seen.journeys += 1
        except (Refused, OSError, TimeoutError) as error:
            seen.refused.append((began, f"{TRAVELLER}: {str(error) or 'no answer'}"))
            try:
                await traveller.leave()
                await traveller.arrive()
            except (Refused, OSError) as again:
                seen.refused.append((monotonic(), f"{TRAVELLER}: {again}"))
                return


async def live(target: Target, other: Target) -> Seen:
    """Be all of them until the end of standard input."""
    seen = Seen()
    pair = Pair(target, other, seen)
    await pair.enter()
    busy = [pair.listen(0), pair.listen(1), pair.talk(), come_and_go(target, seen), travel(target, other, seen)]
    busy += bystanders(target, lambda began, text: seen.refused.append((began, text)))
    tasks = [asyncio.create_task(each) for each in busy]
    await asyncio.sleep(0.2)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for task in tasks[2:]:
        task.cancel()
    await pair.settle()
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    return seen


def as_json(seen: Seen) -> dict[str, Any]:
    """For the other side of the pipe."""
    return asdict(seen)


def main() -> None:
    """The command."""
    # What is measured is the server's delay, not that of a generator that has to wait for a core.
    put_users_first()
    target, *others = map(Target.read, sys.argv[1:])
    seen = uvloop.run(live(target, others[0] if others else target))
    # Buffered, also with PYTHONUNBUFFERED: without, Python drops what a pipe does not take in one go.
    with open(sys.stdout.fileno(), "w", closefd=False) as output:
        json.dump(as_json(seen), output)


if __name__ == "__main__":
    main()
