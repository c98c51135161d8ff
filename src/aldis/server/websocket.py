"""WebSocket connections: picows reads and writes frames, and the hub takes and gives whole messages.

Rules of this module:

* The hub gets whole messages of valid UTF-8 within the size limit. Anything else ends the connection with the code of
  RFC 6455 section 7.4.1 (1002, 1003, 1007, 1009).
* A client's fault is counted, and logged as `debug` at most, so that no client can fill the log.
* Each connection is one object, without a task, timer or future of its own. `tick` finds what takes too long.
* A closing connection is read until the client has closed too (RFC 6455 section 7.1.1). If a socket is closed with
  unread data, the kernel throws away what was sent last, and the close code with it. A connection that takes too long
  is aborted.
* No exception of this module reaches picows, because picows would tell the client.
* A connection that says more in one go than `scheduler.TURN`, or more than its rate allows, is not read on. What has
  been read already waits in its backlog for its turn (`server.scheduler`), so nothing is lost and nobody else waits.
* All that a connection says waits for its turn while half of its burst is used up. So a hundred that say much together
  take one slice of each turn of the loop, and not a turn each.

picows handles these by itself: unmasked frames, unknown opcodes and bad lengths (1002), frames over the limit (1009).
`server.listener` owns the port.
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

from aldis.hub.backlog import Backlog
from aldis.hub.bans import Ban
from aldis.hub.hub import Hub
from aldis.hub.sessions import HEADROOM, Session
from aldis.protocol.codes import CloseCode
from aldis.protocol.frames import Assembler, BadFrame, Opcode, close_reason
from aldis.server.routes import UpgradeRequest
from aldis.server.scheduler import TURN, FairScheduler

# Bytes that may wait for a slow client: a second of heavy traffic, and not too much for many clients.
MAX_UNSENT: Final = 1024 * 1024
# With this many unsent bytes a connection is full, until a quarter of them is left. The hub sends a full connection no
# message that can wait. So a burst of presence that a client asked for does not count as slow reading.
FULL: Final = 256 * 1024
# The server measures the time of one in so many relayed messages, because measuring costs a twentieth of relaying.
MEASURED_ONE_IN: Final = 16
# How many seconds' worth a connection may say at once: two peers that connect send some hundred messages in a moment.
BURST_SECONDS: Final = 2.0
# Units that a connection which has used up its rate gets at a time.
PARKED_UNITS: Final = 8
# Who has stopped reading a connection: the hub, and the scheduler. It is read on when neither wants it stopped.
_BY_HUB: Final = 1
_BY_SCHEDULER: Final = 2
# RFC 6455 section 7.4.2: the last private code.
_LAST_CODE: Final = 4999

# Tells the user why a browser is refused, in at most `frames.MAX_REASON` bytes.
_REFUSALS: Final = {
    CloseCode.ORIGIN_NOT_ALLOWED: "origin not allowed",
    CloseCode.UNKNOWN_HOST: "not a name of this server; if it should be one, its operator has to add it to --names",
}

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION
_PING: Final = WSMsgType.PING
_CLOSE: Final = WSMsgType.CLOSE

# picows keeps each request as long as its connection. These headers replace the request's own, to save memory.
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()


class ClientConnection(WSListener):
    """One client's WebSocket: a listener for picows, and a `Connection` for the hub."""

    __slots__ = (
        "_address",
        "_assembler",
        "_backlog",
        "_clean",
        "_closing",
        "_connections",
        "_farewell",
        "_held",
        "_left",
        "_left_at",
        "_ping",
        "_session",
        "_transport",
        "_upgrade",
        "full",
    )

    def __init__(self, connections: Connections, upgrade: UpgradeRequest, address: str | None = None) -> None:
        super().__init__()
        # Where a trusted proxy says that the client is.
        self._address = address
        self._connections = connections
        self._upgrade: UpgradeRequest | None = upgrade
        self._transport: WSTransport | None = None
        self._session: Session | None = None
        # Only while a message comes in fragments; most connections never need it.
        self._assembler: Assembler | None = None
        self._closing = False
        self._clean = False
        self.full = False
        # Units that it may say now, and when that was worked out. Frames that were read already may overdraw it, though
        # never so much that the hub would take it for dead until it is paid back.
        # At first so many that it waits for its turn: proofs cost, and a thousand clients may register at once.
        self._left = connections.reserve - 1
        self._left_at = monotonic()
        self._held = 0  # who has stopped reading
        # While it waits for its turn: the messages, the last ping, and the close code that came after them.
        self._backlog: Backlog | None = None
        self._ping: bytes | None = None
        self._farewell: int | None = None

    # --- called by the hub ------------------------------------------------------------------------------------------

    def send(self, frame: bytearray) -> None:
        # picows drops the frame when a close has been sent, or the connection is gone.
        self._transport.send_reuse_external_bytearray(_TEXT, frame, HEADROOM)  # type: ignore[union-attr]
        if self.full:
            self._check_unsent()

    def ping(self) -> None:
        if self._transport is not None:
            self._transport.send_ping()

    def pause_reading(self) -> None:
        self._hold(_BY_HUB)

    def resume_reading(self) -> None:
        self._let_go(_BY_HUB)

    def _hold(self, who: int) -> None:
        if self._transport is not None and not self._held:
            self._transport.underlying_transport.pause_reading()
        self._held |= who

    def _let_go(self, who: int) -> None:
        held, self._held = self._held, self._held & ~who
        if self._transport is not None and held and not self._held:
            self._transport.underlying_transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        if self._closing or self._transport is None:
            return
        self._closing = True
        self._forget_backlog()
        self._let_go(_BY_HUB | _BY_SCHEDULER)  # for the client's own close
        # picows' enumeration ends at 1014, but picows sends any code of the protocol.
        self._transport.send_close(cast(WSCloseCode, code), close_reason(reason))
        self._connections.closing(self)

    @property
    def address(self) -> str:
        """The IP address of the client; an empty text when it is gone."""
        if self._address is not None:
            return self._address
        peer = None if self._transport is None else self._transport.underlying_transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    def ban(self, reason: str) -> None:
        """Close, because the operator has banned the network."""
        self._refuse(CloseCode.BANNED, reason)

    def _check_unsent(self) -> None:
        transport = self._transport
        if transport is not None and transport.underlying_transport.get_write_buffer_size() > MAX_UNSENT:
            self._refuse(CloseCode.SLOW_CONSUMER, "too slow to read")

    def abort(self) -> None:
        """End the connection without waiting for the client."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    # --- called by picows -------------------------------------------------------------------------------------------

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
            ban = connections.hub.ban_of(self.address)
            if ban is not None:
                self._refuse(CloseCode.BANNED, ban.text)
                return
            # Interned, because thousands of connections share a few hosts.
            host = sys.intern(upgrade.host)
            self._session = connections.hub.connected(self, dialect=upgrade.dialect, host=host, now=monotonic())
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and ends this connection only
            self._fault(error)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if transport.is_close_frame_sent:  # by us, or by picows after a broken frame; picows then reads on
            if frame.msg_type is _CLOSE:
                transport.disconnect()
            else:
                self._skip(frame)
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
                # Of several connections that speak by turns none ever speaks for long.
                cost = 1 + frame.payload_size // connections.unit_bytes
                if connections.speaking is self:
                    connections.spoken += cost
                else:
                    connections.speaking, connections.spoken = self, cost
                if self._backlog is None and self._left >= connections.reserve and connections.spoken <= TURN:
                    self._left -= cost
                    self._handle(text, now)
                else:
                    self._wait_with(text, cost, now)
            else:
                self._other_frame(transport, frame, now)
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)

    def _skip(self, frame: WSFrame) -> None:
        """Count a frame behind our close, which is read no faster than those before it. The client's own close is to
        come through."""
        connections = self._connections
        cost = 1 + frame.payload_size // connections.unit_bytes
        self._left -= cost
        if connections.speaking is self:
            connections.spoken += cost
        else:
            connections.speaking, connections.spoken = self, cost
        if not self._held and (self._left < 0 or connections.spoken > TURN):
            now = monotonic()
            self._hold(_BY_SCHEDULER)
            connections.scheduler.add(self, self._refill(now), now)

    def _handle(self, text: str, now: float) -> None:
        connections = self._connections
        if connections.received(self._session, text, now):
            connections.unmeasured += 1
            if connections.unmeasured == MEASURED_ONE_IN:
                connections.measure(now)
        elif self._session is not None and (charged := self._session.charged):
            self._left -= charged
            connections.spoken += charged
            self._session.charged = 0

    # --- turns (`scheduler.Flow`) -----------------------------------------------------------------------------------

    def _wait_with(self, text: str, cost: int, now: float) -> None:
        """Keep a message for the connection's turn, unless it may still be handled at once."""
        if self._may_go_on(now):
            self._left -= cost
            self._handle(text, now)
        elif self._farewell is None:
            assert self._backlog is not None  # or it could go on  # noqa: S101
            self._backlog.append(text)

    def _may_go_on(self, now: float) -> bool:
        """Whether the connection may say more now; if not, it is not read on before its turn."""
        if self._backlog is not None:
            return False
        when = self._refill(now)
        if when <= now and self._left >= self._connections.reserve and self._connections.spoken <= TURN:
            return True
        self._backlog = Backlog()
        self._hold(_BY_SCHEDULER)
        self._connections.scheduler.add(self, when, now)
        return False

    def _refill(self, now: float) -> float:
        """Work out what the connection may say, and from when on: `now`, or later."""
        connections = self._connections
        left = max(self._left, -connections.burst) + (now - self._left_at) * connections.units_per_second
        self._left = left = min(left, connections.burst)
        self._left_at = now
        # Once parked it stays so for some units, since a timer for each would cost more than they do.
        return now if left >= 1 else now + (connections.parked - left) / connections.units_per_second

    def run(self, units: int, now: float) -> float | None:
        connections = self._connections
        try:
            connections.speaking, connections.spoken = self, 0
            while (backlog := self._backlog) is not None and connections.spoken < units:
                when = self._refill(now)
                if when > now:
                    return when
                text = backlog.pop()
                if text is None:
                    self._caught_up()
                    return None
                # At most a few bytes more than it had, where it is not ASCII.
                cost = 1 + len(text) // connections.unit_bytes
                self._left -= cost
                connections.spoken += cost
                self._handle(text, now)
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and costs this connection only
            self._fault(error)
        finally:
            connections.speaking = None
        return self._read_on(now) if self._backlog is None else now

    def _read_on(self, now: float) -> float | None:
        """Read a closing connection on, if it may say more; see `_skip`."""
        when = self._refill(now)
        if self._held and when > now:
            return when
        self._let_go(_BY_SCHEDULER)
        return None

    def _caught_up(self) -> None:
        """Nothing waits any more."""
        self._backlog = None
        ping, self._ping = self._ping, None
        farewell, self._farewell = self._farewell, None
        transport = self._transport
        if transport is None:
            return
        if ping is not None:
            self._pong(transport, ping)
        if farewell is not None:
            self._close_with_client(transport, farewell)
        else:
            self._let_go(_BY_SCHEDULER)

    def _forget_backlog(self) -> None:
        self._assembler = self._backlog = self._ping = self._farewell = None

    def _spent(self, frame: WSFrame, now: float) -> bool:
        """Count a frame that is no whole message. It is cheap, so it is handled even when it is one too many. Return
        whether its answer can wait: the connection is over its share."""
        connections = self._connections
        cost = 1 + frame.payload_size // connections.unit_bytes
        self._left -= cost
        if connections.speaking is self:
            connections.spoken += cost
        else:
            connections.speaking, connections.spoken = self, cost
        if self._backlog is None and self._left >= 0 and connections.spoken <= TURN:
            return False
        return not self._may_go_on(now)

    # --- other frames -----------------------------------------------------------------------------------------------

    def _other_frame(self, transport: WSTransport, frame: WSFrame, now: float) -> None:
        """Handle any frame except a whole text message."""
        kind = frame.msg_type
        if self._farewell is not None:
            return  # the client has closed: RFC 6455 section 5.5.1
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._refuse(CloseCode.PROTOCOL_ERROR, "reserved bits without an extension")  # RFC 6455 section 5.2
        elif kind is _CLOSE:
            self._closed_by_client(transport, frame)
        elif kind is _TEXT or kind is _CONTINUATION or kind is _BINARY:
            self._fragment(frame, now)
        else:
            waits = self._spent(frame, now)
            if kind is _PING:
                if waits:
                    self._ping = frame.get_payload_as_bytes()  # only the last one: RFC 6455 section 5.5.3
                else:
                    self._pong(transport, frame.get_payload_as_bytes())
            self._heard(now)

    def _pong(self, transport: WSTransport, payload: bytes) -> None:
        transport.send_pong(payload)
        if self.full:
            self._check_unsent()

    def _fragment(self, frame: WSFrame, now: float) -> None:
        if self._assembler is None:
            self._assembler = Assembler(self._connections.max_message_bytes)
        try:
            text = self._assembler.data(Opcode(frame.msg_type.value), frame.fin, frame.get_payload_as_bytes())
        except BadFrame as bad:
            self._refuse(bad.code, bad.reason)
            return
        waits = self._spent(frame, now)
        if text is None:
            self._heard(now)
            return
        self._assembler = None
        if waits and self._backlog is not None:
            self._backlog.append(text)
        else:
            self._handle(text, now)

    def _closed_by_client(self, transport: WSTransport, frame: WSFrame) -> None:
        code = cast(int, frame.get_close_code())
        if code == 0 and frame.payload_size:
            self._refuse(CloseCode.PROTOCOL_ERROR, "a close code that is not allowed")  # RFC 6455 section 7.4.2
            return
        # A browser's `close()` sends a close without a code (picows: 0, RFC 6455: 1005). It is on purpose as well.
        self._clean = code in (0, CloseCode.NORMAL, CloseCode.LEAVING)
        if self._backlog is None:
            self._close_with_client(transport, code)
        else:
            self._farewell = code  # after what the client has said before

    def _close_with_client(self, transport: WSTransport, code: int) -> None:
        self._closing = True
        self._forget_backlog()
        # RFC 6455 section 5.5.1: send the code back. picows accepts two kinds that are not allowed (section 7.4).
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
        self._held = 0
        self._forget_backlog()
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
        # Later, because with TLS this may run within a call of the hub.
        asyncio.get_running_loop().call_soon(self._writable)

    def _writable(self) -> None:
        if self._session is not None and not self._closing:
            try:
                self._connections.hub.writable(self._session)
            except Exception as error:  # noqa: BLE001 - as above
                self._fault(error)

    def _refuse(self, code: CloseCode, reason: str) -> None:
        """Close because of the client's fault."""
        if not self._closing:
            self._connections.closes[code] += 1
            self.close(code, reason)

    def _fault(self, error: Exception) -> None:
        """Close because of our own fault."""
        self._connections.fault(error)
        self._refuse(CloseCode.INTERNAL_ERROR, "internal error")


