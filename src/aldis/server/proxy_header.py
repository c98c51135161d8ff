"""A connection from a trusted proxy, until its header of the PROXY protocol is read: that says where the client is.

Rules:

* It costs a socket and what has come of the header: no task and no transport. So a thousand that end at once keep
  nobody waiting, and each piece is read in a turn (`server.arrivals`).
* Nothing behind the header is read: that is TLS, or a request.
* A header has `handshake_timeout` to come; one that comes byte by byte, less than twice as long.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from functools import partial
from time import monotonic

from aldis.server import proxies
from aldis.server.admission import Place
from aldis.server.opening import Openings
from aldis.server.proxies import BadProxyHeader


class ProxyHeader:
    """A connection whose header has begun. Call `read` next."""

    __slots__ = ("_address", "_deadline", "_done", "_failed", "_got", "_openings", "_place", "_socket")

    def __init__(
        self,
        openings: Openings,
        accepted: socket.socket,
        place: Place,
        address: str,
        done: Callable[[str | None], object],
        failed: Callable[[BadProxyHeader | OSError], object],
    ) -> None:
        """`done` gets the address of the client; None for a connection of the proxy's own. `failed` gets why there is
        no header, when the connection is closed."""
        self._openings = openings
        self._socket = accepted
        self._place = place
        self._address = address
        self._done = done
        self._failed = failed
        self._got = b""
        self._deadline = monotonic() + openings.limits.handshake_timeout
        place.end = partial(openings.close, place, accepted)

    def read(self) -> None:
        """Read what has come. Call it in the turn of the address."""
        if self._socket.fileno() < 0:  # ended meanwhile
            return
        try:
            lacks = self._receive()
            if lacks:
                self._wait_for(lacks)
                return
            source = proxies.source(self._got[: proxies.HEAD], self._got[proxies.HEAD :])
        except (BadProxyHeader, OSError) as error:
            self._place.leave()
            self._openings.close(self._place, self._socket)
            self._failed(error)
        else:
            self._done(source)

    def _receive(self) -> int:
        """Read as much of the header as is there; return how many bytes are still to come, as far as it is known."""
        while lacks := self._lacks():
            try:
                more = self._socket.recv(lacks)
            except BlockingIOError:
                return lacks
            if not more:
                raise ConnectionResetError("closed before the end of its PROXY header")
            self._got += more
        return 0

    def _lacks(self) -> int:
        size = len(self._got)
        return proxies.HEAD - size if size < proxies.HEAD else proxies.HEAD + proxies.body_size(self._got) - size

    def _wait_for(self, lacks: int) -> None:
        now = monotonic()
        if now >= self._deadline:
            raise TimeoutError("no whole PROXY header in time")
        self._wake_at(lacks)
        self._openings.expect(self._place, now)
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def _readable(self) -> None:
        """The rest has come, or the connection is over."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._wake_at(1)
        self._openings.turn(self._place, self._address, self.read)

    def _wake_at(self, size: int) -> None:
        """Not for each byte (SO_RCVLOWAT, socket(7)); the event loop of others wakes for each."""
        if sys.platform == "linux":
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
