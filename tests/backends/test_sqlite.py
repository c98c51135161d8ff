"""What is special about the directory in a SQLite file: what is on the disk, and what happens when the disk fails."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from aldis.backends.base import Binding, Claim, DirectoryUnavailable
from aldis.backends.sqlite import MAX_BATCH, SqliteDirectory
from aldis.backends.sqlite_file import MIGRATIONS, check_file
from aldis.errors import InvalidAddress
from aldis.protocol.privacy import Privacy
from support.patience import PATIENCE

KEY_A = b"a" * 32
KEY_B = b"b" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "names.sqlite3"


@pytest.fixture
async def directory(path: Path) -> AsyncIterator[SqliteDirectory]:
    directory = await SqliteDirectory.open(path, patience=0.05)
    yield directory
    await directory.close()


@contextmanager
def no_file_may_grow_beyond(size: int) -> Iterator[None]:
    """A full disk, as near as a process can make one for itself: writing beyond `size` bytes fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


async def test_bindings_survive_closing(path: Path) -> None:
    first = await SqliteDirectory.open(path)
    await first.claim("alice", KEY_A)
    await first.close()
    second = await SqliteDirectory.open(path)
    assert (await second.claim("alice", KEY_B)).public_key == KEY_A
    await second.close()


KILLED = """
import asyncio, os, signal, sys
from aldis.backends.sqlite import SqliteDirectory

async def main():
    directory = await SqliteDirectory.open(sys.argv[1])
    for number in range(1000000):
        name = f"user{number}"
        await directory.claim(name, number.to_bytes(32, "big"))
        print(name, flush=True)

asyncio.run(main())
"""


