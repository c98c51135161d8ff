"""Directories of earlier releases, and what happens when the schema changes."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from aldis.backends.base import Claim, DirectoryUnavailable
from aldis.backends.sqlite import SqliteDirectory
from aldis.backends.sqlite_file import APPLICATION_ID, MIGRATIONS, SqliteFile
from aldis.protocol.privacy import Privacy, PrivacyChange

DATA = Path(__file__).parents[1] / "data" / "directory"
KEY_A = b"a" * 32
KEY_B = b"b" * 32
BLOCKS_EVE = Privacy(blocked=frozenset({"eve"}))
# What a later release may do: a table is made anew, since SQLite changes no column.
LATER = (
    *MIGRATIONS,
    (
        "CREATE TABLE bound (user_id TEXT NOT NULL PRIMARY KEY, public_key BLOB NOT NULL, note TEXT) WITHOUT ROWID",
        "INSERT INTO bound SELECT user_id, public_key, NULL FROM names",
        "DROP TABLE names",
        "ALTER TABLE bound RENAME TO names",
    ),
    ("CREATE INDEX names_of_key ON names (public_key)",),
)


def old_file(folder: Path, version: int) -> Path:
    """A file as the release with this version of the schema has left it."""
    path = folder / "names.sqlite3"
    database = sqlite3.connect(path)
    database.executescript((DATA / f"version-{version}.sql").read_text(encoding="utf-8"))
    database.close()
    return path


def dump(path: Path) -> list[str]:
    database = sqlite3.connect(path)
    lines = [*database.iterdump(), *map(str, database.execute("PRAGMA user_version"))]
    database.close()
    return lines


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
async def test_a_directory_of_each_earlier_version_keeps_its_names(tmp_path: Path, version: int) -> None:
    directory = await SqliteDirectory.open(old_file(tmp_path, version))
    assert await directory.find("alice") == KEY_A
    assert await directory.claim("straße", KEY_A) == Claim(KEY_B, new=False)
    assert await directory.claim("bob", KEY_B) == Claim(KEY_B, new=True)
    assert await directory.load("bob") == Claim(KEY_B, new=False)
    assert await directory.change_privacy("bob", KEY_B, PrivacyChange(block=frozenset({"eve"}))) == BLOCKS_EVE
    await directory.check()
    await directory.close()
    made = SqliteFile(tmp_path / "new.sqlite3", 1.0)
    made.create()
    schema = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    texts = []
    for path in (tmp_path / "names.sqlite3", made.path):
        database = sqlite3.connect(path)
        texts.append([" ".join(sql.split()) for (sql,) in database.execute(schema)])
        database.close()
    assert texts[0] == texts[1], "an upgraded file has the schema of a new one"


async def test_a_directory_of_the_second_version_keeps_who_is_blocked(tmp_path: Path) -> None:
    directory = await SqliteDirectory.open(old_file(tmp_path, 2))
    found = await directory.load("alice")
    await directory.close()
    assert found is not None
    assert found.privacy == Privacy("contacts", "public", frozenset({"bob", "straße"}), frozenset({"mallory"}))


async def test_a_directory_of_the_third_version_keeps_the_names_that_may_register(tmp_path: Path) -> None:
    directory = await SqliteDirectory.open(old_file(tmp_path, 3))
    found = await directory.listed_names("", 10)
    await directory.close()
    assert found == ["alice", "straße"]


def test_the_oldest_directory_goes_through_all_migrations(tmp_path: Path) -> None:
    path = old_file(tmp_path, 1)
    SqliteFile(path, 1.0, LATER).create()
    database = sqlite3.connect(path)
    assert database.execute("SELECT * FROM names").fetchall() == [("alice", KEY_A, None), ("straße", KEY_B, None)]
    assert database.execute("PRAGMA user_version").fetchone() == (len(LATER),)
    assert database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    database.close()
    before = dump(path)
    SqliteFile(path, 1.0, LATER).create()  # once more changes nothing
    assert dump(path) == before
    with pytest.raises(
        DirectoryUnavailable,
        match=f"has version {len(LATER)}, of a newer release",
    ):
        SqliteFile(path, 1.0).create()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = old_file(tmp_path, 1)
    before = dump(path)
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        SqliteFile(path, 1.0, (*LATER, ("DROP TABLE nonsense",))).create()
    assert dump(path) == before


def test_processes_that_migrate_at_once_do_it_once(tmp_path: Path) -> None:
    path = old_file(tmp_path, 1)
    faults: list[Exception] = []

    def migrate() -> None:
        try:
            SqliteFile(path, 60.0, LATER).create()
        except Exception as error:  # noqa: BLE001 - looked at below
            faults.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert dump(path)[-1] == f"({len(LATER)},)"
