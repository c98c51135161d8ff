"""Clients of a cluster, in a process of their own: `python -m benchmarks.cluster.crowd URL ALL FIRST COUNT`.

They are `SignalingClient`s of the library with default settings. Of `ALL` clients, this process has `COUNT`, from the
number `FIRST` on. Each sends numbered messages to the partners at `PARTNERS`, watches the users at `WATCHED`, and keeps
what it got, and what it believes of their presence. It says `ready` when all are registered, and answers each line with
one:

    talk RATE       send so many messages a second, all clients in turn
    halt            send no more new ones; wait until each has been acknowledged
    say NUMBERS     send these numbers again; wait as `halt` does
    leave SHARE     each client whose number fits leaves on purpose
    return          those come back; wait until they are registered
    truth           a character for each client: 1 registered, 0 has left, - has left and no server may have heard it,
                    ? neither for `SETTLED` seconds
    believe TRUTH   what watchers believe that differs from this
    report          what was sent and got since the last report, as JSON with times of the monotonic clock
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import cycle
from time import monotonic
from typing import Any, Final

import uvloop

from aldis.client.client import SignalingClient
from aldis.client.events import (
    Closed,
    Disconnected,
    PresenceChanged,
    Registered,
    RelayReceived,
    SignalingEvent,
)
from aldis.errors import AldisError, RequestFailed
from aldis.identity.keys import Identity
from benchmarks.cluster.ledger import ACK, UNKNOWING, Arrived, LostSession, Sent

AT_ONCE: Final = 50
# Other clients, by the difference of the numbers: messages go both ways between two.
PARTNERS: Final = (1, -1, 7, -7)
WATCHED: Final = (1, 2, 3, 4, 5, 7)
# Numbers of a client for one partner that are not acknowledged: beyond, it makes no new ones.
WINDOW: Final = 2
# Before a message is sent again: twice as long each time, and up to half of it less, at random.
AGAIN_SECONDS: Final = 1.0
LONGEST_PAUSE: Final = 8.0
SETTLED: Final = 1.0
# A server answers a goodbye at once. One that was not answered in so many seconds may be lost; then the session of the
# client ends with its resume window, and within the ten seconds that are promised.
ANSWERED: Final = 1.0
UNHEARD_SECONDS: Final = 30.0 + 10.0
# A message to a client that is lost waits for the resume window, and then there are other attempts.
HALT_SECONDS: Final = 60.0
SHOWN: Final = 20  # contradictions in one answer


def name_of(number: int) -> str:
    return f"crowd-{number}"


class Person:
    """One client, and what it knows."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.number = number
        self.identity = Identity.generate()
        self.beliefs: dict[int, bool] = {}
        self.registered = asyncio.Event()
        self.since = 0.0  # when it was registered, or left
        self.left = False
        self.unheard = False
        self.session = 0
        self._broken: float | None = None
        self._crowd = crowd
        self.client = self._make()

    def _make(self) -> SignalingClient:
        client = SignalingClient(self._crowd.url, name_of(self.number))
        client.subscribe(lambda event: self._note(client, event))
        return client

    async def enter(self) -> None:
        """Register, and watch."""
        await self.client.connect()
        await self.client.register(self.identity)
        await self.client.watch(*(name_of(each) for each in self._crowd.others(self.number, WATCHED)))

    async def leave(self) -> None:
        """Close the connection in order."""
        self.left, was_there = True, self.registered.is_set()
        self._lose()
        began = monotonic()
        await self.client.close()
        self.since = monotonic()
        self.unheard = not was_there or self.since - began > ANSWERED

    async def come_back(self) -> None:
        """Be another program of the same user."""
        while True:
            self.client = self._make()
            self.beliefs.clear()
            try:
                await self.enter()
            except AldisError:
                await self.client.close()
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                self.left = False
                return

    def _lose(self) -> None:
        self.registered.clear()
        if self._broken is None:
            self._broken = monotonic()

    def _note(self, client: SignalingClient, event: SignalingEvent) -> None:
        crowd = self._crowd
        if client is not self.client:
            return
        match event:
            case RelayReceived(sender=sender, sealed=sealed):
                number, attempt = json.loads(sealed)
                source = int(sender.rpartition("-")[2])
                crowd.arrived.append(Arrived(self.number, source, number, attempt, monotonic(), self.session))
            case PresenceChanged(user_id=user_id, online=online):
                self.beliefs[int(user_id.rpartition("-")[2])] = online
            case Registered(resumed=resumed):
                self.since = monotonic()
                if not resumed:
                    self.session += 1
                    if self._broken is not None:
                        unknowing = UNHEARD_SECONDS if self.unheard else UNKNOWING
                        crowd.lost.append(LostSession(self.number, self._broken, unknowing))
                crowd.resumed += resumed
                self._broken, self.unheard = None, False
                self.registered.set()
            case Disconnected(reason=reason, code=code):
                crowd.reconnects += self.registered.is_set()
                crowd.reasons[f"{code} {reason[:60]}"] += 1
                self._lose()
            case Closed(error=error) if error is not None:
                crowd.faults.append(f"client {self.number} has given up: {error!r}")
                print(crowd.faults[-1], file=sys.stderr, flush=True)


