"""Which key belongs to which peer: trust on first use.

A pin says: the user `user_id` of the server `server` has the key `public_key`. The first key seen is kept; another one
is refused until the user accepts it. Pins are by server, since two servers may know two people by one name.

A pin is never let go of to make room for another: who comes under many names could have that of somebody else
forgotten so, and take their place at what would look like a first contact.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Final, Protocol

from aldis.errors import IdentityError
from aldis.settings import check_count, check_path

# About 4 MB. Strangers who call make pins, too, so there has to be an end to it.
MAX_IN_MEMORY: Final = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pins (
    server TEXT NOT NULL, user_id TEXT NOT NULL, public_key BLOB NOT NULL,
    PRIMARY KEY (server, user_id)
) WITHOUT ROWID
"""


class Pins(Protocol):
    """Where pins are kept. `server` is the host and port of the server's URL, lower case.

    What cannot be read or written is an `IdentityError`; a store takes whatever else is raised for one.
    """

    def pin(self, server: str, user_id: str, public_key: bytes) -> bytes:
        """Pin `public_key` unless a key is pinned already; return the key that is pinned now."""

    def find(self, server: str, user_id: str) -> bytes | None:
        """The pinned key, or None."""

    def accept(self, server: str, user_id: str, public_key: bytes) -> None:
        """Replace the pin: a person has decided that this key is right."""

    def close(self) -> None:
        """Let go of what is open."""


class MemoryPins:
    """Pins that live as long as the process.

    With `limit` of them no further peer is pinned: `pin` raises `IdentityError`, so there is no connection to somebody
    new. Those who are known stay so, and what a person accepts is always taken.
    """

    def __init__(self, *, limit: int = MAX_IN_MEMORY) -> None:
        """Raises `ConfigError` for a limit below 1."""
        check_count("limit", limit)
        self._limit = limit
        self._keys: dict[tuple[str, str], bytes] = {}

    def pin(self, server: str, user_id: str, public_key: bytes) -> bytes:
        pinned = self._keys.get((server, user_id))
        if pinned is None:
            if len(self._keys) >= self._limit:
                raise IdentityError(f"{self._limit} keys are pinned, and no more can be")
            pinned = self._keys.setdefault((server, user_id), public_key)
        return pinned

    def find(self, server: str, user_id: str) -> bytes | None:
        return self._keys.get((server, user_id))

    def accept(self, server: str, user_id: str, public_key: bytes) -> None:
        self._keys[server, user_id] = public_key

    def close(self) -> None:
        pass


class FilePins:
    """Pins in a SQLite file, shared by all processes of a user. Every call is one small transaction."""

    def __init__(self, path: Path | str) -> None:
        """Open or make the file; raises `IdentityError` when that is not possible, `ConfigError` when it is no path."""
        self._path = check_path("path", path)
        self._lock = threading.Lock()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A process that holds the file for longer than 5 s is stuck; better an error than a silent hang.
            self._database = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
            # Not in WAL mode: the change to it does not wait for other processes, and so few writes need no speed.
            try:
                self._database.execute(_SCHEMA)
            except sqlite3.Error:
                self._database.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise IdentityError(f"cannot open the pinned keys in {self._path}: {error}") from error

    def _run(self, statement: str, *values: str | bytes) -> list[tuple[bytes]]:
        try:
            with self._lock:
                return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise IdentityError(f"cannot use the pinned keys in {self._path}: {error}") from error

    def pin(self, server: str, user_id: str, public_key: bytes) -> bytes:
        # ON CONFLICT with a no-op update makes RETURNING give the row that stands, in one atomic statement.
        rows = self._run(
            "INSERT INTO pins VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET public_key = public_key RETURNING public_key",
            server,
            user_id,
            public_key,
        )
        return rows[0][0]

    def find(self, server: str, user_id: str) -> bytes | None:
        rows = self._run("SELECT public_key FROM pins WHERE server = ? AND user_id = ?", server, user_id)
        return rows[0][0] if rows else None

    def accept(self, server: str, user_id: str, public_key: bytes) -> None:
        self._run("INSERT OR REPLACE INTO pins VALUES (?, ?, ?)", server, user_id, public_key)

    def close(self) -> None:
        with self._lock:
            self._database.close()
