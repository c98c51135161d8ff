"""What is special about the directory in PostgreSQL: how it starts, and what happens when the server fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import psycopg
import pytest

from aldis.backends.base import Claim, DirectoryUnavailable
from aldis.backends.directory_url import without_password
from aldis.backends.opening import open_directory
from aldis.backends.postgres import PostgresDirectory
from aldis.backends.postgres_schema import MIGRATIONS
from aldis.errors import ConfigError, InvalidAddress
from aldis.protocol.privacy import PrivacyChange
from support.patience import PATIENCE
from support.postgres_server import PASSWORD, PostgresServer, postgres_server

KEY_A = b"a" * 32
KEY_B = b"b" * 32


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def database(server: PostgresServer) -> str:
    if not server.running:  # a test that has failed
        server.start()
    return server.new_database()


@pytest.fixture
async def directory(server: PostgresServer, database: str) -> AsyncIterator[PostgresDirectory]:
    directory = await PostgresDirectory.open(server.url(database), patience=PATIENCE)
    yield directory
    await directory.close()


async def fails(directory: PostgresDirectory) -> str:
    """The text with which a claim fails now."""
    with pytest.raises(DirectoryUnavailable) as caught:
        await directory.claim("bob", KEY_B)
    assert not directory.healthy
    return str(caught.value)


async def heals(directory: PostgresDirectory) -> None:
    await directory.check()
    assert directory.healthy
    assert await directory.claim("carol", KEY_B) == Claim(KEY_B, new=True)


async def test_bindings_survive_closing(server: PostgresServer, database: str) -> None:
    first = await PostgresDirectory.open(server.url(database))
    await first.claim("alice", KEY_A)
    await first.close()
    warnings: list[str] = []
    second = await PostgresDirectory.open(server.url(database), warn=warnings.append)
    assert await second.claim("alice", KEY_B) == Claim(KEY_A, new=False)
    assert warnings == []
    await second.close()


async def test_what_has_returned_survives_a_crash_of_the_server(
    server: PostgresServer, directory: PostgresDirectory
) -> None:
    bound: list[str] = []

    async def bind(first: int) -> None:
        for number in range(first, first + 1000):
            await directory.claim(f"user{number}", KEY_A)
            bound.append(f"user{number}")
            if len(bound) == 200:
                server.kill()

    outcomes = await asyncio.gather(*(bind(first) for first in range(0, 5000, 1000)), return_exceptions=True)
    assert [isinstance(outcome, DirectoryUnavailable) for outcome in outcomes] == [True] * 5
    assert not directory.healthy
    server.start()
    assert [await directory.find(name) for name in bound] == [KEY_A] * len(bound)
    await heals(directory)


async def test_a_restart_between_two_calls_fails_none(server: PostgresServer, directory: PostgresDirectory) -> None:
    await asyncio.gather(*(directory.claim(f"user{number}", KEY_A) for number in range(20)))
    server.stop()
    server.start()
    assert await asyncio.gather(*(directory.find(f"user{number}") for number in range(20))) == [KEY_A] * 20
    assert directory.healthy


async def test_a_server_that_is_away_is_an_error_until_it_is_back(
    server: PostgresServer, directory: PostgresDirectory
) -> None:
    server.stop()
    assert "cannot be reached" in await fails(directory)
    with pytest.raises(DirectoryUnavailable):
        await directory.check()
    server.start()
    await heals(directory)


async def test_a_server_that_hangs_is_an_error_when_the_time_is_over(server: PostgresServer, database: str) -> None:
    directory = await PostgresDirectory.open(server.url(database), patience=3, connections=2)
    await asyncio.gather(*(directory.claim(f"user{number}", KEY_A) for number in range(20)))
    server.pause()
    try:
        outcomes = await asyncio.gather(
            *(directory.find(f"user{number}") for number in range(20)), return_exceptions=True
        )
        assert all(isinstance(outcome, DirectoryUnavailable) for outcome in outcomes)
        assert f"{directory.name} does not answer for 3 s" in map(str, outcomes)
        assert "cannot be reached" in await fails(directory)
        with pytest.raises(DirectoryUnavailable, match="cannot be reached"):
            await PostgresDirectory.open(server.url(database), patience=1)
    finally:
        server.go_on()
    await directory.close()
    again = await PostgresDirectory.open(server.url(database), patience=PATIENCE)
    await heals(again)
    await again.close()


async def test_a_locked_table_fails_writing_and_no_reading(server: PostgresServer, database: str) -> None:
    directory = await PostgresDirectory.open(server.url(database), patience=3)
    await directory.claim("alice", KEY_A)
    with psycopg.connect(server.url(database)) as other:
        other.execute("LOCK TABLE aldis.names IN SHARE MODE")
        assert "is locked by another session" in await fails(directory)
        assert await directory.claim("alice", KEY_B) == Claim(KEY_A, new=False)
        assert not directory.healthy, "the name was bound: nothing was written"
    await heals(directory)
    await directory.close()


async def test_after_a_failover_a_standby_is_an_error_until_it_is_the_primary() -> None:
    with postgres_server() as primary, postgres_server(primary=primary) as standby:
        hosts = f"host={primary.folder},{standby.folder}&port={primary.port},{standby.port}"
        directory = await PostgresDirectory.open(f"postgresql:///postgres?{hosts}&user=postgres", patience=PATIENCE)
        await directory.claim("alice", KEY_A)
        standby.wait_for_replay_of(primary)
        primary.kill()
        await fails(directory)
        with pytest.raises(DirectoryUnavailable, match=r"cannot be reached .*session is read-only"):  # it may be behind
            await directory.find("alice")
        standby.execute("SELECT pg_promote()")
        assert await directory.find("alice") == KEY_A
        await heals(directory)
        await directory.close()


async def test_a_connection_that_takes_no_writes_any_more_is_replaced(server: PostgresServer, database: str) -> None:
    directory = await PostgresDirectory.open(server.url(database), connections=1)
    for call in (directory.claim("bob", KEY_B), directory.check()):
        await directory._pool.run(lambda connection: connection.execute("SET default_transaction_read_only = on"))
        with pytest.raises(DirectoryUnavailable, match="takes no writes: it is a standby, or set to read-only"):
            await call
        assert not directory.healthy
    await heals(directory)
    await directory.close()


async def test_a_server_that_is_set_to_read_only_is_an_error_that_heals(
    server: PostgresServer, database: str, directory: PostgresDirectory
) -> None:
    server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    server.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{database}'")
    assert "session is read-only" in await fails(directory)
    server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = off")
    await heals(directory)


async def test_processes_that_start_at_once_make_the_tables_once(server: PostgresServer, database: str) -> None:
    script = """
