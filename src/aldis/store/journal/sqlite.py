"""A journal in one SQLite file, with a small one beside it (`hands`).

Rules of this module:

* One process has the file at a time: SQLite's exclusive lock is taken when it is opened, and kept. The system lets go
  of it when the process ends in whatever way. A child that is forked meanwhile does not have it.
* What `write` has returned for survives `kill -9` and a power cut (WAL with `synchronous=FULL`).
* A fault changes nothing that is in the file. The connection stays open after faults of the whole file, such as a full
  disk, so the next call may work.
* Rows are written many at a time. Each statement lets go of Python's lock, and the event loop may take long to give it
  back: a statement for each row would be slow on a busy loop.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias, TypeVar
from weakref import WeakSet

import msgspec

from aldis.errors import (
    JournalCorrupt,
    JournalDiskFull,
    JournalError,
    JournalInUse,
    JournalReadOnly,
    JournalTooNew,
)
from aldis.settings import check_path
from aldis.sqlite_files import (
    BUSY,
    CANTOPEN,
    CORRUPT,
    ERROR,
    FULL,
    LOCKED,
    NOTADB,
    READONLY,
    WORDS,
    ForeignFile,
    Migrations,
    NewerFile,
    cause_of,
    code_of,
    make_private,
    migrate,
)
from aldis.store.journal import checked
from aldis.store.journal.hands import MARK_BYTES, NO_MARK, FileHands, Found, fault_of_system, remaining
from aldis.store.journal.rows import (
    MAX_NUMBER,
    NUMBER_BITS,
    ArrivedRow,
    Changes,
    Contents,
    HandedOver,
    Owner,
    PositionRow,
    QueuedRow,
)

# "ALDJ"
APPLICATION_ID: Final = 0x414C444A
HANDS_SUFFIX: Final = "-hands"
_WAL_SUFFIX: Final = "-wal"  # SQLite's; there from the first write until the file is closed
# The side file with the newest rows is cut to this size when it was larger (bytes).
_WAL_LIMIT: Final = 16 * 1024 * 1024
# Rows in one statement: a few sizes, so that each is compiled once. SQLite takes 32,766 values in a statement.
_BATCHES: Final = (512, 64, 8, 1)
# Bytes. A message of 16 KiB takes little more than one page of this size, and five of SQLite's 4 KiB: each page is
# summed, written to the side file and copied later. Files from before keep the pages that they have.
_PAGE: Final = 16 * 1024
# Pages in the side file after which they are copied, 12 MiB: less than its limit, so that it need not be cut each time.
# What is deleted before is never copied, and its pages are used again.
_CHECKPOINT: Final = 750
# Free pages that are given back to the file system when the journal is closed.
_VACUUM_PAGES: Final = 50_000

# `id` of a queued row: its queue << 40 | its number.
MIGRATIONS: Final[Migrations] = (
    (
        "CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
        """
        CREATE TABLE devices (
            id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, device TEXT,
            queue INTEGER NOT NULL, stream TEXT NOT NULL, acknowledged INTEGER NOT NULL
        )
        """,
        """
        CREATE TABLE queued (
            id INTEGER PRIMARY KEY, content INTEGER NOT NULL, data BLOB NOT NULL,
            queued_at REAL NOT NULL, movable INTEGER NOT NULL
        )
        """,
        """
        CREATE TABLE positions (
            device INTEGER NOT NULL, stream TEXT NOT NULL, sequence INTEGER NOT NULL, place INTEGER NOT NULL,
            PRIMARY KEY (device, stream)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE arrived (
            place INTEGER PRIMARY KEY, sender TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
            sequence INTEGER NOT NULL, content INTEGER NOT NULL, data BLOB NOT NULL, redelivered INTEGER NOT NULL
        )
        """,
        "CREATE TABLE files (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    ),
    ("ALTER TABLE devices ADD COLUMN sent INTEGER",),
    ("ALTER TABLE devices ADD COLUMN reserved INTEGER NOT NULL DEFAULT 0",),
)

_Value: TypeAlias = "int | float | str | bytes | None"
_Row = TypeVar("_Row")

_OF_SQLITE: Final[dict[int, type[JournalError]]] = {FULL: JournalDiskFull, READONLY: JournalReadOnly}


_NOTHING: Final = Found(frozenset(), HandedOver(), certain=False)


def _queued_id(queue: int, number: int) -> int:
    if number > MAX_NUMBER:  # it would be a number of the next queue
        raise OverflowError(f"{number} messages in one stream")
    return queue << NUMBER_BITS | number


class SqliteJournal:
    """See `journal.Journal`. Nothing is opened yet."""

    def __init__(self, path: Path | str, *, migrations: Migrations = MIGRATIONS) -> None:
        """Raises `ConfigError` when `path` is not a path."""
        given = check_path("journal", path)
        # As SQLite does: the files beside it are those of the file, not of a link to it.
        self._path = Path(os.path.realpath(given))
        self._migrations = migrations
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, int] = (0, 0)
        self._mark = NO_MARK
        self._found = _NOTHING
        self._rolled_back = False
        self.name = str(given)
        self.hands = FileHands(self._path.with_name(self._path.name + HANDS_SUFFIX))

    # --- open and close ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Raises `JournalError`."""
        try:
            with self._in_words():
                make_private(self._path)
                self._database = self._connect()
                self._take_mark(self._database)
                self._identity = self._files()
        except BaseException:
            self.close()
            raise
        _open.add(self)

    def leave_to_parent(self) -> None:
        """In a child of the process that has it: do not have it any more, and leave its files as they are.

        The connection is kept as it is for as long as the child runs. When it was closed, SQLite would copy the side
        file and delete it, which the parent goes on writing to.
        """
        database, self._database = self._database, None
        self.hands.close()
        if database is not None:
            with suppress(ImportError, AttributeError):
                import ctypes  # needed here alone

                ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))

    def _files(self) -> tuple[int, int]:
        """Which files are there. What is written to one that was removed is gone when the process is killed."""
        return self._path.stat().st_ino, self._path.with_name(self._path.name + _WAL_SUFFIX).stat().st_ino

    def _connect(self) -> sqlite3.Connection:
        # No patience: whoever has the lock keeps it for as long as it runs. Calls come from one thread at a time.
        database = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            # First: SQLite then takes the lock for good, and needs no shared memory.
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute(f"PRAGMA page_size={_PAGE}")
            database.execute("PRAGMA auto_vacuum=INCREMENTAL")
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA secure_delete=FAST")
            database.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT}")
            database.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}")
            migrate(database, APPLICATION_ID, self._migrations)
            # A write, since a file that cannot be written is better known now.
            database.execute("INSERT OR REPLACE INTO facts VALUES ('opened', 1)")
        except BaseException:
            database.close()
            raise
        return database

    def _take_mark(self, database: sqlite3.Connection) -> None:
        """Name this opening, in the file and beside it, and compare what the last one was called."""
        row = database.execute("SELECT value FROM facts WHERE name = 'mark'").fetchone()
        self._found = self.hands.open()
        known = None if row is None else row[0] if isinstance(row[0], bytes) else b"damaged"
        if known is None:
            self._found = _NOTHING  # the file is new: what is beside it belongs to one that was deleted
        self._rolled_back = known is not None and known not in self._found.marks
        if self._rolled_back:
            self._forget_sent(database)  # first: after the new mark nothing shows it any more
        self._change_mark(database, known or NO_MARK, clean=False)

    @staticmethod
    def _forget_sent(database: sqlite3.Connection) -> None:
        """What this state has not sent may have been sent after it."""
        database.execute("UPDATE devices SET sent = NULL WHERE sent IS NOT NULL")

    def _change_mark(self, database: sqlite3.Connection, known: bytes, *, clean: bool) -> None:
        # Between the two either mark is right. After a fault of the second step, `close` must not change it once more:
        # the file may have the one before.
        mark = secrets.token_bytes(MARK_BYTES)
        self.hands.mark(known, mark, clean=clean)
        database.execute("INSERT OR REPLACE INTO facts VALUES ('mark', ?)", (mark,))
        self._mark = mark
        self.hands.mark(mark, NO_MARK, clean=clean)

    def close(self) -> None:
        """Idempotent. Faults are not told: what was written is there."""
        _open.discard(self)
        database, self._database = self._database, None
        if database is not None:
            with suppress(sqlite3.Error, OSError):
                if self._mark != NO_MARK:
                    # Another mark: whoever copies the file while it is open has an old one.
                    self._change_mark(database, self._mark, clean=True)
                database.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
            with suppress(sqlite3.Error):
                database.close()
        self.hands.close()

    # --- the journal ------------------------------------------------------------------------------------------------

    def load(self) -> Contents:
        """Raises `JournalError`."""
        with self._in_words():
            try:
                return self._load(self._ready())
            except msgspec.ValidationError as error:
                raise self._damaged(error) from error
            except sqlite3.Error as error:
                if not code_of(error):  # text that is no UTF-8, of which SQLite knows nothing
                    raise self._damaged(error) from error
                raise

    def _load(self, database: sqlite3.Connection) -> Contents:
        contents = Contents(
            owner=_owner(database),
            devices=checked.devices(database.execute("SELECT * FROM devices")),
            queued=checked.queued(database.execute("SELECT * FROM queued ORDER BY id")),
            positions=checked.positions(database.execute("SELECT * FROM positions")),
            files=checked.files(database.execute("SELECT name, value FROM files")),
            rolled_back=self._rolled_back,
        )
        self._load_arrived(database, contents)
        return contents

    def _load_arrived(self, database: sqlite3.Connection, contents: Contents) -> None:
        handed_over = self._found.handed_over
        rows, marked = checked.arrived(database.execute("SELECT * FROM arrived ORDER BY place"))
        top = max(contents.last_place, *rows, 0)
        if handed_over.given > top:
            self._rolled_back = contents.rolled_back = True  # something was given that is not in this state
            self._forget_sent(database)
            contents.devices = {number: replace(row, sent=None) for number, row in contents.devices.items()}
        places = list(rows)
        if contents.rolled_back:
            redelivered = places  # nobody knows what the application has had
        else:
            self._delete_arrived(database, handed_over)
            places = [place for place in places if not handed_over.covers(place)]
            redelivered = [place for place in places if not self._found.certain or place in handed_over.in_hands]
        statement = "UPDATE arrived SET redelivered = 1 WHERE place = ?"
        with _transaction(database):
            database.executemany(statement, [(place,) for place in redelivered])
        self.hands.reset(remaining(places, top))
        contents.arrived = {place: rows[place] for place in places}
        contents.redelivered = (marked & set(places)) | set(redelivered)

    def write(self, changes: Changes) -> None:
        """Raises `JournalError`."""
        with self._in_words():
            database = self._ready()
            if self._files() != self._identity:
                raise JournalError(self.name, "has been removed or replaced while in use")
            with _transaction(database):
                self._write(database, changes)

    def _ready(self) -> sqlite3.Connection:
        if self._database is None:
            raise JournalError(self.name, "is closed")
        return self._database

    def _write(self, database: sqlite3.Connection, changes: Changes) -> None:
        if changes.owner is not None:
            owner = changes.owner
            facts = [("server", owner.server), ("user", owner.user_id), ("device", owner.device)]
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts)
        for queue in changes.dropped:
            _delete_queue(database, queue, MAX_NUMBER)
        for number, device in changes.devices.items():
            if device is None:
                database.execute("DELETE FROM devices WHERE id = ?", (number,))
                database.execute("DELETE FROM positions WHERE device = ?", (number,))
            else:
                database.execute("INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?)", astuple(device))
        for queue, acknowledged in changes.acknowledged.items():
            _delete_queue(database, queue, acknowledged)
            statement = "UPDATE devices SET acknowledged = ? WHERE queue = ?"
            database.execute(statement, (acknowledged, queue))
        gone = [(_queued_id(*key),) for key, row in changes.queued.items() if row is None]
        if gone:
            database.executemany("DELETE FROM queued WHERE id = ?", gone)
        _insert(database, "queued", 5, changes.queued.values(), _queued_values)
        _insert(database, "arrived", 8, changes.arrived.values(), _arrived_values)
        for (device_id, stream), position in changes.positions.items():
            if position is None:
                database.execute("DELETE FROM positions WHERE device = ? AND stream = ?", (device_id, stream))
        _insert(database, "positions", 4, changes.positions.values(), _position_values)
        if changes.handed_over is not None:
            self._delete_arrived(database, changes.handed_over)
        for name, value in changes.files.items():
            if value is None:
                database.execute("DELETE FROM files WHERE name = ?", (name,))
            else:
                database.execute("INSERT OR REPLACE INTO files VALUES (?, ?)", (name, value))

    @staticmethod
    def _delete_arrived(database: sqlite3.Connection, handed_over: HandedOver) -> None:
        kept = ",".join(str(place) for place in sorted(handed_over.in_hands))
        statement = f"DELETE FROM arrived WHERE place <= ? AND place NOT IN ({kept})"  # noqa: S608 - numbers of ours
        database.execute(statement, (handed_over.given,))

    # --- faults -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn a fault into a `JournalError`."""
        try:
            yield
        except NewerFile as error:
            raise JournalTooNew(self.name, f"has {error}") from None
        except ForeignFile:
            raise JournalCorrupt(self.name, "is a SQLite file of another program") from None
        except UnicodeDecodeError as error:  # in what SQLite says of a damaged schema
            raise self._damaged(error) from error
        except OSError as error:
            raise fault_of_system(self.name, error) from error
        except sqlite3.Error as error:
            raise self._of_sqlite(error) from error

    def _damaged(self, error: Exception) -> JournalCorrupt:
        return JournalCorrupt(self.name, f"is damaged: restore it from a copy, or move it away ({error})")

    def _of_sqlite(self, error: sqlite3.Error) -> JournalError:
        code = cause_of(error, self._path)
        if code in (BUSY, LOCKED):
            return JournalInUse(self.name, "is in use by another program, and only one may have it")
        if code == CANTOPEN and not os.access(self._path.parent, os.W_OK):
            code = READONLY
        if code == NOTADB:
            return JournalCorrupt(self.name, f"is no journal, or is damaged: restore it, or move it away ({error})")
        if code in (CORRUPT, ERROR):  # a table or a column is missing
            return self._damaged(error)
        return _OF_SQLITE.get(code, JournalError)(self.name, f"{WORDS.get(code, 'cannot be used')} ({error})")


