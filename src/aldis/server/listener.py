"""The public port: it listens, and gives each request its reply or its WebSocket.

Rules: no exception of this module reaches picows, which would show its text to the client. What picows logs about
clients is counted, and at most a debug line.

What picows does by itself: it reads requests of at most 16 KiB and 128 headers within `Tuning.handshake_timeout`,
refuses all but GET without a body in HTTP/1.1 (400), replies with `Connection: close`, and closes. It ignores what
follows such a request.

What it does not do, and this module does: tell who comes in HTTP/1.0 how to set up a proxy (`_Opening`), and limit how
long a client may take to read its reply (`unacknowledged`, `max_untaken`).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, Final, cast
from weakref import WeakSet

from multidict import CIMultiDict
from picows import WSAutoPingStrategy, WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # missing in its stub

from aldis.errors import ConfigError
from aldis.hub import dialects
from aldis.protocol.codes import CloseCode
from aldis.server import proxies
from aldis.server.addresses import network_of
from aldis.server.admission import Admission, Place
from aldis.server.http import OLD_HTTP, Headers, HttpReply, busy, host_of, is_old
from aldis.server.logs import Log, Throttle
from aldis.server.names import Arrival
from aldis.server.proxies import BadProxyHeader, TrustedProxies
from aldis.server.routes import MISDIRECTED, Routes, UpgradeRequest
from aldis.server.tuning import Tuning
from aldis.server.websocket import ClientConnection, Connections

# A reply of this size at most never waits: it fits into the smallest buffer that the kernel has (tcp(7), tcp_wmem).
AT_ONCE: Final = 4096
# Log lines about requests for other hosts: one tells the operator what to do, and any client can cause a thousand.
MISDIRECTED_PER_SECOND: Final = 0.1
# Connections that are accepted before those that are open have their turn.
ACCEPTED_AT_ONCE: Final = 32
# Seconds to wait before the next try when no connection can be accepted.
ACCEPT_AGAIN: Final = 0.2
# Where the kernel tells how many bytes have come (Linux 4.1, linux/tcp.h, tcpi_bytes_received): these are eight.
_BYTES_RECEIVED: Final = 128
_TCP_INFO_SIZE: Final = 136
# The smallest that picows takes. It grows with what a client sends. Most clients send little, and then this is most of
# what a connection costs.
READ_BUFFER: Final = 2048
# The SYN queue; the kernel has its own limit (net.core.somaxconn).
LISTEN_BACKLOG: Final = 4096
# For a connection without a local address; no host fits it.
_NOWHERE: Final = Arrival("", 0)
# What the kernel takes from a client before it is read (SO_RCVBUF; Linux doubles it). So little is read in one go, and
# picows' buffer, which never shrinks, stays small. On a line of 100 ms it allows more than `bytes_per_second`.
RECEIVE_BUFFER: Final = 32 * 1024
# Bytes of one read. Small frames are all handled before the next read can be put off, so this bounds how long.
MAX_READ: Final = 8 * 1024
# One response for all connections of a dialect: picows sets the accept key and sends it at once.
_SWITCHING: Final = {
    dialect: WSUpgradeResponse.create_101_response(
        None if dialect.subprotocol is None else {"Sec-WebSocket-Protocol": dialect.subprotocol}
    )
    for dialect in dialects.ALL
}


class _PicowsLog(logging.LoggerAdapter[logging.Logger]):
    """What picows logs, mostly mistakes of clients: counted, and a debug line.

    An adapter also keeps picows from making a `Logger` for each connection.
    """

    def __init__(self, connections: Connections, log: Log) -> None:
        super().__init__(logging.getLogger("aldis.picows"), {})
        self._connections = connections
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
                self._connections.closes[int(code)] += 1
                self._lines.debug("broken frame", code=int(code), text=text)
            case _:
                self._lines.debug("picows", text=str(msg) % args if args else str(msg))

    def exception(self, msg: object, *args: object, **more: Any) -> None:
        error = sys.exception()
        self._connections.fault(error if isinstance(error, Exception) else RuntimeError(str(msg)))


class Listener:
    """The public port. Call `listen` first; it returns the port number."""

    def __init__(
        self,
        connections: Connections,
        routes: Routes,
        admission: Admission,
        log: Log,
        tuning: Tuning,
        *,
        trusted: TrustedProxies,
        proxy_protocol: bool,
    ) -> None:
        self._proxies = trusted
        self._proxy_protocol = proxy_protocol
        self._tuning = tuning
        self.admission = admission
        # Requests that became no WebSocket, by outcome.
        self.requests: Counter[str] = Counter()
        # Connections with a large reply that the client may not have read. A closed one leaves the set by itself.
        self.untaken: WeakSet[_Untaken] = WeakSet()
        self._connections = connections
        self._routes = routes
        self._log = log
        self._picows_log = _PicowsLog(connections, log)
        self._misdirected = Throttle(1.0 / MISDIRECTED_PER_SECOND)
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        # Connections that the event loop does not read yet, mostly because of TLS.
        self._beginning: set[asyncio.Task[Any]] = set()
        self._tls: dict[str, Any] = {}
        self._draining = False

    async def listen(
        self, host: str, port: int, context: ssl.SSLContext | None, given: Sequence[socket.socket] = ()
    ) -> tuple[str, int]:
        """Listen, and return address and port. With `given` sockets, which listen already, `host` and `port` are not
        used. Raises `ConfigError` when that is not possible.
        """
        if context is not None:
            self._tls = {
                "ssl": context,
                "ssl_handshake_timeout": self._tuning.handshake_timeout,
                "ssl_shutdown_timeout": self._tuning.tls_shutdown_timeout,
            }
        try:
            self._listening = list(given) or await listening_sockets(host, port)
        except (OSError, ValueError) as error:  # ValueError: a host that is no name and no address
            raise address_error("", host, port, error) from error
        for listening in self._listening:
            listening.setblocking(False)
            # Accepted connections inherit both.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                unacknowledged = int(self._tuning.unacknowledged * 1000)
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged)
            self._accepting.append(asyncio.create_task(self._accept(listening), name="aldis-accept"))
        return cast(tuple[str, int], self._listening[0].getsockname()[:2])

    def stop_accepting(self) -> None:
        """Close the port; connections stay."""
        self._draining = True
        for task in self._accepting:
            task.cancel()
        for listening in self._listening:
            listening.close()

    async def abort(self) -> None:
        """End all connections that have not sent a whole request."""
        self.admission.end_pending()
        await asyncio.gather(*self._accepting, *self._beginning, return_exceptions=True)

    # --- from the port to a whole request ---------------------------------------------------------------------------

    async def _accept(self, listening: socket.socket) -> None:
        """Accept connections for ever.

        Not `create_server`: it tells nobody of a connection before its TLS handshake is over.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._begin(*await loop.sock_accept(listening))
                for _ in range(ACCEPTED_AT_ONCE - 1):
                    self._begin(*listening.accept())
            except BlockingIOError:  # those were all
                pass
            except ConnectionError:  # the client is gone already
                pass
            except OSError as error:
                # Mostly too many files are open. Clients that say nothing should not keep the others out.
                self._picows_log.warning("a connection cannot be accepted: %s", error)
                if not self.admission.make_room():
                    await asyncio.sleep(ACCEPT_AGAIN)
            await asyncio.sleep(0)  # others have their turn

    def _begin(self, accepted: socket.socket, peer: tuple[Any, ...]) -> None:
        accepted.setblocking(False)
        address = str(peer[0])
        # Of a client behind a proxy the address is not known yet.
        network = None if self._proxies.trusts(address) else network_of(address)
        place = self.admission.arrive(network, monotonic(), accepted.close, partial(is_silent, accepted))
        if place is None:
            accepted.close()
            return
        task = asyncio.create_task(self._open(accepted, place, address))
        place.end = task.cancel
        self._beginning.add(task)
        task.add_done_callback(partial(self._begun, accepted, place))

    async def _open(self, accepted: socket.socket, place: Place, peer: str) -> None:
        """Have the event loop read a connection, after its TLS handshake if it has one."""
        loop = asyncio.get_running_loop()
        if self._proxy_protocol and self._proxies.trusts(peer):
            async with asyncio.timeout(self._tuning.handshake_timeout):
                head = await _receive(accepted, proxies.HEAD)
                source = proxies.source(head, await _receive(accepted, proxies.body_size(head)))
            if source is not None:
                peer = source
                self._identify(place, peer)
        await loop.connect_accepted_socket(partial(_Opening, self._picows, place, peer), accepted, **self._tls)

    def _identify(self, place: Place, address: str) -> None:
        """A proxy has said where a client comes from."""
        if not self._proxies.trusts(address):
            self.admission.identify(place, network_of(address), monotonic())

    def _begun(self, accepted: socket.socket, place: Place, task: asyncio.Task[Any]) -> None:
        self._beginning.discard(task)
        if task.cancelled():
            place.leave()
            accepted.close()
        elif (error := task.exception()) is not None:
            place.leave()
            accepted.close()
            if isinstance(error, OSError | BadProxyHeader):  # also TLS errors and time-outs
                self._picows_log.warning("a connection has not opened: %s", error)
            elif isinstance(error, Exception):
                self._connections.fault(error)

    def _picows(self, arrival: Arrival, place: Place, peer: str) -> asyncio.BufferedProtocol:
        """Make what `picows.ws_create_server` makes for each connection; picows has no public function for it."""
        protocol = _CountedProtocol(
            *(None, None, False),  # where a client connects to; it is none
            partial(self._enter, arrival, place, peer),
            self._picows_log,
            True,  # an exception of ours ends the connection
            self._tuning.handshake_timeout,
            *(False, 20, 20, WSAutoPingStrategy.PING_WHEN_IDLE),  # no pings: these are the hub's
            False,  # no pongs: a ping is a sign of life, which the hub wants to hear of
            self._connections.max_message_bytes,
            None,  # a client's headers
            READ_BUFFER,
        )
        protocol.place = place
        return cast(asyncio.BufferedProtocol, protocol)

    def _enter(
        self, arrival: Arrival, place: Place, peer: str, request: WSUpgradeRequest
    ) -> WSUpgradeResponseWithListener:
        place.asked()
        address = None
        if self._proxies.trusts(peer):
            address = self._proxies.client(peer, request.headers.getall("X-Forwarded-For", []))
            self._identify(place, address)
        elif self._proxy_protocol:
            address = peer
        decision = self._decide(arrival, place, request.path, request.headers)
        if isinstance(decision, UpgradeRequest):
            listener = ClientConnection(self._connections, decision, address)
            return WSUpgradeResponseWithListener(_SWITCHING[decision.dialect], listener)
        reply, untaken = self._admit(decision)
        self.requests[reply.outcome] += 1
        return WSUpgradeResponseWithListener(_response(reply), untaken)

    def _decide(self, arrival: Arrival, place: Place, path: bytes, headers: Headers) -> UpgradeRequest | HttpReply:
        try:
            decision = self._routes.decide(
                path, headers, arrival=arrival, refusal=place.refusal, draining=self._draining
            )
            if isinstance(decision, UpgradeRequest):
                wrong = decision.refusal == CloseCode.UNKNOWN_HOST
            else:
                wrong = decision.outcome == MISDIRECTED
            if wrong:
                self._tell_operator(headers)
            return decision
        except Exception as error:  # noqa: BLE001 - picows would show the text of the exception to the client
            self._connections.fault(error)
            return HttpReply(HTTPStatus.INTERNAL_SERVER_ERROR, b"", "fault", ())

    def _tell_operator(self, headers: Headers) -> None:
        """Log that a request was for a host that is not this server, and what to do if it should be."""
        unlogged = self._misdirected.pass_now()
        host = host_of(headers)
        if unlogged is not None and host is not None:
            text = (
                "refused a request for a host that is not this server; if people dial it, add it with --names; "
                "if a proxy has written it, let that pass the Host header on"
            )
            self._log.warning(text, host=host.text, unlogged_before=unlogged)

    def _admit(self, reply: HttpReply) -> tuple[HttpReply, _Untaken | None]:
        """The reply, with what holds its place if it is large; a refusal when too many wait for their clients."""
        if len(reply.body) <= AT_ONCE:
            return reply, None
        if len(self.untaken) >= self._tuning.max_untaken:
            return busy("This server has too many replies under way; try again in a moment.\n", "busy"), None
        untaken = _Untaken()
        self.untaken.add(untaken)
        return reply, untaken


