"""The directory in a PostgreSQL database, for several servers, or for operators who keep their data there already.

Rules:

* Each call is one statement, or one transaction. It returns after the commit, so its effect is as durable as the
  operator has set `synchronous_commit` (and `synchronous_standby_names`) for the database.
* A call that needs no write makes none: a name that is bound is read, not claimed.
* Only a server that takes writes is asked, because a standby may be behind. After a failover, calls fail until the URL
  leads to the new primary; then they work by themselves.
* A fault fails only the calls that met it. The next call tries again, with a new connection when that is needed.

Several processes may use one database, and no process caches anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, LiteralString, TypeVar

import psycopg
from psycopg import errors
from psycopg.rows import TupleRow

from aldis.backends.base import Binding, Claim, DirectoryUnavailable, PrivacyRefusal, closed_on_failure
from aldis.backends.postgres_pool import MAX_CONNECTIONS, PATIENCE, Connection, PostgresPool
from aldis.backends.postgres_schema import prepare, version_of
from aldis.errors import InvalidAddress
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy, PrivacyChange, Visibility

T = TypeVar("T")

_SELECT: Final = "SELECT public_key FROM aldis.names WHERE user_id = %s"
_SELECT_CLAIM: Final = "SELECT public_key, presence, offers, contacts, blocked FROM aldis.names WHERE user_id = %s"
_CLAIM: Final = "INSERT INTO aldis.names (user_id, public_key) VALUES (%s, %s) ON CONFLICT (user_id) DO NOTHING"
_LOCK_PRIVACY: Final = """
    SELECT presence, offers, contacts, blocked FROM aldis.names WHERE user_id = %s AND public_key = %s FOR UPDATE
"""
_WRITE_PRIVACY: Final = """
    UPDATE aldis.names SET presence = %s, offers = %s, contacts = %s, blocked = %s WHERE user_id = %s
"""
_ROTATE: Final = "UPDATE aldis.names SET public_key = %s WHERE user_id = %s AND public_key = %s"
_RELEASE: Final = "DELETE FROM aldis.names WHERE user_id = %s"
_SELECT_LISTED: Final = "SELECT user_id FROM aldis.listed WHERE user_id = %s"
_LIST: Final = "INSERT INTO aldis.listed VALUES (%s) ON CONFLICT (user_id) DO NOTHING"
_UNLIST: Final = "DELETE FROM aldis.listed WHERE user_id = %s"
_LISTED_NAMES: Final = "SELECT user_id FROM aldis.listed WHERE user_id > %s ORDER BY user_id LIMIT %s"
_BINDINGS: Final = """
    SELECT user_id, public_key, presence, offers, contacts, blocked FROM aldis.names
    WHERE user_id > %s ORDER BY user_id LIMIT %s
"""
_PUT: Final = """
    INSERT INTO aldis.names (user_id, public_key, presence, offers, contacts, blocked)
    VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (user_id) DO UPDATE SET public_key = excluded.public_key,
        presence = excluded.presence, offers = excluded.offers, contacts = excluded.contacts, blocked = excluded.blocked
"""
_PROBE: Final = """
    INSERT INTO aldis.probe VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET written = aldis.probe.written + 1
"""
_CHECK: Final = "SELECT current_setting('transaction_read_only'), EXISTS (SELECT FROM aldis.names)"
_READ_ONLY: Final = "SELECT current_setting('transaction_read_only')"
_DURABILITY: Final = """
    SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('synchronous_commit', 'fsync') ORDER BY name
