"""A journal whose file is damaged: it says so, or works. It raises nothing else, and takes no endless time."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aldis.errors import JournalCorrupt, JournalError
from aldis.protocol.channel import Content
from aldis.store.journal.hands import _GIVEN, _READERS
from aldis.store.journal.rows import ArrivedRow, Changes, DeviceRow, HandedOver, Owner, PositionRow, QueuedRow
from aldis.store.journal.sqlite import SqliteJournal
from support.journals import Program

OWNER = Owner("here", "alice", "main")


def filled(path: Path, *, closed: bool = True) -> SqliteJournal:
    """A journal with rows of each kind."""
    journal = SqliteJournal(path)
    journal.open()
    journal.load()
    for number in range(1, 9):
        journal.write(
            Changes(
                owner=OWNER,
                devices={number: DeviceRow(number, "bob", f"device{number}", number, f"ours{number}", 1, 1, 4)},
                queued={
                    (number, 2 + n): QueuedRow(number, 2 + n, Content.TEXT, b"text" * 500, 1e9, movable=True)
                    for n in range(3)
                },
                arrived={number: ArrivedRow(number, "bob", f"device{number}", "theirs", number, Content.TEXT, b"text")},
                positions={(number, "theirs"): PositionRow(number, "theirs", number, number)},
                handed_over=HandedOver(2),
                files={f"file{number}": b"{}"},
            )
        )
    if closed:
        journal.close()
    return journal


async def start(path: Path) -> None:
    """As a program does. Raises `JournalError`."""
    journal = SqliteJournal(path)
    try:
        program = Program(journal, "alice", "bob")
        await program.start()
    finally:
        journal.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE queued SET content = 99",
        "UPDATE queued SET data = 'text'",
        "UPDATE queued SET data = 7",
        "UPDATE queued SET queued_at = 'never'",
        "UPDATE queued SET queued_at = 9e999",
        "UPDATE queued SET movable = 'no'",
        "UPDATE queued SET id = -1 WHERE id = (SELECT max(id) FROM queued)",
        "UPDATE queued SET id = id | 549755813888 WHERE id = (SELECT max(id) FROM queued)",
        "UPDATE devices SET user_id = x'00'",
        "UPDATE devices SET user_id = CAST(x'ff' AS TEXT)",
        "UPDATE devices SET acknowledged = -1",
        "UPDATE devices SET acknowledged = 'all'",
        "UPDATE devices SET queue = 1e300",
        "UPDATE devices SET sent = x''",
        "UPDATE devices SET reserved = 1099511627775",
        "UPDATE positions SET sequence = 'many'",
        "UPDATE positions SET stream = x'01' WHERE device = 1",
        "UPDATE arrived SET content = 17",
        "UPDATE arrived SET sender = 1e5, redelivered = 3",
        "UPDATE arrived SET data = 1.5",
        "UPDATE files SET value = 'text'",
        "UPDATE facts SET value = 5 WHERE name = 'user'",
        "DROP TABLE positions",
        "DROP TABLE facts",
        "ALTER TABLE arrived DROP COLUMN redelivered",
        "ALTER TABLE arrived RENAME COLUMN place TO spot",
    ],
)
async def test_a_value_that_cannot_be_is_told(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal"
    filled(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(damage)
    with pytest.raises(JournalCorrupt, match="damaged"):
        await start(path)


@pytest.mark.parametrize("mark", ["5", "'text'", "NULL || x'00'", "x'00'"])
async def test_a_damaged_mark_counts_as_an_earlier_state(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "journal"
    filled(path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE facts SET value = ifnull({mark}, 0) WHERE name = 'mark'")
    with closing(SqliteJournal(path)) as journal:
        journal.open()
        assert journal.load().rolled_back


async def test_flipped_bytes_are_told_or_do_no_harm(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole", tmp_path / "journal"
    filled(whole)
    data = whole.read_bytes()
    dice = random.Random(10)
    told = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(dice.choice((1, 1, 4, 64))):
            at = dice.randrange(len(data)) if dice.random() < 0.5 else dice.randrange(8192 * 6) % len(data)
            damaged[at] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        shutil.copy(f"{whole}-hands", f"{path}-hands")
        try:
            await start(path)
        except JournalError:
            told += 1
    assert told


async def test_a_damaged_note_of_what_was_handed_over_takes_no_message_away(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    filled(path)
    with closing(SqliteJournal(path)) as journal:
        journal.open()
        journal.load()
        journal.hands.give(3, 3)
        journal.hands.give(3, 4)
    files = {name: (tmp_path / name).read_bytes() for name in ("journal", "journal-hands")}
    numbers = range(_GIVEN * 8, (_READERS + 8) * 8), range((_READERS + 3 * 8) * 8, (_READERS + 4 * 8) * 8)
    for bit in (*range(0, _GIVEN * 8, 61), *(bit for each in numbers for bit in each[::3])):
        damaged = bytearray(files["journal-hands"])
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(files["journal"])
        Path(f"{path}-hands").write_bytes(damaged)
        with closing(SqliteJournal(path)) as journal:
            journal.open()
            contents = journal.load()
        assert set(contents.arrived) >= {4, 5, 6, 7, 8}
        assert 3 not in contents.arrived or 3 in contents.redelivered


async def test_a_side_file_that_was_cut_short_gives_what_is_whole_in_it(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole", tmp_path / "journal"
    journal = filled(whole, closed=False)
    side = Path(f"{whole}-wal").read_bytes()
    assert len(side) > 20_000
    main = whole.read_bytes()
    hands = Path(f"{whole}-hands").read_bytes()
    seen = set()
    for left in range(0, len(side), 4001):
        for damaged in (side[:left], side[:left] + bytes(100) + side[left + 100 :]):
            path.write_bytes(main)
            Path(f"{path}-wal").write_bytes(damaged)
            Path(f"{path}-hands").write_bytes(hands)
            try:
                with closing(SqliteJournal(path)) as copy:
                    copy.open()
                    contents = copy.load()
            except JournalError:
                continue
            seen.add(len(contents.devices))
            # A change is there as a whole, or not at all.
            assert len(contents.queued) == 3 * len(contents.devices)
    assert len(seen) > 3
    journal.close()
