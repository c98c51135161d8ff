"""What the two users of a chaos run have written down, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

# Seconds behind a fault that belong to it.
AFTER: Final = 15.0


@dataclass
class Fault:
    """One strike, with its times."""

    kind: str
    begin: float
    end: float = 0.0


class Sent(NamedTuple):
    """The numbers that a user has tried to send, and those that its store has accepted. Nobody knows of the others."""

    tried: set[int]
    accepted: set[int]


class Arrival(NamedTuple):
    """A message that was handed to the application. `again`: the store has said that it may be known already."""

    number: int
    when: float
    id: str
    again: bool


def read_sent(lines: Iterable[str]) -> Sent:
    """Read `FOLDER/sent` (`talker.py`)."""
    words = [line.split() for line in lines]
    numbers = {word: {int(number) for kind, number in words if kind == word} for word in ("try", "ok")}
    return Sent(numbers["try"], numbers["ok"])


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


def problems_of(sender: str, sent: Sent, got: Sequence[Arrival]) -> list[str]:
    """What is wrong with the messages of a user, of which the other one has got these."""
    numbers = [each.number for each in first_arrivals(got)]
    problems = []
    if missing := sorted(sent.accepted - set(numbers)):
        problems.append(f"{len(missing)} of {sender} are missing: {missing[:10]}")
    if len(numbers) != len(set(numbers)):
        problems.append(f"{len(numbers) - len(set(numbers))} of {sender} have come twice")
    if unsaid := sorted(_unsaid(got)):
        problems.append(f"{len(unsaid)} of {sender} have come again without a word of it: {unsaid[:10]}")
    if numbers != sorted(numbers):
        first = next(place for place, (one, other) in enumerate(pairwise(numbers)) if one > other)
        problems.append(f"out of order at {sender}'s number {numbers[first]}: {numbers[first : first + 3]}")
    if strange := set(numbers) - sent.tried:
        problems.append(f"{sorted(strange)[:10]} were never sent by {sender}")
    return problems


def _unsaid(got: Sequence[Arrival]) -> Iterable[int]:
    """The numbers that came again, and their store did not say so."""
    known = set()
    for each in got:
        if each.id in known and not each.again:
            yield each.number
        known.add(each.id)
