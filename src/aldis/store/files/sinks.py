"""Where what is received goes: a file, a folder, or a stream. Everything here blocks: it is called in a thread.

Rules of this module:

* A file is written beside its place and gets its name when it is complete. No file is ever overwritten.
* Of a checked transfer, what was written stays when the transfer fails, as `.NAME.KEY.part`. The key is a digest of
  what the transfer is (sender, name, size, version), so whoever receives the same into the same folder finds it. One
  program has it at a time.
* A folder is made in the same way, in a folder `.NAME.KEY.part`: `list` is its manifest, and `files` gets its name at
  the end. No link is followed.
* What goes wrong is an `OSError`, a `ProtocolViolation` for a manifest, or a `ValueError` for a path with a zero byte.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from aldis.errors import ProtocolViolation
from aldis.store.files.digest import BLOCK, Digest
from aldis.store.files.disk import without_links
from aldis.store.files.manifest import MAX_MANIFEST, Entry, read_manifest

_STEM_BYTES: Final = 200  # of the name of a .part file, which has the key in it too; file systems take 255
_MOST_NAMES: Final = 10_000  # that are tried in a folder
_in_use: set[Path] = set()  # the .part files of this process; a lock tells other processes


@dataclass(frozen=True, slots=True)
class Incoming:
    """What is to be received. `mark` is different for each transfer, and `key` the same for the same content; None for
    what cannot be resumed. `size` is None for a stream, and includes the `manifest`: 0 bytes for a file. `wanted`:
    whether to read on in what was kept; the program cannot end before that thread does."""

    name: str
    mark: str
    size: int | None
    key: str | None = None
    manifest: int = 0
    wanted: Callable[[], bool] = lambda: True


def partial_key(sender: str, name: str, size: int, version: str, manifest: int) -> str:
    """The key of a checked transfer."""
    return sha256(repr((sender, name, size, version, manifest)).encode()).hexdigest()[:20]


class Sink(Protocol):
    """What is being received. `digest`: the checksum of what was written; `kept`: bytes from an earlier transfer."""

    digest: Digest
    kept: int

    def write(self, data: bytes | bytearray) -> None:
        """Write what comes next. Raises `OSError`, `ProtocolViolation`."""

    def restart(self) -> None:
        """Drop what was kept. Raises `OSError`."""

    def finish(self) -> Path | None:
        """It is complete: give it its name, and return where it is. Raises `OSError`."""

    def keep(self) -> None:
        """It failed: leave what is written, if it can be resumed."""

    def discard(self) -> None:
        """Take away what was written, under whatever name it is not complete."""


def open_sink(target: Path | BinaryIO, incoming: Incoming) -> Sink:
    """`target` is what is to be made, or a folder into which the name goes, with a number where that is taken; or a
    stream. Raises as the module says."""
    if not isinstance(target, Path):
        if incoming.manifest:
            raise ValueError("a folder cannot go into a stream")
        return _StreamSink(target)
    place = _Place(target, incoming)
    try:
        return _FolderSink(place, incoming) if incoming.manifest else _FileSink(place)
    except BaseException:
        place.release()
        raise


class _Place:
    """Where the result goes, and the .part beside it."""

    def __init__(self, target: Path, incoming: Incoming) -> None:
        self._in_folder = target.is_dir()
        self.target = target / incoming.name if self._in_folder else target
        if not self._in_folder and os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        stem = os.fsencode(self.target.name)[:_STEM_BYTES].decode(errors="ignore")
        self._size = incoming.size or 0
        self.wanted = incoming.wanted
        self.part = self.target.with_name(f"{stem}.{incoming.mark}.part")
        self.resumable = incoming.key is not None
        if self.resumable:
            part = self.target.with_name(f".{stem}.{incoming.key}.part")
            if part in _in_use:
                self.resumable = False  # the same is received twice at once
            else:
                self.part = part
        _in_use.add(self.part)

    def check_room(self, kept: int) -> None:
        """Raise `OSError` when the disk cannot take the rest."""
        if shutil.disk_usage(self.target.parent).free < self._size - kept:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def release(self) -> None:
        _in_use.discard(self.part)

    def names(self) -> Iterator[Path]:
        """The names that are tried, one after the other."""
        yield self.target
        if self._in_folder:
            for number in range(2, _MOST_NAMES):
                yield self.target.with_name(f"{self.target.stem} ({number}){self.target.suffix}")


def _open_part(path: Path, *, fresh: bool) -> BinaryIO:
    """Open a file for reading and writing, and lock it. Raises `OSError`: it is a link, or another program has it."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | (os.O_EXCL if fresh else 0)
    file = open(without_links(os.fspath(path), flags), "r+b", buffering=0)  # noqa: SIM115
    try:
        import fcntl  # not on Windows, where nothing keeps two programs apart

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass
    except OSError:
        file.close()
        raise OSError(errno.EBUSY, "another program receives the same file") from None
    return file


