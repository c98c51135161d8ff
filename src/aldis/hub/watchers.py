"""The watchers of each name. Each gets presence as fast as it reads; changes that come together are sent once.

One call tells `MOST_AT_ONCE` watchers. The others are told in later turns of the transport's loop (`tell_more`), so a
user with thousands of watchers keeps nobody else waiting. A watcher is told before any message of that user reaches it.

It does not know the state of a user: it asks for the presence when it has to send it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Final

from msgspec import UNSET, UnsetType

from aldis.hub.dialects import Dialect
from aldis.hub.outcomes import RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.sessions import Session, WatchRequest
from aldis.hub.settings import HubSettings
from aldis.protocol import messages as m
from aldis.protocol.codes import ErrorCode

_NOBODY: frozenset[Session] = frozenset()
# Watchers that are told in one go; it takes less than a millisecond.
MOST_AT_ONCE: Final = 64
# Bytes of a watch, and of a name that is watched at all, beside the text of the name: entries of sets and tables, which
# are up to two thirds empty.
WATCH_BYTES: Final = 240
WATCHED_BYTES: Final = 320


def _size(name: str) -> int:
    return len(name) if name.isascii() else 4 * len(name)


class Watchers:
    """The watchers of each name, online or not.

    `presence_of` returns the presence of a user. A watcher that has lost its connection, or does not read, gets the
    presence later, as it is then.
    """

    def __init__(
        self,
        settings: HubSettings,
        outgoing: Outgoing,
        *,
        presence_of: Callable[[str], m.PresenceMessage],
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._presence_of = presence_of
        self._wake = wake
        self._watchers: dict[str, set[Session]] = {}
        # How many names each user watches, over all its sessions.
        self._of_user: dict[str, int] = {}
        self.bytes = 0
        """What all watches cost."""
        # The names whose watchers have to be told, in order; and whether `holding_back` is active.
        self._changed: deque[str] = deque()
        self._holding = False
        self.owed: Final[dict[str, set[Session]]] = {}
        """The watchers that are still to be told, by the name that has changed, in the order of the changes."""

    # --- watches ----------------------------------------------------------------------------------------------------

    def refusal(self, session: Session, user_ids: list[str], settings: HubSettings) -> RequestRefused | None:
        """Why a session may not watch these names as well; None when it may."""
        watches = session.watches or ()
        new = [user_id for user_id in user_ids if user_id not in watches]
        if len(watches) + len(new) > settings.max_watches:
            text = f"at most {settings.max_watches} names can be watched by one session"
            return RequestRefused(ErrorCode.TOO_LARGE, text)
        if self._of_user.get(session.user_id, 0) + len(new) > settings.max_user_watches:
            text = f"at most {settings.max_user_watches} names can be watched by all devices of a user"
            return RequestRefused(ErrorCode.TOO_LARGE, text)
        size = sum(WATCH_BYTES + _size(user_id) for user_id in new)
        size += sum(WATCHED_BYTES + _size(user_id) for user_id in new if user_id not in self._watchers)
        if self.bytes + size > settings.watches_bytes:
            text = "this server has no room for more watches now"
            return RequestRefused(ErrorCode.OVER_CAPACITY, text, retry_after=settings.watch_pause)
        return None

    def watch(self, session: Session, user_ids: list[str], re: m.RequestId | UnsetType) -> bool:
        """Watch some names, send the presence of each, then acknowledge.

        False when the session has asked too often without reading.
        """
        if session.watches is None:
            session.watches = set()
        for user_id in user_ids:
            if user_id not in session.watches:
                session.watches.add(user_id)
                self._add(user_id, session)
            if user_id in self.owed:
                self.owed[user_id].discard(session)  # it is told below
        untold = session.untold = session.untold or {}
        untold.update(dict.fromkeys(user_ids))
        if re is not UNSET:
            untold[WatchRequest(re)] = None
        self.tell_untold(session)
        left = len(session.untold or ())
        return left <= self._settings.max_watches + self._settings.backlog_messages

    def unwatch(self, session: Session, user_ids: list[str]) -> None:
        """End some watches."""
        for user_id in user_ids:
            if session.watches is not None and user_id in session.watches:
                session.watches.remove(user_id)
                self._drop((user_id,), session)
            if session.untold is not None:
                session.untold.pop(user_id, None)

    def unwatch_all(self, session: Session) -> None:
        """End all watches of a session."""
        self._drop(session.watches or (), session)
        session.watches = session.untold = None

    def restore(self, session: Session, user_ids: list[str]) -> None:
        """Give a session of an earlier process its watches back."""
        if user_ids:
            session.watches = set(user_ids)
        for user_id in session.watches or ():
            self._add(user_id, session)

    def take_over(self, session: Session, old: Session) -> None:
        """Give a session the watches of the one that it resumes."""
        session.watches, old.watches = old.watches, None
        session.untold, old.untold = old.untold, None
        self.forget_requests(session)
        for user_id in session.watches or ():
            watchers = self._watchers[user_id]
            watchers.remove(old)
            watchers.add(session)
            if old in self.owed.get(user_id, _NOBODY):
                self.owed[user_id].add(session)

    def _add(self, user_id: str, session: Session) -> None:
        watchers = self._watchers.get(user_id)
        if watchers is None:
            watchers = self._watchers[user_id] = set()
            self.bytes += WATCHED_BYTES + _size(user_id)
        watchers.add(session)
        self.bytes += WATCH_BYTES + _size(user_id)
        self._of_user[session.user_id] = self._of_user.get(session.user_id, 0) + 1

    def _drop(self, user_ids: Collection[str], session: Session) -> None:
        for user_id in user_ids:
            size = _size(user_id)
            watchers = self._watchers[user_id]
            watchers.remove(session)
            self.bytes -= WATCH_BYTES + size
            if not watchers:
                del self._watchers[user_id]
                self.bytes -= WATCHED_BYTES + size
        if user_ids:
            left = self._of_user[session.user_id] - len(user_ids)
            if left:
                self._of_user[session.user_id] = left
            else:
                del self._of_user[session.user_id]

    # --- telling them -----------------------------------------------------------------------------------------------

    def announce(self, user_id: str) -> None:
        """Send the presence of a user to all its watchers."""
        if user_id in self._watchers:
            self._changed.append(user_id)
            if not self._holding:
                self._tell_watchers()

    @contextmanager
    def holding_back(self) -> Iterator[None]:
        """Announce each name that changes within the block once, at its end.

        For sessions that end together: those that watch each other need not be told, and one `presence` covers all
        devices of a user.
        """
        self._holding = True
        try:
            yield
        finally:
            self._changed = deque(dict.fromkeys(self._changed))
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        if not self._changed:
            self._holding = False
            return
        self._holding = True
        try:
            while self._changed:
                user_id = self._changed.popleft()
                watchers = self._watchers.get(user_id)
                if watchers:
                    # Also if some of them have not been told of an earlier change yet: one `presence` covers both.
                    self.owed[user_id] = set(watchers)
        finally:
            self._holding = False
        if self.tell_more():
            self._wake()

    def tell_more(self) -> bool:
        """Tell some of those that are still to be told. Returns whether there are more of them."""
        room = MOST_AT_ONCE
        while self.owed and room:
            user_id, targets = next(iter(self.owed.items()))
            some = [targets.pop() for _ in range(min(room, len(targets)))]
            if not targets:
                del self.owed[user_id]
            room -= max(len(some), 1)
            watchers = self._watchers.get(user_id, _NOBODY)
            self._tell([watcher for watcher in some if watcher in watchers], user_id)
        return bool(self.owed)

    def tell_all(self) -> None:
        """Tell all that are still to be told, at once."""
        while self.tell_more():
            pass

    def tell_before(self, user_id: str, watcher: Session) -> None:
        """A message of a user is about to reach a session: tell it first what it has to be told of that user."""
        targets = self.owed.get(user_id)
        if targets is not None and watcher in targets:
            targets.remove(watcher)
            if watcher in self._watchers.get(user_id, _NOBODY):
                self._tell([watcher], user_id)

    def _tell(self, watchers: list[Session], user_id: str) -> None:
        if not watchers:
            return
        news = self._presence_of(user_id)
        frames: dict[Dialect, bytearray] = {}
        for watcher in watchers:
            if watcher.connection is None or watcher.connection.full:
                if watcher.untold is None:
                    watcher.untold = {}
                watcher.untold[news.user_id] = None
                continue
            frame = frames.get(watcher.dialect)
            if frame is None:
                frame = frames[watcher.dialect] = self._outgoing.encode(news, watcher.dialect)
            self._outgoing.send_numbered_frame(watcher, frame)

    def tell_untold(self, watcher: Session) -> None:
        """Send a connected watcher its pending presence, until its connection is full."""
        if watcher.connection is not None and watcher.connection.full:
            return
        untold, watcher.untold = watcher.untold, None
        rest = iter(untold or ())
        while watcher.connection is not None:
            if watcher.connection.full:
                watcher.untold = dict.fromkeys(rest) or None
                return
            one = next(rest, None)
            if one is None:
                return
            if isinstance(one, WatchRequest):
                self._outgoing.acknowledge(watcher, one.id)
            else:
                self._outgoing.send_numbered(watcher, self._presence_of(one))

    def untold_of(self, watcher: Session, user_id: str) -> bytearray | None:
        """The pending presence of one user, encoded; None when there is nothing to tell."""
        if watcher.untold is None or user_id not in watcher.untold:
            return None
        return self._outgoing.encode(self._presence_of(user_id), watcher.dialect)

    def forget_untold(self, watcher: Session, user_id: str) -> None:
        """The watcher has been told about a user."""
        if watcher.untold is not None:
            watcher.untold.pop(user_id, None)

    def forget_requests(self, watcher: Session) -> None:
        """The watcher has lost its connection: acknowledge none of its requests on the next one."""
        if watcher.untold is not None:
            watcher.untold = {one: None for one in watcher.untold if not isinstance(one, WatchRequest)}
