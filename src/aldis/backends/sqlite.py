"""The directory in one SQLite file, for a single server without other software.

Rules:

* The event loop never touches the disk. Two threads do, each with its own connection: one reads, one writes. A call
  goes to the reader, which answers it or hands it on to the writer. So reading never waits for a write, nor for another
  process that holds the write lock.
* The writer gets the lock first, and then takes all calls that wait by then into one transaction. One disk sync binds
  all names that have come meanwhile, so the rate of syncs does not limit the rate of registrations. If the lock cannot
  be had, all of them fail, so no call waits longer than `patience`.
* A call is answered after its commit (WAL with `synchronous=FULL`: after the sync). So an answer to a client survives
  `kill -9` and a power cut.
* A binding is never invented: a missing file is an error, not an empty directory in which all names are free again.
* A fault fails only the calls that met it. Reading works while writing cannot (disk full, file locked), and the next
  call tries again.

Several processes may use one file. The only cache is SQLite's own, which notices writes of other processes.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias, cast

from aldis.backends.base import Binding, Claim, DirectoryUnavailable, PrivacyRefusal, closed_on_failure
from aldis.backends.sqlite_file import SqliteFile, is_locked, keeps_open
from aldis.errors import InvalidAddress
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy, PrivacyChange, Visibility

# Seconds. A process that holds the lock for longer is stuck, or is a person at a prompt; clients time out soon after.
PATIENCE: Final = 5.0
# Calls in one transaction. This limits how long the first of them waits for the last.
MAX_BATCH: Final = 1000
# Characters of contacts and blocked names in a page of bindings, which become some ten times as many bytes. A user may
# have 48 KiB of them, so a page of 1,000 could have 50 million.
MAX_PAGE_TEXT: Final = 1 << 20

_PROBE: Final = "INSERT INTO probe VALUES (1, 1) ON CONFLICT DO UPDATE SET written = written + 1"
_SELECT: Final = "SELECT public_key FROM names WHERE user_id = ?"
_UPSERT: Final = "INSERT INTO names VALUES (?, ?) ON CONFLICT DO UPDATE SET public_key = excluded.public_key"
_SELECT_LISTED: Final = "SELECT 1 FROM listed WHERE user_id = ?"
_SELECT_PRIVACY: Final = "SELECT presence, offers, contacts, blocked FROM privacy WHERE user_id = ?"

_SELECT_BINDINGS: Final = (
    "SELECT user_id, public_key, presence, offers, contacts, blocked FROM names LEFT JOIN privacy USING (user_id)"
    " WHERE user_id > ? ORDER BY user_id LIMIT ?"
)

_Settled: TypeAlias = "tuple[_Call, object, Exception | None]"


class _NeedsWriting:
    """The result of reading when the call also needs a write."""


_NEEDS_WRITING: Final = _NeedsWriting()


class _Call:
    """One call on its way through the threads: `read` answers it, or leaves it to `write`."""

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


def _select_claim(database: sqlite3.Connection, user_id: str) -> Claim | None:
    key = _select(database, user_id)
    return None if key is None else Claim(key, False, _select_privacy(database, user_id))


def _select_privacy(database: sqlite3.Connection, user_id: str) -> Privacy:
    row = database.execute(_SELECT_PRIVACY, (user_id,)).fetchone()
    return DEFAULT_PRIVACY if row is None else _privacy_of(*row)


def _privacy_of(presence: Visibility, offers: Visibility, contacts: str, blocked: str) -> Privacy:
    return Privacy(presence, offers, frozenset(contacts.split("\n")[:-1]), frozenset(blocked.split("\n")[:-1]))


def select_bindings(database: sqlite3.Connection, after: str, most: int) -> list[Binding]:
    """A page of bindings; see `Directory.bindings`."""
    found = []
    text = 0
    with closing(database.execute(_SELECT_BINDINGS, (after, most))) as rows:
        for name, key, presence, *row in rows:
            if presence is None:
                found.append(Binding(name, key))
                continue
            found.append(Binding(name, key, _privacy_of(presence, *row)))
            text += len(row[-2]) + len(row[-1])
            if text > MAX_PAGE_TEXT:
                break
    return found


def select_listed(database: sqlite3.Connection, after: str, most: int) -> list[str]:
    """A page of the operator's list; see `Directory.listed_names`."""
    select = "SELECT user_id FROM listed WHERE user_id > ? ORDER BY user_id LIMIT ?"
    return [name for (name,) in database.execute(select, (after, most))]


def _write_privacy(database: sqlite3.Connection, user_id: str, privacy: Privacy) -> None:
    if privacy == DEFAULT_PRIVACY:
        database.execute("DELETE FROM privacy WHERE user_id = ?", (user_id,))
        return
    lists = ["".join(f"{name}\n" for name in sorted(names)) for names in (privacy.contacts, privacy.blocked)]
    row = (user_id, privacy.presence, privacy.offers, *lists)
    database.execute("INSERT OR REPLACE INTO privacy VALUES (?, ?, ?, ?, ?)", row)


