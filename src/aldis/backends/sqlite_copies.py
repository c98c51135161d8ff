"""Backup and restore of a directory in a SQLite file.

Rules:

* A backup is one file, whole and consistent, also while a server writes: SQLite copies one snapshot. It gets its name
  when it is on the disk, and never replaces a file. Small files that belong to the names go along, in a table of it.
* A restore refuses while another process has the directory open, because that process has told users whose names are
  whose. The old directory is kept beside the new one. At each moment there is either the old or the new one: a server
  that found no file would take all names for free.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from aldis.backends.base import DirectoryTooNew
from aldis.backends.sqlite_file import SqliteFile, check_file, is_locked, uri_of, version_of
from aldis.errors import UsageError
from aldis.sqlite_files import CORRUPT, NOTADB, code_of

# Seconds to wait for a lock: a server holds it for milliseconds, and in a restore a server that runs does not let go.
_PATIENCE: Final = 2.0
_SIDE_FILES: Final = ("-wal", "-shm")
# In backups only, and not in all: those of earlier releases and what `aldis directory copy` makes have none.
_ALONG: Final = "CREATE TABLE along (name TEXT NOT NULL PRIMARY KEY, content BLOB NOT NULL)"


def backup(path: Path, copy: Path, along: Mapping[str, bytes]) -> int:
    """Copy the directory at `path` to the new file `copy`; return the number of names.

    `along` are contents of files that go along, by name. A server may use the directory meanwhile. Raises `UsageError`
    for a file that cannot be used, `DirectoryTooNew` for one of a newer release, and `DirectoryUnavailable` when the
    copy cannot be made.
    """
    check_file(path)
    if os.path.lexists(copy):
        raise UsageError(f"{copy} exists already; a backup never replaces a file")
    with _in_words(copy), _draft(copy) as draft:
        names, _ = _copy(path, draft, along)
        _give_name(draft, copy)
    return names


def restore(path: Path, copy: Path, put: Callable[[Mapping[str, bytes]], None]) -> tuple[int, Path | None]:
    """Put the backup `copy` in the place of the directory at `path`.

    `put` is called before that with what went along; when it raises, nothing is replaced. Returns the number of names,
    and where the old directory is kept, if there was one. Raises `UsageError` when a
    process has the directory open or the backup cannot be used, and `DirectoryUnavailable` for other faults.
    """
    try:
        check_file(copy)
    except DirectoryTooNew as error:
        raise UsageError(str(error)) from None  # without the advice for a server's own names
    with _in_words(path), _held(path) as old, _draft(path) as draft:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        names, along = _copy(copy, draft)
        put(along)
        kept = None
        if old is not None:
            kept = _free_name(path)
            _give_name(path, kept)
            # Left by a damaged file. It may have its last names, and whoever mends the file needs both.
            with suppress(FileNotFoundError):
                _give_name(_beside(path, "-wal"), _beside(kept, "-wal"))
        if os.name == "posix" and os.geteuid() == 0:
            # The server has to read it, and may not run as root. On a new machine its folder is there already.
            owner = old or path.parent.stat()
            os.chown(draft, owner.st_uid, owner.st_gid)
        for side in _SIDE_FILES:
            # SQLite would apply it to the new file.
            with suppress(FileNotFoundError):
                _beside(path, side).unlink()
        draft.replace(path)
    return names, kept


def check_unused(path: Path) -> None:
    """Raise `UsageError` when another process has the directory at `path` open. Other faults are not told."""
    with suppress(OSError, sqlite3.Error), _held(path):
        pass


def _copy(path: Path, draft: Path, along: Mapping[str, bytes] | None = None) -> tuple[int, dict[str, bytes]]:
    """Copy a database to an empty file, check the copy, and bring it to the disk.

    What goes `along` is put into a backup; what the database had along is taken out. Returns the number of names, and
    what was taken out.
    """
    with (
        _damage_of(path),
        closing(sqlite3.connect(uri_of(path), uri=True, timeout=_PATIENCE, isolation_level=None)) as source,
        closing(sqlite3.connect(draft, isolation_level=None)) as target,
    ):
        source.backup(target)  # in one step: one snapshot
        # A single file that a person can copy. The server switches to WAL when it opens it.
        target.execute("PRAGMA journal_mode=DELETE")
        checked = target.execute("PRAGMA quick_check").fetchone()[0]
        if checked != "ok":
            raise UsageError(f"{path} is damaged ({checked}); nothing was changed")
        version_of(target, path)
        names = int(target.execute("SELECT count(*) FROM names").fetchone()[0])
        found: dict[str, bytes] = {}
        if target.execute("SELECT 1 FROM sqlite_master WHERE name = 'along'").fetchone():
            found = dict(target.execute("SELECT name, content FROM along"))
            target.execute("DROP TABLE along")
        if along:
            target.execute(_ALONG)
            target.executemany("INSERT INTO along VALUES (?, ?)", along.items())
    _flush(draft)
    return names, found


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    """Blame `path` for damage that is found while it is copied: the copy is new, and only has it from there."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if code_of(error) not in (CORRUPT, NOTADB):
            raise
        raise UsageError(f"{path} is damaged ({error}); nothing was changed") from None


@contextmanager
def _held(path: Path) -> Iterator[os.stat_result | None]:
    """Hold the directory, so that no server opens it meanwhile. None when there is no file yet."""
    if not path.exists():
        yield None
        return
    with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as database:
        try:
            # In this mode, SQLite locks the whole file, which every open connection prevents.
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("PRAGMA journal_mode=DELETE")
            database.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if is_locked(error):
                raise UsageError(f"{path} is in use: stop the server first, and start it again afterwards") from None
            raise
        except sqlite3.DatabaseError:
            pass  # damaged. A server that has it open sees that it is replaced, and gives no name away.
        yield path.stat()


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, which only its owner may read, and which is gone afterwards."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)
        _flush(path.parent)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise SqliteFile(path, _PATIENCE).in_words(error) from error


def _free_name(path: Path) -> Path:
    number = 1
    while any(map(os.path.lexists, (kept := _beside(path, f".before-restore-{number}"), _beside(kept, "-wal")))):
        number += 1
    return kept


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _give_name(file: Path, name: Path) -> None:
    """Give a file another name, too; `FileExistsError` when there is such a file."""
    try:
        os.link(file, name)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, as on a memory stick
        with file.open("rb") as source, name.open("xb") as target:
            shutil.copyfileobj(source, target)
        _flush(name)


def _flush(path: Path) -> None:
    if os.name != "posix" and path.is_dir():  # pragma: no cover - elsewhere a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
