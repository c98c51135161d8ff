"""Who goes when the memory is used up: chosen by looking at some of all sessions in each later turn.

Sessions end until `GOAL` of the budget is in use. First go those that keep more than their share, then the others;
among them those that were active for the shortest time, from their connection to their last message: the newest and
the idlest.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from typing import Final, TypeAlias

from aldis.hub.lifecycle import Lifecycle
from aldis.hub.memory import MemoryBudget
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.stages import Stage
from aldis.hub.stats import HubStats
from aldis.hub.use import FRAME_BYTES
from aldis.hub.watches import WATCH_BYTES
from aldis.protocol.codes import CloseCode

# How far sessions end at a time, so that it is not one for each new one.
GOAL: Final = 0.95
# How many sessions one turn looks at. Each takes some 4 us.
SEEN_AT_ONCE: Final = 128

Candidate: TypeAlias = tuple[bool, float, float, int, int, Session]
"""A session that may have to end, with its size; the smallest is the one that may stay first."""


class Surplus:
    """The search for the sessions that have to end."""

    def __init__(self, settings: HubSettings, memory: MemoryBudget, *, lifecycle: Lifecycle, stats: HubStats) -> None:
        self._settings = settings
        self._memory = memory
        self._lifecycle = lifecycle
        self._stats = stats
        self._unseen: deque[Session] = deque()
        self._share = 0.0
        self._needed = 0.0
        # A heap of those that have to go, as far as they were seen. Never more than what frees `needed` bytes.
        self._chosen: list[Candidate] = []
        self._freed = 0
        self._numbers = count()

    def tick(self) -> bool:
        """Begin a search if there is too much, and neither one is under way nor sessions are ending yet. Returns
        whether one begins."""
        if self._unseen or self._lifecycle.ending or not self._memory.is_full:
            return False
        self._unseen.extend(self._lifecycle.sessions())
        self._share = self._settings.memory_budget / max(len(self._unseen), 1)
        self._needed = self._memory.total - GOAL * self._settings.memory_budget
        return bool(self._unseen)

    def work(self) -> bool:
        """Look at some sessions; after the last one, those that were chosen end. Returns whether there were any."""
        if not self._unseen:
            return False
        for _ in range(min(SEEN_AT_ONCE, len(self._unseen))):
            self._look(self._unseen.popleft())
        if not self._unseen:
            self._end()
        return True

    def _look(self, session: Session) -> None:
        if session.stage is Stage.CLOSED:
            return
        size = self._size(session)
        active = session.spoke_at - session.connected_at
        rank = (size > self._share, -active, session.connected_at)
        heappush(self._chosen, (*rank, next(self._numbers), size, session))
        self._freed += size
        # Whoever may stay first is not needed any more.
        while self._freed - (spared := self._chosen[0][-2]) >= self._needed:
            heappop(self._chosen)
            self._freed -= spared

    def _end(self) -> None:
        chosen = [session for *_, session in self._chosen if session.stage is not Stage.CLOSED]
        self._chosen = []
        self._freed = 0
        self._stats.memory_ended += len(chosen)
        self._lifecycle.end_later(chosen, CloseCode.OUT_OF_MEMORY, "no memory is left")

    def _size(self, session: Session) -> int:
        """About what ends with a session."""
        size = self._settings.connection_bytes + WATCH_BYTES * len(session.watches or ())
        if session.replay is not None:
            size += session.replay.size + FRAME_BYTES * session.replay.waiting
        if session.backlog is not None:
            size += session.backlog.size
        if session.connection is not None:
            size += session.connection.kept
        return size
