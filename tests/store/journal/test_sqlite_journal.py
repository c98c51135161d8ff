"""The file of a journal when things go wrong with it: each fault has its error, and nothing is lost by it."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from aldis.errors import (
    ConfigError,
    JournalCorrupt,
    JournalDiskFull,
    JournalError,
    JournalInUse,
    JournalReadOnly,
    JournalTooNew,
)
from aldis.protocol.channel import Content
from aldis.store.journal.hands import _HEAD
from aldis.store.journal.rows import ArrivedRow, Changes, DeviceRow, Owner, PositionRow, QueuedRow
from aldis.store.journal.sqlite import HANDS_SUFFIX, MIGRATIONS, SqliteJournal


@contextmanager
def opened(path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(path)
    journal.open()
    try:
        yield journal
    finally:
        journal.close()


def queued(number: int, size: int = 1) -> Changes:
    return Changes(queued={(1, number): QueuedRow(1, number, Content.BYTES, bytes(size), 0.0, movable=True)})


def arrived(*places: int) -> Changes:
    rows = {n: ArrivedRow(n, "bob", "main", "s", n, Content.TEXT, b"x") for n in places}
    return Changes(arrived=rows, positions={(1, "s"): PositionRow(1, "s", places[-1], places[-1])})


def hands_of(path: Path) -> Path:
    return path.with_name(path.name + HANDS_SUFFIX)


def fill(journal: SqliteJournal) -> None:
    for number in range(2, 100):
        journal.write(queued(number, 100_000))


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "journal"
    with opened(path) as journal:
        journal.write(queued(1))
        assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_full_disk_is_told_and_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.write(queued(1))
        with full_disk(300_000), pytest.raises(JournalError, match="full"):
            fill(journal)
        journal.write(queued(100))
        kept = [number for _, number in journal.load().queued]
    assert kept[0] == 1
    assert kept[-1] == 100
    with opened(path) as journal:
        assert [number for _, number in journal.load().queued] == kept


# A small file system of its own: the quota above gives another error than a full one.
ON_TMPFS = """
import sys
from aldis.errors import *
from aldis.store.journal.sqlite import SqliteJournal
from aldis.store.journal.rows import *
from aldis.protocol.channel import Content
journal = SqliteJournal(sys.argv[1] + "/journal")
try:
    journal.open()
    for number in range(1, 100):
        row = QueuedRow(1, number, Content.BYTES, bytes(100_000), 0.0, True)
        journal.write(Changes(queued={(1, number): row}))
except JournalError as error:
    print(type(error).__name__, error)
    if isinstance(error, JournalDiskFull):
        assert len(journal.load().queued) == number - 1
