"""The URL of a Redis or Valkey: one server, one behind Sentinels, or a Cluster. It needs no library.

    redis://USER:PASSWORD@HOST:PORT/DATABASE
    rediss://...                                          the same with TLS
    redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE/DATABASE
    redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT

User, password, port and database may be missing; both may be percent-encoded. After `?` come options: `tls=yes` (for
Sentinel and Cluster), `ca_file=PATH` (the authorities to trust), `cert_file=PATH` and `key_file=PATH` (a certificate
of the client's own).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from aldis.errors import ConfigError

PORT: Final = 6379
SENTINEL_PORT: Final = 26379
_KINDS: Final[dict[str, Literal["single", "sentinel", "cluster"]]] = {
    "redis": "single",
    "rediss": "single",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
SCHEMES: Final = tuple(_KINDS)
_OPTIONS: Final = frozenset({"tls", "ca_file", "cert_file", "key_file"})
_SWITCHES: Final = {"yes": True, "no": False}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says. `hosts` are those of Sentinels with the kind `sentinel`, then `service` is the master's name."""

    kind: Literal["single", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...]
    service: str = ""
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @property
    def publish_command(self) -> str:
        """What publishes to a channel: in a Cluster at the server that has the channel's slot (sharded pub/sub)."""
        return "SPUBLISH" if self.kind == "cluster" else "PUBLISH"

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Read a URL. A `ValueError` says what is expected, and has no part of the URL in it."""
        scheme, _, rest = url.partition("://")
        if scheme not in _KINDS:
            raise ValueError(f"a URL with one of {', '.join(f'{name}://' for name in SCHEMES)}")
        kind = _KINDS[scheme]
        split = urlsplit(f"//{rest}")
        if split.fragment:
            raise ValueError("a URL without #; write %23 in a password")
        login, _, hosts = split.netloc.rpartition("@")
        user, _, password = login.partition(":")
        options = _options(split.query, kind)
        service, database = _path(split.path, kind)
        return cls(
            kind=kind,
            hosts=_hosts(hosts, kind),
            service=service,
            database=database,
            user=unquote(user) or None,
            password=unquote(password) or None,
            tls=_SWITCHES[options.get("tls", "yes" if scheme == "rediss" else "no")],
            ca_file=options.get("ca_file"),
            cert_file=options.get("cert_file"),
            key_file=options.get("key_file"),
        )

    def with_password_of(self, file: Path | None) -> RedisUrl:
        """The same with the password in a file, without the line end at its end. Raises `ConfigError`."""
        if file is None:
            return self
        try:
            password = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("redis_password_file", f"{file} cannot be read: {error}") from None
        if not password:
            raise ConfigError("redis_password_file", f"{file} is empty")
        return replace(self, password=password)

    def __str__(self) -> str:
        """How it is named in messages: without user and password."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        if self.kind == "sentinel":
            return f"the Redis {self.service!r} of the Sentinels {hosts}"
        return f"the Redis Cluster at {hosts}" if self.kind == "cluster" else f"Redis at {hosts}"


def _hosts(text: str, kind: str) -> tuple[tuple[str, int], ...]:
    hosts = []
    for part in text.split(","):
        try:
            split = urlsplit(f"//{part}")
            port = split.port
        except ValueError:
            raise ValueError("a host, and a port from 1 to 65535 behind a colon") from None
        if not split.hostname or port == 0:
            raise ValueError("a host, and a port from 1 to 65535 behind a colon")
        hosts.append((split.hostname, port or (SENTINEL_PORT if kind == "sentinel" else PORT)))
    if kind == "single" and len(hosts) > 1:
        raise ValueError("one host; several go with redis+sentinel:// and redis+cluster://")
    return tuple(hosts)


def _path(path: str, kind: str) -> tuple[str, int]:
    service, database = "", path.removeprefix("/")
    if kind == "sentinel":
        service, _, database = database.partition("/")
        if not service:
            raise ValueError("the name of the master as the path, such as redis+sentinel://10.0.0.5:26379/mymaster")
    if kind == "cluster" and database:
        raise ValueError("no path: a Redis Cluster has no databases")
    if database and not (database.isascii() and database.isdigit() and len(database) <= 5):
        raise ValueError("the number of a database as the path, such as redis://10.0.0.5:6379/0")
    return unquote(service), int(database or 0)


def _options(query: str, kind: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := options.keys() - _OPTIONS:
        raise ValueError(f"one of the options {', '.join(sorted(_OPTIONS))}, not {min(unknown)}")
    if options.get("tls", "no") not in _SWITCHES:
        raise ValueError("tls=yes or tls=no")
    if kind == "single" and "tls" in options:
        raise ValueError("rediss:// for TLS, in place of an option")
    if ("cert_file" in options) != ("key_file" in options):
        raise ValueError("cert_file and key_file together")
    return options