async def test_every_binding_that_was_answered_survives_kill_9(path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answered = [process.stdout.readline().strip() for _ in range(200)]
    process.kill()
    answered += [line.strip() for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    directory = await SqliteDirectory.open(path)
    for number, name in enumerate(answered):
        assert await directory.find(name) == number.to_bytes(32, "big")
    await directory.close()


async def test_the_file_is_in_wal_mode_and_belongs_to_its_owner_alone(directory: SqliteDirectory, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def commits(path: Path) -> int:
    """The commits in the write-ahead log: its frames that tell the size of the file (sqlite.org, fileformat2.html)."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    page_size = int.from_bytes(log[8:12], "big")
    return sum(any(log[at + 4 : at + 8]) for at in range(32, len(log), 24 + page_size))


async def test_waiting_claims_share_a_transaction(path: Path) -> None:
    directory = await SqliteDirectory.open(path, patience=PATIENCE)
    await directory.claim("first", KEY_A)
    before = commits(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        claims = [asyncio.ensure_future(directory.claim(f"user{number}", KEY_A)) for number in range(500)]
        # The first one waits for the lock.
        while directory._writer._calls.qsize() < len(claims) - 1:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        other.execute("ROLLBACK")
    assert await asyncio.gather(*claims) == [Claim(KEY_A, new=True)] * 500
    assert commits(path) == before + 1
    await directory.close()


async def test_more_calls_than_one_batch_takes_are_all_answered_also_when_closing(path: Path) -> None:
    directory = await SqliteDirectory.open(path)
    calls = [asyncio.ensure_future(directory.claim(f"user{number}", KEY_A)) for number in range(MAX_BATCH * 2 + 5)]
    await asyncio.sleep(0)  # all have begun
    await directory.close()
    assert await asyncio.gather(*calls) == [Claim(KEY_A, new=True)] * (MAX_BATCH * 2 + 5)


async def test_what_another_process_wrote_is_seen_at_once(directory: SqliteDirectory, path: Path) -> None:
    await directory.claim("alice", KEY_A)
    other = await SqliteDirectory.open(path)
    await other.release("alice")
    await other.claim("alice", KEY_B)
    await other.close()
    assert await directory.find("alice") == KEY_B


@pytest.mark.parametrize("other", ["open", "check"])
async def test_a_second_look_of_this_process_does_not_let_go_of_the_locks(
    directory: SqliteDirectory, path: Path, other: str
) -> None:
    await directory.claim("alice", KEY_A)
    if other == "open":
        await (await SqliteDirectory.open(path)).close()
    else:
        check_file(path)
    # Whoever closes the file as the last one copies the side file into it and deletes that: not while we have it open.
    last = "import sqlite3, sys\nsqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM names').connection.close()"
    subprocess.run([sys.executable, "-c", last, str(path)], check=True)
    assert path.with_name(path.name + "-wal").exists()


async def test_a_binding_that_was_put_is_on_the_disk_when_the_call_returns(
    directory: SqliteDirectory, path: Path
) -> None:
    hidden = Privacy("hidden", blocked=frozenset({"eve"}))
    await directory.put(Binding("alice", KEY_A))
    await directory.put(Binding("alice", KEY_B, hidden))
    crash = path.parent / "crash"  # what a process that is killed now leaves
    crash.mkdir()
    for file in path.parent.glob("*.sqlite3*"):
        shutil.copy(file, crash)
    after = await SqliteDirectory.open(crash / path.name)
    assert await after.bindings("", 10) == [Binding("alice", KEY_B, hidden)]
    await after.close()


async def test_a_locked_file_fails_new_bindings_and_no_reading(directory: SqliteDirectory, path: Path) -> None:
    await directory.claim("alice", KEY_A)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert (await directory.claim("alice", KEY_B)).public_key == KEY_A
    assert await directory.find("alice") == KEY_A
    with pytest.raises(DirectoryUnavailable, match="locked by another process"):
        await directory.claim("bob", KEY_B)
    with pytest.raises(DirectoryUnavailable, match="locked by another process"):
        await directory.check()
    holder.execute("ROLLBACK")
    holder.close()
    await directory.check()
    assert (await directory.claim("bob", KEY_B)).public_key == KEY_B


async def test_reading_does_not_wait_for_a_write_that_waits_for_the_lock(path: Path) -> None:
    directory = await SqliteDirectory.open(path, patience=60)
    await directory.claim("alice", KEY_A)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(directory.claim("bob", KEY_B))
    for _ in range(3):
        assert (await directory.claim("alice", KEY_B)).public_key == KEY_A
        assert await directory.find("alice") == KEY_A
        assert await directory.find("bob") is None
        assert not await directory.rotate("alice", KEY_B, b"c" * 32)
    assert not waiting.done()
    holder.execute("ROLLBACK")
    holder.close()
    assert await waiting == Claim(KEY_B, new=True)
    assert await directory.find("bob") == KEY_B
    await directory.close()


async def test_all_writes_that_wait_for_the_same_lock_fail_together(path: Path) -> None:
    directory = await SqliteDirectory.open(path, patience=0.5)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    claims = [asyncio.ensure_future(directory.claim(f"user{number}", KEY_A)) for number in range(MAX_BATCH + 5)]
    await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0)  # the others were failed by the same call
    assert all(claim.done() and isinstance(claim.exception(), DirectoryUnavailable) for claim in claims)
    assert not directory.healthy
    holder.execute("ROLLBACK")
    holder.close()
    assert await directory.find("user0") is None
    assert not directory.healthy, "reading tells nothing of writing"
    assert (await directory.claim("user0", KEY_B)).public_key == KEY_B
    assert directory.healthy
    await directory.close()


async def test_a_file_locked_at_the_start_is_an_error_in_words(path: Path) -> None:
    await (await SqliteDirectory.open(path)).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(DirectoryUnavailable, match="locked by another process"):
        await SqliteDirectory.open(path, patience=0.05)
    holder.close()


async def test_a_full_disk_fails_new_bindings_and_no_reading_until_there_is_room(
    directory: SqliteDirectory, path: Path
) -> None:
    await directory.claim("alice", KEY_A)
    with no_file_may_grow_beyond(path.with_name(path.name + "-wal").stat().st_size):
        with pytest.raises(DirectoryUnavailable, match="the disk"):
            await directory.claim("bob", KEY_B)
        assert await directory.find("alice") == KEY_A
        assert (await directory.claim("alice", KEY_B)).public_key == KEY_A
        with pytest.raises(DirectoryUnavailable, match="the disk"):
            await directory.check()
    await directory.check()
    assert (await directory.claim("bob", KEY_B)).public_key == KEY_B


async def test_a_file_that_is_removed_while_in_use_is_an_error_and_no_empty_directory(
    directory: SqliteDirectory, path: Path
) -> None:
    await directory.claim("alice", KEY_A)
    for file in path.parent.iterdir():
        file.unlink()
    for _ in range(2):
        with pytest.raises(DirectoryUnavailable, match="removed or replaced"):
            await directory.claim("alice", KEY_B)
        with pytest.raises(DirectoryUnavailable, match="removed or replaced"):
            await directory.check()
    assert not path.exists()


async def test_a_side_file_that_is_removed_while_in_use_is_an_error_and_no_name_is_lost(
    directory: SqliteDirectory, path: Path
) -> None:
    await directory.claim("alice", KEY_A)
    path.with_name("names.sqlite3-wal").unlink()
    for _ in range(2):
        with pytest.raises(DirectoryUnavailable, match=r"names\.sqlite3-wal has been removed or replaced"):
            await directory.claim("bob", KEY_A)  # it would be free again after a kill
        with pytest.raises(DirectoryUnavailable, match=r"names\.sqlite3-wal has been removed or replaced"):
            await directory.find("alice")
        assert not directory.healthy
    await directory.close()
    again = await SqliteDirectory.open(path)
    assert (await again.find("alice"), await again.find("bob")) == (KEY_A, None)
    await again.close()


async def test_a_link_to_the_file_has_the_side_file_of_the_file(path: Path, tmp_path: Path) -> None:
    await (await SqliteDirectory.open(path)).close()
    (tmp_path / "link").symlink_to(path)
    directory = await SqliteDirectory.open(tmp_path / "link")
    await directory.claim("alice", KEY_A)
    path.with_name("names.sqlite3-wal").unlink()
    with pytest.raises(DirectoryUnavailable, match=r"names\.sqlite3-wal has been removed or replaced"):
        await directory.claim("bob", KEY_A)
    await directory.close()


async def test_a_file_that_is_put_back_after_a_fault_is_used_again(directory: SqliteDirectory, path: Path) -> None:
    await directory.claim("alice", KEY_A)
    hidden = path.with_name("hidden")
    path.rename(hidden)
    with pytest.raises(DirectoryUnavailable, match="removed or replaced"):
        await directory.find("alice")
    hidden.rename(path)
    assert await directory.find("alice") == KEY_A


async def test_a_file_that_is_no_database_is_an_error_in_words(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database, whatever its name says" * 100)
    with pytest.raises(DirectoryUnavailable, match="not a directory of names"):
        await SqliteDirectory.open(path)
    assert path.read_bytes().startswith(b"this is no database")


async def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE names (recipe TEXT)")
    database.close()
    with pytest.raises(DirectoryUnavailable, match="of another program"):
        await SqliteDirectory.open(path)


async def test_a_database_of_a_later_version_is_left_alone(path: Path) -> None:
    await (await SqliteDirectory.open(path)).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    database.close()
    with pytest.raises(DirectoryUnavailable, match=r"has version \d+, of a newer release of Aldis; this one knows v"):
        await SqliteDirectory.open(path)


async def test_a_file_damaged_while_in_use_fails_the_calls_and_not_the_directory(path: Path) -> None:
    directory = await SqliteDirectory.open(path)
    await asyncio.gather(*(directory.claim(f"user{number}", KEY_A) for number in range(5000)))
    await directory.close()
    with path.open("r+b") as file:
        half = path.stat().st_size // 2
        file.seek(half)
        file.write(os.urandom(half))
    directory = await SqliteDirectory.open(path)  # the first pages are whole: the damage shows when it is met
    finds = (directory.find(f"user{number}") for number in range(5000))
    answers = await asyncio.gather(*finds, return_exceptions=True)
    found = [answer for answer in answers if answer == KEY_A]
    failed = [answer for answer in answers if isinstance(answer, DirectoryUnavailable) and "damaged" in str(answer)]
    assert len(found) + len(failed) == 5000
    assert min(len(found), len(failed)) > 500
    await directory.close()


async def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DirectoryUnavailable, match="file is no directory"):
        await SqliteDirectory.open(tmp_path / "file" / "names.sqlite3")


async def test_a_path_that_is_a_folder_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DirectoryUnavailable, match="cannot be opened"):
        await SqliteDirectory.open(tmp_path)


async def test_a_name_that_utf_8_cannot_hold_fails_its_own_call_only(directory: SqliteDirectory) -> None:
    with pytest.raises(InvalidAddress):
        await directory.claim("\ud800", KEY_A)
    with pytest.raises(InvalidAddress):
        await directory.find("\ud800")


async def test_a_call_that_is_a_bug_raises_in_its_caller_and_harms_no_other(directory: SqliteDirectory) -> None:
    answers = await asyncio.gather(
        directory.claim("alice", KEY_A),
        directory.claim("bob", 2**70),  # type: ignore[arg-type]
        directory.claim("carol", KEY_B),
        return_exceptions=True,
    )
    assert answers[0] == Claim(KEY_A, new=True)
    assert isinstance(answers[1], OverflowError)
    assert answers[2] == Claim(KEY_B, new=True)


async def test_a_key_of_a_wrong_size_is_refused_by_the_schema(directory: SqliteDirectory) -> None:
    with pytest.raises(DirectoryUnavailable):
        await directory.claim("alice", b"short")
    assert await directory.find("alice") is None
