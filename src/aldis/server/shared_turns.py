"""Turns of something that only so many can do at a time, shared out so that nobody keeps the others out.

Rules: one of them has at most half of the turns that the others leave, rounded up. So whoever holds its turns for long
leaves half of them to the others, and they do the same. All that wait go in the order in which they came; among
different ones, the one goes next that was not served for longest.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager, suppress


class SharedTurns:
    """At most `most` turns at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._all = 0
        self._of: Counter[Hashable] = Counter()
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, who: Hashable) -> AsyncIterator[None]:
        """Have a turn for the length of the block."""
        if who in self._waiting or not self._may(who):
            await self._wait(who)
        else:
            self._begin(who)
        try:
            yield
        finally:
            self._end(who)

    async def _wait(self, who: Hashable) -> None:
        granted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._end(who)  # it came at the same moment
            elif who in self._waiting:
                with suppress(ValueError):
                    self._waiting[who].remove(granted)
                if not self._waiting[who]:
                    del self._waiting[who]
            raise

    def _may(self, who: Hashable) -> bool:
        mine = self._of[who]
        left = self._most - (self._all - mine)
        return self._all < self._most and mine < max((left + 1) // 2, 1)

    def _begin(self, who: Hashable) -> None:
        self._all += 1
        self._of[who] += 1

    def _end(self, who: Hashable) -> None:
        self._all -= 1
        self._of[who] -= 1
        if not self._of[who]:
            del self._of[who]
        # One that has no turn may have one, so the search passes those at most that have some.
        while self._all < self._most:
            found = next((each for each in self._waiting if self._may(each)), None)
            if found is None:
                return
            self._grant(found)

    def _grant(self, who: Hashable) -> None:
        waiting = self._waiting[who]
        granted = waiting.popleft()
        if waiting:
            self._waiting.move_to_end(who)
        else:
            del self._waiting[who]
        if not granted.done():
            self._begin(who)
            granted.set_result(None)
