"""How well a path works: its round-trip time, and whether anything comes through at all. Pure: time is an argument.

A PING's token is the sender's clock in microseconds, and its PONG brings it back. Any frame counts as a sign of life,
so that a heavy transfer, behind which PONGs queue up, does not look like a dead path.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from statistics import median
from typing import Final

# The smoothing of RFC 6298 (section 2.3) is made for a sample every round trip. At one in a second and a half it shows
# for half a minute what the first one met: two programs busy with their start. A median of few forgets that at once,
# and is not led astray by a single late one either.
_SAMPLES: Final = 5
_MAX_OUTSTANDING: Final = 16  # PINGs without a PONG; by then the path counts as lost
_MICROSECONDS: Final = 1_000_000


class Quality:
    """The signs of life of one channel."""

    def __init__(self, now: float, silence: float) -> None:
        """`silence`: seconds without any frame after which the path counts as lost."""
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self.heard_at = now
        self._silence = silence
        self._outstanding: OrderedDict[int, float] = OrderedDict()

    def ping(self, now: float) -> int:
        """The token of the PING that is sent now."""
        token = int(now * _MICROSECONDS)
        self._outstanding[token] = now
        if len(self._outstanding) > _MAX_OUTSTANDING:
            self._outstanding.popitem(last=False)
        return token

    def heard(self, now: float) -> None:
        """A frame has arrived."""
        self.heard_at = now

    def ponged(self, token: int, now: float) -> None:
        """A PONG has arrived; a token that is not ours, or comes a second time, tells nothing."""
        sent = self._outstanding.pop(token, None)
        if sent is None:
            return
        self._samples.append(max(now - sent, 0.0))

    @property
    def round_trip_time(self) -> float | None:
        """Seconds: the median of the last measurements; None before the first."""
        return median(self._samples) if self._samples else None

    def silent(self, now: float) -> bool:
        """Whether nothing has come through for too long."""
        return now - self.heard_at >= self._silence

    def silent_in(self, now: float) -> float:
        """Seconds until `silent` will say yes if nothing comes."""
        return max(self.heard_at + self._silence - now, 0.0)