class _CountedProtocol(WSProtocol):  # type: ignore[misc]  # it has no stub
    """picows, which reads no more at once than `MAX_READ`, and leaves its place at its end."""

    __slots__ = ("place",)

    def get_buffer(self, size: int) -> memoryview:
        return cast(memoryview, super().get_buffer(size)[:MAX_READ])

    def connection_lost(self, error: Exception | None) -> None:
        self.place.leave()
        super().connection_lost(error)


class _Opening(asyncio.BufferedProtocol):
    """A connection whose first line is still to come. Then picows has it, unless that line is in HTTP/1.0.

    What comes is written to the buffer of picows, which hears of it when it takes over. Its time-out runs all along.
    """

    def __init__(
        self, picows: Callable[[Arrival, Place, str], asyncio.BufferedProtocol], place: Place, peer: str
    ) -> None:
        self._peer = peer
        self._picows = picows
        self._place = place
        self._filled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sockname = transport.get_extra_info("sockname")  # nothing for a client that is gone already
        self._place.end = self._transport.abort
        self._protocol = self._picows(Arrival(*sockname[:2]) if sockname else _NOWHERE, self._place, self._peer)
        self._protocol.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)

    def get_buffer(self, size: int) -> memoryview:
        self._buffer = cast(memoryview, self._protocol.get_buffer(size))
        return self._buffer[self._filled :]

    def buffer_updated(self, size: int) -> None:
        self._filled += size
        self._place.spoke()
        came = bytes(self._buffer[: self._filled])
        line, end, _ = came.partition(b"\r\n")
        is_full = self._filled == len(self._buffer)
        if end and is_old(line):
            # Not before all has come: a socket that is closed with unread data is reset, and the reply is lost.
            if b"\r\n\r\n" in came or is_full:
                self._transport.write(_OLD_HTTP)
                self._transport.close()
        elif end or is_full:
            self._transport.set_protocol(self._protocol)
            self._protocol.buffer_updated(self._filled)


