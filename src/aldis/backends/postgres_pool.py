"""Connections to one PostgreSQL database: a bounded number of them, each call with a time limit, faults in words.

Rules:

* A call has `patience` seconds in all: to wait for a free connection, to connect, and for its statements. A server that
  has stopped, or a network that drops packets, fails the call and not the event loop.
* No call is repeated here: after a lost connection it is unknown whether the statement took effect. A connection that
  the server has closed while nobody used it is seen before it is used, and replaced.
* After a fault of the server, no connection from before it is used again. So the next call connects anew, and finds
  the server that takes writes now (libpq's `target_session_attrs`).
* A caller that is cancelled leaves its statements running to their end, in a task of the pool.
* No text has a password in it. Texts of libpq and of the server have none, once the URL was read.

It does not know what the statements are for.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, TypeAlias, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from aldis.backends.base import PostgresUnavailable
from aldis.errors import ConfigError

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]
ConnParam: TypeAlias = str | int | None
T = TypeVar("T")

# Seconds for one call. Clients time out soon after.
PATIENCE: Final = 5.0
# One server process opens so many connections at most; PostgreSQL has 100 for everybody by default. Commits of
# different connections share a sync of the disk, so more of them bring little.
MAX_CONNECTIONS: Final = 8
# Of `patience`: the server ends a statement, and one that waits for a lock, before the caller gives up. So the text
# says what was slow, and the server does not work for nobody.
_STATEMENT_SHARE: Final = 0.8
_LOCK_SHARE: Final = 0.6

# For what the operator's URL does not say. A lost network is noticed after 25 s on a connection that nobody uses. One
# address of several has 2 s, so that the next one can be tried within `patience`.
_DEFAULTS: Final[dict[str, ConnParam]] = {
    "application_name": "aldis",
    "connect_timeout": 2,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
_FIXED: Final[dict[str, ConnParam]] = {"client_encoding": "UTF8", "target_session_attrs": "read-write"}
_SETUP: Final = """
    SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),
        set_config('idle_in_transaction_session_timeout', %s, false),
        set_config('default_transaction_isolation', 'read committed', false)
