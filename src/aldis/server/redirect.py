"""The plain port beside a port with TLS: it sends each HTTP request on to `https://`.

    a challenge of ours                200 with its text, for a certificate authority (RFC 8555 section 8.3)
    any method, a host that is ours    308 to the same path at the port with TLS
    another host                       421
    anything else                      400

Rules: one request for each connection, of `MAX_HEAD` bytes and `MAX_HEADERS` headers at most, within
`handshake_timeout` seconds. Requests that come together are answered in several turns of the event loop. At most
`MAX_OPEN` connections are open at once; for a further one the oldest is closed, so that silent clients keep neither
browsers nor a certificate authority out.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final, cast

from aldis.server.acceptor import Acceptor
from aldis.server.certificates.challenges import Challenges
from aldis.server.http import HttpReply, plain
from aldis.server.in_turn import InTurn
from aldis.server.names import Arrival, Host, ServerNames, read_host
from aldis.server.routes import misdirected
from aldis.server.sockets import listening_sockets

# Bytes of a request line and its headers. Browsers send less than 2 KiB without cookies, and ours has none.
MAX_HEAD: Final = 16 * 1024
# Browsers send twenty. To look at 4,000 takes half a millisecond.
MAX_HEADERS: Final = 128
# A redirect takes a millisecond, so only an attack has so many open.
MAX_OPEN: Final = 256
_REQUEST_LINE: Final = re.compile(rb"[A-Z]{1,20} (/[!-~]*) HTTP/1\.[01]")

_BAD: Final = plain(HTTPStatus.BAD_REQUEST, "This is no request that can be sent on to https.\n", "bad-request")


class Redirects:
    """The connections of the plain port. `port` is that of the port with TLS."""

    def __init__(
        self,
        names: ServerNames,
        requests: Counter[str],
        timeout: float,
        challenges: Challenges | None = None,
        *,
        fault: Callable[[Exception], None],
    ) -> None:
        self.port = 0
        self._challenges = challenges
        self.open: dict[_Connection, None] = {}  # in the order of their coming
        self.timeout = timeout
        self._names = names
        self._requests = requests
        self._acceptor = Acceptor(lambda: _Connection(self), fault)
        self.in_turn: Final = InTurn(fault)
        """What answers the requests."""

    async def listen(
        self, host: str, port: int | None, secure_port: int, given: Sequence[socket.socket] = ()
    ) -> int | None:
        """Listen at this port and on the `given` sockets, and return the port; None for neither.

        Raises `OSError`, and `ValueError` for a host that is none.
        """
        self.port = secure_port
        sockets = list(given)
        if not sockets and port is not None:
            sockets = await listening_sockets(host, port)
        for each in sockets:
            self._acceptor.add(each)
        return self._acceptor.port

    def stop_accepting(self) -> None:
        """Close the port; connections stay."""
        self._acceptor.close()

    def close(self) -> None:
        """Close the port and its connections."""
        self.stop_accepting()
        self.in_turn.close()
        for connection in list(self.open):
            connection.abort()

    def reply(self, head: bytes, arrival: Arrival) -> bytes:
        """The whole reply to a request."""
        reply = self._decide(head, arrival)
        self._requests[reply.outcome] += 1
        headers = (*reply.headers, ("Content-Length", str(len(reply.body))), ("Connection", "close"))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        first = f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\n"
        body = b"" if head.startswith(b"HEAD ") else reply.body
        return f"{first}{lines}\r\n".encode() + body

    def _decide(self, head: bytes, arrival: Arrival) -> HttpReply:
        lines = head.split(b"\r\n", MAX_HEADERS + 1)
        if len(lines) > MAX_HEADERS + 1:
            return _BAD
        found = _REQUEST_LINE.fullmatch(lines[0])
        hosts = [value.strip() for name, _, value in (line.partition(b":") for line in lines[1:]) if _is_host(name)]
        host = read_host(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
        if found is None or host is None:
            return _BAD
        text = None if self._challenges is None else self._challenges.text(found[1].decode())
        if text is not None:
            return plain(HTTPStatus.OK, text, "certificate-challenge")
        own = self._own(host, arrival)
        if own is None:
            return misdirected(host)
        location = ("Location", f"https://{own}{found[1].decode()}")
        return plain(HTTPStatus.PERMANENT_REDIRECT, "This server speaks https.\n", "to-https", location)

    def _own(self, host: Host, arrival: Arrival) -> str | None:
        """The host in the new URL: the same name at the port with TLS, or at the port that the names tell."""
        there = Arrival(arrival.address, self.port)
        with_port = Host(f"{host.name}:{self.port}", host.name, self.port)
        return self._names.own(with_port, there) or self._names.own(Host(host.name, host.name, None), there)


def _is_host(name: bytes) -> bool:
    """Whether this is the name of the header `Host`."""
    return name.lower() == b"host"


class _Connection(asyncio.Protocol):
    """One connection to the plain port: it reads the head of one request, replies and closes."""

    def __init__(self, redirects: Redirects) -> None:
        self._redirects = redirects
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        while len(self._redirects.open) >= MAX_OPEN:
            oldest = next(iter(self._redirects.open))
            oldest.forget()
            oldest.abort()
        self._redirects.open[self] = None
        self._timer = asyncio.get_running_loop().call_later(self._redirects.timeout, self.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._head += data
        head, end, _ = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) <= MAX_HEAD:
            return
        self._transport.pause_reading()
        self._redirects.in_turn(partial(self._answer, head if end else b""))

    def _answer(self, head: bytes) -> None:
        if self._transport.is_closing():
            return
        name = self._transport.get_extra_info("sockname")
        arrival = Arrival(*name[:2]) if name else Arrival("", 0)
        self._transport.write(self._redirects.reply(head, arrival))
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.forget()

    def forget(self) -> None:
        """Count it no longer."""
        if self in self._redirects.open:
            del self._redirects.open[self]
            self._timer.cancel()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()
