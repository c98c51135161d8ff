"""The public port: it listens, and gives each request its reply or its WebSocket.

Rules: no exception of this module reaches picows, which would show its text to the client. What picows logs about
clients is counted, and at most a debug line.

What picows does by itself: it takes requests of at most 16 KiB and 128 headers, refuses all but GET without a body in
HTTP/1.1 (400), replies with `Connection: close`, and closes. It ignores what follows such a request.

What it does not do: wait for a request, and let others have their turn (`server.opening`); tell who comes in HTTP/1.0
how to set up a proxy, and limit how long a client may take to read its reply (`unacknowledged`, `max_untaken`).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Sequence, Sized
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any, Final, cast
from weakref import WeakSet

from multidict import CIMultiDict
from picows import WSAutoPingStrategy, WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

from aldis.hub import dialects
from aldis.hub.networks import network_of
from aldis.protocol.codes import CloseCode
from aldis.server.acceptor import ACCEPT_AGAIN
from aldis.server.admission import NO_HEADER, Admission, Place
from aldis.server.arrivals import Arrivals
from aldis.server.certificates.challenges import Challenges
from aldis.server.certificates.connections import Challenged, challenge_context
from aldis.server.connections import Connections
from aldis.server.http import NO_TLS, OLD_HTTP, Headers, HttpReply, busy, host_of
from aldis.server.logs import Log, Throttle
from aldis.server.names import Arrival
from aldis.server.opening import Opening, OpeningLimits, Openings, Silent
from aldis.server.picows_protocol import READ_BUFFER, PicowsLog, PicowsProtocol, TlsProtocol
from aldis.server.proxies import BadProxyHeader, TrustedProxies
from aldis.server.proxy_header import ProxyHeader
from aldis.server.routes import MISDIRECTED, Routes, UpgradeRequest
from aldis.server.sockets import address_error, has_left, is_silent, listening_sockets
from aldis.server.tls_reading import open_with_tls
from aldis.server.tuning import Tuning
from aldis.server.websocket import ClientConnection
from aldis.tcp_segments import limit_segments

# A reply of this size at most never waits: it fits into the smallest buffer that the kernel has (tcp(7), tcp_wmem).
AT_ONCE: Final = 4096
# Log lines about requests for other hosts: one tells the operator what to do, and any client can cause a thousand.
MISDIRECTED_PER_SECOND: Final = 0.1
# Seconds between two such lines about a proxy: each of its connections would be one.
NO_HEADER_SECONDS: Final = 60.0
# Connections that are accepted before those that are open have their turn: a twentieth of a millisecond.
ACCEPTED_AT_ONCE: Final = 2
# Seconds that the loop needs for a connection after the turn in which opening it was started: to open it, to read what
# it says first, and to end it.
OPENING: Final = 0.0003
# Turns of the event loop from the acceptance of a connection, by a server of asyncio or uvloop, to `connection_made`.
ACCEPT_TURNS: Final = 8
# How often the end of waiting for requests is looked for, in seconds.
SETTLE_LOOK: Final = 0.01
# For a connection without a local address; no host fits it.
_NOWHERE: Final = Arrival("", 0)
# What the kernel takes from a client before it is read (SO_RCVBUF; Linux doubles it). So little is read in one go, and
# picows' buffer, which never shrinks, stays small. On a line of 100 ms it allows more than `bytes_per_second`.
RECEIVE_BUFFER: Final = 32 * 1024
# What the kernel takes for a client that does not read (SO_SNDBUF; Linux doubles it). Left alone, it takes up to 4 MB
# for each connection, before the server knows that anything waits. On a line of 100 ms it allows 2 MB a second.
SEND_BUFFER: Final = 128 * 1024
# One response for all connections of a dialect: picows sets the accept key and sends it at once.
_SWITCHING: Final = {
    dialect: WSUpgradeResponse.create_101_response(
        None if dialect.subprotocol is None else {"Sec-WebSocket-Protocol": dialect.subprotocol}
    )
    for dialect in dialects.ALL
}


class Listener:
    """The public port. Call `listen` first; it returns the port number."""

    def __init__(
        self,
        connections: Connections,
        routes: Routes,
        admission: Admission,
        log: Log,
        tuning: Tuning,
        limits: OpeningLimits,
        *,
        trusted: TrustedProxies,
        proxy_protocol: bool,
        challenges: Challenges | None = None,
    ) -> None:
        self._challenges = challenges
        self._proxies = trusted
        self._proxy_protocol = proxy_protocol
        self._tuning = tuning
        self.admission = admission
        # Requests that became no WebSocket, by outcome.
        self.requests: Counter[str] = Counter()
        # Connections with a large reply that the client may not have read. A closed one leaves the set by itself.
        self.untaken: WeakSet[_Untaken] = WeakSet()
        self._openings = Openings(admission, Arrivals(connections.scheduler), limits)
        self._connections = connections
        self._routes = routes
        self._log = log
        self._picows_log = PicowsLog(connections, log)
        self._misdirected = Throttle(1.0 / MISDIRECTED_PER_SECOND)
        self._no_header = Throttle(NO_HEADER_SECONDS)
        self._listening: list[socket.socket] = []
        # The sockets that take no connections for a moment, because none can be accepted.
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        # Connections that the event loop does not read yet, mostly because of TLS; the oldest first.
        self._beginning: dict[asyncio.Task[Any], Place] = {}
        # Connections that have not opened, and are not closed yet.
        self._unopened = 0
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
                "context": context,
                "handshake_timeout": self._openings.limits.handshake_timeout,
                "shutdown_timeout": self._tuning.tls_shutdown_timeout,
            }
        try:
            self._listening = list(given) or await listening_sockets(host, port)
        except (OSError, ValueError) as error:  # ValueError: a host that is no name and no address
            raise address_error("", host, port, error) from error
        for listening in self._listening:
            listening.setblocking(False)
            # Accepted connections inherit all of it.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            limit_segments(listening, str(listening.getsockname()[0]))
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                unacknowledged = int(self._tuning.unacknowledged * 1000)
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unacknowledged)
            self._accept_from(listening)
        return cast(tuple[str, int], self._listening[0].getsockname()[:2])

    def limit(self, limits: OpeningLimits) -> None:
        """Use these limits for the connections to come."""
        self._openings.limits = limits
        if self._tls:
            self._tls["handshake_timeout"] = limits.handshake_timeout

    def stop_accepting(self, *, draining: bool = True) -> None:
        """Close the port; connections stay. `draining`: requests that are not whole yet are refused.

        Whoever gave the sockets has them still: what waits in their queues is not lost.
        """
        self._draining = self._draining or draining
        listening, self._listening = self._listening, []
        for each in listening:
            asyncio.get_running_loop().remove_reader(each)
            if (timer := self._resting.pop(each, None)) is not None:
                timer.cancel()
            each.close()

    async def settle(self, others: Sized = ()) -> None:
        """Wait until accepted connections have sent their requests, large replies are read and `others` is empty.

        After `handshake_timeout`, requests are refused.
        """
        end = monotonic() + self._openings.limits.handshake_timeout
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        # Nothing tells when the number changes, and this is done once in the life of a process.
        while (self.admission.pending or self.untaken or others) and monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(SETTLE_LOOK)
        self._draining = True

    async def abort(self) -> None:
        """End all connections that have not sent a whole request."""
        self.admission.end_pending()
        await asyncio.gather(*self._beginning, return_exceptions=True)
        while self._unopened:  # noqa: ASYNC110 - some of them are closed in each turn of the loop
            await asyncio.sleep(0)

    # --- from the port to a whole request ---------------------------------------------------------------------------

    def _accept_from(self, listening: socket.socket) -> None:
        """Accept connections until the socket is closed.

        Not `create_server`: it tells nobody of a connection before its TLS handshake is over. Not `sock_accept`: when
        that is cancelled, a connection that it has accepted is lost.
        """
        self._resting.pop(listening, None)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept some connections; the event loop calls this again while there are more."""
        try:
            for _ in range(ACCEPTED_AT_ONCE):
                self._begin(*listening.accept())
        except BlockingIOError:  # those were all
            pass
        except ConnectionError:  # the client is gone already
            pass
        except OSError as error:
            # Mostly too many files are open. Clients that say nothing should not keep the others out.
            self._picows_log.warning("a connection cannot be accepted: %s", error)
            if not self.admission.make_room():
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                self._resting[listening] = loop.call_later(ACCEPT_AGAIN, self._accept_from, listening)

    def _begin(self, accepted: socket.socket, peer: tuple[Any, ...]) -> None:
        accepted.setblocking(False)
        address = str(peer[0])
        # Of a client behind a proxy the address is not known yet.
        proxied = self._proxies.trusts(address)
        network = None if proxied else network_of(address, loopback=False)
        source = network_of(address, loopback=True)
        now, silent = monotonic(), partial(is_silent, accepted)
        place = self.admission.arrive(network, now, accepted.close, silent, source, proxied=proxied)
        self._tell_refusal(place, address)
        if place is None:
            accepted.close()
            return
        self._openings.expect(place, now)
        Silent(self._openings, accepted, place, address, partial(self._start, accepted, place, address))

    def _start(self, accepted: socket.socket, place: Place, address: str) -> None:
        """A client has said something."""
        if self._tls and has_left(accepted):
            # It has waited for too long. After a restart of the server that may be half of all, and a handshake costs a
            # millisecond, which is worth more to those that still wait.
            place.leave()
            accepted.close()
            return
        if not (self._proxy_protocol and self._proxies.trusts(address)):
            self._open_soon(accepted, place, address)
            return

        def read(source: str | None) -> None:
            if source is not None:
                self._identify(place, source)
            self._open_soon(accepted, place, address if source is None else source)

        ProxyHeader(self._openings, accepted, place, address, read, partial(self._tell_unopened, address)).read()

    def _open_soon(self, accepted: socket.socket, place: Place, address: str) -> None:
        """Open a connection. Its address is known, as far as somebody tells it before its request."""
        # Without TLS it opens at once.
        if self._tls and len(self._beginning) >= self._openings.limits.tls_handshakes:
            self.admission.end_in_its_handshake(self._beginning.pop(next(iter(self._beginning))))
        self._openings.arrivals.charge(OPENING)
        task = asyncio.create_task(self._open(accepted, place, address))
        place.end = task.cancel
        self._beginning[task] = place
        task.add_done_callback(partial(self._begun, accepted, place, address))

    async def _open(self, accepted: socket.socket, place: Place, peer: str) -> None:
        """Have the event loop read a connection, after its TLS handshake if it has one."""
        if self._tls and self._challenges is not None and self._challenges.looks_at_hellos:
            async with asyncio.timeout(self._openings.limits.handshake_timeout):
                context = await challenge_context(accepted, self._challenges)
            if context is not None:
                await open_with_tls(Challenged(place), accepted, self._connections, **{**self._tls, "context": context})
                return
        if self._tls:
            await open_with_tls(self._opening(place, peer), accepted, self._connections, **self._tls)
        else:
            opening = partial(self._opening, place, peer)
            await asyncio.get_running_loop().connect_accepted_socket(opening, accepted)

    def _opening(self, place: Place, peer: str) -> Opening:
        return Opening(self._openings, self, place, peer)

    def _identify(self, place: Place, address: str) -> None:
        """A proxy has said where a client comes from."""
        if not self._proxies.trusts(address) and place.refusal is None:
            self.admission.identify(place, network_of(address, loopback=False), monotonic())
            self._tell_refusal(place, address)

    def _tell_refusal(self, place: Place | None, address: str) -> None:
        """Log whom the limits refuse, so that the operator finds out whom to ban."""
        if place is None or place.refusal is not None:
            self._log.debug("refused a connection", reason=place.refusal if place else "untold", address=address)

    def _begun(self, accepted: socket.socket, place: Place, address: str, task: asyncio.Task[Any]) -> None:
        self._beginning.pop(task, None)
        if task.cancelled() or task.exception() is not None:
            # Hundreds may end together, and to free what TLS keeps for each is most of the work.
            self._unopened += 1
            self._connections.in_turn(partial(self._not_opened, accepted, place, address, task))

    def _not_opened(self, accepted: socket.socket, place: Place, address: str, task: asyncio.Task[Any]) -> None:
        self._unopened -= 1
        place.leave()
        accepted.close()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._tell_unopened(address, error)
        if error is not None:
            # Its frames hold the future that holds the error, and the buffers of TLS (`server.garbage`).
            error.__traceback__ = None

    def _tell_unopened(self, address: str, error: Exception) -> None:
        if isinstance(error, BadProxyHeader):
            self._tell_no_header(address, error)
        elif isinstance(error, OSError):  # also TLS errors and time-outs
            self._picows_log.warning("a connection has not opened: %s", error)
        else:
            self._connections.fault(error)

    def _tell_no_header(self, address: str, error: BadProxyHeader) -> None:
        """Count and log that a trusted proxy does not speak as the settings say: no client behind it gets in."""
        self.admission.refusals[NO_HEADER] += 1
        unlogged = self._no_header.pass_now()
        if unlogged is not None:
            text = (
                "a trusted proxy does not speak the PROXY protocol, so its connections are closed: have it send the "
                "header of version 2, or turn proxy_protocol off"
            )
            self._log.warning(text, address=address, reason=str(error), unlogged_before=unlogged)

    def tick(self, now: float) -> None:
        """End the connections that take too long to send their request. Call this about once a second."""
        if self._openings.tick(now):
            asyncio.get_running_loop().call_soon(self.tick, now)

    # --- a whole request (`opening.Answering`) ----------------------------------------------------------------------

    def refuse_old(self, transport: asyncio.Transport) -> None:
        """See `opening.Answering`."""
        transport.write(_OLD_HTTP)
        transport.close()

    def refuse_tls(self, transport: asyncio.Transport) -> None:
        """See `opening.Answering`."""
        transport.write(_NO_TLS)
        transport.close()

    def answer(self, transport: asyncio.Transport, place: Place, address: str) -> asyncio.BufferedProtocol:
        """See `opening.Answering`. Makes what `picows.ws_create_server` makes for each connection; picows has no public
        function for it."""
        sockname = transport.get_extra_info("sockname")  # nothing for a client that is gone already
        arrival = Arrival(*sockname[:2]) if sockname else _NOWHERE
        protocol = (TlsProtocol if self._tls else PicowsProtocol)(
            *(None, None, False),  # where a client connects to; it is none
            partial(self._enter, arrival, place, address),
            self._picows_log,
            True,  # an exception of ours ends the connection
            None,  # the request is there
            *(False, 20, 20, WSAutoPingStrategy.PING_WHEN_IDLE),  # no pings: these are the hub's
            False,  # no pongs: a ping is a sign of life, which the hub wants to hear of
            self._connections.max_message_bytes,
            None,  # a client's headers
            READ_BUFFER,
        )
        protocol.begin(place, self._connections)
        protocol.connection_made(transport)
        return cast(asyncio.BufferedProtocol, protocol)

    def fault(self, error: Exception) -> None:
        """See `opening.Answering`."""
        self._connections.fault(error)

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
_NO_TLS: Final = _closing(NO_TLS)
