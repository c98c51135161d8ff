"""What the admin port may take of the event loop: the public port comes first.

Rules:

* One request is handled at a time, and `REST` seconds lie between two of them: a page of metrics takes a millisecond,
  and so does a long list. Addresses take turns. A request whose client has left is not handled.
* There are at most `MAX_OPEN` connections. For a further one, one of the address with the most is closed: the oldest of
  those without a request, if it has any. So a flood keeps no tool of the operator's out that comes from elsewhere, and
  takes no files from the public port. The addresses of one customer of a provider (IPv6: a /48) are one address.
* A connection has `REQUEST_SECONDS` for its first request, and `IDLE_SECONDS` for each further one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web

from aldis.hub.networks import customer_of

# A browser with the operator's page has six connections, and each tool one or two.
MAX_OPEN: Final = 64
# Seconds. 100 requests a second are more than all tools of an operator make.
REST: Final = 0.01
REQUEST_SECONDS: Final = 10.0
# Prometheus asks every 15 to 60 s, and keeps its connection.
IDLE_SECONDS: Final = 75.0


class AdminGate:
    """The connections of one admin port. `protocol` makes the one of aiohttp for a new connection; `crowded_out` is
    called for each that is closed for another one."""

    def __init__(self, protocol: Callable[[], asyncio.Protocol], crowded_out: Callable[[], None]) -> None:
        self._protocol = protocol
        self._crowded_out = crowded_out
        # By address, in the order of their coming.
        self._open: dict[bytes | str, dict[_Connection, None]] = {}
        # By address, the next one first.
        self._waiting: OrderedDict[bytes | str, deque[tuple[web.BaseRequest, asyncio.Future[None]]]] = OrderedDict()
        self._resting: asyncio.TimerHandle | None = None

    def __call__(self) -> asyncio.Protocol:
        """A protocol for a new connection."""
        return _Connection(self, self._protocol())

    @property
    def crowded(self) -> bool:
        """Whether requests wait for their turns."""
        return bool(self._waiting)

    def close(self) -> None:
        """Let nothing more in."""
        if self._resting is not None:
            self._resting.cancel()
        for waiting in self._waiting.values():
            for _, turn in waiting:
                turn.cancel()
        self._waiting.clear()

    async def handle(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Handle a request in its turn. aiohttp's middleware."""
        transport = request.transport
        connection = None if transport is None else transport.get_protocol()
        if not isinstance(connection, _Connection):  # the client has left
            return web.Response(status=503)
        connection.begin()
        try:
            await self._turn(request, connection.address)
            return web.Response(status=503) if request.transport is None else await handler(request)
        finally:
            connection.done()

    async def _turn(self, request: web.BaseRequest, address: bytes | str) -> None:
        loop = asyncio.get_running_loop()
        if self._resting is None:
            self._resting = loop.call_later(REST, self._rested)
            return
        turn = loop.create_future()
        self._waiting.setdefault(address, deque()).append((request, turn))
        await turn

    def _rested(self) -> None:
        self._resting = None
        while self._waiting and self._resting is None:
            address, waiting = next(iter(self._waiting.items()))
            request, turn = waiting.popleft()
            if waiting:
                self._waiting.move_to_end(address)
            else:
                del self._waiting[address]
            if not turn.done():
                turn.set_result(None)
                if request.transport is not None:
                    self._resting = asyncio.get_running_loop().call_later(REST, self._rested)

    def enter(self, connection: _Connection) -> None:
        """Count a new connection, and close another one if there are too many."""
        if sum(map(len, self._open.values())) >= MAX_OPEN:
            most = max(self._open.values(), key=len)
            next((one for one in most if not one.busy), next(iter(most))).abort()
            self._crowded_out()
        self._open.setdefault(connection.address, {})[connection] = None

    def leave(self, connection: _Connection) -> None:
        """Count a connection no longer. A second call does nothing."""
        there = self._open.get(connection.address)
        if there is not None and there.pop(connection, connection) is None and not there:
            del self._open[connection.address]


class _Connection(asyncio.Protocol):
    """A connection of aiohttp's, with its place at the gate."""

    def __init__(self, gate: AdminGate, protocol: asyncio.Protocol) -> None:
        self._gate = gate
        self._inner = protocol
        self.address: bytes | str = ""
        """Where it comes from, as it takes turns."""
        self.busy = False
        """Whether a request waits or is handled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")  # nothing of a client that has left already
        address = peer[0] if peer else ""
        self.address = customer_of(address) or address
        self._gate.enter(self)
        self._expect(REQUEST_SECONDS)
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._gate.leave(self)
        self._timer.cancel()
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def begin(self) -> None:
        """A request is to be handled."""
        self._goes_on(busy=True)

    def done(self) -> None:
        """The request was handled."""
        self._goes_on(busy=False)

    def _goes_on(self, *, busy: bool) -> None:
        self.busy = busy
        if not self._transport.is_closing():
            self._timer.cancel()
            self._expect(IDLE_SECONDS)

    def abort(self) -> None:
        """End the connection at once."""
        self._gate.leave(self)
        self._transport.abort()

    def _expect(self, seconds: float) -> None:
        self._timer: Any = asyncio.get_running_loop().call_later(seconds, self.abort)
