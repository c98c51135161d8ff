"""The tables of a directory in PostgreSQL, and how they are made and brought up to date.

They are in a schema of their own, `aldis`, so that no `search_path` of a database or user leads to other tables.
`aldis.version` says how many migrations the schema has had. Of several processes that start at once, one makes or
changes the tables, in one transaction; the others wait for its advisory lock.
"""

from __future__ import annotations

from typing import Any, Final, LiteralString, cast

import psycopg

from aldis.backends.base import KEY_BYTES, DirectoryTooNew, PostgresUnavailable

# "ALDI": the advisory lock of those who make or change tables (pg_advisory_xact_lock).
_LOCK: Final = 0x414C4449

# Never change one that was released: add another. COLLATE "C" compares and orders by bytes, and UTF-8 has the order of
# code points.
MIGRATIONS: Final[tuple[tuple[LiteralString, ...], ...]] = (
    (
        # A name with the default privacy has no privacy of its own: NULL four times. Long lists are kept out of line
        # (TOAST), and are read only when they are asked for.
        """
        CREATE TABLE aldis.names (
            user_id text COLLATE "C" PRIMARY KEY,
            public_key bytea NOT NULL,
            presence text,
            offers text,
            contacts text[],
            blocked text[],
            CHECK (num_nulls(presence, offers, contacts, blocked) IN (0, 4))
        )
        """,
        f"ALTER TABLE aldis.names ADD CHECK (octet_length(public_key) = {KEY_BYTES})",
        # The names that may register, by the operator's word.
        'CREATE TABLE aldis.listed (user_id text COLLATE "C" PRIMARY KEY)',
        # A row that `check` writes after a failed write, to see whether the server accepts writes again.
        "CREATE TABLE aldis.probe (id integer PRIMARY KEY CHECK (id = 1), written bigint NOT NULL)",
    ),
)

_VERSION: Final = "SELECT version FROM aldis.version"
_SCHEMA_EXISTS: Final = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'aldis'"
_TABLES: Final = "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = 'aldis'::regnamespace AND relkind = 'r'"


async def prepare(connection: psycopg.AsyncConnection[Any], database: str) -> None:
    """Make the tables, or check that they are ours and bring them up to date; `database` is its name for errors.

    Raise `PostgresUnavailable` for tables of another program, `DirectoryTooNew` for those of a newer release, and
    exceptions of psycopg.
    """
    if await version_of(connection, database) == len(MIGRATIONS):
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        version = await version_of(connection, database)  # another process may have been faster
        if version == 0:
            # Not IF NOT EXISTS: that asks for the right to make schemas also where the operator has made this one.
            if await _one(connection, _SCHEMA_EXISTS) is None:
                await connection.execute("CREATE SCHEMA aldis")
            await connection.execute("CREATE TABLE aldis.version (version integer NOT NULL)")
            await connection.execute("INSERT INTO aldis.version VALUES (0)")
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                await connection.execute(statement)
        await connection.execute("UPDATE aldis.version SET version = %s", (len(MIGRATIONS),))


async def version_of(connection: psycopg.AsyncConnection[Any], database: str) -> int:
    """The version of the schema; 0 where there are no tables. Raise as `prepare` does."""
    if await _one(connection, _SCHEMA_EXISTS) is None:
        return 0
    tables = {name for (name,) in await (await connection.execute(_TABLES)).fetchall()}
    if not tables:
        return 0
    if not tables >= {"version", "names"}:
        raise PostgresUnavailable(f"{database} has a schema `aldis` of another program")
    version = await _one(connection, _VERSION)
    known = len(MIGRATIONS)
    if version is None or not 1 <= version <= known:
        text = f"{database} has tables of version {version}, of a newer release of Aldis; this one knows {known}"
        raise DirectoryTooNew(text)
    return version


async def _one(connection: psycopg.AsyncConnection[Any], query: LiteralString) -> int | None:
    row = await (await connection.execute(query)).fetchone()
    return None if row is None else cast(int, row[0])