class _Untaken(WSListener):
    """Lives as long as the connection of a reply. picows calls nothing of it but this:"""

    def pause_writing(self) -> None:
        pass

    resume_writing = pause_writing


def _response(reply: HttpReply) -> WSUpgradeResponse:
    response = WSUpgradeResponse()
    response.version, response.status = b"HTTP/1.1", reply.status
    # Each its own: picows adds to them.
    response.headers, response.body = CIMultiDict(reply.headers), reply.body
    return response


def _closing(reply: HttpReply) -> bytes:
    response = _response(reply)
    response.headers["Connection"] = "close"  # as picows does
    return bytes(response.to_bytes())


_OLD_HTTP: Final = _closing(OLD_HTTP)


async def _receive(accepted: socket.socket, size: int) -> bytes:
    """Read so many bytes from a socket, and no more: what follows is not ours to read."""
    got = b""
    while len(got) < size:
        more = await asyncio.get_running_loop().sock_recv(accepted, size - len(got))
        if not more:
            raise ConnectionResetError("closed before the end of its PROXY header")
        got += more
    return got


def is_silent(accepted: socket.socket) -> bool:
    """Whether nothing has come from a client yet, as far as the kernel tells: what TLS has read, nobody else sees."""
    if sys.platform != "linux":
        return True
    try:
        info = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return True
    return not any(info[_BYTES_RECEIVED:])


