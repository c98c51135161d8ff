"""One WebSocket connection to a server, on picows.

It dials, checks that an Aldis server answers, turns frames into messages, answers pings and CLOSE frames, and reports
exactly once how the connection ended. It does not know what the messages mean.

A fault of the server ends the connection with a close code of RFC 6455, and is reported as 1006 with the reason in
words. A reported code would count as sent by the *server*, and some codes forbid reconnecting (`protocol.codes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any, Final, Protocol

import aiohappyeyeballs
from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    ws_connect,
)
from picows.url import WSParsedURL

from aldis.client.address import ServerAddress, misdirected
from aldis.errors import ConfigError, ServerUnreachable
from aldis.protocol.codes import CloseCode
from aldis.protocol.frames import Assembler, BadFrame, Opcode, close_reason, read_close
from aldis.protocol.names import PROTOCOL
from aldis.settings import check_path
from aldis.tcp_segments import limit_segments

# Far above what a server relays (64 KiB by default); limits what a server can make us keep.
MAX_MESSAGE: Final = 1024 * 1024
# Messages that may come before `start`: the server's first words, not a stream of them. Together they may be as long as
# one message.
_MAX_EARLY: Final = 64
# Seconds in which the other side has to answer a CLOSE frame, before the connection is cut.
_CLOSE_TIMEOUT: Final = 2.0
# Seconds. RFC 8305 section 8 recommends 250 ms between attempts on several addresses.
_ATTEMPT_DELAY: Final = 0.25
# Close codes from here on belong to applications (RFC 6455 section 7.4.2).
_FIRST_FREE_CODE: Final = 3000
# Signaling messages are small; picows grows the buffer when it has to.
_READ_BUFFER: Final = 4 * 1024

_logger = logging.getLogger("aldis.client")


class TransportListener(Protocol):
    """Receives the input of a transport."""

    def text_received(self, text: str) -> None:
        """A whole message."""

    def life_shown(self) -> None:
        """A WebSocket ping or pong has come: a sign of life."""

    def transport_lost(self, code: int, reason: str) -> None:
        """The connection is gone: the server's close code, or 1006. Called exactly once, and last."""


def tls_context(
    address: ServerAddress, context: ssl.SSLContext | None, ca_file: str | os.PathLike[str] | None
) -> ssl.SSLContext | None:
    """The TLS context. A wrong `ca_file` raises even if the URL needs no TLS."""
    if context is not None and ca_file is not None:
        raise ConfigError("ca_file", "pass either ssl_context or ca_file")
    if ca_file is not None:
        check_path("ca_file", ca_file)
        try:
            return ssl.create_default_context(cafile=os.fspath(ca_file))
        except ssl.SSLError:
            raise ConfigError("ca_file", f"{os.fspath(ca_file)} holds no certificate in PEM form") from None
        except OSError as error:
            raise ConfigError("ca_file", f"cannot read {os.fspath(ca_file)}: {error.strerror or error}") from None
    return context or (ssl.create_default_context() if address.secure else None)


class _QuietLog(logging.LoggerAdapter[logging.Logger]):
    """Silences picows: its errors are a server's fault or a lost connection, which the application learns otherwise."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        super().log(min(level, logging.DEBUG), msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return f"picows: {msg}", kwargs


class Transport:
    """An open connection, made by `open_transport`. Call `start` once, at once."""

    def __init__(self, ws: WSTransport, frames: _Frames) -> None:
        self._ws = ws
        self._frames = frames
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="aldis transport")

    def start(self, listener: TransportListener) -> None:
        """Pass all input to `listener`, starting with what has come so far."""
        self._frames.start(listener)

    def send(self, text: str) -> None:
        """Send a message. Never waits and never raises; does nothing after the end."""
        self._ws.send(WSMsgType.TEXT, text)

    def close(self, code: int, reason: str, *, at_once: bool = False) -> None:
        """Start closing; `transport_lost` follows. Does nothing when repeated. `at_once`: do not wait for the server's
        CLOSE frame, nor until it has taken ours."""
        self._frames.close(code, reason)
        if at_once:
            self._ws.disconnect(False)

    @property
    def is_cut(self) -> bool:
        """Whether this machine has lost the address of this end, so that no packet gets through any more."""
        end = self._ws.underlying_transport.get_extra_info("socket")
        if end is None or end.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        address, *rest = end.getsockname()
        with socket.socket(end.family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((address, 0, *rest[1:]))
            except OSError as error:
                return error.errno == errno.EADDRNOTAVAIL
        return False

    @property
    def is_writable(self) -> bool:
        """Whether the network has taken what was sent, or nearly all of it."""
        return self._frames.writable.is_set()

    async def writable(self) -> None:
        """Wait while the network has not taken what was sent. Returns also when the connection ends."""
        await self._frames.writable.wait()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone and `transport_lost` has been called."""
        await asyncio.shield(self._task)

    async def _watch(self) -> None:
        # `return_exceptions`, because this waits for any kind of end. Cancelling this call still works.
        (failure,) = await asyncio.gather(self._ws.wait_disconnected(), return_exceptions=True)
        if isinstance(failure, Exception) and not isinstance(failure, WSError):
            _logger.error("the connection was closed because of an internal error", exc_info=failure)
        self._frames.ended(str(failure.args[-1]) if isinstance(failure, WSError) and failure.args else "")


