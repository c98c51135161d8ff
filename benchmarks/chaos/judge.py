"""What the two users of a chaos run have written down, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

# Seconds behind a fault that belong to it.
AFTER: Final = 15.0
# Seconds before a disk fails of which it may have lost all that was not synced: the kernel's 30, and 5 of ext4.
UNSYNCED: Final = 40.0


@dataclass
class Fault:
    """One strike, with its times."""

    kind: str
    begin: float
    end: float = 0.0


@dataclass
class DiskFault:
    """What has happened to the disk of a user. `errors`: those of the journal with which its store may refuse a message
    meanwhile. `loses`: what was not synced before is lost."""

    errors: frozenset[str]
    begin: float
    end: float = 0.0
    loses: bool = False

    def has(self, when: float) -> bool:
        """Whether a message may be refused at this time."""
        return self.begin <= when <= self.end + AFTER


class Refusal(NamedTuple):
    """A message that the store has not accepted, with the name of its journal's error."""

    when: float
    error: str


class Sent(NamedTuple):
    """The numbers that a user has tried to send, those that its store has accepted, and those that it has refused.
    Nobody knows of the others."""

    tried: set[int]
    accepted: set[int]
    refused: dict[int, Refusal]

    @property
    def unknown(self) -> set[int]:
        """Those that were tried when the program was killed."""
        return self.tried - self.accepted - self.refused.keys()


class Arrival(NamedTuple):
    """A message that was handed to the application. `again`: the store has said that it may be known already."""

    number: int
    when: float
    id: str
    again: bool


def read_sent(lines: Iterable[str]) -> Sent:
    """Read `FOLDER/sent` (`talker.py`)."""
    sent = Sent(set(), set(), {})
    for kind, number, *more in (line.split() for line in lines):
        match kind, more:
            case "try", []:
                sent.tried.add(int(number))
            case "ok", []:
                sent.accepted.add(int(number))
            case "no", [when, error]:
                sent.refused[int(number)] = Refusal(float(when), error)
            case _:
                raise ValueError(f"{kind} {number} {more}")
    return sent


def read_got(lines: Iterable[str]) -> list[Arrival]:
    """Read `FOLDER/got`."""
    words = [line.split() for line in lines]
    return [Arrival(int(number), float(when), ident, kind == "again") for number, when, ident, kind in words]


def first_arrivals(got: Sequence[Arrival]) -> list[Arrival]:
    """Each message when it came first: an application knows by its id one that comes again."""
    return list({each.id: each for each in reversed(got)}.values())[::-1]


def stall(got: Sequence[Arrival], fault: Fault, faults: Sequence[Fault]) -> float:
    """The longest time between two messages that arrive, in seconds, less the time of the faults in it.

    It counts from the fault to `AFTER` seconds behind its end, and on until the next message after that: so a stall is
    never cut off.
    """
    times = sorted(each.when for each in first_arrivals(got))
    last = max((when for when in times if when <= fault.begin), default=fault.begin)
    during = [when for when in times if fault.begin < when <= fault.end + AFTER]
    next_one = [when for when in times if when > fault.end + AFTER][:1]
    gaps = [
        after - before - sum(max(min(after, each.end) - max(before, each.begin), 0.0) for each in faults)
        for before, after in pairwise([last, *during, *next_one])
    ]
    return max(gaps, default=0.0)


def problems_of(
    sender: str,
    sent: Sent,
    got: Sequence[Arrival],
    sender_disk: Sequence[DiskFault] = (),
    recipient_disk: Sequence[DiskFault] = (),
) -> list[str]:
    """What is wrong with the messages of a user, of which the other one has got these."""
    numbers = [each.number for each in first_arrivals(got)]
    problems = []
    if missing := sorted(sent.accepted - set(numbers)):
        problems.append(f"{len(missing)} of {sender} are missing: {missing[:10]}")
    if len(numbers) != len(set(numbers)):
        problems.append(f"{len(numbers) - len(set(numbers))} of {sender} have come twice")
    if unsaid := sorted(_unsaid(got, recipient_disk)):
        problems.append(f"{len(unsaid)} of {sender} have come again without a word of it: {unsaid[:10]}")
    if numbers != sorted(numbers):
        first = next(place for place, (one, other) in enumerate(pairwise(numbers)) if one > other)
        problems.append(f"out of order at {sender}'s number {numbers[first]}: {numbers[first : first + 3]}")
    if strange := set(numbers) - sent.tried:
        problems.append(f"{sorted(strange)[:10]} were never sent by {sender}")
    if delivered := sorted(sent.refused.keys() & set(numbers)):
        problems.append(f"{len(delivered)} of {sender} were refused, and have come: {delivered[:10]}")
    if strange_refusals := sorted(_without_cause(sent, sender_disk)):
        problems.append(f"{len(strange_refusals)} of {sender} were refused without a cause: {strange_refusals[:10]}")
    return problems


def _unsaid(got: Sequence[Arrival], disk: Sequence[DiskFault]) -> Iterable[int]:
    """The numbers that came again, and their store did not say so, though its disk has not lost what it knew."""
    known: dict[str, float] = {}
    for each in got:
        before = known.setdefault(each.id, each.when)
        lost = any(fault.loses and fault.begin - UNSYNCED <= before <= fault.end <= each.when for fault in disk)
        if before is not each.when and not each.again and not lost:
            yield each.number


def _without_cause(sent: Sent, disk: Sequence[DiskFault]) -> Iterable[tuple[int, str]]:
    """The numbers that were refused while the disk had no fault, or with another error than that of the fault."""
    for number, (when, error) in sent.refused.items():
        if not any(fault.has(when) and error in fault.errors for fault in disk):
            yield number, error
