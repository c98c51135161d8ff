"""All open WebSockets of one server, and what they share: the hub, rates, turns, counters.

It does not know frames; `server.websocket` has one connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol, cast

from aldis.hub.bans import Ban
from aldis.hub.hub import Hub
from aldis.hub.sessions import Session
from aldis.server.in_turn import InTurn
from aldis.server.scheduler import TURN, FairScheduler

# The server measures the time of one in so many relayed messages, because measuring costs a twentieth of relaying.
MEASURED_ONE_IN: Final = 16
# Beneath TLS, uvloop lets so many bytes wait before it tells of any: 64 KiB, and the record that was one too many.
# Measured.
BENEATH_TLS: Final = 100_000
# How many seconds' worth a connection may say at once: two peers that connect send some hundred messages in a moment.
BURST_SECONDS: Final = 2
# What all connections together are read in one turn of the loop without waiting: so many tiny frames that wait, or as
# many half KiB of further reads.
CROWD: Final = 256
_FURTHER_READ: Final = 7
# When that is used up, so many connections of clients that have sent large messages wait for their turn before they are
# read at all. To read a little of one that has more to say costs 20 us, to let it wait 1 us. Hundreds may send at the
# same moment, and the others would stand behind all of them.
_MOST_SET_ASIDE: Final = 512
# Units that a connection which has used up its rate gets at a time.
PARKED_UNITS: Final = 8
# What is handled in each turn of the loop of messages of connections that say little, in units of relayed messages.
# What comes beyond waits for its turn. So a thousand clients that all want a signature checked at the same moment do
# not keep the others waiting. What is left of earlier turns counts as well, so it may be twice as much.
AT_ONCE: Final = 192
# A relayed message is one, and one more for so many bytes: 5 us. Its bytes count for much more towards its sender's
# rate, but to copy them takes hardly any time.
BYTES_AT_ONCE: Final = 8192
# A unit of another message counts for so many: it may be a question, or a signature to be checked.
OTHER: Final = 3
# So many more for messages that are surely cheap, in the form in which nearly all clients write them. To put off a
# message costs a third of relaying it, which a server with hundreds of busy clients would pay all the time; to look
# whether one is cheap costs a fiftieth.
MORE_IF_CHEAP: Final = 64
# Their first characters.
_CHEAP: Final = frozenset(
    f'{{"type":{space}"{kind}",'[: 14 + len(space)]
    for kind in ("ice-candidate", "relay", "offer", "answer", "bye", "received", "ping")
    for space in ("", " ")
)


class OpenConnection(Protocol):
    """One WebSocket."""

    kept: int
    """Bytes that are kept for the client."""

    @property
    def address(self) -> str:
        """The IP address of the client."""

    def ban(self, reason: str) -> None:
        """Close, because the operator has banned the network."""

    def limit_rate(self) -> None:
        """Keep no more to say than a new rate allows at once."""

    def check_unsent(self) -> None:
        """Look how many bytes are not sent yet."""

    def wait_to_be_read(self) -> None:
        """Be read on when it is its turn."""

    def abort(self) -> None:
        """End the connection without waiting for the client."""


class Received(Protocol):
    """See `Hub.received`."""

    def __call__(self, session: Session | None, text: str, now: float, size: int = ..., /) -> bool: ...


class Reading(Protocol):
    """Who reads one WebSocket."""

    @property
    def listener(self) -> object:
        """The `OpenConnection`, once there is one."""

    def broken(self) -> None:
        """The client has broken the protocol."""


class Turns:
    """Tells the turns of an event loop apart.

    A clock cannot: that of uvloop goes on within a turn, too. So a turn would have no bound.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], object]) -> None:
        """`soon(call)`: in the next turn of the loop."""
        self._soon = soon
        self._number = 0
        self._asked = False  # `_end` is due

    def __call__(self) -> int:
        """The number of this turn. A turn in which nobody asks has none."""
        if not self._asked:
            self._asked = True
            self._soon(self._end)
        return self._number

    def _end(self) -> None:
        self._asked = False
        self._number += 1


def lose(kind: int, frame: bytearray, headroom: int) -> None:
    """Write to a connection that is over: what was on its way is lost, too."""