# Those that this process has.
_open: Final[WeakSet[SqliteJournal]] = WeakSet()


def _leave_all() -> None:
    for journal in list(_open):
        journal.leave_to_parent()
    _open.clear()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_leave_all)


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            with suppress(sqlite3.Error):
                database.execute("ROLLBACK")
        raise


def _owner(database: sqlite3.Connection) -> Owner | None:
    facts = checked.texts(database.execute("SELECT name, value FROM facts WHERE name IN ('server', 'user', 'device')"))
    return Owner(facts["server"], facts["user"], facts["device"]) if len(facts) == 3 else None


def _delete_queue(database: sqlite3.Connection, queue: int, number: int) -> None:
    statement = "DELETE FROM queued WHERE id BETWEEN ? AND ?"
    database.execute(statement, (_queued_id(queue, 0), _queued_id(queue, number)))


@cache
def _insert_statement(table: str, columns: int, rows: int) -> str:
    row = f"({','.join('?' * columns)})"
    return f"INSERT OR REPLACE INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 - a table of ours


def _insert(
    database: sqlite3.Connection,
    table: str,
    columns: int,
    rows: Iterable[_Row | None],
    values: Callable[[_Row], Sequence[_Value]],
) -> None:
    present = [row for row in rows if row is not None]
    start = 0
    for size in _BATCHES:
        while len(present) - start >= size:
            batch = present[start : start + size]
            database.execute(_insert_statement(table, columns, size), [value for row in batch for value in values(row)])
            start += size


def _queued_values(row: QueuedRow) -> Sequence[_Value]:
    return _queued_id(row.queue, row.number), row.content, row.data, row.queued_at, row.movable


def _arrived_values(row: ArrivedRow) -> Sequence[_Value]:
    return row.place, row.sender, row.device, row.stream, row.sequence, row.content, row.data, 0


def _position_values(row: PositionRow) -> Sequence[_Value]:
    return row.device, row.stream, row.sequence, row.place
