"""The router: it finds the connection of each address for the hub.

The hub names addresses, and the router knows which connection has each of them. `LocalRouter` is for a single process,
`hub.cluster_router` for one of several. Both pass tests/contract/test_router.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.sessions import HEADROOM, TEXT, Delivered, Receipt, RelayResult, Session
from aldis.hub.watchers import Watchers
from aldis.protocol import messages as m
from aldis.protocol.privacy import Privacy

_SENT: Final = RelayResult.SENT

Hold: TypeAlias = Callable[[Session, bytearray, Receipt, Delivered], RelayResult]
"""Takes an encoded message for a session; the rest is as for `Router.deliver`."""


class Router(Protocol):
    """Which connection has which address. No call waits."""

    def locate(self, user_id: str, viewer: Session) -> m.PresenceMessage:
        """Whether a user is online, with which key and devices, as far as this process knows and a session may see."""

    def deliver(self, message: m.Relayed, receipt: Receipt, done: Delivered) -> RelayResult:
        """Hand a message to the session that has its address, `message.to`.

        After PENDING, `done(receipt, result)` is called exactly once, later, with another result. After the others it
        is never called. Messages from one sender to one address arrive in order. A user that does not admit the
        sender's messages is ABSENT. LIMITED: the message is refused, because the sender has its share of what waits for
        the recipient; the recipient and what others sent stay.
        """

    def deliver_sealed(self, message: m.Relay, receipt: Receipt, done: Delivered) -> RelayResult:
        """The same for a sealed message, which has a window of its own at the recipient. LIMITED: it is full."""

    def publish(self, user_id: str) -> None:
        """A user has come, gone or changed: tell its watchers, wherever they are."""

    def unknown(self, user_ids: Sequence[str]) -> list[str]:
        """Those of the users about which the process has to ask before `locate` tells how they stand: `FindUsers`."""

    def left(self, session: Session, user_id: str) -> None:
        """A session has given its name up, and no other one here has its device."""

    def changed(self, session: Session) -> None:
        """The key, sealing key or id of a session has changed."""

    def privacy_changed(self, user_id: str, privacy: Privacy) -> None:
        """The directory has kept another privacy of a user."""

    def privacy_read(self, user_id: str, privacy: Privacy) -> bool:
        """The directory has this privacy of a user. Returns whether it was another one elsewhere, and is put right."""

    def rebound(self, user_id: str) -> None:
        """The directory has bound a name to another key, or released it."""

    def tick(self, now: float) -> None:
        """Time has passed."""

    def work(self) -> bool:
        """Do a part of what was put off. Returns whether there was any."""


class LocalRouter:
    """The router of a process that has all sessions. See `Router` for each call."""

    def __init__(
        self, presence: Presence, watchers: Watchers, outgoing: Outgoing, *, hold: Hold, hold_sealed: Hold
    ) -> None:
        self._presence = presence
        self._newest = presence.newest
        self._outgoing = outgoing
        self._buffer = bytearray(HEADROOM)
        self._hold = hold
        self._hold_sealed = hold_sealed
        self._watchers = watchers
        self._owed = watchers.owed
        self._changed = watchers.windows.changed

    def locate(self, user_id: str, viewer: Session) -> m.PresenceMessage:
        return self._presence.of(user_id, viewer)

    def deliver(self, message: m.Relayed, receipt: Receipt, done: Delivered) -> RelayResult:
        newest = self._newest  # taken out first, as in `Hub.received`
        target = newest(message.to)
        if target is None:
            target = self._presence.find(message.to)
            if target is None:
                return RelayResult.ABSENT
        privacy = target.privacy
        if privacy is not None:
            sender = receipt[0]
            # The sender has just been heard, so that is the time.
            if not privacy.admits(sender.user_id, sender.heard, proven=sender.dialect.proves):
                return RelayResult.ABSENT
        if self._owed or self._changed:
            self._watchers.tell_before(receipt[0].user_id, target)
        connection = target.connection
        if connection is not None and not connection.full:
            # As `Outgoing.send_numbered` does it: the calls would cost a hundredth of relaying.
            buffer, encode = self._buffer, target.dialect.encode
            encode(message, buffer, HEADROOM)
            replay = target.replay
            if replay is not None:
                replay.add(buffer.copy())
            write = connection.write
            write(TEXT, buffer, HEADROOM)
            return _SENT
        return self._hold(target, self._outgoing.encode(message, target.dialect), receipt, done)

    def deliver_sealed(self, message: m.Relay, receipt: Receipt, done: Delivered) -> RelayResult:
        target = self._newest(message.to) or self._presence.find(message.to)
        if target is None:
            return RelayResult.ABSENT
        sender, privacy = receipt[0], target.privacy
        if privacy is not None and not privacy.admits(sender.user_id, sender.heard, proven=sender.dialect.proves):
            return RelayResult.ABSENT
        if self._owed or self._changed:
            self._watchers.tell_before(sender.user_id, target)
        return self._hold_sealed(target, self._outgoing.encode(message, target.dialect), receipt, done)

    def publish(self, user_id: str) -> None:
        self._watchers.announce(user_id)

    def unknown(self, user_ids: Sequence[str]) -> list[str]:
        return []

    def left(self, session: Session, user_id: str) -> None:
        pass

    def changed(self, session: Session) -> None:
        pass

    def privacy_changed(self, user_id: str, privacy: Privacy) -> None:
        pass

    def privacy_read(self, user_id: str, privacy: Privacy) -> bool:
        return False

    def rebound(self, user_id: str) -> None:
        pass

    def tick(self, now: float) -> None:
        pass

    def work(self) -> bool:
        return False
