"""WebSocket: between picows, which reads and writes frames, and the hub, which takes and gives whole messages.

Rules of this module:

* The hub gets whole messages of valid UTF-8 within the limit. All else ends the connection with the
  code of RFC 6455 section 7.4.1 (1002, 1003, 1007, 1009).
* What a client does wrong is counted and at most a debug line: no client can fill the log.
* Each connection is one object, without a task, timer or future of its own; `tick` finds what takes too long.
* A connection that is being closed is read on until the client has closed too (RFC 6455 section 7.1.1), because to
  close a socket with unread data makes the kernel throw away what was sent last, the close code with it. One that takes
  too long is aborted.
* No exception of this module reaches picows, which would tell the client.

What picows does by itself: unmasked frames, unknown opcodes and bad lengths (1002), frames over the limit (1009). The
port is `server.listener`'s business.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, cast

from multidict import CIMultiDict
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from aldis.hub.hub import Hub
from aldis.hub.sessions import HEADROOM, Session
from aldis.protocol.codes import CloseCode
from aldis.protocol.frames import Assembler, BadFrame, Opcode, close_reason
from aldis.server.routes import UpgradeRequest

# What may wait for a slow reader: a second of heavy traffic to one client, and bounded for many of them.
MAX_UNSENT: Final = 1024 * 1024
# A connection with so much unsent data is full, until a quarter of it is left: the hub sends it nothing that can wait.
# So a burst of presence that a client has asked for does not count as slow reading.
FULL: Final = 256 * 1024
# The server measures the time of one relayed message in so many: measuring costs a twentieth of what it measures.
MEASURED_ONE_IN: Final = 16
# RFC 6455 section 7.4.2: the last of the private codes.
_LAST_CODE: Final = 4999

# Why a browser is refused, for its user; in at most `frames.MAX_REASON` bytes.
_REFUSALS: Final = {
    CloseCode.ORIGIN_NOT_ALLOWED: "origin not allowed",
    CloseCode.UNKNOWN_HOST: "not a name of this server; if it should be one, its operator has to add it to --names",
}

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION
_PING: Final = WSMsgType.PING
_CLOSE: Final = WSMsgType.CLOSE

# picows keeps each request for as long as its connection. These headers take the place of its own, and cost nothing.
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()


class ClientConnection(WSListener):
    """One client's WebSocket. To picows it is a listener, to the hub a `Connection`."""

    __slots__ = ("_assembler", "_clean", "_closing", "_connections", "_session", "_transport", "_upgrade", "full")

    def __init__(self, connections: Connections, upgrade: UpgradeRequest) -> None:
        super().__init__()
        self._connections = connections
        self._upgrade: UpgradeRequest | None = upgrade
        self._transport: WSTransport | None = None
        self._session: Session | None = None
        # There is one while a message comes in fragments: most connections never need it.
        self._assembler: Assembler | None = None
        self._closing = False
        self._clean = False
        self.full = False

    # --- the hub's side ---------------------------------------------------------------------------------------------

    def send(self, frame: bytearray) -> None:
        # picows drops it when a close has been sent, or the connection is gone.
        self._transport.send_reuse_external_bytearray(_TEXT, frame, HEADROOM)  # type: ignore[union-attr]
        if self.full:
            self._check_unsent()

    def ping(self) -> None:
        if self._transport is not None:
            self._transport.send_ping()

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.underlying_transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        if self._closing or self._transport is None:
            return
        self._closing = True
        self.resume_reading()  # for the client's own close
        self._assembler = None
        # Its enumeration ends at 1014, but any code of the protocol passes.
        self._transport.send_close(cast(WSCloseCode, code), close_reason(reason))
        self._connections.closing(self)

    def _check_unsent(self) -> None:
        transport = self._transport
        if transport is not None and transport.underlying_transport.get_write_buffer_size() > MAX_UNSENT:
            self._refuse(CloseCode.SLOW_CONSUMER, "too slow to read")

    def abort(self) -> None:
        """End the connection without waiting for the client."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    # --- picows' side -----------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        upgrade, self._upgrade = self._upgrade, None
        request = transport.request
        request.headers, request.path = _NO_HEADERS, b"/"
        connections = self._connections
        connections.opened(self)
        try:
            underlying = transport.underlying_transport
            underlying.set_write_buffer_limits(high=FULL)
            if upgrade is None or upgrade.refusal is not None:
                code = CloseCode.INTERNAL_ERROR if upgrade is None or upgrade.refusal is None else upgrade.refusal
                self._refuse(code, _REFUSALS.get(code, "internal error"))
                return
            # Interned: thousands of connections share a few hosts.
            host = sys.intern(upgrade.host)
            self._session = connections.hub.connected(self, dialect=upgrade.dialect, host=host, now=monotonic())
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and costs this connection only
            self._fault(error)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if transport.is_close_frame_sent:  # by us or, for a broken frame, by picows, which goes on reading
            if frame.msg_type is _CLOSE:
                transport.disconnect()
            return
        now = monotonic()
        connections = self._connections
        try:
            if (
                frame.msg_type is _TEXT
                and frame.fin
                and self._assembler is None
                and not (frame.rsv1 or frame.rsv2 or frame.rsv3)
            ):
                try:
                    text = frame.get_payload_as_utf8_text()
                except UnicodeDecodeError:
                    self._refuse(CloseCode.INVALID_UTF8, "not UTF-8")
                    return
                if connections.received(self._session, text, now):
                    connections.unmeasured += 1
                    if connections.unmeasured == MEASURED_ONE_IN:
                        connections.measure(now)
            else:
                self._other_frame(transport, frame, now)
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)

    def _other_frame(self, transport: WSTransport, frame: WSFrame, now: float) -> None:
        """Everything but a whole text message."""
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._refuse(CloseCode.PROTOCOL_ERROR, "reserved bits without an extension")  # RFC 6455 section 5.2
        elif kind is _CLOSE:
            self._closed_by_client(transport, frame)
        elif kind is _TEXT or kind is _CONTINUATION or kind is _BINARY:
            self._fragment(frame, now)
        else:
            if kind is _PING:
                transport.send_pong(frame.get_payload_as_bytes())
                if self.full:
                    self._check_unsent()
            self._heard(now)

    def _fragment(self, frame: WSFrame, now: float) -> None:
        if self._assembler is None:
            self._assembler = Assembler(self._connections.max_message_bytes)
        try:
            text = self._assembler.data(Opcode(frame.msg_type.value), frame.fin, frame.get_payload_as_bytes())
        except BadFrame as bad:
            self._refuse(bad.code, bad.reason)
            return
        if text is None:
            self._heard(now)
            return
        self._assembler = None
        self._connections.received(self._session, text, now)

    def _closed_by_client(self, transport: WSTransport, frame: WSFrame) -> None:
        code = cast(int, frame.get_close_code())
        # A close without a code (picows: 0, RFC 6455: 1005) is what a browser's `close()` sends: on purpose as well.
        self._clean = code in (0, CloseCode.NORMAL, CloseCode.LEAVING)
        self._closing = True
        self._assembler = None
        # RFC 6455 section 5.5.1: the code is sent back. picows lets two kinds pass that nobody may send (section 7.4).
        reply = code or CloseCode.NORMAL
        if reply == CloseCode.ABNORMAL or reply > _LAST_CODE:
            reply = CloseCode.PROTOCOL_ERROR
        transport.send_close(cast(WSCloseCode, int(reply)))
        transport.disconnect()
        self._connections.closing(self)

    def _heard(self, now: float) -> None:
        if self._session is not None:
            self._connections.hub.heard(self._session, now)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._closing = True
        self._assembler = None
        self._connections.gone(self)
        session, self._session = self._session, None
        if session is not None:
            try:
                self._connections.hub.lost(session, monotonic(), clean=self._clean)
            except Exception as error:  # noqa: BLE001 - as above
                self._connections.fault(error)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        # Later: TLS may come here from within a call of the hub.
        asyncio.get_running_loop().call_soon(self._writable)

    def _writable(self) -> None:
        if self._session is not None and not self._closing:
            try:
                self._connections.hub.writable(self._session)
            except Exception as error:  # noqa: BLE001 - as above
                self._fault(error)

    def _refuse(self, code: CloseCode, reason: str) -> None:
        """Close for a fault of the client's."""
        if not self._closing:
            self._connections.closes[code] += 1
            self.close(code, reason)

    def _fault(self, error: Exception) -> None:
        """Close for a fault of ours."""
        self._connections.fault(error)
        self._refuse(CloseCode.INTERNAL_ERROR, "internal error")