def _is_empty(file: BinaryIO) -> bool:
    return os.fstat(file.fileno()).st_size == 0


def _write_all(file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _feed(digest: Digest, file: BinaryIO, size: int, wanted: Callable[[], bool]) -> None:
    """Read so many bytes for the checksum, as long as that is wanted."""
    while size and wanted():
        data = file.read(min(size, BLOCK))
        if not data:
            raise OSError(errno.EIO, "the file has become shorter")
        digest.update(data)
        size -= len(data)


class _FileSink:
    def __init__(self, place: _Place) -> None:
        self.digest = Digest()
        self.kept = 0
        self._place = place
        if not place.resumable:
            place.check_room(0)
        self._file = _open_part(place.part, fresh=not place.resumable)
        try:
            if place.resumable:
                self.kept = min(self._file.seek(0, os.SEEK_END), place._size) // BLOCK * BLOCK
                place.check_room(self.kept)
                self._file.seek(0)
                _feed(self.digest, self._file, self.kept, place.wanted)
                self._file.truncate(self.kept)
        except BaseException:
            empty = _is_empty(self._file)
            self._file.close()
            if empty:
                place.part.unlink(missing_ok=True)
            raise

    def write(self, data: bytes | bytearray) -> None:
        _write_all(self._file, data)
        self.digest.update(data)

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.digest, self.kept = Digest(), 0

    def finish(self) -> Path:
        part = self._place.part
        self._file.close()
        for path in self._place.names():
            with suppress(FileExistsError):
                try:
                    os.link(part, path)  # which, unlike a renaming, never replaces anything
                except FileExistsError:
                    raise
                except OSError:  # a file system without links
                    if os.path.lexists(path):
                        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
                    part.rename(path)
                else:
                    part.unlink()
                self._place.release()
                return path
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def keep(self) -> None:
        if not self._place.resumable or not (self.digest.size or self.kept):
            self.discard()
            return
        with suppress(OSError):
            self._file.close()
        self._place.release()

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._place.part.unlink()
        self._place.release()


class _FolderSink:
    def __init__(self, place: _Place, incoming: Incoming) -> None:
        assert incoming.size is not None  # noqa: S101 - the size of a folder is known
        self.digest = Digest()
        self.kept = 0
        self._place = place
        self._manifest_size = incoming.manifest
        self._content = incoming.size - incoming.manifest
        if not 0 < incoming.manifest <= MAX_MANIFEST or self._content < 0:
            raise ValueError("a list of files of a wrong size")
        self._part = place.part
        self._files = self._part / "files"
        self._entries: list[Entry] = []
        self._ahead: list[Entry] = []  # those that are not begun, the next one last
        self._file: BinaryIO | None = None
        self._left = 0  # of the file that is open
        self._part.mkdir(mode=0o700, exist_ok=place.resumable)
        if self._part.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        self._list = _open_part(self._part / "list", fresh=not place.resumable)
        try:
            self.kept = self._load()
            place.check_room(self.kept)
        except BaseException:
            empty = _is_empty(self._list)
            self._list.close()
            if empty:
                shutil.rmtree(self._part, ignore_errors=True)
            raise

    # --- what an earlier transfer has left --------------------------------------------------------------------------

    def _load(self) -> int:
        listed = self._list.seek(0, os.SEEK_END)
        self._list.seek(0)
        if listed != self._manifest_size:
            self._clear()
            return 0
        manifest = self._list.read(listed)
        try:
            self._start(manifest)
        except ProtocolViolation:  # the list was damaged here, as by a loss of power: none that breaks rules is kept
            self._clear()
            return 0
        total = listed
        for path, size in self._entries:
            here = self._size_of(path)
            total += min(max(here, 0), size)
            if here != size:
                break
        kept = total // BLOCK * BLOCK
        if kept < listed:
            self._clear()
            return 0
        self.digest.update(manifest)
        self._seek(kept - listed)
        return kept

    def _size_of(self, path: str) -> int:
        """The bytes that are there; -1 behind a link."""
        place = self._files / path
        if self._is_linked(place):
            return -1
        try:
            return 0 if path.endswith("/") else place.lstat().st_size
        except OSError:
            return 0

    def _is_linked(self, place: Path) -> bool:
        while place != self._part:
            if place.is_symlink():
                return True
            place = place.parent
        return False

    def _seek(self, rest: int) -> None:
        """Go on behind so many bytes of content, and read them for the checksum."""
        while self._ahead:
            path, size = self._ahead[-1]
            if rest < size or not (rest or path.endswith("/") or size == 0):
                break
            if not path.endswith("/") and size:
                with open(self._files / path, "rb", buffering=0, opener=without_links) as file:
                    _feed(self.digest, file, size, self._place.wanted)
                rest -= size
                self._ahead.pop()
            else:
                self._make(*self._ahead.pop(), again=True)
        if rest:
            path, size = self._ahead.pop()
            self._file = open(self._files / path, "r+b", buffering=0, opener=without_links)  # noqa: SIM115
            _feed(self.digest, self._file, rest, self._place.wanted)
            self._file.truncate(rest)
            self._left = size - rest
        for path, _ in self._ahead:
            if not path.endswith("/"):
                (self._files / path).unlink(missing_ok=True)

    def _clear(self) -> None:
        self._close()
        shutil.rmtree(self._files, ignore_errors=True)
        self._list.seek(0)
        self._list.truncate()
        self._entries, self._ahead = [], []
        self.digest = Digest()

    # --- what arrives -----------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray) -> None:
        self.digest.update(data)
        rest = memoryview(data)
        missing = self._manifest_size - self._list.seek(0, os.SEEK_END)
        if missing > 0:
            _write_all(self._list, rest[:missing])
            rest = rest[missing:]
            if missing <= len(data):
                self._list.seek(0)
                self._start(self._list.read(self._manifest_size))
        while rest:
            if not self._left:
                self._next()
                continue
            assert self._file is not None  # noqa: S101 - something is left of it
            taken = rest[: self._left]
            _write_all(self._file, taken)
            self._left -= len(taken)
            rest = rest[len(taken) :]

    def _start(self, manifest: bytes) -> None:
        self._entries = read_manifest(manifest, self._content)
        self._ahead = self._entries[::-1]
        self._files.mkdir(exist_ok=True)

    def _next(self) -> None:
        self._close()
        self._make(*self._ahead.pop())

    def _make(self, path: str, size: int, *, again: bool = False) -> None:
        place = self._files / path
        if self._is_linked(place):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if path.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        file = open(place, "r+b" if again and place.exists() else "xb", buffering=0, opener=without_links)  # noqa: SIM115
        if size:
            self._file, self._left = file, size
        else:
            file.close()

    def restart(self) -> None:
        self._clear()
        self.kept = 0

    def finish(self) -> Path:
        self._close()
        while self._ahead:  # empty files and folders at the end
            self._make(*self._ahead.pop())
        for path in self._place.names():
            if not os.path.lexists(path):
                self._files.rename(path)
                self.discard()
                return path
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def keep(self) -> None:
        if not self._place.resumable or self.digest.size < self._manifest_size:
            self.discard()
            return
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self._list.close()
        self._place.release()

    def discard(self) -> None:
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self._list.close()
        shutil.rmtree(self._part, ignore_errors=True)
        self._place.release()


class _StreamSink:
    def __init__(self, stream: BinaryIO) -> None:
        self.digest = Digest()
        self.kept = 0
        self._stream = stream

    def write(self, data: bytes | bytearray) -> None:
        _write_all(self._stream, data)
        self.digest.update(data)

    def restart(self) -> None:
        """Nothing is kept of a stream."""

    def finish(self) -> None:
        self._stream.flush()

    def keep(self) -> None:
        """It belongs to the application."""

    def discard(self) -> None:
        """It belongs to the application."""


class _ArrivedDigest(Digest):
    """The checksum of what has arrived before: of its whole blocks, and at the end of all."""

    def __init__(self, size: int, sha256: bytes, blocks_sha256: bytes) -> None:
        super().__init__()
        self.size = size // BLOCK * BLOCK
        self._end = size
        self._sha256 = sha256
        self._blocks_sha256 = blocks_sha256

    def update(self, data: bytes | bytearray) -> None:
        self.size += len(data)

    @property
    def of_blocks(self) -> bytes:
        return self._blocks_sha256

    def result(self) -> bytes:
        return self._sha256 if self.size == self._end else self._blocks_sha256


class ArrivedSink:
    """What has arrived already, and is sent again by a sender that does not know. Nothing of it is written."""

    def __init__(self, size: int, sha256: bytes, blocks_sha256: bytes) -> None:
        """`size` in bytes; the checksums of all of it, and of its whole blocks (`digest`)."""
        self.digest: Digest = _ArrivedDigest(size, sha256, blocks_sha256)
        self.kept = self.digest.size

    def write(self, data: bytes | bytearray) -> None:
        self.digest.update(data)

    def restart(self) -> None:
        raise OSError(errno.EEXIST, "another file has arrived before")

    def finish(self) -> None:
        """It has its place."""

    def keep(self) -> None:
        """It has its place."""

    def discard(self) -> None:
        """It has its place."""
