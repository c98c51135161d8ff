"""A connection from its acceptance to its whole request, before it is a WebSocket or gets a reply.

Rules:

* A connection that has sent nothing costs a socket and its place: no transport, no buffer, no TLS.
* What costs time waits for its turn (`server.arrivals`): to open a connection, and to answer its request.
* A request is kept as it comes, and picows gets it whole. Of requests longer than `SHORT_HEAD` that are not whole yet,
  `partial_requests_bytes` are kept in all; beyond, the oldest of them goes. Short ones are bounded by the connections.
* A client has `handshake_timeout` seconds to say something, and as long to send its whole request, without the time
  that it waits for its turn.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final, Protocol, cast

from aldis.server.admission import Admission, Place
from aldis.server.arrivals import Arrivals
from aldis.server.http import is_old, is_tls
from aldis.server.picows_protocol import MAX_READ

# What picows takes as a request (RFC 9112 section 3 asks for 8,000 bytes of a request line at least).
MAX_HEAD: Final = 16 * 1024
# Nearly all requests are shorter than this.
SHORT_HEAD: Final = 2048
_END: Final = b"\r\n\r\n"
# Bytes of TLS that the event loop takes from the kernel before they are read. Its own 256 KiB would be kept for each
# client that is not read on.
UNREAD: Final = 8 * 1024
# Connections that are ended in one turn of the loop because they are late: a third of a millisecond. Of those that came
# together, thousands are late together.
LATE_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningLimits:
    """See the settings of these names."""

    handshake_timeout: float
    tls_handshakes: int
    partial_requests_bytes: int


class Openings:
    """What all connections share that have not sent their request yet."""

    def __init__(self, admission: Admission, arrivals: Arrivals, limits: OpeningLimits) -> None:
        self.admission = admission
        self.arrivals = arrivals
        self.limits = limits
        """They may be replaced: what is under way has its time-out still."""
        # Until when each has to go on, in the order of their turns to speak. All have the same time-out, unless it was
        # made shorter a moment ago; then those with the earlier one come first.
        self._due: dict[Place, float] = {}
        # Long heads that are not whole, the oldest first, and their bytes.
        self._long: dict[Place, int] = {}
        self._long_bytes = 0
        # All connections read into this one, and each keeps what it has read before the next one reads.
        self.buffer = memoryview(bytearray(MAX_READ))

    def expect(self, place: Place, now: float) -> None:
        """The client has to go on."""
        self._due.pop(place, None)
        self._due[place] = now + self.limits.handshake_timeout

    def turn(self, place: Place, address: str, work: Callable[[], object]) -> None:
        """The client has done its part. Do ours in its turn."""
        self.forget(place)
        self.arrivals.add(address, work)

    def grown(self, place: Place, size: int) -> None:
        """The head of a request has so many bytes, and goes on."""
        if size > SHORT_HEAD:
            self._long_bytes += size - self._long.get(place, 0)
            self._long[place] = size
            while self._long_bytes > self.limits.partial_requests_bytes:
                oldest = next(iter(self._long))
                self.forget(oldest)  # its protocol hears of its end only later
                self.admission.end_for_its_head(oldest)

    def forget(self, place: Place) -> None:
        """The client has done its part, or is gone."""
        self._due.pop(place, None)
        self._long_bytes -= self._long.pop(place, 0)

    def close(self, place: Place, accepted: socket.socket) -> None:
        """End a connection that the event loop has no transport for yet."""
        self.forget(place)
        if accepted.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(accepted)
            accepted.close()

    def tick(self, now: float) -> bool:
        """End some of the connections that take too long. Call this about once a second, and in the next turn of the
        loop when it returns True: there are more."""
        for _ in range(LATE_AT_ONCE):
            place, due = next(iter(self._due.items()), (None, 0.0))
            if place is None or now < due:
                return False
            del self._due[place]
            self.admission.end_late(place)
        return True


class Silent:
    """A connection that has said nothing yet."""

    __slots__ = ("_address", "_open", "_openings", "_place", "_socket")

    def __init__(
        self, openings: Openings, accepted: socket.socket, place: Place, address: str, opened: Callable[[], object]
    ) -> None:
        """`opened` is called in the turn of `address` when the client has said something."""
        self._openings = openings
        self._socket = accepted
        self._place = place
        self._address = address
        self._open = opened
        place.end = partial(openings.close, place, accepted)
        asyncio.get_running_loop().add_reader(accepted, self._spoken)

    def _spoken(self) -> None:
        """Something has come, or the client is gone."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._openings.turn(self._place, self._address, self._proceed)

    def _proceed(self) -> None:
        if self._socket.fileno() < 0:  # ended meanwhile
            return
        try:
            gone = not self._socket.recv(1, socket.MSG_PEEK)
        except OSError:
            gone = True
        if gone:
            self._place.leave()
            self._openings.close(self._place, self._socket)
        else:
            self._place.spoke()
            self._open()


class Answering(Protocol):
    """Who answers a request: the listener."""

    def refuse_old(self, transport: asyncio.Transport) -> None:
        """Answer a request in HTTP/1.0, and close."""

    def refuse_tls(self, transport: asyncio.Transport) -> None:
        """Answer a TLS handshake where none belongs, and close."""

    def answer(self, transport: asyncio.Transport, place: Place, address: str) -> asyncio.BufferedProtocol:
        """A protocol for this transport, which answers the request that it gets."""

    def fault(self, error: Exception) -> None:
        """An unexpected exception."""


class Opening(asyncio.BufferedProtocol):
    """A connection whose request is still to come, or to be answered."""

    def __init__(self, openings: Openings, answering: Answering, place: Place, address: str) -> None:
        self._openings = openings
        self._answering = answering
        self._place = place
        self._address = address
        self._head = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._place.end = self._transport.abort
        limit = getattr(transport, "set_read_buffer_limits", None)
        if limit is not None:  # it is one of TLS
            limit(high=UNREAD)
        self._openings.expect(self._place, monotonic())

    def connection_lost(self, error: Exception | None) -> None:
        self._openings.forget(self._place)
        self._place.leave()

    def get_buffer(self, size: int) -> memoryview:
        return self._openings.buffer

    def buffer_updated(self, size: int) -> None:
        head = self._head
        start = max(0, len(head) - len(_END) + 1)
        head += self._openings.buffer[:size]
        # The end of a request never comes from a client that speaks TLS to a port without it.
        if len(head) >= MAX_HEAD or head.find(_END, start) >= 0 or is_tls(head):
            self._transport.pause_reading()
            self._openings.turn(self._place, self._address, self._proceed)
        else:
            self._openings.grown(self._place, len(head))

    def _proceed(self) -> None:
        # When opening is cancelled (the server stops), uvloop closes the transport, and neither calls it closing nor
        # tells its protocol.
        if self._transport.is_closing() or self._transport.get_extra_info("socket") is None:
            return
        try:
            if is_old(bytes(self._head.partition(b"\r\n")[0])):
                self._answering.refuse_old(self._transport)
            elif is_tls(self._head):
                self._answering.refuse_tls(self._transport)
            else:
                self._hand_over()
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and costs this connection only
            self._answering.fault(error)
            self._transport.abort()

    def _hand_over(self) -> None:
        protocol = self._answering.answer(self._transport, self._place, self._address)
        self._transport.set_protocol(protocol)
        # Before it gets its bytes, since it may put off to read more.
        self._transport.resume_reading()
        rest = memoryview(self._head)
        while rest and not self._transport.is_closing():
            buffer = cast(memoryview, protocol.get_buffer(len(rest)))
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            protocol.buffer_updated(size)
            rest = rest[size:]
