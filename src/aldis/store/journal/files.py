"""Files under way, as the journal keeps them: small records by name, which `store.files.kept` writes and reads.

It does not know what is in a record.
"""

from __future__ import annotations

from typing import Protocol

from aldis.store.journal.rows import Changes


class Batch(Protocol):
    """What is written next."""

    changes: Changes


class Writer(Protocol):
    """The journal's writer."""

    @property
    def pending(self) -> Batch: ...

    def changed(self, *, urgent: bool = False) -> None:
        """Something is in `pending`."""

    async def flush(self) -> None:
        """Return when all that was said so far is written. Raises `JournalError`."""


class JournalFiles:
    """The records. They are there from when the store first connects; what is put before that is written then."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._records: dict[str, bytes] = {}

    def load(self, records: dict[str, bytes]) -> None:
        """What the journal had. What was put meanwhile counts more."""
        self._records = records | self._records

    @property
    def records(self) -> dict[str, bytes]:
        """All records; a copy."""
        return dict(self._records)

    def put(self, name: str, record: bytes) -> None:
        """Keep a record in place of one with the same name. It is written soon (`flush`)."""
        self._records[name] = record
        self._writer.pending.changes.files[name] = record
        self._writer.changed()

    def remove(self, name: str) -> None:
        """Forget a record, if there is one."""
        if self._records.pop(name, None) is not None:
            self._writer.pending.changes.files[name] = None
            self._writer.changed()

    async def flush(self) -> None:
        """Return when all that was put is written. Raises `JournalError`."""
        await self._writer.flush()
