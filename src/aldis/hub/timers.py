"""Which session has to be looked at when.

Sessions stand in buckets of one second. To look at one costs the same whether there are ten sessions or a million,
and hearing from a client costs nothing here: a session is looked at when it would have to be pinged had it been
silent, and moved to a later bucket when it was not.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Generic, TypeVar

T = TypeVar("T")


class TimerQueue(Generic[T]):
    """Things by the second in which they are due. Entries are not removed early: the caller skips what is over."""

    def __init__(self) -> None:
        self._buckets: defaultdict[int, list[T]] = defaultdict(list)
        # The first second that has not been taken out yet; None before the first time.
        self._next: int | None = None

    def put(self, thing: T, when: float) -> None:
        """Have `thing` come up at the first `due` at or after `when`."""
        # Rounded up, so that nothing comes up early; never into a second that has been taken out already.
        second = -int(-when // 1)
        if self._next is not None:
            second = max(second, self._next)
        self._buckets[second].append(thing)

    def due(self, now: float) -> list[T]:
        """Take out all that is due."""
        things: list[T] = []
        last = int(now // 1)
        if self._next is None or last - self._next > len(self._buckets):
            # The first time, or after a long pause: fewer buckets than seconds, so go through the buckets.
            for second in sorted(second for second in self._buckets if second <= last):
                things += self._buckets.pop(second)
        else:
            for second in range(self._next, last + 1):
                things += self._buckets.pop(second, ())
        self._next = last + 1 if self._next is None else max(self._next, last + 1)
        return things
