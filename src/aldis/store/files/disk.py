"""What is sent: a file, a folder, or a stream. Everything here blocks: it is called in a thread.

Rules of this module:

* A file is read as it was when it was offered; one that has changed since, or is gone, is not sent on.
* A folder is what its files are. Links and other special files are left out, so nothing outside it is sent.
* What goes wrong is an `OSError`, or `SourceChanged`.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from aldis.errors import ProtocolViolation, UsageError
from aldis.store.files.digest import BLOCK, Digest
from aldis.store.files.manifest import MAX_DEPTH, MAX_ENTRIES, Entry, read_manifest, unfit_name, write_manifest
from aldis.store.messages.control import MAX_SIZE, UNKNOWN_MIME

FOLDER_MIME: Final = "inode/directory"
_Stamp = tuple[int, int, int, int]  # size, time of change, inode, device


class SourceChanged(Exception):
    """The file is not what was offered any more."""


class Readable(Protocol):
    """A stream to be sent: a binary file, or what reads like one."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end. It may block. Raises `OSError`."""


@dataclass(frozen=True, slots=True)
class Found:
    """What can be offered. `version` tells whether it has changed since.

    `size` in bytes; None for a stream. `files`: what is read, with stamps, in order. `manifest`: the list of the files
    of a folder, which is sent first; empty for a file. `left_out`: how many links and special files the folder has.
    """

    size: int | None
    mime: str
    version: str
    files: tuple[tuple[Path, _Stamp], ...] = ()
    manifest: bytes = b""
    left_out: int = 0
    stream: Readable | None = None


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def _version(manifest: bytes, stamps: list[_Stamp]) -> str:
    # A digest, so that a stranger learns neither times nor inodes, and cannot guess the version. Without the device:
    # some systems number it anew at each start, and the file is the same.
    lasting = [(size, changed_at, inode) for size, changed_at, inode, _ in stamps]
    return hashlib.sha256(manifest + repr(lasting).encode()).hexdigest()[:32]


def look(path: Path) -> Found:
    """What is to be offered. Raises `UsageError` for what cannot be sent, or is not there."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return _look_into(path)
    except (OSError, ValueError) as error:  # ValueError: a zero byte, or a folder that is too large
        raise UsageError(f"{path} cannot be sent: {in_words(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} cannot be sent: it is neither a file nor a folder")
    stamp = _stamp(status)
    mime = mimetypes.guess_type(path.name)[0] or UNKNOWN_MIME
    return Found(status.st_size, mime, _version(b"", [stamp]), ((path, stamp),))


def look_at_stream(stream: Readable) -> Found:
    """A stream to be offered, whose end nobody knows yet."""
    return Found(None, UNKNOWN_MIME, os.urandom(16).hex(), stream=stream)


class _Tree:
    """The files of a folder, and what is left out."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.files: list[tuple[Path, _Stamp]] = []
        self.left_out = 0

    def add(self, folder: Path, above: str) -> None:
        with os.scandir(folder) as found:
            inside = sorted(found, key=lambda each: each.name)
        if above and not inside:
            self.entries.append((above, 0))
        for each in inside:
            if len(self.entries) > MAX_ENTRIES or above.count("/") > MAX_DEPTH:
                return  # `write_manifest` says so
            name = os.fsencode(each.name).decode(errors="replace")
            if each.is_dir(follow_symlinks=False):
                self.add(Path(each.path), f"{above}{name}/")
            elif each.is_file(follow_symlinks=False):
                status = each.stat(follow_symlinks=False)
                self.entries.append((above + name, status.st_size))
                self.files.append((Path(each.path), _stamp(status)))
            else:
                self.left_out += 1


def _look_into(path: Path) -> Found:
    tree = _Tree()
    tree.add(path, "")
    manifest = write_manifest(tree.entries)
    content = sum(size for _, size in tree.entries)
    try:
        read_manifest(manifest, content)
    except ProtocolViolation:
        raise UsageError(f"{path} cannot be sent: {unfit_name(tree.entries)}") from None
    version = _version(manifest, [stamp for _, stamp in tree.files])
    files = tuple(tree.files)
    return Found(len(manifest) + content, FOLDER_MIME, version, files, manifest, tree.left_out)


def in_words(error: OSError | ValueError) -> str:
    """What went wrong, without the path, which is nobody else's business."""
    words = error.strerror if isinstance(error, OSError) else None
    return (words or str(error) or type(error).__name__).lower()


class Source(Protocol):
    """What is being sent, and the checksum of what was read."""

    digest: Digest

    def read(self, size: int) -> bytes:
        """The next bytes: `size` of them, or fewer from a stream, and none at its end. Raises `SourceChanged`,
        `OSError`."""

    def close(self) -> None:
        """Let go of it."""


def open_source(found: Found) -> Source:
    """What was found, from its beginning. Raises `SourceChanged`, `OSError`."""
    return _Stream(found.stream) if found.stream is not None else _Files(found)


def skip(source: Source, size: int, wanted: Callable[[], bool]) -> None:
    """Read so many bytes for the checksum alone, as long as that is `wanted`: the program cannot end before this thread
    does. Raises as `read`."""
    while size and wanted():
        size -= len(source.read(min(size, BLOCK)))


class _Stream:
    def __init__(self, stream: Readable) -> None:
        self.digest = Digest()
        self._stream = stream

    def read(self, size: int) -> bytes:
        read = getattr(self._stream, "read1", self._stream.read)  # what is there, without waiting for more
        data: bytes = read(min(size, MAX_SIZE - self.digest.size))
        self.digest.update(data)
        return data

    def close(self) -> None:
        """It belongs to the application."""


class _Files:
    """A manifest, and files one behind the other. One file is open at a time."""

    def __init__(self, found: Found) -> None:
        self.digest = Digest()
        self._manifest = memoryview(found.manifest)
        self._files: Iterator[tuple[Path, _Stamp]] = iter(found.files)
        self._file: BinaryIO | None = None
        self._stamp: _Stamp = (0, 0, 0, 0)
        self._left = 0  # of the file that is open
        self._many = bool(found.manifest)
        if not self._many:
            self._next()

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            data = self._some(size)
            self.digest.update(data)
            size -= len(data)
            parts.append(data)
        self._check()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _some(self, size: int) -> bytes:
        if self._manifest:
            data = bytes(self._manifest[:size])
            self._manifest = self._manifest[size:]
            return data
        while not self._left:
            self._check()
            self._next()
        assert self._file is not None  # noqa: S101 - there is something left of it
        data = self._file.read(min(size, self._left))
        if not data:
            self._check()
            raise SourceChanged("the file has become shorter while it was sent")
        self._left -= len(data)
        return data

    def _next(self) -> None:
        self.close()
        found = next(self._files, None)
        if found is None:
            raise SourceChanged("the file has become shorter while it was sent")
        path, self._stamp = found
        try:
            # Of a folder, a link in the place of a file is not followed either.
            self._file = open(path, "rb", buffering=0, opener=without_links if self._many else None)  # noqa: SIM115
        except FileNotFoundError:
            raise SourceChanged("the file is not there any more") from None
        try:
            self._check()
        except BaseException:
            self.close()
            raise
        self._left = self._stamp[0]

    def _check(self) -> None:
        if self._file is None:
            return
        status = os.fstat(self._file.fileno())
        if status.st_nlink == 0:
            raise SourceChanged("the file was deleted while it was sent")
        if _stamp(status) != self._stamp:
            raise SourceChanged("the file has changed since it was offered")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def without_links(path: str, flags: int) -> int:
    """An `opener` that fails for a link."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
