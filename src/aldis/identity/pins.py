"""The pinned key of each peer: trust on first use.

A pin says: the user `user_id` of the server `server` has the key `public_key`. The first key of a user is pinned.
Another key is refused until a person accepts it. Pins are separate for each server, because two servers may know two
people by one name.

A pin is never dropped to make room for another. Otherwise a stranger with many names could push out the pin of another
user, and then take that user's place as if it were a first contact.
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Final, Protocol

from aldis.errors import IdentityError
from aldis.settings import check_count, check_path
from aldis.sqlite_files import READONLY, cause_of

# About 4 MB. There has to be a limit, because strangers who call make pins too.
MAX_IN_MEMORY: Final = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pins (
    server TEXT NOT NULL, user_id TEXT NOT NULL, public_key BLOB NOT NULL,
    PRIMARY KEY (server, user_id)
) WITHOUT ROWID
"""


class Pins(Protocol):
    """A store of pins. `server` is the host and port of the server's URL, lower case.

    When pins cannot be read or written, it raises `IdentityError`; callers treat any other exception like one.
    """

    def pin(self, server: str, user_id: str, public_key: bytes) -> bytes:
        """Pin `public_key` unless a key is pinned; return the key that is pinned now."""

    def find(self, server: str, user_id: str) -> bytes | None:
        """The pinned key, or None."""

    def accept(self, server: str, user_id: str, public_key: bytes) -> None:
        """Replace the pin, after a person has decided that this key is right."""

    def close(self) -> None:
        """Close what is open."""


class MemoryPins:
    """Pins that live as long as the process.

    At `limit` pins, `pin` raises `IdentityError` for another peer, so no new peer can connect. Known peers are not
    affected, and `accept` always works.
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
    """Pins in a SQLite file, which all processes of a user share. Every call is a small transaction or two."""

    def __init__(self, path: Path | str) -> None:
        """Open or make the file. Raises `IdentityError` when that fails, `ConfigError` when `path` is not a path."""
        self._path = check_path("path", path)
        self._lock = threading.Lock()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A process that holds the file for longer than 5 s is stuck: raise an error, rather than hang silently.
            self._database = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
            # Not WAL mode: switching to it does not wait for other processes, and these few writes need no speed.
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
            reason = "the file system is read-only" if cause_of(error, self._path) == READONLY else error
            raise IdentityError(f"cannot use the pinned keys in {self._path}: {reason}") from error

    def pin(self, server: str, user_id: str, public_key: bytes) -> bytes:
        pinned = self.find(server, user_id)
        if pinned is not None:
            return pinned  # without a write: known peers connect also while the disk cannot be written
        # ON CONFLICT with an update that changes nothing makes RETURNING return the existing row, in one atomic
        # statement.
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
