"""The URL of a directory: what it may be, and how it is shown. It opens nothing, and loads no library.

A URL is a path of a SQLite file (or of the folder that has it), `sqlite:PATH`, `:memory:`, or `scheme://...` with a
scheme of `_CHECKS`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aldis.backends.postgres_url import SCHEMES as POSTGRES_SCHEMES
from aldis.backends.postgres_url import check_postgres_url
from aldis.backends.redis_url import SCHEMES as REDIS_SCHEMES
from aldis.backends.redis_url import RedisUrl
from aldis.backends.sqlite_file import FILE_NAME

MEMORY: Final = ":memory:"
DEFAULT_REDIS_PREFIX: Final = "aldis:"
_SQLITE: Final = "sqlite:"
_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
# Up to the last @: a / in the password is a mistake, and no reason to show the rest of it.
_PASSWORD: Final = re.compile(r"(?<=://).*@|(?<=password=)[^&]*", re.DOTALL)
# By scheme; a ValueError says what is expected, without any part of the URL.
_CHECKS: Final[dict[str, Callable[[str], object]]] = {
    **dict.fromkeys(REDIS_SCHEMES, RedisUrl.parse),
    **dict.fromkeys(POSTGRES_SCHEMES, check_postgres_url),
}


@dataclass(frozen=True, slots=True)
class DirectoryOptions:
    """What a URL cannot say, or should not. `redis_prefix` is before each key; the file has the password alone."""

    redis_prefix: str = DEFAULT_REDIS_PREFIX
    redis_password_file: Path | None = None


def scheme_of(url: str) -> str | None:
    """The scheme of a server's URL; None for a path and for `:memory:`."""
    found = _SCHEME.match(url)
    return None if found is None else found["scheme"]


def check_url(url: str) -> None:
    """Raise ValueError with what is expected if no directory can have this URL. It opens nothing."""
    scheme = scheme_of(url)
    if scheme is None:
        return
    if scheme not in _CHECKS:
        raise ValueError(f"a path, {MEMORY}, or a URL with one of {', '.join(f'{name}://' for name in _CHECKS)}")
    _CHECKS[scheme](url)


def path_of(url: str) -> str | None:
    """The path that a URL names; None when it names another kind of directory than a file."""
    return None if url == MEMORY or _SCHEME.match(url) else url.removeprefix(_SQLITE)


def sqlite_path(url: str) -> Path | None:
    """The SQLite file that a URL names; None when it names another kind of directory."""
    if (text := path_of(url)) is None:
        return None
    path = Path(text)
    # Not `is_dir`, which fails where this user may not look.
    return path / FILE_NAME if os.path.isdir(path) else path


def hosts_of(url: str) -> list[str]:
    """The hosts that a URL names; none for a path."""
    if scheme_of(url) is None:
        return []
    servers = urlsplit(url).netloc.rpartition("@")[2]
    return [host for server in servers.split(",") if (host := urlsplit(f"//{server}").hostname)]


def without_password(url: str) -> str:
    """The URL as it may be shown: without user and password, also where PostgreSQL takes a password as a parameter."""
    return _PASSWORD.sub("", url)