"""


class PostgresDirectory:
    """Bindings in a PostgreSQL database; see `base.Directory` for each call. Make it with `open`."""

    def __init__(self, pool: PostgresPool) -> None:
        """For `open` only."""
        self._pool = pool
        self._reads = True
        self._writes = True

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        patience: float = PATIENCE,
        connections: int = MAX_CONNECTIONS,
        warn: Callable[[str], None] = lambda text: None,
    ) -> PostgresDirectory:
        """Connect to the database of `url` (`postgresql://user:password@host/database`), and prepare its tables.

        `patience`: seconds for each call. `connections`: how many are open at most. `warn` gets sentences for the
        operator about what the database does not promise. Raise `ConfigError` for a URL that
        cannot be read, and `DirectoryUnavailable` when the database cannot be used.
        """
        directory = cls(PostgresPool(url, patience=patience, most=connections))
        async with closed_on_failure(directory):
            off = await directory._pool.run(directory._prepare)
        lost = "names that were bound just before a crash of the database server may be free again after it"
        for name in off:
            warn(f"{directory.name} has {name}=off: {lost}")
        return directory

    @classmethod
    async def probe(cls, url: str) -> None:
        """See that the database of `url` answers, takes writes, and is of no newer release. It writes nothing.

        Raises as `open` does.
        """
        directory = cls(PostgresPool(url, most=1))

        async def work(connection: Connection) -> None:
            row = await (await connection.execute(_READ_ONLY)).fetchone()
            if row is not None and row[0] == "on":
                raise errors.ReadOnlySqlTransaction("transaction_read_only is on")
            await version_of(connection, directory.name)

        async with closed_on_failure(directory):
            await directory._pool.run(work)
        await directory.close()

    async def _prepare(self, connection: Connection) -> list[str]:
        """Prepare the tables; return the settings of the database that make commits less than durable."""
        await prepare(connection, self._pool.name)
        rows = await (await connection.execute(_DURABILITY)).fetchall()
        return [name for name, value in rows if value == "off"]

    @property
    def name(self) -> str:
        """What the database is called in errors: its address, without user and password."""
        return self._pool.name

    @property
    def healthy(self) -> bool:
        return self._reads and self._writes

    async def claim(self, user_id: str, public_key: bytes) -> Claim:
        _check_texts(user_id)

        async def work(connection: Connection) -> Claim:
            while True:
                claim = await _load(connection, user_id)
                if claim is not None:
                    return claim
                if await self._written(connection, _CLAIM, user_id, public_key):
                    return Claim(public_key, new=True)
                # Somebody else has bound it; once more, for the case that it has been released since.

        return await self._run(work)

    async def find(self, user_id: str) -> bytes | None:
        row = await self._row(_SELECT, user_id)
        return None if row is None else row[0]

    async def load(self, user_id: str) -> Claim | None:
        _check_texts(user_id)

        async def work(connection: Connection) -> Claim | None:
            return await _load(connection, user_id)

        return await self._run(work)

    async def change_privacy(self, user_id: str, public_key: bytes, change: PrivacyChange) -> Privacy | PrivacyRefusal:
        _check_texts(user_id, *change.add_contacts, *change.block)

        async def work(connection: Connection) -> Privacy | PrivacyRefusal:
            with self._writing():
                async with connection.transaction():
                    row = await (await connection.execute(_LOCK_PRIVACY, (user_id, public_key))).fetchone()
                    if row is None:
                        return PrivacyRefusal.NOT_BOUND
                    before = _privacy_of(*row)
                    privacy = before.changed(change)
                    if privacy is None:
                        return PrivacyRefusal.TOO_LARGE
                    if privacy != before:
                        await connection.execute(_WRITE_PRIVACY, (*_row_of(privacy), user_id))
                return privacy

        return await self._run(work)

    async def rotate(self, user_id: str, old_key: bytes, new_key: bytes) -> bool:
        _check_texts(user_id)

        async def work(connection: Connection) -> bool:
            claim = await _load(connection, user_id)
            if claim is not None and claim.public_key == old_key != new_key:
                if await self._written(connection, _ROTATE, new_key, user_id, old_key):
                    return True
                claim = await _load(connection, user_id)
            return claim is not None and claim.public_key == new_key

        return await self._run(work)

    async def release(self, user_id: str) -> bool:
        return await self._change(_RELEASE, user_id)

    async def is_listed(self, user_id: str) -> bool:
        return await self._row(_SELECT_LISTED, user_id) is not None

    async def list_name(self, user_id: str) -> bool:
        return await self._change(_LIST, user_id)

    async def unlist_name(self, user_id: str) -> bool:
        return await self._change(_UNLIST, user_id)

    async def listed_names(self, after: str, most: int) -> list[str]:
        return [name for (name,) in await self._rows(_LISTED_NAMES, after, most)]

    async def bindings(self, after: str, most: int) -> list[Binding]:
        rows = await self._rows(_BINDINGS, after, most)
        return [Binding(name, key, _privacy_of(*privacy)) for name, key, *privacy in rows]

    async def put(self, binding: Binding) -> None:
        _check_texts(*binding.privacy.contacts, *binding.privacy.blocked)
        await self._change(_PUT, binding.user_id, binding.public_key, *_row_of(binding.privacy))

    async def check(self) -> None:
        async def work(connection: Connection) -> None:
            row = await (await connection.execute(_CHECK)).fetchone()
            if row is not None and row[0] == "on":
                raise errors.ReadOnlySqlTransaction("transaction_read_only is on")

        await self._run(work)
        if not self._writes:
            await self._change(_PROBE)

    async def close(self) -> None:
        await self._pool.close()

    # --- internal ---------------------------------------------------------------------------------------------------

    async def _rows(self, query: LiteralString, *parameters: str | int) -> list[TupleRow]:
        _check_texts(*parameters)

        async def work(connection: Connection) -> list[TupleRow]:
            return await (await connection.execute(query, parameters)).fetchall()

        return await self._run(work)

    async def _row(self, query: LiteralString, user_id: str) -> TupleRow | None:
        rows = await self._rows(query, user_id)
        return rows[0] if rows else None

    async def _change(self, statement: LiteralString, *parameters: object) -> bool:
        """Run one statement that writes; return whether it changed a row."""
        _check_texts(*parameters)

        async def work(connection: Connection) -> bool:
            return await self._written(connection, statement, *parameters)

        return await self._run(work)

    async def _written(self, connection: Connection, statement: LiteralString, *parameters: object) -> bool:
        with self._writing():
            return (await connection.execute(statement, parameters)).rowcount > 0

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Note whether what is inside, which writes, succeeds."""
        try:
            yield
        except psycopg.Error:
            self._writes = False
            raise
        self._writes = True

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            result = await self._pool.run(work)
        except DirectoryUnavailable:
            self._reads = False
            raise
        self._reads = True
        return result


async def _load(connection: Connection, user_id: str) -> Claim | None:
    row = await (await connection.execute(_SELECT_CLAIM, (user_id,))).fetchone()
    return None if row is None else Claim(row[0], False, _privacy_of(*row[1:]))


def _privacy_of(
    presence: Visibility | None, offers: Visibility | None, contacts: list[str] | None, blocked: list[str] | None
) -> Privacy:
    if presence is None or offers is None:
        return DEFAULT_PRIVACY
    return Privacy(presence, offers, frozenset(contacts or ()), frozenset(blocked or ()))


def _row_of(privacy: Privacy) -> tuple[object, ...]:
    if privacy == DEFAULT_PRIVACY:
        return None, None, None, None
    return privacy.presence, privacy.offers, sorted(privacy.contacts), sorted(privacy.blocked)


def _check_texts(*values: object) -> None:
    """Raise `InvalidAddress` for a text that PostgreSQL cannot keep."""
    for value in values:
        if isinstance(value, str):
            if "\0" in value:
                raise InvalidAddress(value, "it contains a null character")
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidAddress(value, "it contains a lone surrogate") from None
