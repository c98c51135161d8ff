"""The sessions that have lost their connection, and the memory that is kept for them.

The bytes of each session, of each user and of all sessions are counted as they change, in constant time, and so are the
sessions of each network. When they exceed a limit, `surplus` names a session that has to end. `hub.lifecycle` ends it.
When there are too many sessions, it is one of the network that has most of them: who loses thousands of connections on
purpose does not end the sessions of others.

A session costs its own objects, its frames, and for each message that waits what is needed to tell the sender about it.
"""

from __future__ import annotations

from collections import OrderedDict
from sys import getsizeof
from typing import Final

from aldis.hub.groups import Groups
from aldis.hub.networks import customer_of
from aldis.hub.sessions import Receipt, Session
from aldis.hub.settings import HubSettings
from aldis.hub.use import FRAME_BYTES

# Bytes of a session without messages: its objects, its name, key and secret, and its place here. Measured, rounded up.
SESSION_BYTES: Final = 4096
# Bytes of two tuples, with the garbage collector's part, and their places in a list; without their texts.
RECEIPT_BYTES: Final = 192
# Bytes of a sender at another node: a session for the sake of its message, and what answers the node. Measured.
ELSEWHERE_BYTES: Final = 900
# Bytes of a sender's share: a tuple of two numbers, and its place in a table.
SHARE_BYTES: Final = 256
# Classes of users by size: powers of two.
_CLASSES: Final = 64


def message_bytes(frame: bytearray, receipt: Receipt) -> int:
    """What a message costs that waits for a detached session."""
    sender, _, to, re = receipt
    size = len(frame) + FRAME_BYTES + RECEIPT_BYTES + getsizeof(to) + getsizeof(re)
    return size if sender.connection is not None else size + ELSEWHERE_BYTES


class _User:
    """The detached sessions of one user, in the order of their loss, with the bytes of each."""

    __slots__ = ("bytes", "sessions")

    def __init__(self) -> None:
        self.bytes = 0
        self.sessions: OrderedDict[Session, int] = OrderedDict()


class DetachedSessions:
    """All detached sessions of one hub."""

    def __init__(self, settings: HubSettings) -> None:
        self._settings = settings
        self.bytes = 0
        """What all of them cost."""
        # In the order of their loss. A session that ends loses its user id, so that is kept here, and its network.
        self._sessions: OrderedDict[Session, tuple[str, bytes | None]] = OrderedDict()
        # None: of those whose network is not known.
        self._networks: Groups[bytes | None, Session] = Groups()
        self._users: dict[str, _User] = {}
        # The users whose bytes have so many binary digits: the largest user is found without comparing all of them.
        # A user in the highest class has more than half of the bytes of the largest one.
        self._classes: list[OrderedDict[_User, None]] = [OrderedDict() for _ in range(_CLASSES)]

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session: Session) -> bool:
        return session in self._sessions

    def all(self) -> list[Session]:
        """The sessions, in the order of their loss."""
        return list(self._sessions)

    def add(self, session: Session, address: str = "") -> None:
        """A session has lost its connection, which came from this IP address; empty when that is not known."""
        network = customer_of(address)
        self._sessions[session] = session.user_id, network
        self._networks.add(network, session)
        user = self._users.setdefault(session.user_id, _User())
        replay = session.replay
        size = SESSION_BYTES if replay is None else SESSION_BYTES + replay.size + FRAME_BYTES * replay.waiting
        user.sessions[session] = 0
        self._grow(user, session, size)

    def grow(self, session: Session, size: int) -> None:
        """So many bytes more are kept for a session."""
        self._grow(self._users[self._sessions[session][0]], session, size)

    def has_room(self, session: Session, size: int) -> bool:
        """Whether so many bytes more may be kept for a session without ending any."""
        settings, user = self._settings, self._users[self._sessions[session][0]]
        return user.bytes + size <= settings.detached_user_bytes and self.bytes + size <= settings.detached_bytes

    def discard(self, session: Session) -> None:
        """A session has ended, or goes on with another connection."""
        user_id, network = self._sessions.pop(session, (None, None))
        if user_id is None:
            return
        self._networks.discard(network, session)
        user = self._users[user_id]
        self._grow(user, session, -user.sessions[session])
        del user.sessions[session]
        if not user.sessions:
            del self._users[user_id]
            self._classes[user.bytes.bit_length()].pop(user, None)

    def surplus(self, changed: Session | None = None) -> Session | None:
        """A session that has to end so that the limits hold; None when they do.

        `changed` is the session that was added or has grown.
        """
        settings = self._settings
        if len(self._sessions) > settings.max_detached:
            return next(self._networks.of_largest())
        user_id = None if changed is None else self._sessions.get(changed, (None, None))[0]
        if user_id is not None and (user := self._users[user_id]).bytes > settings.detached_user_bytes:
            return next(iter(user.sessions))
        if self.bytes > settings.detached_bytes:
            return self._of_largest()
        return None

    def _of_largest(self) -> Session:
        """The oldest session of the largest user, or of one with at least half of that user's bytes."""
        users = next(users for users in reversed(self._classes) if users)
        return next(iter(next(iter(users)).sessions))

    def _grow(self, user: _User, session: Session, size: int) -> None:
        self.bytes += size
        user.sessions[session] += size
        before = user.bytes.bit_length()
        user.bytes += size
        after = user.bytes.bit_length()
        if before != after:
            self._classes[before].pop(user, None)
        self._classes[after].setdefault(user)
