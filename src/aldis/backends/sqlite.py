"""The directory in one SQLite file, for a single server without other software.

Rules:

* One thread owns the database, and the event loop never touches the disk. The thread takes all waiting calls, answers
  those that need only reading, and puts the rest into one transaction. One disk sync then binds all names that have
  come meanwhile, so the rate of syncs does not limit the rate of registrations.
* A call is answered after its commit (WAL with `synchronous=FULL`: after the sync). So an answer to a client survives
  `kill -9` and a power cut.
* A binding is never invented: a missing file is an error, not an empty directory in which all names are free again.
* A fault fails only the calls that met it. Reading works while writing cannot (disk full, file locked), and the next
  call tries again.

Several processes may use one file. The only cache is SQLite's own, which notices writes of other processes.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias, cast

from aldis.backends.base import KEY_BYTES, DirectoryUnavailable
from aldis.errors import InvalidAddress

FILE_NAME: Final = "names.sqlite3"
# Seconds. A process that holds the lock for longer is stuck, or is a person at a prompt; clients time out soon after.
PATIENCE: Final = 5.0
# Calls in one transaction. This limits how long the first of them waits for the last.
MAX_BATCH: Final = 1000
# Kibibytes of pages that SQLite keeps: the size of the read cache, about 100,000 names.
CACHE_KIB: Final = 8192
# "ALDI": marks our SQLite files (PRAGMA application_id).
APPLICATION_ID: Final = 0x414C4449
SCHEMA_VERSION: Final = 1

_SCHEMA: Final = f"""
CREATE TABLE names (
    user_id TEXT NOT NULL PRIMARY KEY,
    public_key BLOB NOT NULL CHECK (length(public_key) = {KEY_BYTES})
) WITHOUT ROWID
"""
# A row that `check` writes after a failed write, to see whether the disk accepts writes again.
_PROBE_SCHEMA: Final = "CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), written INTEGER NOT NULL)"
_PROBE: Final = "INSERT INTO probe VALUES (1, 1) ON CONFLICT DO UPDATE SET written = written + 1"
_SELECT: Final = "SELECT public_key FROM names WHERE user_id = ?"

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
# Faults of the whole file, after which the open database still works. Keep it open, because opening it again would need
# space on the disk.
_OF_ALL: Final = (_BUSY, _LOCKED, _FULL, _IOERR)

_Settled: TypeAlias = "tuple[_Call, object, Exception | None]"


class _NeedsWriting:
    """The result of reading when the call also needs a write."""


_NEEDS_WRITING: Final = _NeedsWriting()


class _Call:
    """One call on its way through the thread: `read` answers it, or leaves it to `write`."""

    __slots__ = ("future", "read", "write")

    def __init__(
        self,
        future: asyncio.Future[object],
        read: Callable[[sqlite3.Connection], object],
        write: Callable[[sqlite3.Connection], object],
    ) -> None:
        self.future = future
        self.read = read
        self.write = write


def _select(database: sqlite3.Connection, user_id: str) -> bytes | None:
    row = database.execute(_SELECT, (user_id,)).fetchone()
    return None if row is None else cast(bytes, row[0])


def _check_text(user_id: str) -> None:
    # SQLite keeps UTF-8, which has no lone surrogates. Such a text must not fail the other calls in its transaction.
    try:
        user_id.encode()
    except UnicodeEncodeError:
        raise InvalidAddress(user_id, "it contains a lone surrogate") from None


class SqliteDirectory:
    """Bindings in a SQLite file; see `base.Directory` for each call. Call `open` to make one."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        # Used by the thread only:
        self._database: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._write_failed = False
        # A daemon thread, so that a program that forgets to close can end. Nothing is lost: answers follow commits.
        self._thread = threading.Thread(target=self._run, name="aldis-directory", daemon=True)

    @classmethod
    async def open(cls, path: Path | str, *, patience: float = PATIENCE) -> SqliteDirectory:
        """Open the file at `path`, or make it and its folder. Raises `DirectoryUnavailable` when that fails.

        `patience` is how many seconds to wait for another process that holds the file's lock.
        """
        directory = cls(Path(path), patience)
        directory._thread.start()
        try:
            await directory.check()
        except BaseException:
            await directory.close()
            raise
        return directory

    # --- on the event loop -----------------------------------------------------------------------------------------

    async def claim(self, user_id: str, public_key: bytes) -> bytes:
        _check_text(user_id)

        def read(database: sqlite3.Connection) -> bytes | _NeedsWriting:
            return _select(database, user_id) or _NEEDS_WRITING

        def write(database: sqlite3.Connection) -> bytes | None:
            database.execute("INSERT INTO names VALUES (?, ?) ON CONFLICT DO NOTHING", (user_id, public_key))
            return _select(database, user_id)

        return cast(bytes, await self._ask(read, write))

    async def find(self, user_id: str) -> bytes | None:
        _check_text(user_id)

        def read(database: sqlite3.Connection) -> bytes | None:
            return _select(database, user_id)

        return cast("bytes | None", await self._ask(read, read))

    async def rotate(self, user_id: str, old_key: bytes, new_key: bytes) -> bool:
        _check_text(user_id)

        def read(database: sqlite3.Connection) -> bool | _NeedsWriting:
            key = _select(database, user_id)
            return _NEEDS_WRITING if key == old_key != new_key else key == new_key

        def write(database: sqlite3.Connection) -> bool:
            database.execute(
                "UPDATE names SET public_key = ? WHERE user_id = ? AND public_key = ?", (new_key, user_id, old_key)
            )
            return _select(database, user_id) == new_key

        return cast(bool, await self._ask(read, write))

    async def release(self, user_id: str) -> bool:
        _check_text(user_id)

        def read(database: sqlite3.Connection) -> bool | _NeedsWriting:
            return False if _select(database, user_id) is None else _NEEDS_WRITING

        def write(database: sqlite3.Connection) -> bool:
            return database.execute("DELETE FROM names WHERE user_id = ?", (user_id,)).rowcount > 0

        return cast(bool, await self._ask(read, write))

    async def check(self) -> None:
        def read(database: sqlite3.Connection) -> _NeedsWriting:
            _select(database, "")
            return _NEEDS_WRITING  # to take the write lock

        def write(database: sqlite3.Connection) -> None:
            if self._write_failed:
                database.execute(_PROBE)

        await self._ask(read, write)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._calls.put(None)
        await asyncio.shield(self._stopped)
        self._thread.join()

    async def _ask(
        self, read: Callable[[sqlite3.Connection], object], write: Callable[[sqlite3.Connection], object]
    ) -> object:
        if self._closed:
            raise DirectoryUnavailable(f"{self._path} is closed")
        future: asyncio.Future[object] = self._loop.create_future()
        self._calls.put(_Call(future, read, write))
        return await future

    @staticmethod
    def _deliver(outcomes: list[_Settled]) -> None:
        for call, result, error in outcomes:
            if call.future.done():
                continue  # the caller was cancelled
            if error is None:
                call.future.set_result(result)
            else:
                call.future.set_exception(error)

    # --- on the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while batch := self._take():
                self._serve(batch)
        finally:
            self._drop()
            self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    def _take(self) -> list[_Call]:
        """All waiting calls, at least one; an empty list when closed."""
        first = self._calls.get()
        if first is None:
            return []
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
            if call is None:
                self._calls.put(None)  # for the next round: calls from before the close are answered first
                break
            batch.append(call)
        return batch

    def _serve(self, batch: list[_Call]) -> None:
        unsettled = self._settle(batch, "BEGIN", lambda call, database: call.read(database))
        if unsettled:
            # IMMEDIATE: a transaction that starts with a read cannot be upgraded after a write by another process.
            self._settle(unsettled, "BEGIN IMMEDIATE", lambda call, database: call.write(database))

    def _settle(
        self, calls: list[_Call], begin: str, work: Callable[[_Call, sqlite3.Connection], object]
    ) -> list[_Call]:
        """Run all calls in one transaction and deliver their results; return those that need a write."""
        try:
            database = self._connect()
            database.execute(begin)
            results = [work(call, database) for call in calls]
            database.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - raised in the caller; the thread lives on
            return self._fail(calls, begin, work, error)
        if begin != "BEGIN":
            self._write_failed = False
        pairs = list(zip(calls, results, strict=True))
        self._answer([(call, result, None) for call, result in pairs if result is not _NEEDS_WRITING])
        return [call for call, result in pairs if result is _NEEDS_WRITING]

    def _fail(
        self,
        calls: list[_Call],
        begin: str,
        work: Callable[[_Call, sqlite3.Connection], object],
        error: Exception,
    ) -> list[_Call]:
        """Put a fault into words and deliver it. The next call can try again with the database."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code not in _OF_ALL or not self._roll_back():
            self._drop()
        if len(calls) > 1 and code not in _OF_ALL and self._file is not None:
            # One call may have caused the fault, for example by a damaged page: run each on its own.
            return [left for call in calls for left in self._settle([call], begin, work)]
        if begin != "BEGIN":
            self._write_failed = True
        self._answer([(call, None, self._in_words(error, code)) for call in calls])
        return []

    def _in_words(self, error: Exception, code: int) -> Exception:
        """The exception for one caller: a new one for each, because each gets its own traceback."""
        if isinstance(error, DirectoryUnavailable):
            return DirectoryUnavailable(*error.args)
        if isinstance(error, OSError):
            return DirectoryUnavailable(f"{self._path} cannot be opened: {error.strerror or error}")
        if isinstance(error, sqlite3.Error):
            return DirectoryUnavailable(f"{self._path} {_WORDS.get(code, 'cannot be used')} ({error})")
        return error  # a bug, here or in the caller

    def _answer(self, outcomes: list[_Settled]) -> None:
        if outcomes:
            self._loop.call_soon_threadsafe(self._deliver, outcomes)

    def _connect(self) -> sqlite3.Connection:
        """The open database. Opens it if necessary, and makes the file only the first time."""
        if self._database is not None:
            if self._identity() == self._file:
                return self._database
            # The file was deleted or replaced: what we write now would be lost at the next start.
            self._drop()
        if self._file is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Names are private; SQLite gives its side files the same mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        elif self._identity() != self._file:
            raise DirectoryUnavailable(
                f"{self._path} has been removed or replaced while in use: restart to accept that"
            )
        database = sqlite3.connect(self._path, timeout=self._patience, isolation_level=None)
        try:
            self._prepare(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        self._file = self._identity()
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        mode = database.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise DirectoryUnavailable(
                f"{self._path} is on a file system without shared memory, which SQLite's WAL needs"
            )
        database.execute("PRAGMA synchronous=FULL")
        database.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        if not self._tables(database):
            database.execute("BEGIN IMMEDIATE")
            if not self._tables(database):  # another process may have been faster
                database.execute(_SCHEMA)
                database.execute(_PROBE_SCHEMA)
                database.execute(f"PRAGMA application_id={APPLICATION_ID}")
                database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            database.execute("COMMIT")
        if database.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise DirectoryUnavailable(f"{self._path} is a SQLite file of another program")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise DirectoryUnavailable(
                f"{self._path} has version {version}; this release of Aldis knows version {SCHEMA_VERSION}"
            )

    @staticmethod
    def _tables(database: sqlite3.Connection) -> int:
        return cast(int, database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _roll_back(self) -> bool:
        if self._database is not None and self._database.in_transaction:
            try:
                self._database.execute("ROLLBACK")
            except sqlite3.Error:
                return False
        return True

    def _drop(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()