async def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen on all addresses of `host`; on IPv4 as well as IPv6 when it is `::`. Raises `OSError` or `ValueError`.

    All use one port, also when `port` is 0.
    """
    dual = dual_stack(host, port)
    if dual is not None:
        return [dual]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            at = (address[0], port or (made[0].getsockname()[1] if made else 0), *address[2:])
            made.append(socket.create_server(at, family=family, backlog=LISTEN_BACKLOG))
    except BaseException:
        for listening in made:
            listening.close()
        raise
    return made


def dual_stack(host: str, port: int) -> socket.socket | None:
    """A socket on all addresses, IPv4 and IPv6, when `host` is `::`; None for every other host. Raises `OSError`.

    Without it `::` is IPv6 alone, which hardly anybody means.
    """
    if host != "::" or not socket.has_dualstack_ipv6():
        return None
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=LISTEN_BACKLOG)


def address_error(prefix: str, host: str, port: int, error: OSError | ValueError) -> ConfigError:
    """Why an address cannot be listened on, in words; `prefix` is that of the setting (`admin_`, `redirect_`)."""
    if isinstance(error, ValueError):
        return ConfigError(
            f"{prefix.removeprefix('redirect_')}host", f"{host!r} is no address and no host name: {error}"
        )
    if error.errno == errno.EADDRINUSE:
        problem = f"{host}:{port} is in use by another program; stop that one or choose another port"
        return ConfigError(f"{prefix}port", problem)
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(f"{prefix}port", f"this user may not listen on port {port}; choose one from 1024 on")
    if isinstance(error, socket.gaierror):
        return ConfigError(f"{prefix}host", f"{host!r} cannot be resolved: {error.strerror}")
    return ConfigError(f"{prefix}host", f"cannot listen on {host!r}: {error.strerror or error}")