class _Frames(WSListener):
    """The listener that picows calls, for the frames of one connection."""

    def __init__(self, max_message: int, close_timeout: float) -> None:
        super().__init__()
        self._close_timeout = close_timeout
        self.writable = asyncio.Event()
        self.writable.set()
        self._assembler = Assembler(max_message)
        self._listener: TransportListener | None = None
        self._early: list[str] = []
        self._early_room = max_message
        self._ws: WSTransport | None = None
        # How the connection ended, once that is known; later input is ignored.
        self._end: tuple[int, str] | None = None
        # The arguments of `transport_lost` once the connection is gone, for a listener that starts later.
        self._over: tuple[int, str] | None = None
        self._closing = False
        self._cut: asyncio.TimerHandle | None = None

    def start(self, listener: TransportListener) -> None:
        self._listener = listener
        early, self._early = self._early, []
        for text in early:
            listener.text_received(text)
        if self._over is not None:
            listener.transport_lost(*self._over)

    # --- called by picows -------------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._ws = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._end is not None:
            return
        try:
            self._frame(transport, frame)
        except BadFrame as bad:
            self._end = (CloseCode.ABNORMAL, f"the server broke the protocol: {bad.reason}")
            self.close(bad.code, bad.reason)
            # "Fail the WebSocket connection" (RFC 6455 section 7.1.7): the server's answer does not matter any more.
            transport.disconnect()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # --- frames -----------------------------------------------------------------------------------------------------

    def _frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            # RFC 6455 section 5.2: these bits need an extension, and none was negotiated.
            raise BadFrame(CloseCode.PROTOCOL_ERROR, "a reserved bit is set")
        payload = frame.get_payload_as_bytes()
        match opcode := Opcode(frame.msg_type.value):
            case Opcode.PING:
                # A server that pings without reading gets no pongs, because they would pile up here.
                if self.writable.is_set():
                    transport.send_pong(payload)
                self._life()
            case Opcode.PONG:
                self._life()
            case Opcode.CLOSE:
                self._end = read_close(payload)
                self._answer_close(transport)
            case _:
                text = self._assembler.data(opcode, frame.fin, payload)
                if text is None:
                    self._life()
                elif self._listener is not None:
                    self._listener.text_received(text)
                elif len(self._early) < _MAX_EARLY and len(text) <= self._early_room:
                    self._early.append(text)
                    self._early_room -= len(text)
                else:
                    raise BadFrame(CloseCode.PROTOCOL_ERROR, "too many messages before the first of ours")

    def _life(self) -> None:
        if self._listener is not None:
            self._listener.life_shown()

    def _answer_close(self, transport: WSTransport) -> None:
        if not self._closing:
            self._closing = True
            code, _ = self._end or (CloseCode.NO_STATUS, "")
            # Some codes can be received but not sent (RFC 6455 section 7.4).
            transport.send_close(WSCloseCode(code if code >= _FIRST_FREE_CODE else CloseCode.NORMAL))
        # Waiting bytes still go out, but do not wait for a server that does not take them.
        transport.disconnect()
        self._cut_off_later()

    def close(self, code: int, reason: str) -> None:
        if self._closing or self._ws is None:
            return
        self._closing = True
        self._ws.send_close(WSCloseCode(code), close_reason(reason))
        self._cut_off_later()

    def _cut_off_later(self) -> None:
        if self._cut is None and self._ws is not None:
            loop = asyncio.get_running_loop()
            self._cut = loop.call_later(self._close_timeout, self._ws.disconnect, False)

    def ended(self, failure: str) -> None:
        """The connection is gone; `failure` is the fault that picows found, if any."""
        self.writable.set()
        if self._cut is not None:
            self._cut.cancel()
        reason = f"the server broke the protocol: {failure}" if failure else "the connection broke"
        self._over = self._end or (CloseCode.ABNORMAL, reason)
        if self._listener is not None:
            self._listener.transport_lost(*self._over)


