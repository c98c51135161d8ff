"""Directories with many names, and all that is in one."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from aldis.backends.base import Binding
from aldis.backends.sqlite import SqliteDirectory
from aldis.protocol.privacy import Privacy


def content(path: Path) -> list[list[tuple[object, ...]]]:
    """All that a directory has."""
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return [
            database.execute(f"SELECT * FROM {table} ORDER BY user_id").fetchall()
            for table in ("names", "privacy", "listed")
        ]
    finally:
        database.close()


async def fill(path: Path, count: int) -> Path:
    directory = await SqliteDirectory.open(path)
    hidden = Privacy("hidden", blocked=frozenset({"eve"}))
    for first in range(0, count, 1000):
        numbers = range(first, min(first + 1000, count))
        await asyncio.gather(
            *(
                directory.put(Binding(f"user{n:06}", n.to_bytes(32, "big"), Privacy() if n % 9 else hidden))
                for n in numbers
            )
        )
    await directory.list_name("user000000")
    await directory.list_name("zoë")
    await directory.close()
    return path