def _check_text(*texts: str) -> None:
    # SQLite keeps UTF-8, which has no lone surrogates. Such a text must not fail the other calls in its transaction.
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        wrong = next(text for text in texts if any("\ud800" <= each <= "\udfff" for each in text))
        raise InvalidAddress(wrong, "it contains a lone surrogate") from None


class _Worker:
    """A thread with a connection, and the calls that wait for it: the reader, or the writer.

    Each round takes all waiting calls into one transaction, which starts with `begin`, does `work` for each, and brings
    the results to `settled`, or the exceptions to `failed`.
    """

    def __init__(
        self,
        file: SqliteFile,
        *,
        name: str,
        begin: str,
        work: Callable[[_Call, sqlite3.Connection], object],
        settled: Callable[[list[_Call], list[object]], None],
        failed: Callable[[list[_Settled]], None],
        ended: Callable[[], None],
    ) -> None:
        self._file = file
        self._begin = begin
        self._work = work
        self._settled = settled
        self._failed = failed
        self._ended = ended
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._database: sqlite3.Connection | None = None  # used by the thread only
        self._side: tuple[int, int] | None = None
        self.failing = False
        """Whether its last transaction failed."""
        # A daemon thread, so that a program that forgets to close can end. Nothing is lost: answers follow commits.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.start = self._thread.start
        self.join = self._thread.join
        self.put = self._calls.put
        """Put a call; None to end after the calls that wait."""

    def _run(self) -> None:
        try:
            while (first := self._calls.get()) is not None:
                self._serve([first], more=True)
        finally:
            self._drop()
            self._ended()

    def _waiting(self, most: int) -> list[_Call]:
        """The calls that wait now, up to `most`."""
        calls: list[_Call] = []
        while len(calls) < most:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
            if call is None:
                self._calls.put(None)  # for `_run`: calls from before the close are answered first
                break
            calls.append(call)
        return calls

    def _serve(self, calls: list[_Call], *, more: bool) -> None:
        """Run these calls in one transaction, with `more` also those that wait."""
        try:
            database = self._connect()
            database.execute(self._begin)
            if more:
                calls += self._waiting(MAX_BATCH - len(calls))
            results = [self._work(call, database) for call in calls]
            database.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - raised in the caller; the thread lives on
            self._fail(calls, error, more=more)
        else:
            self.failing = False
            self._settled(calls, results)

    def _fail(self, calls: list[_Call], error: Exception, *, more: bool) -> None:
        """Put a fault into words and deliver it. The next call can try again with the database."""
        of_all = keeps_open(error)
        if not of_all or not self._roll_back():
            self._drop()
        if len(calls) > 1 and not of_all and self._file.created:
            # One call may have caused the fault, for example by a damaged page: run each on its own.
            for call in calls:
                self._serve([call], more=False)
            return
        if more and is_locked(error):
            calls += self._waiting(self._calls.qsize())  # they have waited for the same lock
        self.failing = True
        said = self._file.in_words(error)
        self._failed([(call, None, self._file.in_words(said)) for call in calls])

    def _connect(self) -> sqlite3.Connection:
        if not self._file.created:
            self._file.create()
        if self._database is not None:
            if self._file.replaced():
                self._drop()
            elif self._file.side() != self._side:
                self._file.side_lost = True
                self._drop()
        if self._database is None:
            self._database = self._file.connect()
            self._side = self._file.side()
        return self._database

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