async def open_transport(
    address: ServerAddress,
    *,
    ssl_context: ssl.SSLContext | None = None,
    connect_timeout: float = 10.0,
    tcp_timeout: float | None = None,
    max_message: int = MAX_MESSAGE,
    close_timeout: float = _CLOSE_TIMEOUT,
) -> Transport:
    """Connect to a server. `connect_timeout` is for all steps together, in seconds: name, TCP, TLS and WebSocket.
    `tcp_timeout` is for the first of them, until a TCP connection is there; None for no limit of its own.
    `close_timeout` is for the server's answer to a CLOSE frame.

    Raises `ServerUnreachable`, with a reason for people. A cancelled call leaves nothing behind.
    """

    def accept(request: WSUpgradeRequest, response: WSUpgradeResponse) -> _Frames:
        chosen = response.headers.get("Sec-WebSocket-Protocol")
        if chosen != PROTOCOL:
            problem = (
                "it is no Aldis server, or one for clients of the classic dialect only: it did not take the "
                f"sub-protocol {PROTOCOL}"
            )
            raise ServerUnreachable(address.url, problem)
        return _Frames(max_message, close_timeout)

    sockets: list[socket.socket] = []
    loop = asyncio.get_running_loop()

    async def make_socket(url: WSParsedURL) -> socket.socket:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        async with asyncio.timeout(tcp_timeout):
            sock = await aiohappyeyeballs.start_connection(
                found,
                happy_eyeballs_delay=_ATTEMPT_DELAY,
                interleave=1,
                loop=loop,
                socket_factory=_new_socket,
            )
        sockets.append(sock)
        return sock

    dialing = loop.create_task(
        ws_connect(
            accept,
            address.url,
            ssl_context=ssl_context,
            extra_headers={"Host": address.server, "Sec-WebSocket-Protocol": PROTOCOL},
            # A redirect would change the signed host.
            max_redirects=0,
            max_frame_size=max_message,
            # Pings are signs of life, so picows has to pass them to us.
            enable_auto_pong=False,
            websocket_handshake_timeout=None,
            read_buffer_init_size=_READ_BUFFER,
            # aiofastnet 1.2 gives the event loop a class instead of an exception when a server hangs up during the TLS
            # handshake. That prints a traceback on the terminal. A client does not need the speed of aiofastnet.
            use_aiofastnet=False,
            socket_factory=make_socket,
            logger_name=_QuietLog(_logger),
        ),
        name=f"aldis dials {address.server}",
    )
    transport: Transport | None = None
    try:
        await asyncio.wait({dialing}, timeout=connect_timeout)
        if not dialing.done():
            # A server without TLS takes our first bytes for a request, and waits for the rest of it.
            hint = "; is it a ws:// server?" if sockets and address.secure else ""
            raise ServerUnreachable(address.url, f"no answer within {connect_timeout:g} s{hint}")
        ws, frames = dialing.result()
        if not isinstance(frames, _Frames):  # picows does this when the connection ended before the upgrade
            # A server with TLS takes our request for a broken handshake.
            hint = "" if address.secure else "; is it a wss:// server?"
            raise ServerUnreachable(address.url, f"the server closed the connection instead of answering{hint}")
        transport = Transport(ws, frames)
        return transport
    except (OSError, WSError, UnicodeError) as error:
        raise ServerUnreachable(address.url, _why(error, address)) from error
    finally:
        if transport is None:
            await _abandon(dialing, sockets)


def _new_socket(address: aiohappyeyeballs.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, there = address
    sock = socket.socket(family, kind, protocol)
    limit_segments(sock, str(there[0]))
    return sock


async def _abandon(dialing: asyncio.Task[tuple[WSTransport, WSListener]], sockets: list[socket.socket]) -> None:
    """End an attempt that is not needed any more, and wait until it has ended.

    A cancelled `ws_connect` that waits for the answer to the upgrade would leave its connection open. It ends by itself
    when the connection does. (Closing the socket under an event loop would be wrong; shutting it down is not.)
    """
    if not dialing.done() and not sockets:
        dialing.cancel()
    for sock in sockets:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    await asyncio.wait({dialing}, timeout=_CLOSE_TIMEOUT)
    if not dialing.done():
        dialing.cancel()
        await asyncio.wait({dialing})
    if not dialing.cancelled() and dialing.exception() is None:
        dialing.result()[0].disconnect(False)


def _why(error: OSError | WSError | UnicodeError, address: ServerAddress) -> str:
    """Why a server cannot be reached, in words for people."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its TLS certificate is not trusted: {error.verify_message}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return "it does not speak TLS on this port; is it a ws:// server?"
        case ssl.SSLError():
            return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
        case socket.gaierror():
            return f"its name cannot be resolved: {error.strerror}"
        case WSInvalidStatusError() if error.response is not None:
            status = error.response.status
            if status == HTTPStatus.MISDIRECTED_REQUEST:
                return misdirected(address)
            return f"it answered {status.value} {status.phrase} instead of opening a WebSocket"
        case WSHandshakeError():
            return f"it is no WebSocket server: {error}"
        case TimeoutError() if not error.errno:
            return "no answer in time"
        case OSError() if error.errno:
            return os.strerror(error.errno).lower()
        case _:
            return str(error) or type(error).__name__