class Connections:
    """All open connections of one server, and what they share."""

    def __init__(
        self, hub: Hub, *, max_message_bytes: int, fault: Callable[[Exception], None], close_timeout: float
    ) -> None:
        self._close_timeout = close_timeout
        self.hub = hub
        self.max_message_bytes = max_message_bytes
        # Takes unexpected exceptions.
        self.fault = fault
        # Connections that this module closed, by close code. The hub counts its own.
        self.closes: Counter[int] = Counter()
        # Used for each message, so kept at hand.
        self.received: Callable[[Session | None, str, float], bool] = cast(Any, hub.received)
        # Relayed messages since the last one that was measured. The first one is measured.
        self.unmeasured = MEASURED_ONE_IN - 1
        self._open: set[ClientConnection] = set()
        # When to give up each connection that is being closed.
        self.due: dict[ClientConnection, float] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many WebSockets are open, those that are being closed among them."""
        return len(self._open)

    def measure(self, began: float) -> None:
        """Count the time that a relayed message took, from when it was read."""
        self.unmeasured = 0
        self.hub.stats.relay_seconds.observe(monotonic() - began)

    def opened(self, connection: ClientConnection) -> None:
        """A WebSocket has opened."""
        self._open.add(connection)
        self._empty.clear()

    def closing(self, connection: ClientConnection) -> None:
        """A close has been sent, or received."""
        if connection in self._open:
            self.due.setdefault(connection, monotonic() + self._close_timeout)

    def gone(self, connection: ClientConnection) -> None:
        """A connection is over."""
        self._open.discard(connection)
        self.due.pop(connection, None)
        if not self._open:
            self._empty.set()

    def tick(self, now: float) -> None:
        """Abort connections whose clients do not answer a close. To be called about once a second."""
        # In the order in which they began to close, so the first that is not due ends the search.
        while self.due:
            connection, deadline = next(iter(self.due.items()))
            if now < deadline:
                return
            del self.due[connection]
            connection.abort()

    async def wait_until_empty(self) -> None:
        """Return when no connection is left."""
        await self._empty.wait()

    def abort(self) -> None:
        """End all connections at once."""
        for connection in list(self._open):
            connection.abort()
