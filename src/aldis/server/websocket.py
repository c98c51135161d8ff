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
import logging
import sys
from collections.abc import Callable
from operator import attrgetter
from time import monotonic
from typing import Final, cast

from multidict import CIMultiDict
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from aldis.hub.sessions import Session, Write
from aldis.protocol.codes import CloseCode
from aldis.protocol.frames import Assembler, BadFrame, Opcode, close_reason
from aldis.server.connections import BYTES_AT_ONCE, OTHER, Connections, lose
from aldis.server.corked_frames import CorkedFrames
from aldis.server.frame_backlog import FrameBacklog
from aldis.server.logs import get_logger
from aldis.server.refusals import REASONS
from aldis.server.routes import UpgradeRequest
from aldis.server.scheduler import ANSWERING, READING, TURN

# Bytes that wait for a slow client are counted from so many on.
UNSENT: Final = 16 * 1024
# Who has stopped reading a connection: the hub, and the scheduler. It is read on when neither wants it stopped.
_BY_HUB: Final = 1
_BY_SCHEDULER: Final = 2
# RFC 6455 section 7.4.2: the last private code.
_LAST_CODE: Final = 4999

_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CONTINUATION: Final = WSMsgType.CONTINUATION
_PING: Final = WSMsgType.PING
_CLOSE: Final = WSMsgType.CLOSE

_AREA: Final = "aldis.hub"
_log = get_logger(_AREA)
# Asked first, since most servers do not log what each client does.
_logger: Final = logging.getLogger(_AREA)

# picows keeps each request as long as its connection. These headers replace the request's own, to save memory.
_NO_HEADERS: Final[CIMultiDict[str]] = CIMultiDict()
_write_of: Final[Callable[[WSTransport], Write]] = attrgetter("send_reuse_external_bytearray")


