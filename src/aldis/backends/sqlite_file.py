"""The SQLite file of a directory: how it is opened and what its faults are called.

It knows no thread and no event loop. Each connection belongs to the thread that opened it. A missing file is an error,
not an empty directory in which all names are free again: only `create` makes a file.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from aldis import sqlite_files
from aldis.backends.base import KEY_BYTES, DirectoryTooNew, DirectoryUnavailable
from aldis.errors import UsageError
from aldis.sqlite_files import (
    BUSY,
    FULL,
    IOERR,
    LOCKED,
    NOTADB,
    WORDS,
    ForeignFile,
    Migrations,
    NewerFile,
    cause_of,
    code_of,
    is_read_only,
    make_private,
    migrate,
)

FILE_NAME: Final = "names.sqlite3"
# Kibibytes of pages that SQLite keeps for each connection: about 100,000 names.
CACHE_KIB: Final = 8192
# "ALDI": marks our SQLite files (PRAGMA application_id).
APPLICATION_ID: Final = 0x414C4449

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
    (
        # A table of its own, because few names have a row, and a row may have 48 KiB. `contacts` and `blocked` are the
        # names with a line end after each: no name has one in it.
        """
        CREATE TABLE privacy (
            user_id TEXT NOT NULL PRIMARY KEY,
            presence TEXT NOT NULL,
            offers TEXT NOT NULL,
            contacts TEXT NOT NULL,
            blocked TEXT NOT NULL
        )
        """,
    ),
    # The names that may register, by the operator's word.
    ("CREATE TABLE listed (user_id TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID",),
)

_WORDS: Final = {
    **WORDS,
    NOTADB: "is not a directory of names, or is damaged: restore it from a copy, or move it away",
}


def is_locked(error: Exception) -> bool:
    """Whether another process holds the lock."""
    return code_of(error) in (BUSY, LOCKED)


def keeps_open(error: Exception) -> bool:
    """Whether the connection still works after this fault.

    These are faults of the whole file. Keep it open, because opening it again would need space on the disk.
    """
    return code_of(error) in (BUSY, LOCKED, FULL, IOERR)


class SqliteFile:
    """The file at `path`. `patience` is how many seconds to wait for another process that holds its lock."""

    def __init__(self, path: Path, patience: float, migrations: Migrations = MIGRATIONS) -> None:
        self.path = path
        self._migrations = migrations
        self._patience = patience
        self._identity: tuple[int, int] | None = None
        self.side_lost = False
        """Whether SQLite's side file was removed while in use: what is written to it is gone after a kill.

        Set it then, and nothing opens the file any more: a new side file would not go with what SQLite knows of it.
        """
        self._side_file = path

    @property
    def created(self) -> bool:
        """Whether `create` has succeeded."""
        return self._identity is not None

    def create(self) -> None:
        """Make the file and its folder, or check that it is one of ours and bring it up to date. Call this first."""
        make_private(self.path)
        # As SQLite does: it is beside the file itself, and not beside a link to it.
        real = self.path.resolve()
        self._side_file = real.with_name(f"{real.name}-wal")
        database = self._open()
        try:
            self._prepare(database)
            self._identity = self._now()
        finally:
            database.close()

    def replaced(self) -> bool:
        """Whether the file was deleted or replaced: what is written now would be lost at the next start."""
        return self._now() != self._identity

    def side(self) -> tuple[int, int] | None:
        """Which side file is there. It is the same one for as long as there is a connection."""
        return _identity_of(self._side_file)

    def connect(self) -> sqlite3.Connection:
        """A connection to the file, which must be the one that `create` saw."""
        if self.replaced():
            raise DirectoryUnavailable(f"{self.path} has been removed or replaced while in use: restart to accept that")
        if self.side_lost:
            raise DirectoryUnavailable(f"{self._side_file} has been removed or replaced while in use: restart")
        database = self._open()
        try:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()  # now the side file is there
        except BaseException:
            database.close()
            raise
        return database

    def in_words(self, error: Exception) -> Exception:
        """The exception for one caller: a new one for each, because each gets its own traceback."""
        if isinstance(error, DirectoryUnavailable):
            return type(error)(*error.args)
        if isinstance(error, FileExistsError | NotADirectoryError) and (file := _file_above(self.path)) is not None:
            return DirectoryUnavailable(f"{file} is no directory")
        if isinstance(error, OSError):
            return DirectoryUnavailable(f"{self.path} cannot be opened: {error.strerror or error}")
        if isinstance(error, sqlite3.Error):
            words = _WORDS.get(cause_of(error, self.path), "cannot be used")
            return DirectoryUnavailable(f"{self.path} {words} ({error})")
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
        try:
            migrate(database, APPLICATION_ID, self._migrations)
        except (ForeignFile, NewerFile) as error:
            raise _refused(self.path, error) from None

    def _now(self) -> tuple[int, int] | None:
        return _identity_of(self.path)


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _file_above(path: Path) -> Path | None:
    """What is no folder, and is where the folder of `path` would be, or one above it."""
    return next((folder for folder in path.parents if folder.exists() and not folder.is_dir()), None)


def uri_of(path: Path, *, read_only: bool = False) -> str:
    """The URI that opens a file that is there.

    SQLite reads a file in WAL mode only where it can make side files, unless it is told that nothing changes the file.
    So it is on a file system that is read-only, as the kernel makes it after an error. With a side file it is read as
    usual: that one may have the last names, and its server may see the file system otherwise.
    """
    fixed = is_read_only(path.parent) and not path.with_name(f"{path.name}-wal").exists()
    return f"{path.absolute().as_uri()}?mode={'ro' if read_only or fixed else 'rw'}{'&immutable=1' if fixed else ''}"


def check_file(path: Path) -> None:
    """Raise as `open_present` does."""
    database, _ = open_present(path)
    database.close()


def open_present(path: Path, *, read_only: bool = False) -> tuple[sqlite3.Connection, int]:
    """Open a directory that is there; return the version of its schema, too. Any thread may use the connection.

    Raises `UsageError` unless there is a directory at `path`, and `DirectoryTooNew` when this release cannot read it.
    With `read_only`, SQLite writes nothing to the file, also when it closes it.
    """
    try:
        path.stat()  # for its words: SQLite says only that it cannot open the file
        uri = uri_of(path, read_only=read_only)
        database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            version = version_of(database, path)
        except BaseException:
            database.close()
            raise
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except sqlite3.Error as error:
        raise UsageError(f"{path} {_WORDS.get(code_of(error), 'cannot be used')} ({error})") from None
    except DirectoryTooNew:
        raise
    except DirectoryUnavailable as error:
        raise UsageError(str(error)) from None
    if version == 0:
        database.close()
        raise UsageError(f"{path} is empty")
    return database, version


def check_present(path: Path) -> None:
    """Raise `DirectoryUnavailable` when there is a file at `path` that this release cannot use. Changes nothing."""
    try:
        # Without a server, SQLite would make side files here: the server's user could not open those of another user.
        used = path.with_name(f"{path.name}-wal").exists()
        uri = f"{path.absolute().as_uri()}?{'mode=ro' if used else 'immutable=1'}"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as database:
            if version_of(database, path):
                # As a server does at its start. The first page may be whole, and the names damaged.
                database.execute("SELECT 1 FROM names WHERE user_id = ''").fetchone()
    except sqlite3.Error as error:
        raise DirectoryUnavailable(f"{path} {_WORDS.get(code_of(error), 'cannot be used')} ({error})") from None


def version_of(database: sqlite3.Connection, path: Path) -> int:
    """The version of the schema; 0 for an empty file. Refuses files of other programs and of newer releases."""
    try:
        return sqlite_files.version_of(database, APPLICATION_ID, len(MIGRATIONS))
    except (ForeignFile, NewerFile) as error:
        raise _refused(path, error) from None


def _refused(path: Path, error: ForeignFile | NewerFile) -> DirectoryUnavailable:
    if isinstance(error, ForeignFile):
        return DirectoryUnavailable(f"{path} is a SQLite file of another program")
    return DirectoryTooNew(f"{path} has {error}")
