"""What SQLite files of ours have in common: who may read them, their versions, and what SQLite's faults mean.

It opens no database. Each kind of file has an application id of its own (PRAGMA application_id). `PRAGMA user_version`
says how many migrations a file has had.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from pathlib import Path
from typing import Final, TypeAlias, cast

Migrations: TypeAlias = tuple[tuple[str, ...], ...]
"""The statements from each version of the schema to the next. The first of them make an empty file version 1. Never
change one that was released: add another."""

# SQLite's primary result codes, https://www.sqlite.org/rescode.html
ERROR: Final = 1
BUSY: Final = 5
LOCKED: Final = 6
READONLY: Final = 8
IOERR: Final = 10
CORRUPT: Final = 11
FULL: Final = 13
CANTOPEN: Final = 14
NOTADB: Final = 26

WORDS: Final = {
    BUSY: "is locked by another process",
    LOCKED: "is locked by another process",
    READONLY: "cannot be written: it, or the file system it is on, is read-only",
    IOERR: "cannot be read or written: the disk reports an error or is full",
    CORRUPT: "is damaged: restore it from a copy",
    FULL: "cannot grow: the disk is full",
    CANTOPEN: "cannot be opened: it is missing, or this user may not read and write it",
}


class ForeignFile(Exception):
    """A SQLite file of another program."""


class NewerFile(Exception):
    """A file of a newer release. Attributes: its `version`, and the newest `known` one."""

    def __init__(self, version: int, known: int) -> None:
        super().__init__(f"version {version}, of a newer release of Aldis; this one knows version {known}")
        self.version = version
        self.known = known


def make_private(path: Path) -> None:
    """Make the file and its folder, for this user alone, unless they are there. SQLite gives its side files the same
    mode. Raises `OSError`, also for a file on a disk that cannot be written: SQLite does not say why it cannot open it.

    A file that is there is not opened: closing it would let go of the locks that connections of this process have
    (fcntl(2), "Advisory record locking").
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if is_read_only(path.parent):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path)) from None


def code_of(error: Exception) -> int:
    """The primary result code of an exception of SQLite's; 0 when it has none."""
    return cast(int, getattr(error, "sqlite_errorcode", 0)) & 0xFF


def cause_of(error: Exception, path: Path) -> int:
    """As `code_of`, for the file at `path`, but `READONLY` where SQLite does not know that this is the reason."""
    code = code_of(error)
    return READONLY if code in (IOERR, CANTOPEN) and is_read_only(path.parent) else code


def is_read_only(folder: Path) -> bool:
    """Whether the file system of a folder cannot be written.

    The kernel makes it read-only when the disk fails. New ones (6.18, ext4) do not tell that in statvfs(2), but no file
    can be opened for writing. So this opens one without a name.
    """
    if sys.platform == "win32":
        return False
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return True
        if sys.platform == "linux":
            os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError as error:
        return error.errno == errno.EROFS
    return False


def version_of(database: sqlite3.Connection, application_id: int, known: int) -> int:
    """The version of the schema; 0 for an empty file. Raises `ForeignFile` and `NewerFile`."""
    if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return 0
    if database.execute("PRAGMA application_id").fetchone()[0] != application_id:
        raise ForeignFile
    version = cast(int, database.execute("PRAGMA user_version").fetchone()[0])
    if version > known:
        raise NewerFile(version, known)
    return version


def migrate(database: sqlite3.Connection, application_id: int, migrations: Migrations) -> None:
    """Bring the schema to the newest version, in one transaction. Raises as `version_of`."""
    if version_of(database, application_id, len(migrations)) == len(migrations):
        return
    database.execute("BEGIN IMMEDIATE")
    # Again: another process may have been faster.
    for statements in migrations[version_of(database, application_id, len(migrations)) :]:
        for statement in statements:
            database.execute(statement)
    database.execute(f"PRAGMA application_id={application_id}")
    database.execute(f"PRAGMA user_version={len(migrations)}")
    database.execute("COMMIT")
