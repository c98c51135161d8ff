"""The quality of a path: its round-trip time, and whether anything arrives. Pure: time is an argument.

A PING's token is the sender's clock in microseconds, and its PONG returns it. Any frame is a sign of life, so a heavy
transfer, behind which PONGs queue up, does not look like a dead path.

A PING costs both engines as much as a message. So a side sends one only after a silence, as late as possible while a
second try still fits before the path counts as lost. A PING and its PONG are a sign of life for both sides, and the
sides take turns: the side that has sent the last PING leaves the next one to the other.

Two things make it cheaper:

* PINGs are sent at multiples of `_PACE`, so that those of many connections leave together. Most of the cost of a small
  message in libwebrtc is to wake threads: of 21 PINGs at once, each costs a third of a single one.
* An engine may report its own signs of life (`alive`, RFC 7675). While it does, PINGs only measure. If a program hangs
  behind an engine that still answers, the next PING detects that: the program has `silence` seconds for a PONG.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from statistics import median
from typing import Final

# The smoothing of RFC 6298 (section 2.3) is for one sample in each round trip. With one sample in a second and a half,
# it would show for half a minute what the first one measured: two programs busy with their start. A median of few
# samples forgets that at once, and a single late sample does not change it.
_SAMPLES: Final = 5
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
        self._outstanding: OrderedDict[int, float] = OrderedDict()

    def ping(self, now: float) -> int:
        """The token for a PING that is sent now."""
        self._pinged_at = now
        if self._asked_at is None:
            self._asked_at = now
        self._yields = True
        token = int(now * _MICROSECONDS)
        self._outstanding[token] = now
        if len(self._outstanding) > _MAX_OUTSTANDING:
            self._outstanding.popitem(last=False)
        return token

    def heard(self, now: float) -> None:
        """A frame has arrived."""
        self.heard_at = now
        self._asked_at = None

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
        due = max(min(due, self._pinged_at + _REFRESH), self._pinged_at + self._heartbeat)
        return max(due - now, 0.0)

    def ponged(self, token: int, now: float) -> None:
        """A PONG has arrived; ignored when its token is not ours, or comes a second time."""
        sent = self._outstanding.pop(token, None)
        if sent is None:
            return
        self._samples.append(max(now - sent, 0.0))
        self.round_trip_time = median(self._samples)

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
        return last + self._silence