import asyncio, sys
from aldis.backends.postgres import PostgresDirectory

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    directory = await PostgresDirectory.open(sys.argv[1], patience=45)
    await directory.claim(sys.argv[2], b"k" * 32)
    await directory.close()

asyncio.run(main())
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, server.url(database), f"user{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
    assert server.execute("SELECT version FROM aldis.version", database) == [(len(MIGRATIONS),)]
    assert server.execute("SELECT count(*) FROM aldis.names", database) == [(4,)]


async def test_tables_of_a_newer_release_and_of_other_programs_are_refused(
    server: PostgresServer, database: str, directory: PostgresDirectory
) -> None:
    server.execute("UPDATE aldis.version SET version = 99", database)
    with pytest.raises(DirectoryUnavailable, match="version 99, of a newer release"):
        await PostgresDirectory.open(server.url(database))
    other = server.new_database()
    server.execute("CREATE SCHEMA aldis", other)
    server.execute("CREATE TABLE aldis.lamps (id integer)", other)
    with pytest.raises(DirectoryUnavailable, match="of another program"):
        await PostgresDirectory.open(server.url(other))


async def test_a_database_with_another_encoding_is_refused(server: PostgresServer) -> None:
    database = server.new_database("ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(DirectoryUnavailable, match="encoding LATIN1; names need a database with the encoding UTF8"):
        await PostgresDirectory.open(server.url(database))


async def test_commits_that_a_crash_may_lose_are_warned_of(server: PostgresServer, database: str) -> None:
    server.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    warnings: list[str] = []
    directory = await PostgresDirectory.open(server.url(database), warn=warnings.append)
    assert len(warnings) == 1
    assert f"{directory.name} has synchronous_commit=off" in warnings[0]
    await directory.close()


async def test_a_user_without_rights_to_the_database_needs_a_schema_of_its_own(
    server: PostgresServer, database: str
) -> None:
    server.execute(f"CREATE ROLE {database} LOGIN PASSWORD 'secret'")
    url = f"postgresql://{database}:secret@127.0.0.1:{server.port}/{database}"
    with pytest.raises(DirectoryUnavailable, match="does not let this user do that"):
        await PostgresDirectory.open(url)
    server.execute(f"CREATE SCHEMA aldis AUTHORIZATION {database}", database)
    directory = await PostgresDirectory.open(url)
    await directory.claim("alice", KEY_A)
    await directory.close()


async def test_no_error_shows_a_password(server: PostgresServer, database: str) -> None:
    address = f"127.0.0.1:{server.port}/{database}"
    directory = await PostgresDirectory.open(f"postgresql://postgres:{quote(PASSWORD)}@{address}")
    assert directory.name == f"the PostgreSQL database {database} at 127.0.0.1:{server.port}"
    await directory.close()
    for url, kind in (
        (f"postgresql://postgres:wr%20ong@{address}", DirectoryUnavailable),
        (f"postgresql://postgres:wr%20ong@{address}?sslmode=require", DirectoryUnavailable),
        (f"postgresql://postgres:wr ong%zz@{address}", ConfigError),
        (f"postgresql://postgres@{address}?password=wr%20ong&colour=red", ConfigError),
        ("postgresql://postgres:wr%20ong@127.0.0.1:1/names", DirectoryUnavailable),
    ):
        with pytest.raises(kind) as caught:
            await PostgresDirectory.open(url)
        assert "ong" not in str(caught.value)
        assert caught.value.__cause__ is None


async def test_a_name_that_postgresql_cannot_hold_fails_its_own_call_only(directory: PostgresDirectory) -> None:
    for name in ("a\ud800", "a\0b"):
        with pytest.raises(InvalidAddress):
            await directory.claim(name, KEY_A)
        with pytest.raises(InvalidAddress):
            await directory.change_privacy("alice", KEY_A, PrivacyChange(block=frozenset({name})))
    assert directory.healthy


async def test_a_key_of_a_wrong_size_is_refused_by_the_schema(directory: PostgresDirectory) -> None:
    with pytest.raises(DirectoryUnavailable):
        await directory.claim("alice", b"short")
    assert await directory.find("alice") is None


async def test_a_call_whose_caller_is_cancelled_ends_as_a_whole(directory: PostgresDirectory) -> None:
    claims = [asyncio.ensure_future(directory.claim(f"user{number}", KEY_A)) for number in range(50)]
    await asyncio.sleep(0)  # all have begun
    for claim in claims:
        claim.cancel()
    await directory.close()
    assert all(claim.cancelled() for claim in claims)


async def test_no_more_connections_are_open_than_allowed(server: PostgresServer, database: str) -> None:
    directory = await PostgresDirectory.open(server.url(database), connections=3)
    await asyncio.gather(*(directory.claim(f"user{number}", KEY_A) for number in range(200)))
    count = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
    assert server.execute(count) == [(3,)]
    await directory.close()


async def test_a_url_of_postgresql_opens_such_a_directory(server: PostgresServer, database: str) -> None:
    for scheme in ("postgresql://", "postgres://"):
        directory = await open_directory(server.url(database).replace("postgresql://", scheme))
        assert isinstance(directory, PostgresDirectory)
        await directory.close()


async def test_a_missing_library_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "aldis.backends.postgres")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'aldis\[postgres\]'"):
        await open_directory("postgresql://aldis:secret@127.0.0.1/names")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://aldis:wrong@10.0.0.5/names",
        "postgresql://aldis:wr/ong@10.0.0.5/names",
        "postgresql://aldis:wr@ong@10.0.0.5/names",
        "postgresql://aldis@10.0.0.5/names?password=wrong&sslmode=require",
        "postgresql://aldis@10.0.0.5/names?sslpassword=wrong",
    ],
)
def test_a_url_is_shown_without_its_password(url: str) -> None:
    shown = without_password(url)
    assert "wr" not in shown
    assert "ong" not in shown
    assert shown.startswith("postgresql://10.0.0.5/names")


@pytest.mark.parametrize("password", ["wr%ong", "wr@ong", "wr/ong", "wr?ong", "wr#ong", "12/ong", "wr%zzong"])
async def test_a_password_with_a_character_that_has_to_be_quoted_is_told_and_not_shown(password: str) -> None:
    with pytest.raises(ConfigError, match="%40 for @") as caught:
        await open_directory(f"postgresql://aldis:{password}@127.0.0.1:1/names")
    assert "ong" not in str(caught.value)
    with pytest.raises(DirectoryUnavailable, match="cannot be reached") as refused:
        await open_directory(f"postgresql://aldis:{quote(password, safe='')}@127.0.0.1:1/names")
    assert "ong" not in str(refused.value)


async def test_a_binding_that_no_synchronous_standby_has_is_an_error_and_not_an_answer() -> None:
    with postgres_server({"synchronous_standby_names": "nobody"}) as server:
        here = server.url(options="-csynchronous_commit%3Dlocal")
        await (await PostgresDirectory.open(here, patience=PATIENCE)).close()  # makes the tables
        directory = await PostgresDirectory.open(server.url(), patience=3)
        assert "does not answer for 3 s" in await fails(directory)
        assert await directory.find("bob") is None, "a standby may become the primary without it"
        await directory.close()
