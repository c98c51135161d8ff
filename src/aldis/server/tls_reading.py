"""How much of a connection with TLS is read at a time.

The event loop opens all records of a read before anybody else has a turn. A record may ask for new keys (KeyUpdate,
RFC 8446 section 4.6.3). That takes 20 us for 27 bytes, and nothing above TLS sees it, so no rate and no turn bounds it.
So a connection is read by as many bytes as take little time, and waits for its turn when many records took long.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import socket
import ssl
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final, cast

from aldis.server.connections import Connections
from aldis.server.scheduler import READING

# Bytes of the first read, and of the largest; seconds after which a read was slow.
LEAST_READ: Final = 512
MOST_READ: Final = 16 * 1024
SLOW_READ: Final = 0.0002
# A slow read of fewer records has cost what was said in them, or a handshake. That is counted elsewhere.
MANY_RECORDS: Final = 8
# Bytes that wait for the client, where it asks TLS for answers and reads none. A page may be as large.
MOST_UNSENT: Final = 4 * 1024 * 1024
_VERSION: Final = b"\3\3"  # in the head of each record (RFC 8446 section 5.1)


class TlsReading(asyncio.BufferedProtocol):
    """Between the socket of one connection and its TLS."""

    def __init__(self, tls: Any, connections: Connections) -> None:
        """`tls` is an `SSLProtocol` of the event loop."""
        self._tls = tls
        self._connections = connections
        self._most = LEAST_READ
        self._waits = False
        # What is called at each read.
        self._get_buffer: Callable[[int], memoryview] = tls.get_buffer
        self._updated: Callable[[int], object] = tls.buffer_updated

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tls.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._tls.connection_lost(error)

    def pause_writing(self) -> None:
        self._tls.pause_writing()

    def resume_writing(self) -> None:
        self._tls.resume_writing()

    def eof_received(self) -> bool | None:
        answer: bool | None = self._tls.eof_received()
        return answer

    def get_buffer(self, size: int) -> memoryview:
        self._read = self._get_buffer(size)[: self._most]
        return self._read

    def buffer_updated(self, size: int) -> None:
        began = monotonic()
        self._updated(size)
        if monotonic() - began > SLOW_READ:
            self._slow(size)
        elif size == self._most:
            self._most = min(2 * size, MOST_READ)

    def _slow(self, size: int) -> None:
        self._most = max(self._most // 2, LEAST_READ)
        if bytes(self._read[:size]).count(_VERSION) < MANY_RECORDS or self._transport.is_closing():
            return
        unsent = self._tls._get_app_transport().get_write_buffer_size()
        if unsent > max(MOST_UNSENT, self._connections.most_unsent):
            self._transport.abort()
            return
        self._transport.pause_reading()
        if not self._waits:
            self._waits = True
            now = monotonic()
            self._connections.scheduler.add_unread(self, now, now)

    def run(self, units: int, now: float) -> float | None:
        """See `scheduler.Flow`: read on."""
        self._waits = False
        # TLS has stopped reading by itself when it may not hand over what it has.
        waiting = self._tls._get_app_transport()
        if not self._transport.is_closing() and waiting.get_read_buffer_size() < waiting.get_read_buffer_limits()[1]:
            self._transport.resume_reading()
            self._connections.scheduler.charge(READING)
        return None


async def open_with_tls(
    protocol: asyncio.BaseProtocol,
    accepted: socket.socket,
    connections: Connections,
    *,
    context: ssl.SSLContext,
    handshake_timeout: float,
    shutdown_timeout: float,
) -> None:
    """Have the event loop read a connection, and return after its TLS handshake. Raises `OSError`.

    As `connect_accepted_socket` does, which lets nobody stand between socket and TLS.
    """
    loop = asyncio.get_running_loop()
    shaken = loop.create_future()
    tls = _protocol_of(loop)(
        *(loop, protocol, context, shaken),
        server_side=True,
        ssl_handshake_timeout=handshake_timeout,
        ssl_shutdown_timeout=shutdown_timeout,
    )
    await loop.connect_accepted_socket(partial(TlsReading, tls, connections), accepted)
    transport = tls._get_app_transport()
    try:
        await shaken
    except BaseException:
        transport.close()
        raise


def _protocol_of(loop: asyncio.AbstractEventLoop) -> Any:
    """What speaks TLS for an event loop. That of uvloop has the same interface as that of asyncio."""
    if type(loop).__module__.partition(".")[0] == "uvloop":
        import uvloop.loop

        return uvloop.loop.SSLProtocol  # type: ignore[attr-defined]  # missing in its stub
    return asyncio.sslproto.SSLProtocol