class Connections:
    """All open connections of one server, and the objects that they share."""

    def __init__(
        self,
        hub: Hub,
        *,
        max_message_bytes: int,
        fault: Callable[[Exception], None],
        close_timeout: float,
        messages_per_second: int,
        bytes_per_second: int,
    ) -> None:
        self._close_timeout = close_timeout
        self.hub = hub
        self.max_message_bytes = max_message_bytes
        # Called with unexpected exceptions.
        self.fault = fault
        # Connections that this module closed, by close code. The hub counts those that it closes.
        self.closes: Counter[int] = Counter()
        # Kept here because every message uses it.
        self.received: Callable[[Session | None, str, float], bool] = cast(Any, hub.received)
        # Relayed messages since the last measured one. The first one is measured.
        self.unmeasured = MEASURED_ONE_IN - 1
        self.limit_rates(messages_per_second, bytes_per_second)
        # Which connection was heard last, and how many units it has said since another one was.
        self.speaking: ClientConnection | None = None
        self.spoken = 0
        self.scheduler = FairScheduler(
            soon=lambda call: asyncio.get_running_loop().call_soon(call),
            later=lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call),
            clock=monotonic,
        )
        self._open: set[ClientConnection] = set()
        # When to give up each connection that is being closed.
        self.due: dict[ClientConnection, float] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def limit_rates(self, messages_per_second: int, bytes_per_second: int) -> None:
        """Set the rate of each connection, also of the open ones."""
        # In units: a message is one, or as many as its bytes are worth.
        self.units_per_second = float(messages_per_second)
        self.burst = BURST_SECONDS * messages_per_second
        self.reserve = self.burst / 2
        self.parked = min(PARKED_UNITS, self.burst)
        self.unit_bytes = max(bytes_per_second // messages_per_second, 1)

    def __len__(self) -> int:
        """The number of open WebSockets, including those that are closing."""
        return len(self._open)

    def measure(self, began: float) -> None:
        """Record the time of one relayed message. `began` is when it was read."""
        self.unmeasured = 0
        self.hub.stats.relay_seconds.observe(monotonic() - began)

    def ban(self, ban: Ban) -> int:
        """End the connections that a ban of a network fits, and return how many there were."""
        fitting = [connection for connection in self._open if self.hub.ban_of(connection.address) is ban]
        for connection in fitting:
            connection.ban(ban.text)
        return len(fitting)

    def opened(self, connection: ClientConnection) -> None:
        """A WebSocket has opened."""
        self._open.add(connection)
        self._empty.clear()

    def closing(self, connection: ClientConnection) -> None:
        """A close has been sent or received."""
        if connection in self._open:
            self.due.setdefault(connection, monotonic() + self._close_timeout)

    def gone(self, connection: ClientConnection) -> None:
        """The connection is over."""
        self._open.discard(connection)
        if self.speaking is connection:
            self.speaking = None
        self.due.pop(connection, None)
        if not self._open:
            self._empty.set()

    def tick(self, now: float) -> None:
        """Abort connections whose clients do not answer a close. Call this about once a second."""
        # Ordered by the time of their close, so the first that is not due ends the search.
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
        self.scheduler.close()
        for connection in list(self._open):
            connection.abort()
