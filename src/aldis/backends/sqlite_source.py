"""A directory in a SQLite file that is only read: what a copy takes from, also while a server writes.

It neither makes nor changes the file: no schema is brought up to date, and no mode is set. Each page is read in a
thread, so the event loop never touches the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from aldis.backends.base import Binding, DirectoryTooNew, DirectoryUnavailable
from aldis.backends.sqlite import PATIENCE, select_bindings, select_listed
from aldis.backends.sqlite_file import MIGRATIONS, SqliteFile, open_present
from aldis.errors import UsageError

_Row = TypeVar("_Row")


class SqliteSource:
    """The names in the file at `path`. Call `open` to make one."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._file = SqliteFile(path, PATIENCE)
        self._path = path
        self._database = database
        # A call that was cancelled may still read in its thread when `close` comes.
        self._using = threading.Lock()
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> SqliteSource:
        """Open a file that is there. Raises `UsageError` when it cannot be used."""
        return await asyncio.to_thread(cls._open, path)

    @classmethod
    def _open(cls, path: Path) -> SqliteSource:
        try:
            database, version = open_present(path, read_only=True)
        except DirectoryTooNew as error:
            raise UsageError(str(error)) from None
        if version != len(MIGRATIONS):
            database.close()
            raise UsageError(f"{path} is of an older release: start this release's server on it once, to bring it up")
        return cls(path, database)

    async def bindings(self, after: str, most: int) -> list[Binding]:
        """See `Directory.bindings`."""
        return await asyncio.to_thread(self._select, select_bindings, after, most)

    async def listed_names(self, after: str, most: int) -> list[str]:
        """See `Directory.listed_names`."""
        return await asyncio.to_thread(self._select, select_listed, after, most)

    async def close(self) -> None:
        """Close the file. Later calls are refused."""
        await asyncio.to_thread(self._close)

    def _select(
        self, select: Callable[[sqlite3.Connection, str, int], list[_Row]], after: str, most: int
    ) -> list[_Row]:
        with self._using:
            if self._closed:
                raise DirectoryUnavailable(f"{self._path} is closed")
            try:
                return select(self._database, after, most)
            except sqlite3.Error as error:
                raise self._file.in_words(error) from error

    def _close(self) -> None:
        with self._using:
            self._closed = True
            self._database.close()
