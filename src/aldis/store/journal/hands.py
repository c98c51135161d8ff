"""What of the messages that have arrived the application has, in a small file beside the journal.

The journal itself would need a sync of the disk before each message that the application gets. A write to this file is
one call of the system, and survives the end of the program by whatever signal. It does not survive a power cut; then
messages may come again that were handed over, and say so (`Message.redelivered`).

    magic (8)  mark (16)  next mark (16)  boot (16)  clean (8)  given (8)  reader 0 (8) … reader 63 (8)

`given` and the readers' places have 6 bytes, and 2 of their checksum: a damaged one would count messages as handed over
that were not. Then the file counts as missing.

`mark` names the last opening of the journal, which has it too: a journal that was put back to an earlier state has
another one. `boot` names the run of the operating system, all zeros where it has no name.
"""

from __future__ import annotations

import errno
import os
import struct
import uuid
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aldis.errors import JournalDiskFull, JournalError, JournalReadOnly
from aldis.store.journal import positioned
from aldis.store.journal.journal import MAX_READERS
from aldis.store.journal.rows import HandedOver

_MAGIC: Final = b"ALDIHND2"
_HEAD: Final = struct.Struct(">8s16s16s16sQ")
_NUMBER_BYTES: Final = 6
_FIELD: Final = _NUMBER_BYTES + 2
_GIVEN: Final = _HEAD.size
_READERS: Final = _GIVEN + _FIELD
_SIZE: Final = _READERS + MAX_READERS * _FIELD
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
MARK_BYTES: Final = 16
NO_MARK: Final = bytes(MARK_BYTES)

_FAULTS: Final[dict[int, type[JournalError]]] = {
    errno.ENOSPC: JournalDiskFull,
    errno.EDQUOT: JournalDiskFull,
    errno.EFBIG: JournalDiskFull,
    errno.EROFS: JournalReadOnly,
    errno.EACCES: JournalReadOnly,
    errno.EPERM: JournalReadOnly,
}


def fault_of_system(name: str, error: OSError) -> JournalError:
    """What a fault of the system means for a journal of that name."""
    if isinstance(error, FileNotFoundError):
        return JournalError(name, "has been removed while in use")
    reason = f"cannot be opened or written: {error.strerror or error}"
    return _FAULTS.get(error.errno or 0, JournalError)(name, reason)


def _field(number: int) -> bytes:
    data = number.to_bytes(_NUMBER_BYTES, "big")
    return data + (zlib.crc32(data) & 0xFFFF).to_bytes(2, "big")


def _numbers(data: bytes) -> list[int] | None:
    """The numbers in fields; None when one is damaged."""
    fields = [data[at : at + _FIELD] for at in range(0, len(data), _FIELD)]
    numbers = [int.from_bytes(field[:_NUMBER_BYTES], "big") for field in fields]
    return numbers if list(map(_field, numbers)) == fields else None


def _boot() -> bytes:
    try:
        return uuid.UUID(_BOOT_ID.read_text().strip()).bytes
    except (OSError, ValueError):
        return NO_MARK


class MemoryHands:
    """The same in memory."""

    def __init__(self) -> None:
        self._given = 0
        self._readers: dict[int, int] = {}

    def give(self, reader: int, place: int) -> None:
        self._readers[reader] = place
        self._given = max(self._given, place)

    def release(self, reader: int) -> None:
        self._readers.pop(reader, None)

    def check(self) -> None:
        """See `journal.Hands`."""

    def reset(self, given: int) -> None:
        """Nobody has anything; all up to `given` was handed over."""
        self._given = given
        self._readers.clear()

    @property
    def handed_over(self) -> HandedOver:
        return HandedOver(self._given, frozenset(self._readers.values()))


@dataclass(frozen=True, slots=True)
class Found:
    """What the file has said when it was opened: the `marks` that the journal may have, what was handed over, and
    whether that is sure to be the newest."""

    marks: frozenset[bytes]
    handed_over: HandedOver
    certain: bool


class FileHands(MemoryHands):
    """The file at `path`. Raises `OSError`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file: int | None = None

    def open(self) -> Found:
        """Open the file, or make it."""
        binary: int = getattr(os, "O_BINARY", 0)  # Windows would change the bytes of what it takes for a text
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | binary, 0o600)
        data = positioned.read_at(self._file, _SIZE, 0)
        boot = _boot()
        numbers = _numbers(data[_GIVEN:_SIZE])
        if len(data) < _SIZE or not data.startswith(_MAGIC) or numbers is None:
            # `mark` brings these to the disk, too. Without them, a file that a power cut finds new would count as
            # missing at the next start, and the journal as a copy that was put back.
            self._write(_GIVEN, *([0] * (1 + MAX_READERS)))
            return Found(frozenset(), HandedOver(), certain=False)
        _, mark, following, booted, clean = _HEAD.unpack_from(data)
        given, *readers = numbers
        hands = HandedOver(max(given, *readers), frozenset(place for place in readers if place))
        same_boot = boot == booted != NO_MARK
        return Found(frozenset({mark, following} - {NO_MARK}), hands, certain=bool(clean) or same_boot)

    def mark(self, mark: bytes, following: bytes, *, clean: bool) -> None:
        """Name this opening of the journal, and the one that is about to be named."""
        assert self._file is not None  # it is open  # noqa: S101
        positioned.write_at(self._file, _HEAD.pack(_MAGIC, mark, following, _boot(), clean), 0)
        os.fsync(self._file)

    def reset(self, given: int) -> None:
        super().reset(given)
        self._write(_GIVEN, given, *([0] * MAX_READERS))

    def give(self, reader: int, place: int) -> None:
        # The places that readers have count as given, so one write is enough.
        if self._file is not None:
            try:
                positioned.write_at(self._file, _field(place), _READERS + reader * _FIELD)
            except OSError as error:
                raise fault_of_system(str(self.path), error) from error
        self._readers[reader] = place
        if place > self._given:
            self._given = place

    def release(self, reader: int) -> None:
        if reader in self._readers:
            super().release(reader)
            with suppress(OSError):
                self._write(_GIVEN, self._given)  # first: it says that the place below was given
                self._write(_READERS + reader * _FIELD, 0)

    def check(self) -> None:
        try:
            self._write(_GIVEN, self._given)
        except OSError as error:
            raise fault_of_system(str(self.path), error) from error

    def _write(self, offset: int, *values: int) -> None:
        if self._file is not None:
            positioned.write_at(self._file, b"".join(map(_field, values)), offset)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)


def remaining(places: Iterable[int], given: int) -> int:
    """Up to which place everything was handed over, when these are left."""
    return min((place - 1 for place in places), default=given)