class ClientConnection(WSListener):
    """One client's WebSocket: a listener for picows, and a `Connection` for the hub."""

    __slots__ = (
        "_address",
        "_assembler",
        "_backlog",
        "_clean",
        "_closing",
        "_connections",
        "_corked",
        "_held",
        "_left",
        "_left_at",
        "_read_buffer",
        "_session",
        "_transport",
        "_unsent",
        "_upgrade",
        "full",
        "kept",
        "write",
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
        self.kept = 0
        self._corked: CorkedFrames | None = None
        self._read_buffer = 0
        self._unsent = 0  # bytes that are not sent yet
        # Units that it may say now, and when that was worked out. Frames that were read already may overdraw it, though
        # never so much that the hub would take it for dead until it is paid back.
        # At first so many that it waits for its turn: proofs cost, and a thousand clients may register at once.
        self._left = connections.reserve - 1
        self._left_at = monotonic()
        self._held = 0  # who has stopped reading
        self._backlog: FrameBacklog | None = None  # while it waits for its turn

    # --- called by the hub ------------------------------------------------------------------------------------------

    write: Write  # picows' own function, which drops a frame when a close has been sent or the connection is gone

    def _write_slowly(self, kind: int, frame: bytearray, headroom: int) -> None:
        """`write` while some bytes are not sent yet."""
        _write_of(cast(WSTransport, self._transport))(kind, frame, headroom)
        self.check_unsent()

    def cork(self) -> None:
        if self._corked is None and self._transport is not None:
            self._corked = CorkedFrames(self._send_corked)
            self.write = self._corked.write

    def uncork(self) -> None:
        corked, self._corked = self._corked, None
        if corked is not None and self._transport is not None:
            slow = self in self._connections.slow
            self.write = self._write_slowly if slow else _write_of(self._transport)
            corked.flush()

    def _send_corked(self, frames: bytes) -> None:
        if self._transport is not None and not self._closing:
            self._transport.underlying_transport.write(frames)
            if self in self._connections.slow:
                self.check_unsent()

    def ping(self, payload: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.send_ping(payload)

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
            if self._read_buffer:
                self._connections.large[self] = None

    def close(self, code: int, reason: str) -> None:
        if self._closing or self._transport is None:
            return
        self.uncork()
        self._closing = True
        self._forget_backlog()
        self._let_go(_BY_HUB | _BY_SCHEDULER)  # for the client's own close
        # picows' enumeration ends at 1014, but picows sends any code of the protocol.
        self._transport.send_close(cast(WSCloseCode, code), close_reason(reason))
        self._connections.closing(self)
        if code == CloseCode.OUT_OF_MEMORY and self.kept:
            # Its client may not read. Later, because the hub is not to be called from within its call.
            asyncio.get_running_loop().call_soon(self.abort)

    @property
    def address(self) -> str:
        """The IP address of the client; an empty text when it is gone."""
        if self._address is not None:
            return self._address
        peer = None if self._transport is None else self._transport.underlying_transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    def ban(self, reason: str) -> None:
        """Close, because the operator has banned the network. The session is over."""
        self._clean = True
        self._refuse(CloseCode.BANNED, reason)

    def check_unsent(self) -> None:
        """Look how many bytes are not sent yet."""
        transport = self._transport
        if transport is None:
            return
        waiting = transport.underlying_transport.get_write_buffer_size()
        self._unsent = unsent = waiting + self._connections.beneath if waiting else 0
        self._count()
        full_at = self._connections.full_at
        if unsent > self._connections.most_unsent:
            self._refuse(CloseCode.SLOW_CONSUMER, "too slow to read")
        elif unsent > full_at:
            self.full = True
        elif self.full and unsent <= full_at // 4:
            self._has_room()

    def _has_room(self) -> None:
        self.full = False
        # Later, because with TLS this may run within a call of the hub.
        self._connections.writable_in_turn(self._writable)

    def _count(self) -> None:
        """Count what is kept for the client."""
        kept = self._read_buffer + self._unsent
        if self._backlog is not None:
            kept += self._backlog.size
        if self._assembler is not None:
            kept += self._assembler.size
        self._connections.use.transports += kept - self.kept
        self.kept = kept

    def grown(self, read_buffer: int) -> None:
        """picows reads into a buffer of so many bytes, which never shrinks."""
        self._read_buffer = read_buffer
        self._connections.large[self] = None
        self._count()

    def broken(self) -> None:
        """picows closes, because of a frame that breaks the protocol."""
        if not self._closing:
            self._closing = True
            self._forget_backlog()
            self._connections.closing(self)

    def limit_rate(self) -> None:
        self._left = min(self._left, self._connections.burst)

    def cut(self) -> None:
        """The connection is over; `on_ws_disconnected` follows."""
        if _logger.isEnabledFor(logging.DEBUG):
            self._address = self.address
        self._transport, self.write = None, lose

    def abort(self) -> None:
        """End the connection without waiting for the client."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    # --- called by picows -------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self.write = _write_of(transport)
        upgrade, self._upgrade = self._upgrade, None
        request = transport.request
        request.headers, request.path = _NO_HEADERS, b"/"
        connections = self._connections
        connections.opened(self)
        if _logger.isEnabledFor(logging.DEBUG):
            _log.debug("connected", address=self.address)
        try:
            underlying = transport.underlying_transport
            underlying.set_write_buffer_limits(high=UNSENT)
            if upgrade is None or upgrade.refusal is not None:
                code = CloseCode.INTERNAL_ERROR if upgrade is None or upgrade.refusal is None else upgrade.refusal
                self._refuse(code, REASONS.get(code, "internal error"))
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
        if self._closing:  # a close is sent, by us or by picows after a broken frame; picows then reads on
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
                size = frame.payload_size
                cost = spoken = 1 + size // connections.unit_bytes
                if connections.speaking is self:
                    spoken += connections.spoken
                else:
                    connections.speaking = self
                connections.spoken = spoken
                if (
                    self._backlog is None
                    and self._left >= connections.reserve
                    and ((connections.at_once > 0 and spoken <= TURN) or connections.goes_now(text))
                ):
                    self._left -= cost
                    # As `_handle` does it: a call would cost a hundredth of relaying.
                    received = connections.received
                    if received(self._session, text, now, size):
                        connections.at_once -= 1 if size < BYTES_AT_ONCE else 1 + size // BYTES_AT_ONCE
                        connections.unmeasured = unmeasured = connections.unmeasured - 1
                        if not unmeasured:
                            connections.measure(now)
                    else:
                        connections.at_once -= OTHER * cost
                        if self._session is not None and self._session.charged:
                            self._charge(self._session)
                else:
                    self._wait_with(text, cost, now)
            else:
                self._other_frame(transport, frame, now)
        except Exception as error:  # noqa: BLE001 - as above
            self._fault(error)

    def _skip(self, frame: WSFrame) -> None:
        """Count a frame behind our close, which is read no faster than those before it. The client's own close is to
        come through."""
        self._count_units(frame)
        if not self._held and (self._left < 0 or self._connections.spoken > TURN):
            now = monotonic()
            self._hold(_BY_SCHEDULER)
            self._connections.scheduler.add(self, self._refill(now), now)

    def _handle(self, text: str, now: float) -> None:
        connections = self._connections
        if connections.received(self._session, text, now):
            connections.unmeasured -= 1
            if not connections.unmeasured:
                connections.measure(now)
        elif self._session is not None and self._session.charged:
            self._charge(self._session)

    def _charge(self, session: Session) -> None:
        """Count what a message has cost beyond being one."""
        connections, charged = self._connections, session.charged
        self._left -= charged + session.penalty
        connections.spoken += charged
        connections.at_once -= OTHER * charged
        connections.scheduler.charge(ANSWERING)
        session.charged = session.penalty = 0

    # --- turns (`scheduler.Flow`) -----------------------------------------------------------------------------------

    def _wait_with(self, text: str, cost: int, now: float) -> None:
        """Keep a message for the connection's turn, unless it may still be handled at once."""
        connections = self._connections
        if self._may_go_on(now, connections.goes_now(text)):
            self._left -= cost
            connections.at_once -= OTHER * cost
            self._handle(text, now)
        elif self._backlog is not None and self._backlog.farewell is None:
            self._backlog.append(text)
            self._count()
            connections.kept_waiting()

    def wait_to_be_read(self) -> None:
        """Be read on when it is its turn."""
        if not self._closing and self._transport is not None and self._backlog is None:
            now = monotonic()
            self._backlog = FrameBacklog()
            self._hold(_BY_SCHEDULER)
            self._connections.scheduler.add_unread(self, self._refill(now), now)

    def _may_go_on(self, now: float, at_once: bool) -> bool:
        """Whether the connection may say more now; if not, it is not read on before its turn."""
        if self._backlog is not None:
            return False
        when = self._refill(now)
        if at_once and when <= now and self._left >= self._connections.reserve:
            return True
        self._backlog = FrameBacklog()
        self._hold(_BY_SCHEDULER)
        self._connections.scheduler.add(self, when, now)
        return False

    def _refill(self, now: float) -> float:
        """Work out what the connection may say, and from when on: `now`, or later."""
        connections = self._connections
        # Whole units, with which the many that only spend reckon faster. The rest of one counts the next time.
        gained = int((now - self._left_at) * connections.units_per_second)
        self._left_at += gained / connections.units_per_second
        self._left = left = min(max(self._left, -connections.burst) + gained, connections.burst)
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
                for pong in backlog.pass_pongs() if self._backlog is backlog else ():
                    self._heard(now, pong)
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and costs this connection only
            self._fault(error)
        finally:
            connections.speaking = None
            self._count()
        return self._read_on(now) if self._backlog is None else now

    def _read_on(self, now: float) -> float | None:
        """Read a closing connection on, if it may say more; see `_skip`."""
        when = self._refill(now)
        if self._held and when > now:
            return when
        self._connections.scheduler.charge(READING)
        self._let_go(_BY_SCHEDULER)
        return None

    def _caught_up(self) -> None:
        """Nothing waits any more."""
        backlog, self._backlog = self._backlog, None
        transport = self._transport
        if transport is None or backlog is None:
            return
        if backlog.ping is not None:
            self._pong(transport, backlog.ping)
        if backlog.farewell is not None:
            self._close_with_client(transport, backlog.farewell)
        else:
            self._connections.scheduler.charge(READING)
            self._let_go(_BY_SCHEDULER)

    def _forget_backlog(self) -> None:
        self._assembler = self._backlog = None
        self._count()

    def _spent(self, frame: WSFrame, now: float) -> bool:
        """Count a frame that is no whole message. It is cheap, so it is handled even when it is one too many. Return
        whether its answer can wait: the connection is over its share."""
        self._count_units(frame)
        at_once = self._connections.spoken <= TURN
        unlimited = self._backlog is None and self._left >= 0 and at_once
        return not (unlimited or self._may_go_on(now, at_once))

    def _count_units(self, frame: WSFrame) -> None:
        connections = self._connections
        cost = 1 + frame.payload_size // connections.unit_bytes
        self._left -= cost
        if connections.speaking is not self:
            connections.speaking, connections.spoken = self, 0
        connections.spoken += cost

    # --- other frames -----------------------------------------------------------------------------------------------

    def _other_frame(self, transport: WSTransport, frame: WSFrame, now: float) -> None:
        """Handle any frame except a whole text message."""
        kind = frame.msg_type
        backlog = self._backlog
        if backlog is not None and backlog.farewell is not None:
            return  # the client has closed: RFC 6455 section 5.5.1
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._refuse(CloseCode.PROTOCOL_ERROR, "reserved bits without an extension")  # RFC 6455 section 5.2
        elif kind is _CLOSE:
            self._closed_by_client(transport, frame)
        elif kind is _TEXT or kind is _CONTINUATION or kind is _BINARY:
            self._fragment(frame, now)
        else:
            waits, payload, pong = self._spent(frame, now), frame.get_payload_as_bytes(), b""
            if kind is _PING:
                if waits and self._backlog is not None:
                    self._backlog.ping = payload
                else:
                    self._pong(transport, payload)
            elif not self._backlog:  # what came before is handled
                pong = payload
            elif payload:
                self._backlog.add_pong(payload)
            self._heard(now, pong)

    def _pong(self, transport: WSTransport, payload: bytes) -> None:
        transport.send_pong(payload)
        if self in self._connections.slow:
            self.check_unsent()

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
            self._count()
            self._heard(now)
            return
        self._assembler = None
        self._count()
        if waits and self._backlog is not None:
            self._backlog.append(text)
            self._count()
        else:
            self._handle(text, now)

    def _closed_by_client(self, transport: WSTransport, frame: WSFrame) -> None:
        code = cast(int, frame.get_close_code())
        if code == 0 and frame.payload_size:
            self._refuse(CloseCode.PROTOCOL_ERROR, "a close code that is not allowed")  # RFC 6455 section 7.4.2
            return
        # A browser's `close()` sends a close without a code (picows: 0, RFC 6455: 1005). It is on purpose as well.
        self._clean |= code in (0, CloseCode.NORMAL, CloseCode.LEAVING)
        if self._backlog is None:
            self._close_with_client(transport, code)
        else:
            self._backlog.farewell = code  # after what the client has said before

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

    def _heard(self, now: float, pong: bytes = b"") -> None:
        if self._session is not None:
            self._connections.hub.heard(self._session, now, pong=pong)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._closing = True
        self._held = self._read_buffer = self._unsent = 0
        self._forget_backlog()
        self._connections.gone(self)
        session, self._session = self._session, None
        if _logger.isEnabledFor(logging.DEBUG):
            named = {"user": session.user_id, "device": session.device} if session and session.user_id else {}
            _log.debug("disconnected", address=self.address, **named)
        if session is not None:
            try:
                self._connections.hub.lost(session, monotonic(), clean=self._clean)
            except Exception as error:  # noqa: BLE001 - as above
                self._connections.fault(error)

    def pause_writing(self) -> None:
        self.write = self._write_slowly
        self._connections.slow.add(self)
        self.check_unsent()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self.write = _write_of(self._transport)
        self._connections.slow.discard(self)
        self._unsent = 0
        self._count()
        if self.full:
            self._has_room()

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
