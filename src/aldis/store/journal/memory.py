"""A journal in memory: for tests, and to see what a store does with one. It is lost with the program.

`MemoryJournal` keeps its rows after `close`, so the next store that opens it finds them, as after a restart.
"""

from __future__ import annotations

from copy import deepcopy

from aldis.errors import JournalInUse, StateError
from aldis.store.journal.hands import MemoryHands, remaining
from aldis.store.journal.rows import Changes, Contents


class MemoryJournal:
    """See `journal.Journal`."""

    def __init__(self, name: str = ":memory:") -> None:
        self.name = name
        self.hands = MemoryHands()
        self._contents = Contents()
        self._is_open = False

    def open(self) -> None:
        if self._is_open:
            raise JournalInUse(self.name, "is in use by another store of this program")
        self._is_open = True

    def load(self) -> Contents:
        self._check()
        handed_over = self.hands.handed_over
        contents = self._contents
        contents.apply(Changes(handed_over=handed_over))
        contents.redelivered |= handed_over.in_hands & set(contents.arrived)
        self.hands.reset(remaining(contents.arrived, handed_over.given))
        return deepcopy(contents)

    def write(self, changes: Changes) -> None:
        self._check()
        self._contents.apply(changes)

    def _check(self) -> None:
        if not self._is_open:
            raise StateError("the journal is closed")

    def close(self) -> None:
        self._is_open = False