class SqliteDirectory:
    """Bindings in a SQLite file; see `base.Directory` for each call. Call `open` to make one."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        file = SqliteFile(path, patience)
        # IMMEDIATE: a transaction that starts with a read cannot be upgraded after a write by another process.
        self._writer = _Worker(
            file,
            name="aldis-names-write",
            begin="BEGIN IMMEDIATE",
            work=lambda call, database: call.write(database),
            settled=self._settled,
            failed=self._answer,
            ended=self._ended,
        )
        self._reader = _Worker(
            file,
            name="aldis-names-read",
            begin="BEGIN",
            work=lambda call, database: call.read(database),
            settled=self._settled,
            failed=self._answer,
            ended=lambda: self._writer.put(None),
        )

    @classmethod
    async def open(cls, path: Path | str, *, patience: float = PATIENCE) -> SqliteDirectory:
        """Open the file at `path`, or make it and its folder. Raises `DirectoryUnavailable` when that fails.

        `patience` is how many seconds to wait for another process that holds the file's lock.
        """
        directory = cls(Path(path), patience)
        directory._writer.start()
        directory._reader.start()
        async with closed_on_failure(directory):
            await directory.check()
        return directory

    # --- on the event loop -----------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        return not (self._reader.failing or self._writer.failing)

    async def claim(self, user_id: str, public_key: bytes) -> Claim:
        _check_text(user_id)

        def read(database: sqlite3.Connection) -> Claim | _NeedsWriting:
            return _select_claim(database, user_id) or _NEEDS_WRITING

        def write(database: sqlite3.Connection) -> Claim:
            insert = "INSERT INTO names VALUES (?, ?) ON CONFLICT DO NOTHING"
            if database.execute(insert, (user_id, public_key)).rowcount:
                return Claim(public_key, new=True)
            return cast(Claim, _select_claim(database, user_id))

        return cast(Claim, await self._ask(read, write))

    async def find(self, user_id: str) -> bytes | None:
        _check_text(user_id)

        def read(database: sqlite3.Connection) -> bytes | None:
            return _select(database, user_id)

        return cast("bytes | None", await self._ask(read, read))

    async def load(self, user_id: str) -> Claim | None:
        _check_text(user_id)

        def read(database: sqlite3.Connection) -> Claim | None:
            return _select_claim(database, user_id)

        return cast("Claim | None", await self._ask(read, read))

    async def change_privacy(self, user_id: str, public_key: bytes, change: PrivacyChange) -> Privacy | PrivacyRefusal:
        _check_text(user_id, *change.add_contacts, *change.block)

        def read(database: sqlite3.Connection) -> PrivacyRefusal | _NeedsWriting:
            return _NEEDS_WRITING if _select(database, user_id) == public_key else PrivacyRefusal.NOT_BOUND

        def write(database: sqlite3.Connection) -> Privacy | PrivacyRefusal:
            if _select(database, user_id) != public_key:
                return PrivacyRefusal.NOT_BOUND
            before = _select_privacy(database, user_id)
            privacy = before.changed(change)
            if privacy is None:
                return PrivacyRefusal.TOO_LARGE
            if privacy != before:
                _write_privacy(database, user_id, privacy)
            return privacy

        return cast("Privacy | PrivacyRefusal", await self._ask(read, write))

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
            database.execute("DELETE FROM privacy WHERE user_id = ?", (user_id,))
            return database.execute("DELETE FROM names WHERE user_id = ?", (user_id,)).rowcount > 0

        return cast(bool, await self._ask(read, write))

    async def is_listed(self, user_id: str) -> bool:
        _check_text(user_id)

        def read(database: sqlite3.Connection) -> bool:
            return database.execute(_SELECT_LISTED, (user_id,)).fetchone() is not None

        return cast(bool, await self._ask(read, read))

    async def list_name(self, user_id: str) -> bool:
        return await self._change_list(user_id, "INSERT INTO listed VALUES (?) ON CONFLICT DO NOTHING")

    async def unlist_name(self, user_id: str) -> bool:
        return await self._change_list(user_id, "DELETE FROM listed WHERE user_id = ?")

    async def _change_list(self, user_id: str, statement: str) -> bool:
        _check_text(user_id)

        def write(database: sqlite3.Connection) -> bool:
            return database.execute(statement, (user_id,)).rowcount > 0

        return cast(bool, await self._ask(lambda _: _NEEDS_WRITING, write))

    async def listed_names(self, after: str, most: int) -> list[str]:
        _check_text(after)

        def read(database: sqlite3.Connection) -> list[str]:
            return select_listed(database, after, most)

        return cast("list[str]", await self._ask(read, read))

    async def bindings(self, after: str, most: int) -> list[Binding]:
        _check_text(after)

        def read(database: sqlite3.Connection) -> list[Binding]:
            return select_bindings(database, after, most)

        return cast("list[Binding]", await self._ask(read, read))

    async def put(self, binding: Binding) -> None:
        user_id, public_key, privacy = binding
        for text in (user_id, *privacy.contacts, *privacy.blocked):
            _check_text(text)

        def write(database: sqlite3.Connection) -> None:
            database.execute(_UPSERT, (user_id, public_key))
            _write_privacy(database, user_id, privacy)

        await self._ask(lambda _: _NEEDS_WRITING, write)

    async def check(self) -> None:
        def read(database: sqlite3.Connection) -> _NeedsWriting:
            _select(database, "")
            return _NEEDS_WRITING  # to take the write lock

        def write(database: sqlite3.Connection) -> None:
            if self._writer.failing:
                database.execute(_PROBE)

        await self._ask(read, write)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reader.put(None)
        await asyncio.shield(self._stopped)
        self._reader.join()
        self._writer.join()

    async def _ask(
        self, read: Callable[[sqlite3.Connection], object], write: Callable[[sqlite3.Connection], object]
    ) -> object:
        if self._closed:
            raise DirectoryUnavailable(f"{self._path} is closed")
        future: asyncio.Future[object] = self._loop.create_future()
        self._reader.put(_Call(future, read, write))
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

    # --- on the threads --------------------------------------------------------------------------------------------

    def _settled(self, calls: list[_Call], results: list[object]) -> None:
        answered: list[_Settled] = []
        for call, result in zip(calls, results, strict=True):
            if result is _NEEDS_WRITING:
                self._writer.put(call)
            else:
                answered.append((call, result, None))
        self._answer(answered)

    def _ended(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set_result, None)

    def _answer(self, outcomes: list[_Settled]) -> None:
        if outcomes:
            self._loop.call_soon_threadsafe(self._deliver, outcomes)