"""


def on_tmpfs(folder: Path, options: str) -> str:
    shell = f'mount -t tmpfs -o {options} none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"]
    command += [str(folder), sys.executable, ON_TMPFS]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_full_file_system_is_told(tmp_path: Path) -> None:
    assert on_tmpfs(tmp_path, "size=1m").startswith(f"{JournalDiskFull.__name__} the journal {tmp_path}/journal cannot")


def test_a_read_only_file_system_is_told(tmp_path: Path) -> None:
    assert on_tmpfs(tmp_path, "ro").startswith(f"{JournalReadOnly.__name__} the journal {tmp_path}/journal cannot")


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be opened"):
        SqliteJournal(tmp_path / "file" / "journal").open()


def test_what_is_no_journal_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"a letter to a friend" * 1000)
    with pytest.raises(JournalCorrupt, match="move it away"):
        SqliteJournal(path).open()
    assert path.read_bytes().startswith(b"a letter")
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.raises(JournalCorrupt, match="another program"):
        SqliteJournal(path).open()


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        for number in range(1, 20):
            journal.write(queued(number, 20_000))
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 20)
    with pytest.raises(JournalCorrupt, match="damaged"), opened(path) as journal:
        journal.load()


def test_one_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    newer = SqliteJournal(path, migrations=(*MIGRATIONS, ("CREATE TABLE more (x)",)))
    newer.open()
    newer.close()
    with pytest.raises(JournalTooNew, match=f"version {len(MIGRATIONS) + 1}"):
        SqliteJournal(path).open()


def test_a_newer_release_brings_an_older_file_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.write(queued(1))
    newer = SqliteJournal(path, migrations=(*MIGRATIONS, ("CREATE TABLE more (x)",)))
    newer.open()
    assert list(newer.load().queued) == [(1, 1)]
    newer.close()


def test_a_file_that_is_removed_or_replaced_while_in_use_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        path.rename(tmp_path / "other")
        with pytest.raises(JournalError, match="removed"):
            journal.write(queued(1))
        path.touch()
        with pytest.raises(JournalError, match="replaced"):
            journal.write(queued(1))


def test_a_side_file_that_is_removed_while_in_use_is_told_and_loses_nothing_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.write(queued(1))
        path.with_name("journal-wal").unlink()
        with pytest.raises(JournalError, match="removed"):
            journal.write(queued(2))  # it would be lost when the program is killed
    with opened(path) as journal:
        assert list(journal.load().queued) == [(1, 1)]


def test_a_link_is_the_same_journal(tmp_path: Path) -> None:
    path, link = tmp_path / "journal", tmp_path / "folder" / "link"
    link.parent.mkdir()
    link.symlink_to(path)
    with opened(link) as journal:
        journal.load()
        journal.write(arrived(1, 2))
        journal.hands.give(1, 1)
        journal.hands.release(1)
        with pytest.raises(JournalInUse):
            SqliteJournal(path).open()
    for name in (path, link):
        with opened(name) as journal:
            contents = journal.load()
            assert (list(contents.arrived), contents.redelivered, contents.rolled_back) == ([2], set(), False)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "journal", "journal-hands"]


def test_a_second_process_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    holder = (
        "import sys\nfrom aldis.store.journal.sqlite import SqliteJournal\n"
        "SqliteJournal(sys.argv[1]).open()\nprint('open', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(JournalInUse, match="another program"):
            SqliteJournal(path).open()
        process.kill()
    with opened(path):
        pass


def test_a_second_store_of_this_process_does_not_let_go_of_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    other = "import sys\nfrom aldis.store.journal.sqlite import SqliteJournal\nSqliteJournal(sys.argv[1]).open()"
    with opened(path):
        with pytest.raises(JournalInUse, match="another program"):
            SqliteJournal(path).open()
        ended = subprocess.run([sys.executable, "-c", other, str(path)], check=False, capture_output=True, text=True)
        assert "JournalInUse" in ended.stderr


_FORKING = """
import os, sys
from aldis.errors import JournalError
from aldis.store.journal.rows import Changes
from aldis.store.journal.sqlite import SqliteJournal

journal = SqliteJournal(sys.argv[1])
journal.open()
journal.write(Changes(files={"before": b"1"}))
child = os.fork()
if not child:
    try:
        journal.write(Changes(files={"child": b"1"}))
    except JournalError as error:
        print(error, flush=True)
    if sys.argv[2] == "close":
        journal.close()
    sys.exit()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
