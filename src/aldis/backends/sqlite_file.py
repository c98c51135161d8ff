"""The SQLite file of a directory: how it is opened and what its faults are called.

It knows no thread and no event loop. Each connection belongs to the thread that opened it. A missing file is an error,
not an empty directory in which all names are free again: only `create` makes a file.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias, cast

from aldis.backends.base import KEY_BYTES, DirectoryUnavailable
from aldis.errors import UsageError

FILE_NAME: Final = "names.sqlite3"
# Kibibytes of pages that SQLite keeps for each connection: about 100,000 names.
CACHE_KIB: Final = 8192
# "ALDI": marks our SQLite files (PRAGMA application_id).
APPLICATION_ID: Final = 0x414C4449

Migrations: TypeAlias = tuple[tuple[str, ...], ...]
"""The statements from each version of the schema to the next. The first of them make an empty file version 1."""

# Never change one that was released: add another. `PRAGMA user_version` says how many a file has had.
MIGRATIONS: Final[Migrations] = (
    (
        f"""
        CREATE TABLE names (
            user_id TEXT NOT NULL PRIMARY KEY,
            public_key BLOB NOT NULL CHECK (length(public_key) = {KEY_BYTES})
        ) WITHOUT ROWID
        """,
        # A row that `check` writes after a failed write, to see whether the disk accepts writes again.
        "CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), written INTEGER NOT NULL)",
    ),
)

# SQLite's primary result codes, https://www.sqlite.org/rescode.html
_BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 5, 6, 8, 10, 11, 13, 14, 26
_WORDS: Final = {
    _BUSY: "is locked by another process",
    _LOCKED: "is locked by another process",
    _READONLY: "cannot be written: it, or the file system it is on, is read-only",
    _IOERR: "cannot be read or written: the disk reports an error or is full",
    _CORRUPT: "is damaged: restore it from a copy",
    _FULL: "cannot grow: the disk is full",
    _CANTOPEN: "cannot be opened: it is missing, or this user may not read and write it",
    _NOTADB: "is not a directory of names, or is damaged: restore it from a copy, or move it away",
}


def _code(error: Exception) -> int:
    return cast(int, getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_locked(error: Exception) -> bool:
    """Whether another process holds the lock."""
    return _code(error) in (_BUSY, _LOCKED)


def keeps_open(error: Exception) -> bool:
    """Whether the connection still works after this fault.

    These are faults of the whole file. Keep it open, because opening it again would need space on the disk.
    """
    return _code(error) in (_BUSY, _LOCKED, _FULL, _IOERR)


class SqliteFile:
    """The file at `path`. `patience` is how many seconds to wait for another process that holds its lock."""

    def __init__(self, path: Path, patience: float, migrations: Migrations = MIGRATIONS) -> None:
        self.path = path
        self._migrations = migrations
        self._patience = patience
        self._identity: tuple[int, int] | None = None

    @property
    def created(self) -> bool:
        """Whether `create` has succeeded."""
        return self._identity is not None

    def create(self) -> None:
        """Make the file and its folder, or check that it is one of ours and bring it up to date. Call this first."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Names are private; SQLite gives its side files the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        database = self._open()
        try:
            self._prepare(database)
            self._identity = self._now()
        finally:
            database.close()

    def replaced(self) -> bool:
        """Whether the file was deleted or replaced: what is written now would be lost at the next start."""
        return self._now() != self._identity

    def connect(self) -> sqlite3.Connection:
        """A connection to the file, which must be the one that `create` saw."""
        if self.replaced():
            raise DirectoryUnavailable(f"{self.path} has been removed or replaced while in use: restart to accept that")
        return self._open()

    def in_words(self, error: Exception) -> Exception:
        """The exception for one caller: a new one for each, because each gets its own traceback."""
        if isinstance(error, DirectoryUnavailable):
            return DirectoryUnavailable(*error.args)
        if isinstance(error, OSError):
            return DirectoryUnavailable(f"{self.path} cannot be opened: {error.strerror or error}")
        if isinstance(error, sqlite3.Error):
            return DirectoryUnavailable(f"{self.path} {_WORDS.get(_code(error), 'cannot be used')} ({error})")
        return error  # a bug, here or in the caller

    # --- internal ---------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=self._patience, isolation_level=None)
        try:
            self._configure(database)
        except BaseException:
            database.close()
            raise
        return database

    def _configure(self, database: sqlite3.Connection) -> None:
        mode = database.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise DirectoryUnavailable(
                f"{self.path} is on a file system without shared memory, which SQLite's WAL needs"
            )
        database.execute("PRAGMA synchronous=FULL")
        database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Bring the schema to the newest version, in one transaction."""
        if version_of(database, self.path, len(self._migrations)) == len(self._migrations):
            return
        database.execute("BEGIN IMMEDIATE")
        # Again: another process may have been faster.
        for statements in self._migrations[version_of(database, self.path, len(self._migrations)) :]:
            for statement in statements:
                database.execute(statement)
        database.execute(f"PRAGMA application_id={APPLICATION_ID}")
        database.execute(f"PRAGMA user_version={len(self._migrations)}")
        database.execute("COMMIT")

    def _now(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino


def check_file(path: Path) -> None:
    """Raise `UsageError` unless there is a directory at `path` that this release can read."""
    try:
        path.open("rb").close()
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            if version_of(database, path) == 0:
                raise UsageError(f"{path} is empty")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except sqlite3.Error as error:
        raise UsageError(f"{path} {_WORDS.get(_code(error), 'cannot be used')} ({error})") from None
    except DirectoryUnavailable as error:
        raise UsageError(str(error)) from None


def version_of(database: sqlite3.Connection, path: Path, known: int = len(MIGRATIONS)) -> int:
    """The version of the schema; 0 for an empty file. Refuses files of other programs and of newer releases."""
    if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise DirectoryUnavailable(f"{path} is a SQLite file of another program")
    version = cast(int, database.execute("PRAGMA user_version").fetchone()[0])
    if version > known:
        raise DirectoryUnavailable(
            f"{path} has version {version}, of a newer release of Aldis; this one knows version {known}"
        )
    return version