def _call_soon(call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_soon(call)


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
        closing_bytes: int,
        outgoing_queue_bytes: int,
        tls: bool,
    ) -> None:
        self._close_timeout = close_timeout
        self.hub = hub
        self.max_message_bytes = max_message_bytes
        # Called with unexpected exceptions.
        self.fault = fault
        # Connections that this module closed, by close code. The hub counts those that it closes.
        self.closes: Counter[int] = Counter()
        # Kept here because every message uses it.
        self.received: Received = cast(Any, hub.received)
        # Relayed messages until one is measured. The first one is.
        self.unmeasured = 1
        self._open: set[OpenConnection] = set()
        self.limit_rates(messages_per_second, bytes_per_second)
        self.limit_queues(outgoing_queue_bytes)
        # Bytes that wait beneath TLS, of which its transport does not tell, when it tells of any.
        self.beneath = BENEATH_TLS if tls else 0
        # Which connection was heard last, and how many units it has said since another one was.
        self.speaking: OpenConnection | None = None
        self.spoken = 0
        # What may still be handled in this turn of the loop (`AT_ONCE`), and which one that is.
        self.at_once = AT_ONCE
        self._turn = -1
        self.turn: Callable[[], int] = Turns(_call_soon)
        # Which one is being read, or was last; and which was read once more last, without another one between. Reads do
        # not clear the second, which would cost all of them: at worst a connection that was read again in an earlier
        # turn waits in a crowd, too.
        self.reading: Reading | None = None
        self.further: Reading | None = None
        self.crowd = 0
        self._crowded = -1
        self._may_set_aside = 0
        self.large: dict[OpenConnection, None] = {}
        """The connections whose clients have sent large messages, but for most of those that wait for their turn."""
        self.scheduler = FairScheduler(
            soon=_call_soon,
            later=lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call),
            clock=monotonic,
        )
        self.in_turn: Callable[[Callable[[], object]], None] = InTurn(fault)
        """Handles the ends of connections."""
        self.writable_in_turn: Callable[[Callable[[], object]], None] = InTurn(fault)
        """Sends what waits for clients that read again: each may have missed a quarter of its queue."""
        self.use = hub.memory.use
        """Where the memory of all connections counts."""
        self.slow: set[OpenConnection] = set()
        """The connections with unsent bytes."""
        # When to give up each connection that is being closed.
        self.due: dict[OpenConnection, float] = {}
        # What is kept for each of those, the oldest first.
        self._closing: dict[OpenConnection, int] = {}
        self._closing_bytes = 0
        self._most_closing = closing_bytes
        self._empty = asyncio.Event()
        self._empty.set()

    def limit_rates(self, messages_per_second: int, bytes_per_second: int) -> None:
        """Set the rate of each connection, also of the open ones."""
        # In units: a message is one, or as many as its bytes are worth.
        self.units_per_second = float(messages_per_second)
        self.burst = BURST_SECONDS * messages_per_second
        self.reserve = self.burst // 2
        self.parked = min(PARKED_UNITS, self.burst)
        self.unit_bytes = max(bytes_per_second // messages_per_second, 1)
        for connection in self._open:
            connection.limit_rate()

    def limit_queues(self, outgoing_queue_bytes: int) -> None:
        """Set how many bytes may wait for one slow client."""
        self.most_unsent = outgoing_queue_bytes
        # With this many a connection is full, until a quarter of them is left. The hub sends a full connection no
        # message that can wait. So a burst of presence that a client asked for does not count as slow reading.
        self.full_at = outgoing_queue_bytes // 4

    def goes_now(self, text: str) -> bool:
        """Whether a message may be handled in this turn of the loop, if its connection has said little before.

        Callers look at `at_once` first: as long as some of it is left, nobody has to ask which turn this is.
        """
        if self.spoken > TURN:
            return False
        if self.at_once <= 0:
            turn = self.turn()
            if turn != self._turn:
                self._turn, self.at_once = turn, AT_ONCE
        return self.at_once > 0 or (self.at_once > -MORE_IF_CHEAP and (text[:14] in _CHEAP or text[:15] in _CHEAP))

    def further_read(self) -> None:
        """A connection is read once more, since it had more to say than one read takes."""
        self.further = self.reading
        self.crowd += _FURTHER_READ

    def kept_waiting(self) -> None:
        """A message has been read, and waits."""
        self.crowd += 1

    def is_crowded(self) -> bool:
        """Whether connections have been read so much in this turn of the loop that the next ones have to wait. To be
        asked when `crowd` is above `CROWD`."""
        turn = self.turn()
        if turn != self._crowded:  # most of it was in other turns
            self._crowded, self.crowd = turn, 0
            self._may_set_aside = _MOST_SET_ASIDE
        if self.crowd <= CROWD:
            return False
        if self.large and self._may_set_aside:
            self._set_aside()
        return True

    def _set_aside(self) -> None:
        """Let connections whose clients have sent large messages wait for their turn."""
        current = None if self.reading is None else self.reading.listener
        back: dict[OpenConnection, None] = {}
        count = min(len(self.large), self._may_set_aside)
        self._may_set_aside -= count
        for _ in range(count):
            connection, _none = self.large.popitem()
            if connection is current:  # its read has begun
                back[connection] = None
            else:
                try:
                    connection.wait_to_be_read()
                except Exception as error:  # noqa: BLE001 - a bug: it must not end the connection that is being read
                    self.fault(error)
        self.large |= back

    def __len__(self) -> int:
        """The number of open WebSockets, including those that are closing."""
        return len(self._open)

    def measure(self, began: float) -> None:
        """Record the time of one relayed message. `began` is when it was read."""
        self.unmeasured = MEASURED_ONE_IN
        self.hub.stats.relay_seconds.observe(monotonic() - began)

    def ban(self, ban: Ban) -> int:
        """End the connections that a ban of a network fits, and return how many there were."""
        fitting = [connection for connection in self._open if self.hub.ban_of(connection.address) is ban]
        for connection in fitting:
            connection.ban(ban.text)
        return len(fitting)

    def opened(self, connection: OpenConnection) -> None:
        """A WebSocket has opened."""
        self._open.add(connection)
        self._empty.clear()

    def closing(self, connection: OpenConnection) -> None:
        """A close has been sent or received."""
        if connection in self._open:
            self.due.setdefault(connection, monotonic() + self._close_timeout)
            self._forget(connection)
            self._closing[connection] = connection.kept
            self._closing_bytes += connection.kept
            while self._closing_bytes > self._most_closing:
                oldest = next(iter(self._closing))
                self._forget(oldest)
                oldest.abort()

    def _forget(self, connection: OpenConnection) -> None:
        self._closing_bytes -= self._closing.pop(connection, 0)

    def gone(self, connection: OpenConnection) -> None:
        """The connection is over."""
        self._open.discard(connection)
        self.slow.discard(connection)
        self.large.pop(connection, None)
        if self.speaking is connection:
            self.speaking = None
        self.due.pop(connection, None)
        self._forget(connection)
        if not self._open:
            self._empty.set()

    def tick(self, now: float) -> None:
        """Look at slow connections, and abort those that do not answer a close. Call this about once a second."""
        for slow in list(self.slow):
            slow.check_unsent()
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
