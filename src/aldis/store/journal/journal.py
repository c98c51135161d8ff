"""What a journal is: rows that are opened, read once, and changed, on a thread that may wait for a disk.

`memory.MemoryJournal` and `sqlite.SqliteJournal` are journals; both pass `tests/contract/test_journal.py`. `writer` is
what a store uses, on its event loop.
"""

from __future__ import annotations

from typing import Final, Protocol

from aldis.store.journal.rows import Changes, Contents, HandedOver

# How many readers may have a message at a time: iterators of `NetworkStore.messages`, and all callbacks together.
MAX_READERS: Final = 64


class Hands(Protocol):
    """What of the messages that have arrived the application has. Called on the event loop, for each message: it must
    not wait for a disk. What it is told survives the end of the program by whatever signal, not a power cut.

    A *reader* is a number from 0 to `MAX_READERS` - 1. It has one message at a time.
    """

    def give(self, reader: int, place: int) -> None:
        """A reader gets a message; what it had before is handed over. Raises `JournalError`: the reader must not have
        the message, which would come again."""

    def release(self, reader: int) -> None:
        """A reader has handed over what it had. Never raises: when that cannot be noted, the message comes again after
        the end of the program, unless `Changes.handed_over` was written, and says so."""

    def check(self) -> None:
        """Raise `JournalError` while `give` would."""

    @property
    def handed_over(self) -> HandedOver:
        """What was handed over so far."""


class Journal(Protocol):
    """The durable queues of one user's device at one server. Any call may raise `JournalError`.

    `open` and `close` are called on any thread, the others on one thread, one after the other, between the two.
    """

    @property
    def name(self) -> str:
        """For people: a path."""

    @property
    def hands(self) -> Hands:
        """Usable between `open` and `close`."""

    def open(self) -> None:
        """Take the journal: nobody else may have it until `close`. Raises `JournalInUse` at once when somebody has."""

    def load(self) -> Contents:
        """All that is in it. Called once, before anything is written."""

    def write(self, changes: Changes) -> None:
        """Make the changes, together or not at all. Returns when they survive a power cut."""

    def close(self) -> None:
        """Let go of it. Idempotent."""
