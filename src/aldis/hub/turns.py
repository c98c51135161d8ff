"""Whose turn it is at a name: which questions about it the directory may be asked at the same time.

Answers come in any order. So a question that changes a binding is alone with its name: no answer about that name is
older than its own. Questions that only look at a binding, or make the first one, go together, since one name may have
many devices and be asked for by many strangers.

    kind        goes together with
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
"""Begins something; False when it is not wanted any more, and then nothing has begun."""


class Turn(Enum):
    """What a question does to the binding of a name; see above."""

    CLAIM = "claim"
    LOOK = "look"
    ALONE = "alone"


class _Line:
    __slots__ = ("kind", "running", "waiting")

    def __init__(self) -> None:
        self.kind = Turn.ALONE
        self.running = 0
        self.waiting: deque[tuple[Turn, Start]] = deque()


class Turns:
    """The turns at all names. What waits is bounded by the caller: a session waits for one thing at most."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    def __len__(self) -> int:
        """How many names something goes on with."""
        return len(self._lines)

    def take(self, name: str, kind: Turn, start: Start) -> None:
        """Call `start` when it is its turn, which may be at once; `done` has to follow if it has begun."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
        line.waiting.append((kind, start))
        self._go_on(name, line)

    def done(self, name: str) -> None:
        """Something that was started is over."""
        line = self._lines[name]
        line.running -= 1
        self._go_on(name, line)

    def _go_on(self, name: str, line: _Line) -> None:
        while line.waiting:
            kind, start = line.waiting[0]
            if line.running and (kind is Turn.ALONE or kind is not line.kind):
                return
            line.waiting.popleft()
            if start():
                line.kind = kind
                line.running += 1
        if not line.running:
            del self._lines[name]
