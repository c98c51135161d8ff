"""What clients sent and got, and whether a server kept what `docs/protocol.md` promises of it.

Each message has a number, which its sender gives it for its recipient. A message that was not acknowledged is sent
again with the same number, as another attempt: so every single transmission has a name of its own.

Rules:

* A transmission arrives once at most.
* One that was acknowledged has been handed to the recipient's connection. So it arrives, unless the recipient lost that
  connection before it read the message, and could not resume its session. Such a loss is counted, and is no fault.
* Transmissions from one session to one of another client arrive in the order in which they were sent.
* A store sends again what the other store has not got. Then every number arrives, and counts once (`Judgement.absent`).

Pure: no clock, no socket. Times are seconds of one clock for all clients.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

# Seconds before a client saw its connection break, for which what was handed to it may be unread; and behind that, in
# which a server may not know it yet, if it runs.
UNREAD: Final = 5.0
UNKNOWING: Final = 2.0
ACK: Final = "ack"


class Sent(NamedTuple):
    """A transmission. `outcome`: `ACK`, or the error's code or name. `session` counts the sessions of the sender."""

    sender: int
    to: int
    number: int
    attempt: int
    begun: float
    ended: float
    outcome: str
    session: int


class Arrived(NamedTuple):
    """What a client got. `session` counts the sessions of the recipient."""

    to: int
    sender: int
    number: int
    attempt: int
    at: float
    session: int


class LostSession(NamedTuple):
    """A session that was not resumed, and when its client saw that the connection was broken. `unknowing`: the seconds
    behind that in which a server may believe that the client comes back."""

    who: int
    broken: float
    unknowing: float = UNKNOWING


@dataclass
class Judgement:
    """What came of all transmissions. `absent`: numbers that a store would have to send again."""

    faults: list[str] = field(default_factory=list)
    absent: list[tuple[int, int, int]] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    excused: int = 0


def judge(sent: Iterable[Sent], arrived: Sequence[Arrived], lost: Iterable[LostSession]) -> Judgement:
    """See the module."""
    result = Judgement()
    counts = Counter((each.sender, each.to, each.number, each.attempt) for each in arrived)
    here = {(each.sender, each.to, each.number) for each in arrived}
    gaps: dict[int, list[LostSession]] = defaultdict(list)
    for each_lost in lost:
        gaps[each_lost.who].append(each_lost)
    begun: dict[tuple[int, int, int, int], tuple[float, int]] = {}
    absent: set[tuple[int, int, int]] = set()
    for each in sent:
        key = (each.sender, each.to, each.number, each.attempt)
        begun[key] = each.begun, each.session
        if each.outcome != ACK or counts[key]:
            continue
        if key[:3] not in here:
            absent.add(key[:3])
        if any(each.begun <= gap.broken + gap.unknowing and each.ended >= gap.broken - UNREAD for gap in gaps[each.to]):
            result.excused += 1
        else:
            result.lost += 1
            result.faults.append(f"{_named(key)} was acknowledged after {each.ended - each.begun:.2f} s, and is lost")
    for key, count in counts.items():
        if count > 1:
            result.doubled += 1
            result.faults.append(f"{_named(key)} has come {count} times")
    newest: dict[tuple[int, int, int, int], float] = {}
    for one in sorted(arrived, key=lambda one: one.at):
        key = (one.sender, one.to, one.number, one.attempt)
        if key not in begun:
            result.faults.append(f"{_named(key)} was never sent")
            continue
        when, session = begun[key]
        stream = (one.sender, session, one.to, one.session)
        if when < newest.get(stream, when):
            result.disordered += 1
            result.faults.append(f"{_named(key)} has come behind one that was sent later")
        newest[stream] = max(when, newest.get(stream, when))
    result.absent = sorted(absent)
    return result


def longest_gap(arrived: Iterable[Arrived], begin: float, end: float) -> float:
    """The longest time in which nothing arrived anywhere."""
    times = [begin, *sorted(each.at for each in arrived if begin < each.at < end), end]
    return max(after - before for before, after in pairwise(times))


def slowest(sent: Iterable[Sent], arrived: Iterable[Arrived]) -> tuple[float, list[Sent]]:
    """The longest time from the first transmission of a number until it came, and all transmissions of that number."""
    attempts: dict[tuple[int, int, int], list[Sent]] = defaultdict(list)
    for each in sent:
        attempts[each[:3]].append(each)
    came: dict[tuple[int, int, int], float] = {}
    for one in arrived:
        key = (one.sender, one.to, one.number)
        came[key] = min(one.at, came.get(key, one.at))
    times = {key: at - attempts[key][0].begun for key, at in came.items() if key in attempts}
    if not times:
        return 0.0, []
    key = max(times, key=lambda key: times[key])
    return times[key], attempts[key]


def _named(key: tuple[int, int, int, int]) -> str:
    sender, to, number, attempt = key
    return f"message {number} of {sender} to {to} (attempt {attempt})"
