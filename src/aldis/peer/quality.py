"""The quality of a path: its round-trip time, jitter and lost heartbeats, and whether anything arrives.

Pure: time is an argument.

A PING's token is the sender's clock in microseconds, and its PONG returns it. Any frame is a sign of life, so a heavy
transfer, behind which PONGs queue up, does not look like a dead path.

A PING costs both engines as much as a message. So a side sends one only after a silence, as late as possible while a
second try still fits before the path counts as lost. A PING and its PONG are a sign of life for both sides, and the
sides take turns: the side that has sent the last PING leaves the next one to the other.

A side that has sent something need not wait that long: an acknowledgement or a PONG comes within a round trip or so.
When nothing does, it sends a PING, and a question that goes unanswered for `SUSPICION` ends the path. So does any other
reason for doubt (`suspect`): the network has changed, the machine has slept.

A program that is busy answers late. So before a path counts as lost, the engine is asked whether anything else has come
from the other side (`answered`): SCTP acknowledges a PING without the program. If so, the path works, and the program
has the whole `silence` from our first PING on.

Two things make it cheaper:

* PINGs are sent at multiples of `_PACE`, so that those of many connections leave together. Most of the cost of a small
  message in libwebrtc is to wake threads: of 21 PINGs at once, each costs a third of a single one.
* An engine may report its own signs of life (`alive`, RFC 7675). While it does, PINGs only measure. If a program hangs
  behind an engine that still answers, the next PING detects that: the program has `silence` seconds for a PONG.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Final

# The smoothing of RFC 6298 (section 2.3) is for one sample in each round trip. With one sample in a second and a half,
# it would show for half a minute what the first one measured: two programs busy with their start. A median of few
# samples forgets that at once, and a single late sample does not change it.
_SAMPLES: Final = 5
_FEWEST: Final = 2  # samples that a difference takes
HEARTBEATS: Final = 20  # the last PINGs, of which `lost_heartbeats` counts those without a PONG in time
# Seconds. A channel loses nothing, it is late: by this, what was lost was sent again, or waits behind much else.
_LATE: Final = 1.5
_MAX_OUTSTANDING: Final = 16  # PINGs without a PONG; by then the path counts as lost
_MICROSECONDS: Final = 1_000_000
# The share of the time until a path counts as lost that is left for a PING, for its repetition when it gets lost (SCTP
# does that after 0.4 to 1 s), and for its PONG. Added to it are so many round trips.
_RESERVE: Final = 0.25
_ROUND_TRIPS: Final = 3
# Seconds for which the other side may send the next PING first.
_YIELD: Final = 0.4
# Seconds. The interval at which the round-trip time is measured, even if no PING would be due.
_REFRESH: Final = 30.0
# PINGs are due at multiples of this share of `silence`, rounded down: 1.125 s. Three of them fit into what `_RESERVE`
# leaves, with a round-trip time of up to 0.125 s. It is also a multiple of the clock's own grid (`clock`).
_PACE: Final = 0.225
# Seconds for a PONG when there is reason for doubt: SCTP repeats a lost packet within 1 s.
SUSPICION: Final = 1.5
# Seconds for a program that was late to read what has come meanwhile.
_READING: Final = 0.5
# Seconds without an answer to what was sent, after which a PING asks for one. Round trips count if they are longer.
_ANSWER: Final = 1.0
_ANSWER_ROUND_TRIPS: Final = 2
# And so many for the PONG: a slow path has more before it.
_SUSPICION_ROUND_TRIPS: Final = 4
# Bytes. With more on the way, a PONG waits behind them, and the silence alone counts.
_FEW: Final = 64 * 1024


@dataclass(slots=True)
class _Heartbeat:
    """A PING, and when its PONG came."""

    sent: float
    answered: float | None = None


class Quality:
    """Tracks the signs of life of one channel."""

    def __init__(self, now: float, silence: float, heartbeat: float = 1.5) -> None:
        """`silence`: seconds without any frame until the path counts as lost. `heartbeat`: the least number of seconds
        between PINGs."""
        self._heartbeat = heartbeat
        self._pinged_at: float | None = None
        self._yields = False  # the last PING was ours
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        # Seconds: the median of the last measurements; None before the first. Cached, because reads are more frequent.
        self.round_trip_time: float | None = None
        self.heard_at = now
        self._alive_at: float | None = None
        self._asked_at: float | None = None  # when the first PING left after the last frame
        self._silence = silence
        self._outstanding: OrderedDict[int, _Heartbeat] = OrderedDict()
        self._heartbeats: deque[_Heartbeat] = deque(maxlen=HEARTBEATS)
        self._unanswered = 0  # bytes that were sent since something was heard
        self._sent_at = now  # the first of them
        self._lost_at: float | None = None  # unless something is heard before
        self._suspected_at = now  # and the PING for that
        self._answers = False  # the engine of the other side, since `_asked_at`

    def ping(self, now: float) -> int:
        """The token for a PING that is sent now."""
        self._pinged_at = now
        if self._asked_at is None:
            self._asked_at = now
        if 0 < self._unanswered <= _FEW and now >= self._answer_due:
            self.suspect(now)
        self._yields = True
        token = int(now * _MICROSECONDS)
        self._outstanding[token] = heartbeat = _Heartbeat(now)
        self._heartbeats.append(heartbeat)
        if len(self._outstanding) > _MAX_OUTSTANDING:
            self._outstanding.popitem(last=False)
        return token

    def heard(self, now: float) -> None:
        """A frame has arrived."""
        self.heard_at = now
        self._asked_at = self._lost_at = None
        self._unanswered = 0
        self._answers = False

    def answered(self, at: float) -> None:
        """Something that is no frame came from the other side at that time, which may be long ago."""
        self._answers |= self._asked_at is not None and at > self._asked_at
        if at > self._suspected_at:
            self._lost_at = None

    def sent(self, size: int, now: float) -> bool:
        """A frame of so many bytes was sent that gets an answer. Returns whether it is the first since something was
        heard, so that a PING may be due earlier."""
        first = not self._unanswered
        if first:
            self._sent_at = now
        self._unanswered += size
        return first

    def sent_more(self, size: int) -> bool:
        """As `sent`, where something was sent before and nothing heard since. False, and nothing else, otherwise."""
        if not self._unanswered:
            return False
        self._unanswered += size
        return True

    @property
    def _answer_due(self) -> float:
        return self._sent_at + max(_ANSWER, _ANSWER_ROUND_TRIPS * (self.round_trip_time or 0.0))

    def suspect(self, now: float) -> None:
        """There is reason for doubt, and a PING is sent now: the path counts as lost unless a frame comes soon."""
        patience = max(SUSPICION, _SUSPICION_ROUND_TRIPS * (self.round_trip_time or 0.0))
        if self._lost_at is None:
            self._lost_at = now + patience
            self._suspected_at = now

    def doubt(self, now: float) -> None:
        """This program has not looked for a while: forgive the silence so far, but not much more of it."""
        lost_at = self._lost_at
        self.heard(now)
        self._lost_at = lost_at if lost_at is None else max(lost_at, now + _READING)
        self.suspect(now)

    def alive(self, now: float) -> None:
        """The engine reports a sign of life of the other side that is no frame."""
        self._alive_at = now

    def pinged(self, token: int) -> None:
        """A PING has arrived: the next one is ours. When two cross, the one with the larger token does not count, or
        they would cross for ever."""
        ours = next(reversed(self._outstanding), None)
        self._yields = ours is not None and ours > token

    def ping_in(self, now: float) -> float:
        """Seconds until a PING is due if nothing arrives."""
        if self._pinged_at is None:
            return 0.0
        quiet = self._heartbeat
        usual = self.round_trip_time
        if usual is not None:
            # When PONGs come late, send PINGs early.
            quiet = max(quiet, self._silence * (1 - _RESERVE) - _ROUND_TRIPS * usual)
        due = self.heard_at + quiet
        if self._alive_at is not None:
            due = max(due, self._alive_at + quiet)
        elif usual is not None:
            pace = _PACE * self._silence
            due = max(math.floor(due / pace) * pace, self.heard_at)
        if usual is not None and self._yields:
            due += min(_YIELD, self._heartbeat)
        due = min(due, self._pinged_at + _REFRESH)
        if 0 < self._unanswered <= _FEW:
            due = min(due, self._answer_due)
        due = max(due, self._pinged_at + self._heartbeat)
        return max(due - now, 0.0)

    def ponged(self, token: int, now: float) -> None:
        """A PONG has arrived; ignored when its token is not ours, or comes a second time."""
        heartbeat = self._outstanding.pop(token, None)
        if heartbeat is None:
            return
        heartbeat.answered = now
        self._samples.append(max(now - heartbeat.sent, 0.0))
        self.round_trip_time = median(self._samples)

    @property
    def jitter(self) -> float | None:
        """Seconds by which the last round trips differ from one to the next, on average; None before the second."""
        if len(self._samples) < _FEWEST:
            return None
        return fmean(abs(one - other) for one, other in pairwise(self._samples))

    @property
    def heartbeats(self) -> int:
        """How many PINGs were sent, of the last `HEARTBEATS`."""
        return len(self._heartbeats)

    def lost_heartbeats(self, now: float) -> int:
        """How many of them got no PONG in time."""
        return sum((now if each.answered is None else each.answered) - each.sent > _LATE for each in self._heartbeats)

    def silent(self, now: float) -> bool:
        """Whether nothing has arrived for too long."""
        return now >= self._silent_at

    def silent_in(self, now: float) -> float:
        """Seconds until `silent` becomes true if nothing arrives."""
        return max(self._silent_at - now, 0.0)

    @property
    def _silent_at(self) -> float:
        last = self.heard_at
        if self._alive_at is not None and self._alive_at > last:
            # An engine that answers does not prove that the program does.
            last = self._alive_at if self._asked_at is None else min(self._alive_at, max(self._asked_at, last))
        if self._answers and self._asked_at is not None:
            last = max(last, self._asked_at)
        at = last + self._silence
        return at if self._lost_at is None else min(at, self._lost_at)
