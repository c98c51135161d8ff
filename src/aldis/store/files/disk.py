"""Files at the two ends of a transfer. Everything here blocks: it is called in a thread.

Rules of this module:

* A file that is sent is read as it was when it was offered; one that has changed since, or is gone, is not sent on.
* A file that is received is written beside its place, as `NAME.MARK.part`, and gets its name when it is complete. No
  file is ever overwritten.
* What goes wrong is an `OSError`, or `SourceChanged`.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aldis.errors import UsageError
from aldis.store.messages.control import UNKNOWN_MIME

_STEM_BYTES: Final = 200  # of the name of a .part file, which has the id in it too; file systems take 255
_MOST_NAMES: Final = 10_000  # that are tried in a folder


class SourceChanged(Exception):
    """The file is not what was offered any more."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that can be offered. `stamp` tells whether it has changed since."""

    size: int
    mime: str
    stamp: tuple[int, ...]


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def look(path: Path) -> Found:
    """What is to be offered. Raises `UsageError` for what is no file, or not there."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        raise UsageError(f"{path} cannot be sent: {in_words(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} cannot be sent: it is not a file")
    return Found(status.st_size, mimetypes.guess_type(path.name)[0] or UNKNOWN_MIME, _stamp(status))


def in_words(error: OSError | ValueError) -> str:
    """What went wrong, without the path, which is nobody else's business."""
    words = error.strerror if isinstance(error, OSError) else None
    return (words or str(error) or type(error).__name__).lower()


class Source:
    """A file that is being sent."""

    def __init__(self, path: Path, found: Found) -> None:
        """Open it. Raises `SourceChanged`, `OSError`."""
        self._stamp = found.stamp
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise SourceChanged("the file is not there any more") from None
        try:
            self._check()
        except BaseException:
            self._file.close()
            raise

    def read(self, size: int) -> bytes:
        """The next bytes, exactly so many. Raises `SourceChanged`, `OSError`."""
        data = bytearray()
        while len(data) < size and (more := self._file.read(size - len(data))):
            data += more
        self._check()
        if len(data) < size:
            raise SourceChanged("the file has become shorter while it was sent")
        return bytes(data)

    def _check(self) -> None:
        status = os.fstat(self._file.fileno())
        if status.st_nlink == 0:
            raise SourceChanged("the file was deleted while it was sent")
        if _stamp(status) != self._stamp:
            raise SourceChanged("the file has changed since it was offered")

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


class Sink:
    """A file that is being received."""

    def __init__(self, target: Path, name: str, mark: str, size: int) -> None:
        """Make the .part file, with `mark` in its name. `target` is the file to be made, or a folder into which `name`
        goes, with a number where that is taken. Raises `OSError`."""
        self._in_folder = target.is_dir()
        self._target = target / name if self._in_folder else target
        if not self._in_folder and os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if shutil.disk_usage(self._target.parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        stem = os.fsencode(self._target.name)[:_STEM_BYTES].decode(errors="ignore")
        self._part = self._target.with_name(f"{stem}.{mark}.part")
        self._file = self._part.open("xb", buffering=0)

    def write(self, data: bytes | bytearray) -> None:
        """Write what comes next. Raises `OSError`."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def finish(self) -> Path:
        """The file is complete: give it its name, and return where it is. Raises `OSError`."""
        self._file.close()
        for path in self._names():
            with suppress(FileExistsError):
                self._rename(path)
                return path
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _names(self) -> Iterator[Path]:
        yield self._target
        if self._in_folder:
            for number in range(2, _MOST_NAMES):
                yield self._target.with_name(f"{self._target.stem} ({number}){self._target.suffix}")

    def _rename(self, path: Path) -> None:
        try:
            os.link(self._part, path)  # which, unlike a renaming, never replaces anything
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            self._part.rename(path)
        else:
            self._part.unlink()

    def discard(self) -> None:
        """Take away what was written, under whatever name it is not complete."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink()
