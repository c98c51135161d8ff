"""The bans of a server on disk: a file of JSON that a person can read, and that is replaced as a whole.

Rules: a change counts when it is on the disk. A file that cannot be read keeps the server from starting, since it would
let everybody in who was banned. It does not know what a ban does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Final

from aldis.errors import ConfigError, UsageError
from aldis.hub.bans import MAX_BANS, Ban, read_ban

FILE_NAME: Final = "bans.json"


class BanFile:
    """The file of one server; None for a server that keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @property
    def folder(self) -> Path | None:
        """The folder that the file is in."""
        return None if self._path is None else self._path.parent

    def load(self) -> list[Ban]:
        """All bans. Raises `ConfigError` for a file that cannot be used."""
        content = self.content()
        try:
            return [] if content is None else read_bans(content, str(self._path))
        except ConfigError as error:
            advice = "mend it, or move it away, and then nobody is banned"
            raise ConfigError("data", f"{error.problem}; {advice}") from None

    def content(self) -> bytes | None:
        """What is in the file, if there is one. Raises `ConfigError` when it cannot be read."""
        try:
            return None if self._path is None else self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError("data", f"{self._path} cannot be read: {error}") from None

    def add(self, saved: Iterable[Ban]) -> int:
        """Add the bans of a backup to those that are there, which stay as they are; return how many there are then.

        So a restore lets nobody in who was banned since. Those that have ended are left out. A file that cannot be used
        raises `ConfigError`.
        """
        now = time.time()
        holding = [ban for ban in [*saved, *self.load()] if ban.until is None or ban.until > now]
        bans = {(ban.kind, ban.value): ban for ban in holding}
        if len(bans) > MAX_BANS:
            raise ConfigError("data", f"{self._path} and the backup have more than {MAX_BANS} bans together")
        self.save(bans.values())
        return len(bans)

    def save(self, bans: Iterable[Ban]) -> None:
        """Replace the file. Raises `OSError`; what was there before stays then. Blocks: call it in a thread."""
        if self._path is None:
            return
        entries = [{"kind": b.kind, "value": b.value, "reason": b.reason, "until": b.until} for b in bans]
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        # As secret as the names beside it: it says who was banned, and why.
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"bans": entries}, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        if os.name == "posix" and os.geteuid() == 0:
            # The server has to read what root restores.
            owner = (self._path if self._path.exists() else self._path.parent).stat()
            os.chown(new, owner.st_uid, owner.st_gid)
        new.replace(self._path)


def read_bans(content: bytes, source: str) -> list[Ban]:
    """The bans in the content of such a file. Raises `ConfigError` that names the `source`."""
    try:
        return [_read(entry) for entry in json.loads(content.decode("utf-8"))["bans"]]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, UsageError) as error:
        raise ConfigError("data", f"{source} is no list of bans: {error}") from None


def _read(entry: object) -> Ban:
    if not isinstance(entry, dict):
        raise UsageError(f"{entry!r} is no ban")
    kind, value, reason, until = (entry.get(name) for name in ("kind", "value", "reason", "until"))
    if not isinstance(until, int | float | None) or isinstance(until, bool):
        raise UsageError(f"{until!r} is no time")
    if until is not None and not isfinite(until):  # Python's JSON has NaN, which would be listed and ban nobody
        raise UsageError(f"{until!r} is no time")
    return read_ban(str(kind), str(value), str(reason or ""), until)
