"""What a process is given by the system it runs on, where that is not what one is used to.

A user of a container may have no home directory. A locale may have no letters but those of ASCII, and Python then hands
on the bytes of an argument as surrogates (PEP 383).

Rules: what is missing is an error that says what to set instead. Nothing is made, opened or changed here.
"""

from __future__ import annotations

import os
from pathlib import Path

from aldis.errors import ConfigError


def data_directory() -> Path:
    """The platform's directory for a user's data, for Aldis. Raises `ConfigError` when the user has no home."""
    from platformdirs import user_data_path  # costs more time than all of `aldis --version`

    try:
        return user_data_path("aldis", appauthor=False)
    except RuntimeError:  # no HOME, and no entry in the system's list of users
        raise ConfigError(
            "data",
            "this user has no home directory; name a directory with --data or ALDIS_DATA, or set HOME"
            " (:memory: keeps nothing)",
        ) from None


def expand(path: str) -> Path:
    """The path, with the home directory in the place of a leading `~`. Raises `ConfigError` when there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        home = path.partition("/")[0]
        raise ConfigError(path, f"the home directory {home} is not known here; write the whole path") from None


def decoded(text: str) -> str:
    """An argument or a variable as text: where the locale could not decode it, its bytes are read as UTF-8.

    Not for paths, which keep their bytes as they are. Raises `ValueError` when it is not UTF-8 either.
    """
    if not any("\udc80" <= character <= "\udcff" for character in text):
        return text
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None
