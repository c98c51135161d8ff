"""The router: it finds the connection of each address for the hub.

The hub names addresses, and the router knows which connection has each of them. `LocalRouter` is for a single process.
A router for several processes has to pass tests/contract/test_router.py, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.sessions import Delivered, Receipt, RelayResult, Session
from aldis.hub.watchers import Watchers
from aldis.protocol import messages as m

_SENT: Final = RelayResult.SENT

Hold: TypeAlias = Callable[[Session, bytearray, Receipt, Delivered], RelayResult]
"""Takes an encoded message for a session that is detached or does not read; the rest is as for `Router.deliver`."""


class Router(Protocol):
    """Which connection has which address. No call waits."""

    def locate(self, user_id: str) -> m.PresenceMessage:
        """Whether a user is online, with which key and devices, as far as this process knows."""

    def deliver(self, message: m.Relayed, receipt: Receipt, done: Delivered) -> RelayResult:
        """Hand a message to the session that has its address, `message.to`.

        After PENDING, `done(receipt, result)` is called exactly once, later, with another result. After the others it
        is never called. Messages from one sender to one address arrive in order. LIMITED: the message is refused,
        because the sender has its share of what waits for the recipient; the recipient and what others sent stay.
        """

    def publish(self, user_id: str) -> None:
        """A user has come, gone or changed: tell its watchers, wherever they are."""


class RouterFactory(Protocol):
    """Makes the router of a hub. `hold` takes a message for a session that has lost its connection or does not read."""

    def __call__(self, presence: Presence, watchers: Watchers, outgoing: Outgoing, *, hold: Hold) -> Router: ...


class LocalRouter:
    """The router of a process that has all sessions. See `Router` for each call."""

    def __init__(self, presence: Presence, watchers: Watchers, outgoing: Outgoing, *, hold: Hold) -> None:
        self._presence = presence
        self._newest = presence.newest
        self._outgoing = outgoing
        self._hold = hold
        self._watchers = watchers
        self._owed = watchers.owed

    def locate(self, user_id: str) -> m.PresenceMessage:
        return self._presence.of(user_id)

    def deliver(self, message: m.Relayed, receipt: Receipt, done: Delivered) -> RelayResult:
        target = self._newest(message.to) or self._presence.find(message.to)
        if target is None:
            return RelayResult.ABSENT
        if self._owed:
            self._watchers.tell_before(receipt[0].user_id, target)
        connection = target.connection
        if connection is not None and not connection.full:
            self._outgoing.send_numbered(target, message)
            return _SENT
        return self._hold(target, self._outgoing.encode(message, target.dialect), receipt, done)

    def publish(self, user_id: str) -> None:
        self._watchers.announce(user_id)