"""

# Faults that concern the server as a whole, by their SQLSTATE: connections from before them are closed.
_OF_THE_SERVER: Final = (errors.ReadOnlySqlTransaction, errors.OperationalError)
# Operational errors (classes 53, 55, 57 of SQLSTATE) that concern one statement alone.
_OF_A_STATEMENT: Final = (errors.QueryCanceled, errors.LockNotAvailable, errors.DiskFull, errors.DeadlockDetected)
_WORDS: Final[tuple[tuple[type[psycopg.Error], str], ...]] = (
    (errors.ReadOnlySqlTransaction, "takes no writes: it is a standby, or set to read-only"),
    (errors.QueryCanceled, "is too slow"),
    (errors.LockNotAvailable, "is locked by another session"),
    (errors.DiskFull, "cannot grow: the disk is full"),
    (errors.InsufficientPrivilege, "does not let this user do that"),
    (errors.UndefinedTable, "has lost its tables: restore them from a copy, or restart to make them anew"),
    (errors.InvalidSchemaName, "has lost its tables: restore them from a copy, or restart to make them anew"),
    (errors.DataCorrupted, "is damaged: restore it from a copy"),
    (errors.IndexCorrupted, "is damaged: restore it from a copy"),
)


class PostgresPool:
    """Connections to the database of `url`, a connection URI of libpq; opened when they are needed."""

    def __init__(self, url: str, *, patience: float = PATIENCE, most: int = MAX_CONNECTIONS) -> None:
        """Raise `ConfigError` when libpq cannot read `url`."""
        try:
            parameters = conninfo_to_dict(url)
        except psycopg.Error:
            # libpq's text quotes the part that it does not understand, which may be the password.
            problem = "is no connection URI of PostgreSQL (in a password, @ is written as %40, / as %2F, % as %25)"
            raise ConfigError("directory", problem) from None
        self.name = _name_of(parameters)
        """What the database is called in texts: the address without user and password."""
        merged: dict[str, ConnParam] = {**_DEFAULTS, **parameters, **_FIXED}
        self._conninfo = make_conninfo("", **merged)
        milliseconds = patience * 1000
        self._setup = tuple(
            f"{max(1, int(milliseconds * share))}" for share in (_STATEMENT_SHARE, _LOCK_SHARE, _STATEMENT_SHARE)
        )
        self._patience = patience
        self._free = asyncio.Semaphore(most)
        self._idle: list[Connection] = []
        self._epoch = 0  # raised by a fault of the server
        self._calls: set[asyncio.Task[object]] = set()
        self._closed = False

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Do `work` with a connection in autocommit mode. Raise `PostgresUnavailable` when it cannot be done now.

        Raise what `work` raises, when that is no fault of the database.
        """
        if self._closed:
            raise PostgresUnavailable(f"{self.name} is closed")
        call = asyncio.ensure_future(self._run(work))
        self._calls.add(call)
        call.add_done_callback(self._ended)
        return await asyncio.shield(call)

    async def close(self) -> None:
        """Finish the calls that were made, and close all connections."""
        self._closed = True
        while self._calls:
            await asyncio.wait(self._calls)
        await self._close_idle()

    # --- internal ---------------------------------------------------------------------------------------------------

    def _ended(self, call: asyncio.Task[object]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # its caller may be gone: then nobody else looks at it

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        deadline = asyncio.get_running_loop().time() + self._patience
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError:
            text = f"{self.name} is too slow: all connections are in use since {self._patience:g} s"
            raise PostgresUnavailable(text) from None
        try:
            epoch = self._epoch
            connection = await self._take(deadline)
            return await self._use(connection, work, deadline, epoch)
        finally:
            self._free.release()

    async def _take(self, deadline: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if _still_open(connection):
                return connection
            await connection.close()
        try:
            async with asyncio.timeout_at(deadline):
                connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
        except TimeoutError:
            text = f"{self.name} cannot be reached: no answer for {self._patience:g} s"
            raise PostgresUnavailable(text) from None
        except (psycopg.Error, OSError) as error:
            raise PostgresUnavailable(f"{self.name} cannot be reached ({_on_one_line(error)})") from None
        try:
            self._check_encoding(connection)
            await self._statements(connection, self._set_up, deadline)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _check_encoding(self, connection: Connection) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            text = f"{self.name} has the encoding {encoding}; names need a database with the encoding UTF8"
            raise PostgresUnavailable(text)

    async def _set_up(self, connection: Connection) -> None:
        await connection.execute(_SETUP, self._setup)

    async def _use(
        self, connection: Connection, work: Callable[[Connection], Awaitable[T]], deadline: float, epoch: int
    ) -> T:
        try:
            return await self._statements(connection, work, deadline)
        finally:
            if epoch == self._epoch and not self._closed and not connection.closed:
                self._idle.append(connection)
            else:
                await connection.close()

    async def _statements(
        self, connection: Connection, work: Callable[[Connection], Awaitable[T]], deadline: float
    ) -> T:
        # Not a time-out of asyncio: psycopg would ask the server to cancel, and wait for the answer of a server that
        # has stopped. With its socket shut down it sees a lost connection, at once.
        loop = asyncio.get_running_loop()
        timer = loop.call_at(deadline, _hang_up, connection)
        try:
            return await work(connection)
        except psycopg.Error as error:
            if error.sqlstate is None and not isinstance(error, psycopg.OperationalError):
                raise  # a bug: the server was not asked
            late = connection.closed and loop.time() >= deadline
            if connection.closed or _is_of_the_server(error):
                self._epoch += 1
                await self._close_idle()
            if late:
                raise PostgresUnavailable(f"{self.name} does not answer for {self._patience:g} s") from None
            raise PostgresUnavailable(self._in_words(error)) from None
        finally:
            timer.cancel()

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    def _in_words(self, error: psycopg.Error) -> str:
        for kind, words in _WORDS:
            if isinstance(error, kind):
                return f"{self.name} {words} ({_on_one_line(error)})"
        return f"{self.name} cannot be used ({_on_one_line(error)})"


def _on_one_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line) or type(error).__name__


def _name_of(parameters: Mapping[str, ConnParam]) -> str:
    host = parameters.get("host") or parameters.get("hostaddr") or "this machine"
    port = f":{parameters['port']}" if parameters.get("port") else ""
    database = f" {parameters['dbname']}" if parameters.get("dbname") else ""
    return f"the PostgreSQL database{database} at {host}{port}"


def _is_of_the_server(error: psycopg.Error) -> bool:
    return isinstance(error, _OF_THE_SERVER) and not isinstance(error, _OF_A_STATEMENT)


def _still_open(connection: Connection) -> bool:
    """Whether the server has not closed a connection that nobody uses, and said nothing on it."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def _hang_up(connection: Connection) -> None:
    """End a connection under a statement that waits for the server."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
