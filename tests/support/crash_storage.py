"""Where a program of a `crash_world` has its journal, over all its runs: in the memory, or in files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Protocol

from aldis.store.journal.hands import MemoryHands
from aldis.store.journal.journal import Hands, Journal
from aldis.store.journal.memory import MemoryJournal
from aldis.store.journal.rows import Changes, Contents
from aldis.store.journal.sqlite import HANDS_SUFFIX, SqliteJournal

_KEY = re.compile(rb"(\d+):")


def key_of(data: bytes) -> int | None:
    """Which message this is, or the first piece of."""
    found = _KEY.match(data)
    return None if found is None else int(found[1])


class Storage(Protocol):
    """Where the journal of one program is, over all its runs."""

    def open(self) -> Journal:
        """The journal, for the next run."""

    def queued(self) -> set[int]:
        """What is in it to be sent."""

    def arrived(self) -> set[int]:
        """What is in it of what has arrived."""

    def copy(self) -> object:
        """All of it as it is now: what a `kill -9` at this moment leaves, and a backup of this moment has."""

    def go_on(self, copy: object) -> None:
        """The next run has this copy."""

    def put_back(self, copy: object, random: Random) -> None:
        """The next run has this copy, which is of an earlier run; beside it is what a person may have left there."""


class MemoryStorage:
    """In a `MemoryJournal`."""

    def __init__(self) -> None:
        self._journal = MemoryJournal()

    def open(self) -> Journal:
        return self._journal

    def queued(self) -> set[int]:
        return {key for row in self._journal._contents.queued.values() if (key := key_of(row.data)) is not None}

    def arrived(self) -> set[int]:
        return {key for row in self._journal._contents.arrived.values() if (key := key_of(row.data)) is not None}

    def copy(self) -> object:
        return deepcopy((self._journal._contents, self._journal.hands))

    def go_on(self, copy: object) -> None:
        assert isinstance(copy, tuple)
        contents, hands = deepcopy(copy)
        assert isinstance(contents, Contents)
        assert isinstance(hands, MemoryHands)
        self._journal = MemoryJournal()
        self._journal._contents, self._journal.hands = contents, hands

    def put_back(self, copy: object, random: Random) -> None:
        self.go_on(copy)


class FileStorage:
    """In files. Each run has a folder of its own, so the files of a run that was killed may still be open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs = 0
        self._copies = 0
        self._journal = self._new()

    def _new(self) -> SqliteJournal:
        self._runs += 1
        return SqliteJournal(self._folder / str(self._runs) / "journal")

    @property
    def _place(self) -> Path:
        return Path(self._journal.name).parent

    def open(self) -> Journal:
        return self._journal

    def _select(self, table: str) -> set[int]:
        database = self._journal._database
        assert database is not None
        rows = database.execute(f"SELECT substr(data, 1, 20) FROM {table}")
        return {key for (data,) in rows if (key := key_of(data)) is not None}

    def queued(self) -> set[int]:
        return self._select("queued")

    def arrived(self) -> set[int]:
        return self._select("arrived")

    def copy(self) -> object:
        self._copies += 1
        copy = self._folder / f"copy{self._copies}"
        shutil.copytree(self._place, copy)
        return copy

    def go_on(self, copy: object) -> None:
        assert isinstance(copy, Path)
        self._journal = self._new()
        shutil.copytree(copy, self._place)

    def put_back(self, copy: object, random: Random) -> None:
        newer = self._place / f"journal{HANDS_SUFFIX}"
        self.go_on(copy)
        hands = self._place / newer.name
        match random.randrange(3):
            case 0:
                hands.unlink()
            case 1:
                shutil.copy(newer, hands)


class Watched:
    """A journal that says what it was given, and has on its disk."""

    def __init__(self, journal: Journal, written: Callable[[Changes], None]) -> None:
        self._journal = journal
        self._written = written
        self.name = journal.name

    @property
    def hands(self) -> Hands:
        return self._journal.hands

    def open(self) -> None:
        self._journal.open()

    def load(self) -> Contents:
        return self._journal.load()

    def write(self, changes: Changes) -> None:
        self._journal.write(changes)
        self._written(changes)

    def close(self) -> None:
        self._journal.close()
