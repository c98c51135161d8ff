"""Who floods the STUN port: the networks whose datagrams are to be dropped before they are read.

Rules:

* Datagrams are read four times as often as they may be answered. With more than that, it is a flood; what is beyond is
  dropped by the kernel, whoever sent it.
* In a flood, a network with `ENOUGH` datagrams that got no answer, within `WINDOW`, is left out for `LEFT_OUT` seconds.
  So the others are read. As it would be refused anyway, it loses nothing: its answers of those seconds come afterwards.
* A sender can be forged. Who forges the address of a network could use up its answers before, too.

Pure: the caller passes the time.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from aldis.hub.limits import TokenBucket

READS: Final = 4
WINDOW: Final = 0.5  # seconds
LEFT_OUT: Final = 2.0  # seconds
# At the default rates, 4,000 datagrams are read in a window, so no more networks than `MOST` can have so many of them.
ENOUGH: Final = 16
# The kernel compares the sender of each datagram with each of them, which takes about a nanosecond.
MOST: Final = 256


class StunFlood:
    """The networks that are left out."""

    def __init__(self) -> None:
        self._reads = TokenBucket(0, 0, 0.0)
        self._unanswered: Counter[bytes] = Counter()
        self._found: list[bytes] = []
        self._window_ends = 0.0
        self._until: dict[bytes, float] = {}

    @property
    def left_out(self) -> tuple[bytes, ...]:
        """The networks that are left out, after `look`."""
        return tuple(self._until)

    def limit(self, per_second: int, burst: int, now: float) -> None:
        """So many answers may be given a second, and `burst` at once."""
        self._reads = TokenBucket(burst, READS * per_second, now)

    def may_read(self, now: float) -> bool:
        """Whether to read a datagram now; False in a flood."""
        return self._reads.spend(now)

    def unanswered(self, network: bytes, now: float) -> None:
        """A datagram of this network got no answer."""
        if now >= self._window_ends:
            self._window_ends = now + WINDOW
            self._unanswered.clear()
            self._found.clear()
        self._unanswered[network] += 1
        if self._unanswered[network] == ENOUGH:
            self._found.append(network)

    def look(self, now: float) -> bool:
        """In a flood: leave those out that were found. Returns whether the kernel has to be told: others are left out
        than before, or datagrams of one of them have come all the same."""
        before = len(self._until)
        self._until = {network: until for network, until in self._until.items() if until > now}
        changed = len(self._until) != before
        for network in self._found:
            self._unanswered.pop(network, None)
            if len(self._until) < MOST or network in self._until:
                self._until[network] = now + LEFT_OUT
                changed = True
        self._found.clear()
        return changed
