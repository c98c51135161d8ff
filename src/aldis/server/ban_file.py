"""The bans of a server on disk: a file of JSON that a person can read, and that is replaced as a whole.

Rules: a change counts when it is on the disk. A file that cannot be read keeps the server from starting, since it would
let everybody in who was banned. It does not know what a ban does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from aldis.errors import ConfigError, UsageError
from aldis.hub.bans import Ban, read_ban

FILE_NAME: Final = "bans.json"


class BanFile:
    """The file of one server; None for a server that keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> list[Ban]:
        """All bans. Raises `ConfigError` for a file that cannot be used."""
        if self._path is None:
            return []
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("data", f"{self._path} cannot be read: {error}") from None
        try:
            return [_read(entry) for entry in json.loads(text)["bans"]]
        except (ValueError, TypeError, KeyError, UsageError) as error:
            raise ConfigError("data", f"{self._path} is no list of bans: {error}") from None

    def save(self, bans: Iterable[Ban]) -> None:
        """Replace the file. Raises `OSError`; what was there before stays then. Blocks: call it in a thread."""
        if self._path is None:
            return
        entries = [{"kind": b.kind, "value": b.value, "reason": b.reason, "until": b.until} for b in bans]
        new = self._path.with_suffix(".new")
        # As secret as the names beside it: it says who was banned, and why.
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"bans": entries}, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def _read(entry: object) -> Ban:
    if not isinstance(entry, dict):
        raise UsageError(f"{entry!r} is no ban")
    kind, value, reason, until = (entry.get(name) for name in ("kind", "value", "reason", "until"))
    if not isinstance(until, int | float | None) or isinstance(until, bool):
        raise UsageError(f"{until!r} is no time")
    return read_ban(str(kind), str(value), str(reason or ""), until)