class Crowd:
    """The clients of one process."""

    def __init__(self, url: str, everybody: int, first: int, count: int) -> None:
        self.url = url
        self._all = everybody
        self.people = [Person(self, first + number) for number in range(count)]
        self._numbers: Counter[tuple[int, int]] = Counter()
        self._attempts: Counter[tuple[int, int, int]] = Counter()
        self._open: Counter[tuple[int, int]] = Counter()
        self._turns = cycle([(person, to) for step in PARTNERS for person in self.people
                             for to in self.others(person.number, (step,))])  # fmt: skip
        self._talking: asyncio.Task[None] | None = None
        self._saying: set[asyncio.Task[None]] = set()
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.sent: list[Sent] = []
        self.arrived: list[Arrived] = []
        self.lost: list[LostSession] = []
        self.faults: list[str] = []
        self.reasons: Counter[str] = Counter()
        self.reconnects = self.resumed = 0

    def others(self, number: int, steps: tuple[int, ...]) -> list[int]:
        """The clients at these steps from one."""
        return [(number + step) % self._all for step in steps]

    async def enter(self) -> None:
        """Register all."""
        await self._each(self.people, Person.enter)

    async def leave_for_good(self) -> None:
        """End all."""
        await asyncio.gather(*(person.client.close() for person in self.people))

    async def _each(self, people: list[Person], do: Callable[[Person], Awaitable[None]]) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(person: Person) -> None:
            async with slots:
                await do(person)

        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(one(person))

    # --- messages ---------------------------------------------------------------------------------------------------

    async def _talk(self, rate: float) -> None:
        began, done = monotonic(), 0
        while True:
            due = int((monotonic() - began) * rate)
            for _ in range(due - done):
                person, to = next(self._turns)
                if person.registered.is_set() and self._open[person.number, to] < WINDOW:
                    self._numbers[person.number, to] += 1
                    self._say(person, to, self._numbers[person.number, to])
            done = due
            await asyncio.sleep(0.01)

    def _say(self, person: Person, to: int, number: int) -> None:
        self._open[person.number, to] += 1
        task = asyncio.create_task(self._until_acknowledged(person, to, number))
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    async def _until_acknowledged(self, person: Person, to: int, number: int) -> None:
        while True:
            self._attempts[person.number, to, number] += 1
            attempt = self._attempts[person.number, to, number]
            begun, session, pause = monotonic(), person.session, _pause(attempt)
            try:
                await person.client.relay(name_of(to), json.dumps([number, attempt]).encode())
            except RequestFailed as error:
                outcome = error.code
                pause = max(pause, error.retry_after or 0.0)
            except AldisError as error:
                outcome = type(error).__name__
            else:
                outcome = ACK
            self.sent.append(Sent(person.number, to, number, attempt, begun, monotonic(), outcome, session))
            if outcome == ACK:
                self._open[person.number, to] -= 1
                return
            await asyncio.sleep(pause)
            await person.registered.wait()

    async def _settle(self) -> str:
        if self._saying:
            await asyncio.wait(set(self._saying), timeout=HALT_SECONDS)
        return str(len(self._saying))

    # --- presence ---------------------------------------------------------------------------------------------------

    def truth(self) -> str:
        """See the module."""
        now = monotonic()

        def sign(person: Person) -> str:
            if person.left and person.unheard and now < person.since + UNHEARD_SECONDS:
                return "-"
            if person.since > now - SETTLED or person.left == person.registered.is_set():
                return "?"
            return "0" if person.left else "1"

        return "".join(map(sign, self.people))

    def believed(self, truth: str) -> list[str]:
        """What watchers believe that is wrong."""
        last = monotonic() - SETTLED
        wrong = []
        for person in self.people:
            if not person.registered.is_set() or person.since > last:
                continue
            for other in self.others(person.number, WATCHED):
                believed = person.beliefs.get(other)
                if truth[other] in "01" and believed is not (truth[other] == "1"):
                    wrong.append(f"{person.number} believes that {other} is {_word(believed)}, and it is not")
        return wrong

    # --- lines ------------------------------------------------------------------------------------------------------

    async def obey(self, words: list[str]) -> str:
        """Do what a line says, and answer it."""
        match words:
            case ["talk", rate]:
                self._talking = asyncio.create_task(self._talk(float(rate)))
            case ["halt"]:
                if self._talking is not None:
                    self._talking.cancel()
                    await asyncio.wait([self._talking])
                return await self._settle()
            case ["say", numbers]:
                people = {person.number: person for person in self.people}
                for sender, to, number in json.loads(numbers):
                    if sender in people:
                        self._say(people[sender], to, number)
                return await self._settle()
            case ["leave", every, which]:
                leaving = [each for each in self.people if each.number % int(every) == int(which)]
                await self._each(leaving, Person.leave)
            case ["return"]:
                await self._each([each for each in self.people if each.left], Person.come_back)
            case ["truth"]:
                return self.truth()
            case ["believe", truth]:
                wrong = self.believed(truth)
                return json.dumps({"count": len(wrong), "some": wrong[:SHOWN]})
            case ["report"]:
                answer = json.dumps(self._report())
                self.forget()
                return answer
            case _:
                raise SystemExit(f"what is {words}?")
        return "done"

    def _report(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "arrived": self.arrived,
            "lost": self.lost,
            "faults": self.faults,
            "reasons": self.reasons,
            "reconnects": self.reconnects,
            "resumed": self.resumed,
        }


def _pause(attempt: int) -> float:
    return min(LONGEST_PAUSE, AGAIN_SECONDS * 2.0 ** min(attempt - 1, 10)) * random.uniform(0.5, 1)


def _word(believed: bool | None) -> str:
    return "unknown" if believed is None else "online" if believed else "offline"


async def run(url: str, everybody: int, first: int, count: int) -> None:
    """Do as the lines say."""
    loop = asyncio.get_running_loop()
    crowd = Crowd(url, everybody, first, count)
    await crowd.enter()
    crowd.forget()
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(await crowd.obey(line.split()), flush=True)
    await crowd.leave_for_good()


def main() -> None:
    """The command."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    url, *numbers = sys.argv[1:]
    uvloop.run(run(url, *map(int, numbers)))


if __name__ == "__main__":
    main()
