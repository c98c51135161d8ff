"""Reads and writes at a place of a file, and what was handed over, also where the system has neither."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aldis.protocol.channel import Content
from aldis.store.journal import positioned
from aldis.store.journal.hands import FileHands
from aldis.store.journal.rows import ArrivedRow, Changes, HandedOver, PositionRow
from aldis.store.journal.sqlite import SqliteJournal

THREADS = 8
FIELD = 64


@pytest.fixture(params=["as here", "as on Windows"])
def system(request: pytest.FixtureRequest) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "as on Windows":
            for name in ("pread", "pwrite"):
                patch.delattr(os, name)
        importlib.reload(positioned)
        yield request.param
    importlib.reload(positioned)


def test_the_functions_of_the_system_are_used_where_there_are_some(system: str) -> None:
    assert (positioned.read_at is getattr(os, "pread", None)) == (system == "as here")


@pytest.mark.usefixtures("system")
def test_a_file_has_at_each_place_what_was_written_there_whichever_thread_it_was(tmp_path: Path) -> None:
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)

    def work(thread: int) -> None:
        for number in range(200):
            data = bytes((thread,)) * (FIELD - 1) + bytes((number,))
            assert positioned.write_at(file, data, thread * FIELD) == FIELD
            assert positioned.read_at(file, FIELD, thread * FIELD) == data

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    os.close(file)
    assert os.path.getsize(tmp_path / "file") == THREADS * FIELD


@pytest.mark.usefixtures("system")
def test_hands_say_after_a_crash_what_was_handed_over(tmp_path: Path) -> None:
    hands = FileHands(tmp_path / "hands")
    assert not hands.open().certain
    hands.mark(b"m" * 16, b"n" * 16, clean=False)
    hands.reset(10)
    for place in (11, 12, 13):
        hands.give(place % 2, place)
    hands.release(0)
    hands.check()
    found = FileHands(tmp_path / "hands").open()  # the first one was not closed
    assert found.handed_over == HandedOver(13, frozenset({13}))
    assert found.marks == {b"m" * 16, b"n" * 16}


@pytest.mark.usefixtures("system")
def test_a_journal_goes_on_where_it_was(tmp_path: Path) -> None:
    rows = {number: ArrivedRow(number, "bob", "main", "s", number, Content.TEXT, b"\n\r\n\x1a") for number in (1, 2)}
    journal = SqliteJournal(tmp_path / "journal")
    journal.open()
    journal.load()
    journal.write(Changes(arrived=rows, positions={(1, "s"): PositionRow(1, "s", 2, 2)}))
    journal.hands.give(1, 1)
    journal.hands.release(1)
    journal.close()
    again = SqliteJournal(tmp_path / "journal")
    again.open()
    contents = again.load()
    again.close()
    assert list(contents.arrived) == [2]
    assert contents.arrived[2].data == b"\n\r\n\x1a"
