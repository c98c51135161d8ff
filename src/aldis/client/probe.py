"""Connect to a server step by step, to find out which step fails.

`SignalingClient` reports in one line why it cannot reach a server. A `Probe` goes the same way in steps (name, TCP,
TLS, WebSocket), and each failure says what to do about it. It speaks no Aldis protocol beyond the upgrade, registers
nothing, and leaves no trace except a line in the server's log.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from hashlib import sha1
from typing import Final
from urllib.parse import urlsplit

from aldis.client.address import ServerAddress, misdirected
from aldis.errors import ServerUnreachable, StateError
from aldis.protocol.codec import to_base64
from aldis.protocol.names import PROTOCOL

_WEBSOCKET_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MAX_RESPONSE: Final = 16 * 1024  # an upgrade response has some 200 bytes; a page of another server may have more


@dataclass(frozen=True, slots=True)
class UpgradeReply:
    """The server's reply to the WebSocket upgrade. `subprotocol` is None when it chose none, `date` (seconds since
    1970) when it sent no `Date` header."""

    subprotocol: str | None
    date: float | None


class Probe:
    """One attempt. Call `resolve`, `connect`, `secure` (for wss), `upgrade` and `close`, in this order.

    Each step may take `timeout` seconds. It raises `ServerUnreachable` with a reason in plain words, and never
    `TimeoutError`.
    """

    def __init__(
        self, server: ServerAddress, *, ssl_context: ssl.SSLContext | None = None, timeout: float = 10.0
    ) -> None:
        self.server = server
        parts = urlsplit(server.url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._ssl_context = ssl_context
        self._timeout = timeout
        self._addresses: list[str] = []
        self.validity: tuple[float, float] | None = None
        """From when and until when the server's certificate is valid, in seconds since 1970; None before `secure`."""
        self.distrust: int | None = None
        """Why the certificate is not trusted: a code of OpenSSL (`X509_V_ERR_...`); None while `secure` found no such
        fault."""
        self.refused: int | None = None
        """The HTTP status with which `upgrade` was refused; None while it was not."""
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def resolve(self) -> list[str]:
        """The addresses of the host name."""
        try:
            async with asyncio.timeout(self._timeout):
                found = await asyncio.get_running_loop().getaddrinfo(
                    self.server.host, self.server.port, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            raise self._failed(f"the name {self.server.host} was not resolved within {self._timeout:g} s") from None
        except (socket.gaierror, UnicodeError) as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else "no valid host name"
            raise self._failed(f"the name {self.server.host} cannot be resolved: {reason}") from None
        self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        return self._addresses

    async def connect(self) -> str:
        """Open a TCP connection to the first address that accepts one; return that address."""
        reasons: list[str] = []
        for address in self._addresses:
            try:
                async with asyncio.timeout(self._timeout):
                    self._connection = await asyncio.open_connection(address, self.server.port)
            except TimeoutError:
                reasons.append(f"{address} does not answer on port {self.server.port}")
            except OSError as error:
                reason = os.strerror(error.errno).lower() if error.errno else str(error)
                reasons.append(f"{address} port {self.server.port}: {reason}")
            else:
                return address
        raise self._failed("; ".join(reasons) or "no address")

    async def secure(self) -> str:
        """Start TLS and check the certificate; return the TLS version, such as `TLSv1.3`."""
        _, writer = self._streams
        context = self._ssl_context or ssl.create_default_context()
        try:
            async with asyncio.timeout(self._timeout):
                await writer.start_tls(context, server_hostname=self.server.host)
        except TimeoutError:
            raise self._failed("the TLS handshake did not end; is this a port for wss://?") from None
        except ssl.SSLCertVerificationError as error:
            self.distrust = error.verify_code
            raise self._failed(f"its certificate is not trusted: {error.verify_message}") from None
        except ssl.SSLError as error:
            if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
                raise self._failed("it does not speak TLS on this port; try ws://") from None
            raise self._failed(f"the TLS handshake failed: {error.reason or error}") from None
        except OSError as error:
            raise self._failed(f"the TLS handshake was cut off: {error.strerror or error}") from None
        tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
        match tls.getpeercert() if tls else None:
            case {"notBefore": str(start), "notAfter": str(end)}:
                self.validity = ssl.cert_time_to_seconds(start), ssl.cert_time_to_seconds(end)
        return (tls.version() if tls else None) or "TLS"

    async def upgrade(self) -> UpgradeReply:
        """Request a WebSocket with the sub-protocol of Aldis (RFC 6455 section 4.1), and return the reply."""
        reader, writer = self._streams
        key = to_base64(os.urandom(16))
        writer.write(
            (
                f"GET {self._target} HTTP/1.1\r\nHost: {self.server.server}\r\nUpgrade: websocket\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Protocol: {PROTOCOL}\r\nUser-Agent: aldis-doctor\r\n\r\n"
            ).encode()
        )
        status, headers = await self._response(reader)
        accept = to_base64(sha1(f"{key}{_WEBSOCKET_GUID}".encode()).digest())  # noqa: S324
        if status != 101:  # Switching Protocols
            self.refused = status
            raise self._failed(_no_upgrade(status, headers, self.server))
        if headers.get("sec-websocket-accept") != accept:
            raise self._failed("it answers the upgrade wrongly; is there a cache or a proxy in between?")
        return UpgradeReply(headers.get("sec-websocket-protocol"), _date(headers.get("date")))

    async def _response(self, reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
        try:
            async with asyncio.timeout(self._timeout):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise self._failed("it takes the connection and then says nothing") from None
        except asyncio.IncompleteReadError as error:
            said = "without an answer" if not error.partial else "in mid-answer"
            hint = "" if self.server.secure else "; if it is a port for TLS, try wss://"
            raise self._failed(f"it hangs up {said}{hint}") from None
        except asyncio.LimitOverrunError:
            raise self._failed("its answer is not that of a web server") from None
        except OSError as error:
            raise self._failed(f"the connection was cut off: {error.strerror or error}") from None
        status_line, *lines = head[:_MAX_RESPONSE].decode("latin-1").split("\r\n")
        words = status_line.split(" ")
        if not words[0].startswith("HTTP/") or len(words) < 2 or not words[1].isdecimal():
            raise self._failed("its answer is not that of a web server")
        pairs = (line.partition(":") for line in lines if ":" in line)
        return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._connection is not None:
            self._connection[1].transport.abort()
            self._connection = None

    @property
    def _streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is None:
            raise StateError("not connected; call connect() first")
        return self._connection

    def _failed(self, reason: str) -> ServerUnreachable:
        return ServerUnreachable(self.server.url, reason)


def _no_upgrade(status: int, headers: dict[str, str], server: ServerAddress) -> str:
    match status:
        case 301 | 302 | 307 | 308:
            return f"it sends elsewhere, to {headers.get('location', 'an unknown place')[:200]}"
        case 403:
            return "it does not let us in (403)"
        case 404:
            return "there is a web server, but nothing at this path (404)"
        case 421:
            return misdirected(server)
        case 429:
            return "too many connections come from your address; try again in a moment (429)"
        case 426:
            return "it wants the upgrade to a WebSocket: a proxy in between does not pass the upgrade on (426)"
        case 503:
            return "the server has no room now or is full, or a proxy in front of it finds it down (503)"
        case 505:
            return "a proxy in between speaks HTTP/1.0 to the server (505); nginx needs `proxy_http_version 1.1`"
        case 502 | 504:
            return f"a proxy answers in the server's place: the server behind it is down ({status})"
        case _:
            return f"there is a web server, but no signaling server: it answered {status}"


def _date(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
