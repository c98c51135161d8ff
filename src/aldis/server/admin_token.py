"""The password of the admin API, in a file of the data directory.

Rules: the file has the whole token or is not there, also when the disk is full. Two workers that start together both
use the one that is in the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from aldis.errors import ConfigError

FILE_NAME: Final = "admin-token"
_OTHERS: Final = 0o077


def admin_token(configured: str, data: Path | None, warn: Callable[[str], object]) -> str | None:
    """The password: the one in the settings, else the one in the file, which is made. `warn` is told of a doubt.

    None for a server that keeps nothing and was given none: its API is closed. Raises `OSError`, and `ConfigError`
    for a file that holds something else.
    """
    if configured or data is None:
        return configured or None
    path = data / FILE_NAME
    return _kept(path, warn) or _made(path, warn)


def readable_by_others(path: Path) -> str:
    """What to tell the operator when others can read the file; empty when they cannot, or there is none."""
    with suppress(OSError):
        if os.name == "posix" and path.stat().st_mode & _OTHERS:
            return (
                f"others can read {path}, and ban and disconnect users with it: chmod 600, or remove it for a new one"
            )
    return ""


def _kept(path: Path, warn: Callable[[str], object]) -> str:
    try:
        token = path.read_bytes().decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""
    if not (token.isascii() and token.isprintable()):
        raise ConfigError("data", f"{path} is not one line of printable ASCII; remove it, and a start makes another")
    if token and (doubt := readable_by_others(path)):
        warn(doubt)
    return token


def _made(path: Path, warn: Callable[[str], object]) -> str:
    token = os.urandom(24).hex()
    new = path.with_name(f"{FILE_NAME}.{os.getpid()}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(token + "\n")
        try:
            os.link(new, path)  # fails when another worker was quicker, as replacing it would not
        except OSError:
            if there := _kept(path, warn):
                return there
            new.replace(path)  # an empty file, or a file system without links
    finally:
        new.unlink(missing_ok=True)
    return token
