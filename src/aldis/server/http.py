"""HTTP as the public port speaks it: reading plain requests, writing replies. The paths are in `server.routes`.

Rules:

* `read_plain` takes only requests that every program reads in the same way: attackers try to make two programs disagree
  on where a request ends (RFC 9112 section 11.2). It leaves all others to picows.
* No socket is known here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from multidict import CIMultiDict

from aldis.server.names import Host, read_host

# Seconds that a refused client should wait. Clients add a random pause of their own.
RETRY_AFTER: Final = 5
# What ends the head of a request.
END_OF_HEAD: Final = b"\r\n\r\n"
# RFC 9112 section 3, in origin-form, and section 5, without what is obsolete; all of it ASCII that can be seen.
_REQUEST_LINE: Final = re.compile(rb"GET (/[!-~]*) HTTP/1\.1")
_OLD_REQUEST_LINE: Final = re.compile(rb"GET [!-~]+ HTTP/1\.0")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([!-~](?:[ -~\t]*[!-~])?)?[ \t]*")
# As many as picows takes.
MAX_HEADERS: Final = 128
# A request with one of these has a body, or asks for more than a reply.
_NOT_PLAIN: Final = ("Content-Length", "Transfer-Encoding", "Expect", "Upgrade", "Sec-WebSocket-Key", "HTTP2-Settings")
# The values of `Connection` in a plain request.
_GOING_ON: Final = frozenset({"keep-alive", "close"})


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


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A GET without a body that asks for a reply only. `last`: the client wants the connection closed after it."""

    path: bytes
    headers: CIMultiDict[str]
    last: bool


def read_plain(head: bytes) -> PlainRequest | None:
    """Read a request from its head, which is without the empty line at its end; None unless it is a plain one."""
    first, *lines = head.split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None or len(lines) > MAX_HEADERS:
        return None
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        headers.add(field[1].decode("ascii"), (field[2] or b"").decode("ascii"))
    connection = {token.lower() for token in tokens(headers, "Connection") if token}
    if any(name in headers for name in _NOT_PLAIN) or not connection <= _GOING_ON:
        return None
    if len(headers.getall("Host", [])) != 1:
        return None  # RFC 9112 section 3.2
    return PlainRequest(request[1], headers, "close" in connection)


def write(reply: HttpReply, keep: float | None) -> bytes:
    """A reply as bytes. `keep`: seconds that the server waits for another request; None to close."""
    headers = list(reply.headers)
    if reply.status != HTTPStatus.NOT_MODIFIED:  # which has no body, and would tell the length of another one
        headers.append(("Content-Length", str(len(reply.body))))
    headers.append(("Connection", "close") if keep is None else ("Keep-Alive", f"timeout={keep:.0f}"))
    lines = [f"HTTP/1.1 {reply.status.value} {reply.status.phrase}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("ascii") + END_OF_HEAD + reply.body


def is_old(head: bytes) -> bool:
    """Tell whether this is the head of a GET in HTTP/1.0, which no WebSocket begins with."""
    return _OLD_REQUEST_LINE.fullmatch(head.partition(b"\r\n")[0]) is not None


def tokens(headers: Headers, name: str) -> list[str]:
    """The elements of a header that is a list (RFC 9110 section 5.6.1), over all its lines."""
    return [token.strip() for line in headers.getall(name, []) for token in line.split(",")]


def host_of(headers: Headers) -> Host | None:
    """The host that a request is for; None when it names none, several (RFC 9112 section 3.2), or no possible one."""
    values = headers.getall("Host", [])
    return read_host(values[0]) if len(values) == 1 else None


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
