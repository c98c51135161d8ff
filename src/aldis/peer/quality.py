"""How well a path works: its round-trip time, and whether anything comes through at all. Pure: time is an argument.

A PING's token is the sender's clock in microseconds, and its PONG brings it back. Any frame counts as a sign of life,
so that a heavy transfer, behind which PONGs queue up, does not look like a dead path.

A PING costs both engines as much as a message. So one is sent only when nothing has come for a while, as late as leaves
time to send it once more before the path counts as lost. A PING and its PONG are a sign of life for both sides, and the
two take turns: whoever has sent the last PING leaves the next one to the other.

Two things make it cheaper:

* PINGs are sent at multiples of `_PACE`, so that those of many connections leave together. Most of what a small message
  costs in libwebrtc is to wake threads; 21 PINGs at once cost each a third of one alone.
* An engine may tell of signs of life of its own (`alive`, RFC 7675). While it does, PINGs only measure. A program that
  hangs behind an engine that answers is found out by the next of these: it has `silence` seconds for a PONG.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from statistics import median
from typing import Final

# The smoothing of RFC 6298 (section 2.3) is made for a sample every round trip. At one in a second and a half it shows
# for half a minute what the first one met: two programs busy with their start. A median of few forgets that at once,
# and is not led astray by a single late one either.
_SAMPLES: Final = 5
_MAX_OUTSTANDING: Final = 16  # PINGs without a PONG; by then the path counts as lost
_MICROSECONDS: Final = 1_000_000
# Of the time after which a path counts as lost: what is left for a PING, to be sent again when it gets lost (SCTP does
# so after 0.4 to 1 s), and for its PONG. Beside these, so many round trips.
_RESERVE: Final = 0.25
_ROUND_TRIPS: Final = 3
# By so many seconds the other side goes first with a PING.
_YIELD: Final = 0.4
# So often the round-trip time is measured, also where the other side never leaves us a reason for a PING, in seconds.
_REFRESH: Final = 30.0
# PINGs are due at multiples of this share of `silence`, rounded down: 1.125 s. Three of them fit into what `_RESERVE`
# leaves, with a round-trip time of up to 0.125 s. It is also a multiple of the clock's own grid (`clock`).
_PACE: Final = 0.225


class Quality:
    """The signs of life of one channel."""

    def __init__(self, now: float, silence: float, heartbeat: float = 1.5) -> None:
        """`silence`: seconds without any frame after which the path counts as lost. `heartbeat`: seconds between PINGs
        at least."""
        self._heartbeat = heartbeat
        self._pinged_at: float | None = None
        self._yields = False  # the last PING was ours
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        # Seconds: the median of the last measurements; None before the first. It is read more often than it changes.
        self.round_trip_time: float | None = None
        self.heard_at = now
        self._alive_at: float | None = None
        self._asked_at: float | None = None  # when the first PING left after the last frame
        self._silence = silence
        self._outstanding: OrderedDict[int, float] = OrderedDict()

    def ping(self, now: float) -> int:
        """The token of the PING that is sent now."""
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
        """The engine has a sign of life of the other side that is no frame."""
        self._alive_at = now

    def pinged(self, token: int) -> None:
        """A PING has arrived: the next one is ours. Of two that cross, the one with the larger token does not count, or
        they would cross for ever."""
        ours = next(reversed(self._outstanding), None)
        self._yields = ours is not None and ours > token

    def ping_in(self, now: float) -> float:
        """Seconds until a PING is due if nothing comes."""
        if self._pinged_at is None:
            return 0.0
        quiet = self._heartbeat
        usual = self.round_trip_time
        if usual is not None:
            # Where PONGs come late, PINGs are sent early.
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
        """A PONG has arrived; a token that is not ours, or comes a second time, tells nothing."""
        sent = self._outstanding.pop(token, None)
        if sent is None:
            return
        self._samples.append(max(now - sent, 0.0))
        self.round_trip_time = median(self._samples)

    def silent(self, now: float) -> bool:
        """Whether nothing has come through for too long."""
        return now >= self._silent_at

    def silent_in(self, now: float) -> float:
        """Seconds until `silent` will say yes if nothing comes."""
        return max(self._silent_at - now, 0.0)

    @property
    def _silent_at(self) -> float:
        last = self.heard_at
        if self._alive_at is not None and self._alive_at > last:
            # An engine that answers is not yet a program that does.
            last = self._alive_at if self._asked_at is None else min(self._alive_at, max(self._asked_at, last))
        return last + self._silence
