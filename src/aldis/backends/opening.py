"""Opens the directory that a URL names: one place that knows all backends.

    directory = await open_directory("redis://10.0.0.5/0", warn=print)

A backend's library is imported when its scheme is opened, because few servers need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from aldis.backends.base import Directory
from aldis.backends.directory_url import MEMORY, DirectoryOptions, check_url, scheme_of, sqlite_path, without_password
from aldis.backends.memory import MemoryDirectory
from aldis.backends.postgres_url import SCHEMES as POSTGRES_SCHEMES
from aldis.backends.redis_url import SCHEMES as REDIS_SCHEMES
from aldis.backends.redis_url import RedisUrl
from aldis.backends.sqlite import SqliteDirectory
from aldis.errors import ConfigError
from aldis.version import install_command

if TYPE_CHECKING:
    from aldis.backends.postgres import PostgresDirectory
    from aldis.backends.redis import RedisDirectory

Warn: TypeAlias = Callable[[str], None]


class _Open(Protocol):
    async def __call__(self, url: str, options: DirectoryOptions, warn: Warn) -> Directory: ...


class _Probe(Protocol):
    async def __call__(self, url: str, options: DirectoryOptions, warn: Warn) -> None: ...


def _redis() -> type[RedisDirectory]:
    try:
        from aldis.backends.redis import RedisDirectory
    except ModuleNotFoundError as error:
        raise _missing("redis", error) from error
    return RedisDirectory


async def _open_redis(url: str, options: DirectoryOptions, warn: Warn) -> Directory:
    where = RedisUrl.parse(url).with_password_of(options.redis_password_file)
    return await _redis().open(where, prefix=options.redis_prefix, warn=warn)


async def _probe_redis(url: str, options: DirectoryOptions, warn: Warn) -> None:
    where = RedisUrl.parse(url).with_password_of(options.redis_password_file)
    await _redis().probe(where, prefix=options.redis_prefix, warn=warn)


def _postgres() -> type[PostgresDirectory]:
    try:
        from aldis.backends.postgres import PostgresDirectory
    except ImportError as error:  # psycopg is there, perhaps, and no libpq
        raise _missing("postgres", error) from error
    return PostgresDirectory


async def _open_postgres(url: str, options: DirectoryOptions, warn: Warn) -> Directory:
    return await _postgres().open(url, warn=warn)


async def _probe_postgres(url: str, options: DirectoryOptions, warn: Warn) -> None:
    await _postgres().probe(url)


_OPENERS: Final[dict[str, _Open]] = {
    **dict.fromkeys(REDIS_SCHEMES, _open_redis),
    **dict.fromkeys(POSTGRES_SCHEMES, _open_postgres),
}
_PROBES: Final[dict[str, _Probe]] = {
    **dict.fromkeys(REDIS_SCHEMES, _probe_redis),
    **dict.fromkeys(POSTGRES_SCHEMES, _probe_postgres),
}


async def probe_directory(url: str, options: DirectoryOptions | None = None, *, warn: Warn = lambda text: None) -> None:
    """See that the Redis or PostgreSQL of a URL that `check_url` has passed answers. Nothing is written there.

    Raises as `open_directory` does.
    """
    await _PROBES[scheme_of(url) or ""](url, options or DirectoryOptions(), warn)


def check_here(url: str, options: DirectoryOptions) -> None:
    """Check what is on this machine for the Redis or PostgreSQL of a URL: its library, and the file of its password.

    Raises `ConfigError`. Nobody is asked.
    """
    if scheme_of(url) in REDIS_SCHEMES:
        RedisUrl.parse(url).with_password_of(options.redis_password_file)
        _redis()
    else:
        _postgres()


async def open_directory(
    url: str, options: DirectoryOptions | None = None, *, warn: Warn = lambda text: None
) -> Directory:
    """Open the directory of a URL. `warn` gets sentences for the operator about what the directory does not promise.

    Raises `DirectoryUnavailable` when it cannot be opened, and `ConfigError` when the URL is wrong or its library is
    missing.
    """
    try:
        check_url(url)
    except ValueError as error:
        raise ConfigError("directory", f"{without_password(url)} cannot be used; expected {error}") from None
    if url == MEMORY:
        return MemoryDirectory()
    if (path := sqlite_path(url)) is not None:
        return await SqliteDirectory.open(path)
    return await _OPENERS[scheme_of(url) or ""](url, options or DirectoryOptions(), warn)


def _missing(extra: str, error: ImportError) -> ConfigError:
    return ConfigError("directory", f"needs a library: {install_command(extra)} ({error})")