journal.write(Changes(files={"after": b"1"}))
os._exit(0)
"""


@pytest.mark.parametrize("end", ["close", "end"])
def test_a_forked_child_neither_writes_to_it_nor_takes_it_from_its_parent(tmp_path: Path, end: str) -> None:
    path = tmp_path / "journal"
    command = [sys.executable, "-c", _FORKING, str(path), end]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"the journal {path} is closed\n0\n"
    with opened(path) as journal:
        assert sorted(journal.load().files) == ["after", "before"]


def test_an_older_state_is_noticed_and_nothing_counts_as_handed_over(tmp_path: Path) -> None:
    path, backup = tmp_path / "journal", tmp_path / "backup"
    with opened(path) as journal:
        assert not journal.load().rolled_back
        journal.write(arrived(1, 2))
    shutil.copy(path, backup)
    with opened(path) as journal:
        assert not journal.load().rolled_back
        journal.hands.give(1, 1)
        journal.hands.give(1, 2)
        journal.hands.release(1)
    shutil.copy(backup, path)
    with opened(path) as journal:
        contents = journal.load()
        assert contents.rolled_back
        assert (list(contents.arrived), contents.redelivered) == ([1, 2], {1, 2})
    with opened(path) as journal:
        assert not journal.load().rolled_back


def test_a_disk_that_is_full_while_it_is_opened_or_closed_does_not_look_like_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.load()
        journal.write(arrived(1, 2))
        journal.hands.give(1, 1)
        journal.hands.release(1)
    refused = 0
    for size in range(4_000, 60_000, 2_000):
        with full_disk(size):
            try:
                with opened(path):
                    pass
            except JournalError:
                refused += 1
        with opened(path) as journal:
            contents = journal.load()
        assert not contents.rolled_back
        assert (list(contents.arrived), contents.redelivered) == ([2], set())
    assert refused


def test_a_copy_of_a_run_that_was_given_more_is_noticed(tmp_path: Path) -> None:
    path, backup = tmp_path / "journal", tmp_path / "backup"
    with opened(path) as journal:
        journal.load()
        journal.write(arrived(1))
        copies = [(each, backup.with_name("backup" + each.name)) for each in (path, Path(f"{path}-wal"))]
        for original, copy in copies:
            shutil.copy(original, copy)
        hands = hands_of(path).read_bytes()
    for original, copy in copies:
        shutil.copy(copy, original)
    with opened(path) as journal:
        assert journal.load().rolled_back  # the end of a run changes the mark
    hands_of(path).write_bytes(hands)


def test_a_lost_note_of_what_was_handed_over_makes_all_of_it_come_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.load()
        journal.write(arrived(1, 2))
    hands_of(path).unlink()
    with opened(path) as journal:
        contents = journal.load()
        assert contents.redelivered == {1, 2}


def test_after_a_power_cut_what_comes_says_that_it_may_have_come_before(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = SqliteJournal(path)
    journal.open()
    journal.load()
    journal.write(arrived(1, 2))
    copies = {each: each.read_bytes() for each in tmp_path.iterdir()}
    journal.close()
    magic, mark, following, _, _ = _HEAD.unpack_from(copies[hands_of(path)])
    for each, data in copies.items():
        each.write_bytes(data)
    with hands_of(path).open("r+b") as file:
        file.write(_HEAD.pack(magic, mark, following, bytes(range(16)), 0))  # another boot, and no orderly end
    with opened(path) as journal:
        contents = journal.load()
        assert not contents.rolled_back
        assert contents.redelivered == {1, 2}


@pytest.mark.parametrize("path", [None, 5, b"x"])
def test_a_path_is_a_path(path: object) -> None:
    with pytest.raises(ConfigError):
        SqliteJournal(path)  # type: ignore[arg-type]


VERSIONS = sorted((Path(__file__).parents[2] / "data" / "journal").glob("*.sql"))


@pytest.mark.parametrize("dump", VERSIONS, ids=lambda dump: dump.stem)
def test_a_journal_of_each_version_is_read(tmp_path: Path, dump: Path) -> None:
    path = tmp_path / "journal"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(dump.read_text(encoding="utf-8"))
    with opened(path) as journal:
        contents = journal.load()
    assert contents.owner == Owner("localhost:8765", "alice", "main")
    reserved = 260 if dump.stem == "version-3" else 0
    assert contents.devices == {1: DeviceRow(1, "bob", "phone", 2, "ours", 4, reserved=reserved)}
    assert list(contents.queued.values()) == [QueuedRow(2, 5, Content.TEXT, b"five", 1700000000.0, movable=True)]
    assert list(contents.arrived.values()) == [ArrivedRow(7, "bob", "phone", "theirs", 3, Content.JSON, b"[1]")]
    assert list(contents.positions.values()) == [PositionRow(1, "theirs", 3, 7)]
    assert contents.files == {"f": b"record"}


def test_there_is_a_dump_of_each_version() -> None:
    assert len(VERSIONS) == len(MIGRATIONS)
