"""HTTP as the public port speaks it: replies, and what several modules read of a request. The paths are in
`server.routes`. No socket is known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from aldis.server.names import Host, read_host

# Seconds that a refused client should wait. Clients add a random pause of their own.
RETRY_AFTER: Final = 5
_OLD_REQUEST_LINE: Final = re.compile(rb"GET [!-~]+ HTTP/1\.0")
# The first byte of a record with a handshake (RFC 8446 section 5.1), and of no request.
_TLS_HANDSHAKE: Final = 22


class Headers(Protocol):
    """The headers of a request, whose names are compared without case (multidict's CIMultiDict)."""

    def getall(self, key: str, default: list[str], /) -> list[str]:
        """All values of one header."""

    def __setitem__(self, key: str, value: str, /) -> None:
        """Replace all values of one header."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The request gets an HTTP answer. `outcome` is a word for the metrics."""

    status: HTTPStatus
    body: bytes
    outcome: str
    headers: tuple[tuple[str, str], ...]


def plain(status: HTTPStatus, text: str, outcome: str, *headers: tuple[str, str]) -> HttpReply:
    """A reply of one or two sentences."""
    always = (
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    )
    return HttpReply(status, text.encode(), outcome, (*headers, *always))


def busy(text: str, outcome: str) -> HttpReply:
    """A refusal that tells the client to come back."""
    return plain(HTTPStatus.SERVICE_UNAVAILABLE, text, outcome, ("Retry-After", str(RETRY_AFTER)))


def is_old(line: bytes) -> bool:
    """Tell whether this is the first line of a GET in HTTP/1.0, which no WebSocket begins with."""
    return _OLD_REQUEST_LINE.fullmatch(line) is not None


def is_tls(head: bytes | bytearray) -> bool:
    """Tell whether these first bytes of a connection begin a TLS handshake."""
    return bool(head) and head[0] == _TLS_HANDSHAKE


def tokens(headers: Headers, name: str) -> list[str]:
    """The elements of a header that is a list (RFC 9110 section 5.6.1), over all its lines."""
    return [token.strip() for line in headers.getall(name, []) for token in line.split(",")]


def host_of(headers: Headers) -> Host | None:
    """The host that a request is for; None when it names none, several (RFC 9112 section 3.2), or no possible one."""
    values = headers.getall("Host", [])
    return read_host(values[0]) if len(values) == 1 else None


NO_TLS: Final = plain(
    HTTPStatus.BAD_REQUEST, "There is no TLS on this port: dial it with ws:// or http://.\n", "bad-request"
)
# nginx before 1.29.7 speaks HTTP/1.0 to servers unless it is told otherwise.
OLD_HTTP: Final = plain(
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
    "This Aldis server speaks HTTP/1.1, without which there is no WebSocket. A proxy in front of it has to be told\n"
    "so, and to pass Host and Upgrade on. For nginx:\n"
    "\n"
    "    proxy_http_version 1.1;\n"
    "    proxy_set_header Host $http_host;\n"
    "    proxy_set_header Upgrade $http_upgrade;\n"
    '    proxy_set_header Connection "upgrade";\n',
    "old-http",
)
