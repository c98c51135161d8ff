"""The queue of questions about each name: which of them may run at the same time.

The directory answers in any order. So a question that changes a binding runs alone: then no answer about that name is
older than its own. Questions that only read a binding, or make the first one, run together, because one name may have
many devices, and many strangers may ask for it.

    access      runs together with
    CLAIM       CLAIM
    LOOK        LOOK
    ALONE       nothing

It does not know what a question is. It starts the questions in the order in which it got them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")


class NameAccess(Enum):
    """What a question does to the binding of a name; see above."""

    CLAIM = "claim"
    LOOK = "look"
    ALONE = "alone"


class _Queue(Generic[T]):
    __slots__ = ("access", "running", "waiting")

    def __init__(self) -> None:
        self.access = NameAccess.ALONE
        self.running = 0
        self.waiting: deque[tuple[NameAccess, T]] = deque()


class NameQueues(Generic[T]):
    """The queues of all names. The caller limits what waits: a session waits for one question at most.

    `start` starts a question. It returns False when the question is no longer wanted and has not started.
    """

    def __init__(self, start: Callable[[T], bool]) -> None:
        self._start = start
        self._queues: dict[str, _Queue[T]] = {}

    def __len__(self) -> int:
        """The number of names with a question that runs or waits."""
        return len(self._queues)

    def put(self, name: str, access: NameAccess, question: T) -> None:
        """Start a question when the name is free for it, perhaps at once. Call `done` when the question is over."""
        entry = self._queues.get(name)
        if entry is None:
            entry = self._queues[name] = _Queue()
        entry.waiting.append((access, question))
        self._start_next(name, entry)

    def done(self, name: str) -> None:
        """A question that was started is over."""
        entry = self._queues[name]
        entry.running -= 1
        self._start_next(name, entry)

    def _start_next(self, name: str, entry: _Queue[T]) -> None:
        while entry.waiting:
            access, question = entry.waiting[0]
            if entry.running and (access is NameAccess.ALONE or access is not entry.access):
                return
            entry.waiting.popleft()
            if self._start(question):
                entry.access = access
                entry.running += 1
        if not entry.running:
            del self._queues[name]
