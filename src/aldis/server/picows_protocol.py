"""What picows does with a connection, and what is put right here.

* It reads no more at once than `MAX_READ`, so that others have their turn. libuv reads a connection again, up to 32
  times in a row, while there is more; when all connections have been read enough in this turn of the loop, those that
  have more to say wait for their own (`Connections.is_crowded`).
* Behind a frame that breaks the protocol, picows goes on reading, parses the same bytes at each read, and keeps all
  that comes, until it closes 10 ms later. Here the rest is thrown away as it comes, and no more than `MAX_REST` is
  read. Some of it is: the close code is lost if a socket is closed with unread data.
* Of a connection with TLS it reads no more at once than its records allow.
* A connection leaves its place (`server.admission`) at its end.

What picows logs about clients is counted, and at most a debug line.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial
from time import monotonic
from typing import Any, Final

from picows.picows import WSProtocol  # type: ignore[attr-defined]  # missing in its stub

from aldis.server.admission import Place
from aldis.server.connections import CROWD, Connections
from aldis.server.logs import Log
from aldis.server.websocket import ClientConnection

# Bytes of one read. Small frames are all handled before the next read can be put off, so this bounds how long. It holds
# two offers for a data channel, which a busy client sends at once, and all of picows' buffer when that has grown once.
MAX_READ: Final = 4096
# With TLS: bytes of the first read, and seconds after which a read was slow.
LEAST_READ: Final = 256
SLOW_READ: Final = 0.0002
# The same, when connections have been read enough in this turn of the loop. One that says less is not kept waiting.
CROWDED_READ: Final = 512
# The smallest that picows takes. It grows with what a client sends. Most clients send little, and then this is most of
# what a connection costs.
READ_BUFFER: Final = 2048
# Bytes behind a broken frame that are read. A message of a megabyte is not worth it, one a little too large is.
MAX_REST: Final = 256 * 1024


class PicowsLog(logging.LoggerAdapter[logging.Logger]):
    """What picows logs, mostly mistakes of clients: counted, and a debug line.

    An adapter also keeps picows from making a `Logger` for each connection.
    """

    def __init__(self, connections: Connections, log: Log) -> None:
        super().__init__(logging.getLogger("aldis.picows"), {})
        self.connections = connections
        self._lines = log

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name is logging's
        return False  # asked for its own trace of bytes only

    def info(self, msg: object, *args: object, **more: Any) -> None:
        pass

    debug = info

    def log(self, level: int, msg: object, *args: object, **more: Any) -> None:
        pass

    def warning(self, msg: object, *args: object, **more: Any) -> None:
        self._lines.debug("picows", text=str(msg) % args if args else str(msg))

    def error(self, msg: object, *args: object, **more: Any) -> None:
        match args:
            case ((int(code), str(text)),):  # "WS parser error: %s" with the arguments of a WSProtocolError
                self.connections.closes[int(code)] += 1
                self._lines.debug("broken frame", code=int(code), text=text)
                if self.connections.reading is not None:  # picows does not say which one it is
                    self.connections.reading.broken()
            case _:
                self._lines.debug("picows", text=str(msg) % args if args else str(msg))

    def exception(self, msg: object, *args: object, **more: Any) -> None:
        error = sys.exception()
        self.connections.fault(error if isinstance(error, Exception) else RuntimeError(str(msg)))


_get_buffer: Final = WSProtocol.get_buffer


class PicowsProtocol(WSProtocol):  # type: ignore[misc]  # it has no stub
    """picows for one connection. Call `begin` first."""

    __slots__ = ("_connections", "_place", "_room", "_usual")

    def begin(self, place: Place, connections: Connections) -> None:
        """Where the connection counts, and what it shares with the others."""
        self._place = place
        self._connections = connections
        # Bytes for which picows has ever had room, and those of one read that need no second look.
        self._room = self._usual = READ_BUFFER

    # This runs for each read of each connection, so it looks up little.

    def get_buffer(self, size: int) -> memoryview:
        free: memoryview = _get_buffer(self, size)
        connections = self._connections
        if connections.reading is self or connections.crowd > CROWD:
            return self._part_of(free)
        if len(free) > self._usual:
            if len(free) > self._room:
                return self._part_of(free)
            free = free[:MAX_READ]
        connections.reading = self
        return free

    def _part_of(self, free: memoryview) -> memoryview:
        """What the connection may be read now, when that may be less than picows has room for."""
        connections = self._connections
        if connections.reading is self:
            connections.further_read()
        else:
            connections.further, connections.reading = None, self
        room = len(free)
        if room > self._room:
            self._grown(room)
        if connections.crowd > CROWD and connections.is_crowded():
            self.transport.underlying_transport.set_protocol(_Crowded(self))
            return free[:CROWDED_READ]
        return free[:MAX_READ]

    def crowded(self, size: int) -> None:
        """So much has been read while others had to wait."""
        if (self._connections.further is self or size >= CROWDED_READ) and isinstance(self.listener, ClientConnection):
            self.listener.wait_to_be_read()

    def _grown(self, room: int) -> None:
        """The buffer has never had so much room. picows doubles a full one, so it has twice as much at most."""
        if isinstance(self.listener, ClientConnection):
            self._room, self._usual = room, min(room, MAX_READ)
            self.listener.grown(2 * room)

    def broken(self) -> None:
        """The client has broken the protocol, and picows is about to close."""
        if isinstance(self.listener, ClientConnection):
            self.listener.broken()
        self.transport.underlying_transport.set_protocol(_Rest(self))

    def connection_lost(self, error: Exception | None) -> None:
        connections = self._connections
        if connections.reading is self:
            connections.reading = None
        if connections.further is self:
            connections.further = None
        self._place.leave()  # at once: the client may be back already
        if isinstance(self.listener, ClientConnection):
            self.listener.cut()
        # A thousand may end in one turn of the loop: a proxy was restarted, or somebody wants the loop to stand still.
        connections.in_turn(partial(super().connection_lost, error))


class TlsProtocol(PicowsProtocol):
    """The same for a connection with TLS, where a record may carry a single byte.

    To open one takes 1.3 us, so a read of `MAX_READ` bytes may take 5 ms. So a connection is read by as many bytes as
    it takes little time to open.
    """

    __slots__ = ("_began", "_most")

    def begin(self, place: Place, connections: Connections) -> None:
        super().begin(place, connections)
        self._most = LEAST_READ

    def get_buffer(self, size: int) -> memoryview:
        self._began = monotonic()
        return super().get_buffer(size)[: self._most]

    def buffer_updated(self, size: int) -> None:
        took = monotonic() - self._began
        if took > SLOW_READ:
            self._most = max(self._most // 2, LEAST_READ)
        elif size == self._most:
            self._most = min(2 * self._most, MAX_READ)
        super().buffer_updated(size)


class _Crowded(asyncio.BufferedProtocol):
    """One read, while many connections say much at once. Not in `PicowsProtocol`, where each read would pay for it."""

    def __init__(self, protocol: PicowsProtocol) -> None:
        self._protocol = protocol

    def get_buffer(self, size: int) -> memoryview:
        return self._protocol.get_buffer(size)

    def buffer_updated(self, size: int) -> None:
        protocol = self._protocol
        protocol.transport.underlying_transport.set_protocol(protocol)
        protocol.buffer_updated(size)
        # Not in `get_buffer`: libuv must not stop reading there.
        protocol.crowded(size)

    def eof_received(self) -> bool | None:
        answer: bool | None = self._protocol.eof_received()
        return answer

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)


class _Rest(asyncio.BufferedProtocol):
    """What comes behind a broken frame."""

    _thrown_away: Final = memoryview(bytearray(64 * 1024))

    def __init__(self, protocol: PicowsProtocol) -> None:
        self._protocol = protocol
        self._left = MAX_REST

    def get_buffer(self, size: int) -> memoryview:
        return self._thrown_away

    def buffer_updated(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            self._protocol.transport.underlying_transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
