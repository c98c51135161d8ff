"""Turns of something that only so many can do at a time, shared out so that nobody keeps the others out.

Rules: one of them has at most half of the turns that the others leave, rounded up. So whoever holds its turns for long
leaves half of them to the others, and they do the same. All that wait go in the order in which they came; among
different ones, the one goes next that was not served for longest.

Who one is may be a path from the whole to the part, as a country, a town and a house: then all this holds at each step
of it. A town has at most half of what the others leave of its country's turns. So many houses of one town are no more
than one town.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import TypeAlias

Path: TypeAlias = tuple[Hashable, ...]


class _Queue:
    """Those that wait at one step of a path, and beyond it."""

    __slots__ = ("beyond", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.beyond: OrderedDict[Hashable, _Queue] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self.waiting or self.beyond)


class SharedTurns:
    """At most `most` turns at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        # By each beginning of a path.
        self._of: Counter[Path] = Counter()
        self._all = _Queue()

    @asynccontextmanager
    async def turn(self, who: Path) -> AsyncIterator[None]:
        """Have a turn for the length of the block."""
        queue = self._along(who)[-1]
        if (queue is not None and queue.waiting) or not self._may(who):
            await self._wait(who)
        else:
            self._begin(who)
        try:
            yield
        finally:
            self._end(who)

    async def _wait(self, who: Path) -> None:
        granted = asyncio.get_running_loop().create_future()
        queue = self._all
        for step in who:
            queue = queue.beyond.setdefault(step, _Queue())
        queue.waiting.append(granted)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._end(who)  # it came at the same moment
            else:
                self._forget(who, granted)
            raise

    def _may(self, who: Path) -> bool:
        room, held = self._most, self._of[()]
        if held >= room:
            return False
        for depth in range(1, len(who) + 1):
            mine = self._of[who[:depth]]
            room = max((room - (held - mine) + 1) // 2, 1)
            if mine >= room:
                return False
            held = mine
        return True

    def _begin(self, who: Path) -> None:
        for depth in range(len(who) + 1):
            self._of[who[:depth]] += 1

    def _end(self, who: Path) -> None:
        for depth in range(len(who) + 1):
            self._of[who[:depth]] -= 1
            if not self._of[who[:depth]]:
                del self._of[who[:depth]]
        while self._of[()] < self._most:
            found = self._next(self._all, ())
            if found is None:
                return
            self._grant(found)

    def _next(self, queue: _Queue, who: Path) -> Path | None:
        """Who may have a turn, at this step or beyond it.

        One that has no turn may have one, so the search passes those at most that have some.
        """
        if not self._may(who):
            return None
        if queue.waiting:
            return who
        return next((found for step, each in queue.beyond.items() if (found := self._next(each, (*who, step)))), None)

    def _grant(self, who: Path) -> None:
        queues = self._along(who)
        queue = queues[-1]
        assert queue is not None  # noqa: S101 - it was found
        granted = queue.waiting.popleft()
        self._tidy(who)
        for each, step in zip(queues, who, strict=False):
            if each is not None and step in each.beyond:
                each.beyond.move_to_end(step)
        if not granted.done():
            self._begin(who)
            granted.set_result(None)

    def _forget(self, who: Path, granted: asyncio.Future[None]) -> None:
        queue = self._along(who)[-1]
        if queue is not None and granted in queue.waiting:
            queue.waiting.remove(granted)
            self._tidy(who)

    def _tidy(self, who: Path) -> None:
        """Drop the queues of a path in which nobody waits."""
        queues = self._along(who)
        for depth in range(len(who), 0, -1):
            above, queue = queues[depth - 1], queues[depth]
            if above is not None and queue is not None and not queue:
                del above.beyond[who[depth - 1]]

    def _along(self, who: Path) -> list[_Queue | None]:
        """The queues of a path, that of all first; None where nobody waits."""
        found: list[_Queue | None] = [self._all]
        for step in who:
            above = found[-1]
            found.append(None if above is None else above.beyond.get(step))
        return found
