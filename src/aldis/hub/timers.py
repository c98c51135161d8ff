"""Which session is due when.

Sessions stand in buckets of one second. The cost of a due session is the same with ten sessions and with a million, and
a message from a client costs nothing here: a session comes up when it would need a ping had it been silent, and goes to
a later bucket if it was not silent.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Generic, TypeVar

T = TypeVar("T")


class TimerQueue(Generic[T]):
    """Things by the second in which they are due. Entries are not removed early: the caller skips old ones."""

    def __init__(self) -> None:
        self._buckets: defaultdict[int, list[T]] = defaultdict(list)
        # The first second that has not been taken out yet; None before the first call.
        self._next: int | None = None

    def put(self, thing: T, when: float) -> None:
        """Have `thing` come up at the first `due` at or after `when`."""
        # Round up, so that nothing comes up early, and never into a second that has been taken out already.
        second = -int(-when // 1)
        if self._next is not None:
            second = max(second, self._next)
        self._buckets[second].append(thing)

    def due(self, now: float) -> list[T]:
        """Take out all that is due."""
        things: list[T] = []
        last = int(now // 1)
        if self._next is None or last - self._next > len(self._buckets):
            # On the first call, or after a long pause, there are fewer buckets than seconds: go through the buckets.
            for second in sorted(second for second in self._buckets if second <= last):
                things += self._buckets.pop(second)
        else:
            for second in range(self._next, last + 1):
                things += self._buckets.pop(second, ())
        self._next = last + 1 if self._next is None else max(self._next, last + 1)
        return things
