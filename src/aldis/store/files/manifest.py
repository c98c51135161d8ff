"""A folder as one transfer: the list of its files, which goes before their content.

A transfer of a folder is one run of bytes: the manifest, then the content of each file in the order of the manifest.
The manifest is a JSON array in UTF-8 of `[path, size]`. A path has the names of folders and of the file, with `/`
between them; a path that ends with `/` is a folder, and has the size 0.

Rules of this module:

* A manifest comes from a stranger. `read_manifest` says which paths may be made in a fresh folder: no path leads out of
  it, each name is safe on every system, and no two files have one place. (Where a disk takes upper case for lower
  case, two may have one; then the disk refuses the second.)
* Names that begin with a dot stay as they are, unlike those of single files: the folder around them is visible.

Pure: it does not know disks.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from aldis.errors import ProtocolViolation
from aldis.store.messages.control import MAX_SIZE, safe_name

# Files and folders of one transfer: more than a source tree, and few enough to hold. As many folders again may be on
# the ways to them; without that limit a list of 4 MB makes two million folders on a disk.
MAX_ENTRIES: Final = 65_536
MAX_DEPTH: Final = 32  # names of a path: systems take 4,096 bytes for all of it
MAX_MANIFEST: Final = 8 * 1024 * 1024  # bytes; both sides hold it in memory while the folder is under way

_Size: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_SIZE)]
Entry: TypeAlias = tuple[str, _Size]
_FILE: Final = -1
_decoder = msgspec.json.Decoder(list[Entry])


def write_manifest(entries: list[Entry]) -> bytes:
    """The bytes of a manifest. Raises `ValueError` with the limit that the folder exceeds, in plain words."""
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"it has more than {MAX_ENTRIES} files and folders")
    if any(path.rstrip("/").count("/") >= MAX_DEPTH for path, _ in entries):
        raise ValueError(f"it is more than {MAX_DEPTH} folders deep")
    if _folders_of(entries) > MAX_ENTRIES:
        raise ValueError(f"it has more than {MAX_ENTRIES} folders")
    data = msgspec.json.encode(entries)
    if len(data) > MAX_MANIFEST:
        raise ValueError(f"the names of its files have more than {MAX_MANIFEST} bytes")
    return data


def _folders_of(entries: list[Entry]) -> int:
    """How many folders there are, with those on the ways; one more than the limit is enough to know."""
    numbers: dict[tuple[int, str], int] = {}
    for path, _ in entries:
        at = 0
        for name in path.split("/")[:-1]:
            at = numbers.setdefault((at, name), len(numbers) + 1)
        if len(numbers) > MAX_ENTRIES:
            break
    return len(numbers)


def unfit_name(entries: list[Entry]) -> str:
    """What is wrong with the first path that `read_manifest` refuses, in plain words with the path in them."""
    places: dict[str, tuple[str, bool]] = {}  # by safe path: the path that is there, and whether it is a folder
    for path, _ in entries:
        if "\\" in path:
            return f"{path!r} has a backslash, which leads to another folder on another system"
        names = path.removesuffix("/").split("/")
        for count in range(1, len(names) + 1):
            mine = "/".join(names[:count])
            folder = count < len(names) or path.endswith("/")
            there, is_folder = places.setdefault("/".join(map(safe_part, names[:count])), (mine, folder))
            if there != mine and not (folder and is_folder):
                return f"{there!r} and {mine!r} would have one name on another system"
    return "two of its files would have one name on another system"


def read_manifest(data: bytes, size: int) -> list[Entry]:
    """The entries of a manifest, with paths that are safe to make; `size`: bytes that follow. Raises
    `ProtocolViolation`."""
    try:
        entries = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(f"a broken list of files: {error}") from None
    if len(entries) > MAX_ENTRIES:
        raise ProtocolViolation(f"a list of {len(entries)} files; the limit is {MAX_ENTRIES}")
    if sum(each for _, each in entries) != size:
        raise ProtocolViolation("the sizes of the files are not the size of the transfer")
    places = _Places()
    return [(places.take(path, folder=path.endswith("/"), size=each), each) for path, each in entries]


class _Places:
    """The places that are taken, and what each is. A place is the number of the folder around it and a name: texts of
    whole paths would take 16 times the bytes of the list."""

    def __init__(self) -> None:
        self._taken: dict[tuple[int, str], int] = {}  # the number of a folder, or `_FILE`
        self._safe: dict[str, str] = {}
        self._folders = 0

    def take(self, path: str, *, folder: bool, size: int) -> str:
        names = path.removesuffix("/").split("/")
        if len(names) > MAX_DEPTH:
            raise ProtocolViolation(f"a path of {len(names)} names; the limit is {MAX_DEPTH}")
        if folder and size:
            raise ProtocolViolation("a folder with content")
        safe = [self._safe_part(name) for name in names]
        at = 0
        for name in safe if folder else safe[:-1]:
            at = self._folder(at, name)
        if not folder:
            if (at, safe[-1]) in self._taken:
                raise ProtocolViolation("two files with one place")
            self._taken[at, safe[-1]] = _FILE
        return "/".join(safe) + "/" * folder

    def _folder(self, at: int, name: str) -> int:
        found = self._taken.get((at, name))
        if found is None:
            self._folders += 1
            if self._folders > MAX_ENTRIES:
                raise ProtocolViolation(f"more than {MAX_ENTRIES} folders")
            self._taken[at, name] = found = self._folders
        elif found == _FILE:
            raise ProtocolViolation("a file in the place of a folder")
        return found

    def _safe_part(self, name: str) -> str:
        safe = self._safe.get(name)
        if safe is None:
            self._safe[name] = safe = safe_part(name)
        return safe


def safe_part(name: str) -> str:
    """One name of a path. Raises `ProtocolViolation` for one that would lead elsewhere."""
    if name in ("", ".", "..") or "\\" in name:
        raise ProtocolViolation("a path that leads out of the folder")
    return ("." if name.startswith(".") else "") + safe_name(name)
