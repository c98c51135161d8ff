"""STUN and TURN servers as people and vendors write them, changed into the form that every engine and browser accepts.

Accepted is what browsers accept (W3C WebRTC section 4.4.1.5, RFC 7064, RFC 7065), and two things that only some of them
accept: `?transport=udp` on a `stun:` URL, which vendors hand out and which changes nothing, and `url` for `urls`.
Everything else is refused with a reason, before a connection uses it. Vectors: `tests/vectors/ice.json`.

Pure: it contacts no server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aldis.errors import ConfigError
from aldis.protocol.hosts import read_host
from aldis.protocol.messages import IceServer

_URL: Final = re.compile(
    r"(?P<scheme>stuns?|turns?):(?P<host>\[[^\[\]]*\]|[^\s:/?#@%\[\]]+)(?::(?P<port>[0-9]{1,9}))?"
    r"(?:\?transport=(?P<transport>udp|tcp))?",
    re.IGNORECASE,
)
_MAX_URL: Final = 1024  # characters; a host name has 253
_MAX_PORT: Final = 65535
_MAX_USERNAME: Final = 509  # bytes; libwebrtc refuses more (RFC 8489 section 14.3: less than 513)


@dataclass(frozen=True, slots=True)
class IceUrl:
    """The parts of one URL. `transport` is None if the URL leaves it to the scheme."""

    scheme: str
    host: str
    port: int | None
    transport: str | None

    @property
    def is_turn(self) -> bool:
        return self.scheme.startswith("turn")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to dial; the scheme's port if the URL has none (RFC 7065 section 3.2)."""
        return self.host.strip("[]"), self.port or (5349 if self.scheme.endswith("s") else 3478)

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        query = "" if self.transport is None else f"?transport={self.transport}"
        return f"{self.scheme}:{self.host}{port}{query}"


def read_url(text: str) -> IceUrl:
    """Read one URL. Raises `ValueError` with the problem."""
    match = _URL.fullmatch(text.strip()) if len(text) <= _MAX_URL else None
    if match is None:
        raise ValueError("not stun:, stuns:, turn: or turns: with a host, and no more than a port and ?transport=")
    scheme, transport = match["scheme"].lower(), (match["transport"] or "").lower() or None
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 1 <= port <= _MAX_PORT:
        raise ValueError(f"{port} is no port")
    if scheme.startswith("stun") and transport is not None:
        if transport != {"stun": "udp", "stuns": "tcp"}[scheme]:
            raise ValueError(f"{scheme}: does not go over {transport}")
        transport = None  # the scheme says it already, and some browsers refuse it
    return IceUrl(scheme, read_host(match["host"]), port, transport)


def read_server(entry: object) -> IceServer:
    """Read one server: an `IceServer`, or a mapping with the fields of the W3C's. Raises `ValueError`."""
    urls: object
    if isinstance(entry, IceServer):
        urls, username, credential = entry.urls, entry.username, entry.credential
    elif isinstance(entry, Mapping):
        urls = entry["urls"] if "urls" in entry else entry.get("url")
        username, credential = entry.get("username"), entry.get("credential")
        if entry.get("credentialType") not in (None, "password"):
            raise ValueError("the only credentialType is password")
    else:
        raise ValueError("neither an IceServer nor a mapping with urls")  # noqa: TRY004 - told as a ConfigError
    urls = [urls] if isinstance(urls, str) else urls
    if not isinstance(urls, list | tuple) or not urls or not all(isinstance(url, str) for url in urls):
        raise ValueError("without urls, a text or a list of texts")
    read = [_named(url) for url in urls]
    for name, value in (("username", username), ("credential", credential)):
        if not (value is None or isinstance(value, str)):
            raise ValueError(f"a {name} that is no text")
        if not value and any(url.is_turn for url in read):
            raise ValueError(f"a TURN server without {name}")
    if username is not None and len(username.encode(errors="replace")) > _MAX_USERNAME:
        raise ValueError(f"a username of more than {_MAX_USERNAME} bytes")
    return IceServer([str(url) for url in read], username, credential)


def _named(url: str) -> IceUrl:
    try:
        return read_url(url)
    except ValueError as error:
        raise ValueError(f"{url[:200]!r}: {error}") from None


def read_servers(entries: object) -> tuple[IceServer, ...]:
    """Read the servers that a program has configured. Raises `ConfigError`, which names the entry and its problem."""
    if not isinstance(entries, list | tuple):
        raise ConfigError("ice_servers", "not a list of servers")
    servers = []
    for index, entry in enumerate(entries):
        try:
            servers.append(read_server(entry))
        except ValueError as error:
            raise ConfigError(f"ice_servers[{index}]", str(error)) from None
    return tuple(servers)


def usable_servers(entries: Iterable[IceServer]) -> tuple[tuple[IceServer, ...], list[str]]:
    """The usable servers of those that the other side named, and a line of text for each unusable URL."""
    servers, problems = [], []
    for entry in entries:
        urls = []
        for url in entry.urls:
            try:
                urls += read_server(IceServer([url], entry.username, entry.credential)).urls
            except ValueError as error:
                problems.append(f"{url[:200]!r}: {str(error).removeprefix(f'{url[:200]!r}: ')}")
        if urls:
            servers.append(IceServer(urls, entry.username, entry.credential))
    return tuple(servers), problems
