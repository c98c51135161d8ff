"""Transfers that outlive the program: what the journal keeps of them, as records.

Rules of this module:

* Of a file or folder that is sent, the journal keeps where it is and which version was offered. Of one that was
  accepted, it keeps where it goes. What has been transferred is not kept here: the recipient's `.part` file tells it.
* A record stays until the transfer ends. The end of the program, and of the other one, do not count as ends.
* Of a file that was received, it stays on, with the checksum: a sender that was killed before it heard of the end
  offers the file once more, and the recipient must not have it twice.
* At most `journal_files` records of each kind are kept, of `MAX_RECORD` bytes each. So what others send us takes no
  place from what we send. Files that have arrived make room for others, then those that were accepted and do not come.

Pure: it knows no disk and no connection. Where the records are kept is `journal.files`.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeAlias

import msgspec

from aldis.errors import TooManyTransfers

# Bytes of one record: a path of 4 KiB, which is the most that systems take, in base64, and what else there is.
MAX_RECORD: Final = 16 * 1024


class Sent(msgspec.Struct, tag="sent", frozen=True, omit_defaults=True):
    """A file or folder on its way to another user. `id`: that of the `Transfer`. `device`: the one that it is for, None
    for any. `path`: where it is, as the system writes it. `version`: see `disk.Found`. `begun_at`: seconds since
    1970."""

    id: str
    user_id: str
    device: str | None
    path: bytes
    name: str
    size: int
    version: str
    mime: str
    begun_at: float
    folder: bool = False


class Taken(msgspec.Struct, tag="taken", frozen=True, omit_defaults=True):
    """A file or folder that was accepted. `id`: with which it was offered first. `target`, `sender`: see
    `Transfer.accept`. `sha256`, `blocks_sha256`: the checksums of all of it, and of its whole blocks, when it has
    arrived; empty before. The rest is what was offered."""

    id: str
    user_id: str
    name: str
    size: int
    version: str
    manifest: int
    sender: str
    target: bytes
    begun_at: float
    sha256: bytes = b""
    blocks_sha256: bytes = b""

    def is_same(self, other: Taken) -> bool:
        """Whether the same is on offer."""
        return (self.name, self.size, self.version, self.manifest) == (
            other.name,
            other.size,
            other.version,
            other.manifest,
        )


Record: TypeAlias = Sent | Taken
_decoder: Final = msgspec.json.Decoder(Sent | Taken)


class Records(Protocol):
    """Where they are kept: `journal.files.JournalFiles`."""

    @property
    def records(self) -> dict[str, bytes]:
        """All of them, by name."""

    def put(self, name: str, record: bytes) -> None:
        """Keep one in place of one with the same name."""

    def remove(self, name: str) -> None:
        """Forget one, if there is one."""

    async def flush(self) -> None:
        """Return when all is written. Raises `JournalError`."""


def _name(record: Record) -> str:
    return f"sent/{record.id}" if isinstance(record, Sent) else f"taken/{record.user_id}/{record.id}"


def moved(record: Record, step: float) -> Record:
    """A record as if all had begun so many seconds later."""
    return msgspec.structs.replace(record, begun_at=record.begun_at + step)


class KeptTransfers:
    """See the module."""

    def __init__(self, records: Records, limit: int) -> None:
        """`limit`: how many of each kind may be kept."""
        self.unreadable = 0
        """How many records could not be read, and are forgotten."""
        self._records = records
        self._limit = limit
        self._kept: dict[str, Record] = {}  # by name, the oldest first
        self._in_use: set[str] = set()  # names of those that are under way now

    def load(self) -> list[Sent]:
        """What the journal has is known: return what is to be sent, the oldest first. Called once."""
        here, self._kept = self._kept, {}
        found = []
        for name, data in list(self._records.records.items()):
            try:
                record = _decoder.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.unreadable += 1
                self._records.remove(name)
                continue
            found.append(record)
        for record in sorted(found, key=lambda each: each.begun_at):
            self._kept[_name(record)] = record
        self._kept |= here
        return [record for name, record in self._kept.items() if isinstance(record, Sent) and name not in here]

    def add(self, record: Record) -> None:
        """Keep one that is under way from now on. Raises `TooManyTransfers`."""
        name, data = _name(record), msgspec.json.encode(record)
        if name not in self._kept:
            self._make_room(type(record))
        if len(data) > MAX_RECORD:
            raise TooManyTransfers(self._limit)
        self._put(name, record, data)
        self._in_use.add(name)

    def change(self, record: Record) -> None:
        """Something in a record is another now."""
        name = _name(record)
        if name in self._kept:
            self._put(name, record, msgspec.json.encode(record))

    def _put(self, name: str, record: Record, data: bytes) -> None:
        self._kept[name] = record
        self._records.put(name, data)

    def use(self, record: Record) -> None:
        """One of those that are kept is under way again."""
        self._in_use.add(_name(record))

    def release(self, record: Record) -> None:
        """One is not under way any more, and stays."""
        self._in_use.discard(_name(record))

    def forget(self, record: Record) -> None:
        """One need not be kept any more."""
        name = _name(record)
        self._in_use.discard(name)
        if self._kept.pop(name, None) is not None:
            self._records.remove(name)

    def taken(self, offered: Taken) -> Taken | None:
        """What was accepted before, if the same is on offer again and is not under way."""
        name = _name(offered)
        found = self._kept.get(name)
        if not isinstance(found, Taken) or name in self._in_use or not found.is_same(offered):
            return None
        return found

    def forget_accepted(self, user_id: str) -> None:
        """What was accepted from a user, and is not under way, is asked for when it comes again."""
        for name, record in list(self._kept.items()):
            if isinstance(record, Taken) and record.user_id == user_id and name not in self._in_use:
                self.forget(record)

    def expire(self, before: float) -> None:
        """Forget what was begun before that time, and is not under way."""
        for record in [record for name, record in self._kept.items() if name not in self._in_use]:
            if record.begun_at < before:
                self.forget(record)

    def clock_was_set(self, step: float) -> None:
        """The wall clock was set by so many seconds: nothing that waits has grown older by that."""
        for record in list(self._kept.values()):
            self.change(moved(record, step))

    async def flush(self) -> None:
        """Return when all is written. Raises `JournalError`."""
        await self._records.flush()

    def _make_room(self, kind: type[Record]) -> None:
        if sum(isinstance(each, kind) for each in self._kept.values()) < self._limit:
            return
        idle = [each for name, each in self._kept.items() if isinstance(each, Taken) and name not in self._in_use]
        if kind is Sent or not idle:
            raise TooManyTransfers(self._limit)
        self.forget(min(idle, key=lambda each: (not each.sha256, each.begun_at)))
