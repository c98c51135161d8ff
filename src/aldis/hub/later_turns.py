"""Work that is put off to later turns of the transport's loop. Each does a part of one kind, and the kinds take turns.

So a turn is as long as the longest part, and not as long as all of them, and no kind keeps another one waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

Part: TypeAlias = Callable[[], bool]
"""Does a part of one kind of work; returns whether there was any."""


class LaterTurns:
    """Whose turn it is."""

    def __init__(self, *kinds: Part) -> None:
        # The next one first.
        self._kinds = deque(kinds)

    def next(self) -> bool:
        """Do a part of the next kind that has any. Returns whether one had."""
        for _ in range(len(self._kinds)):
            kind = self._kinds[0]
            self._kinds.rotate(-1)
            if kind():
                return True
        return False
