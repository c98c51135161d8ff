"""The queue of questions about each name: which of them the directory may be asked at the same time.

Answers come in any order. So a question that changes a binding is asked alone: no answer about that name is older than
its own. Questions that only read a binding, or make the first one, run together, since one name may have many devices
and be asked for by many strangers.

    access      runs together with
    CLAIM       CLAIM
    LOOK        LOOK
    ALONE       nothing

It does not know questions: it starts what it is given, in the order in which it was given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

Start: TypeAlias = Callable[[], bool]
"""Starts something; returns False when it is not wanted any more and nothing has started."""


class NameAccess(Enum):
    """What a question does to the binding of a name; see above."""

    CLAIM = "claim"
    LOOK = "look"
    ALONE = "alone"


class _Queue:
    __slots__ = ("access", "running", "waiting")

    def __init__(self) -> None:
        self.access = NameAccess.ALONE
        self.running = 0
        self.waiting: deque[tuple[NameAccess, Start]] = deque()


class NameQueues:
    """The queues of all names. The caller bounds what waits: a session waits for one question at most."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        """How many names have a question that runs or waits."""
        return len(self._queues)

    def put(self, name: str, access: NameAccess, start: Start) -> None:
        """Call `start` when the name is free for it, which may be at once. Call `done` when what it started is over."""
        entry = self._queues.get(name)
        if entry is None:
            entry = self._queues[name] = _Queue()
        entry.waiting.append((access, start))
        self._start_next(name, entry)

    def done(self, name: str) -> None:
        """Something that was started is over."""
        entry = self._queues[name]
        entry.running -= 1
        self._start_next(name, entry)

    def _start_next(self, name: str, entry: _Queue) -> None:
        while entry.waiting:
            access, start = entry.waiting[0]
            if entry.running and (access is NameAccess.ALONE or access is not entry.access):
                return
            entry.waiting.popleft()
            if start():
                entry.access = access
                entry.running += 1
        if not entry.running:
            del self._queues[name]
