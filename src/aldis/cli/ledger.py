"""Which files of a command have arrived, so that the same command after an interruption sends only the rest.

Each command that was interrupted has one small file in the data directory, which only its owner can read. The command
removes it when it has sent everything. A file counts as sent only as it was then (its version). An entry that cannot be
kept is no error: the file is sent once more then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

_NAMED: Final = 20  # digits of the digest that is the name of the file


class Ledger:
    """What of one command has arrived."""

    def __init__(self, folder: Path | None, command: Sequence[str]) -> None:
        """`command`: what makes two commands the same. `folder`: None keeps nothing."""
        name = sha256(json.dumps(list(command)).encode()).hexdigest()[:_NAMED]
        self._path = None if folder is None else folder / f"{name}.json"
        self._sent: set[tuple[str, str]] = set()
        if self._path is not None:
            with suppress(OSError, ValueError, TypeError):
                self._sent = {(str(path), str(version)) for path, version in json.loads(self._path.read_bytes())}

    def has(self, path: str, version: str) -> bool:
        """Whether this file has arrived as it is."""
        return (path, version) in self._sent

    def add(self, path: str, version: str) -> None:
        """This file has arrived."""
        self._sent.add((path, version))
        if self._path is None:
            return
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = self._path.with_suffix(f".{os.getpid()}")
            with open(draft, "w", encoding="utf-8", opener=_for_owner) as file:
                json.dump(sorted(self._sent), file)
            draft.replace(self._path)

    def done(self) -> None:
        """Everything has arrived."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
