"""The watchers of each name. Each gets presence as fast as it reads; changes that come together are sent once.

One call tells `MOST_AT_ONCE` watchers, fewer of a large presence. The others are told in later turns of the transport's
loop, so a user with thousands of watchers keeps nobody else waiting. So it is with one that watches thousands of names:
it is told of some at once, and its watches come and go by some at a time (`hub.watches`). A watcher is told before any
message of that user reaches it. A name that changes again and again is told at the ends of its windows (`hub.windows`).

Not every watcher may see a user (`hub.privacy`). One that may not is told only what it would be told of a user that is
offline: that, once, when it loses sight of the user.

It does not know the state of a user: it asks for the presence when it has to send it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from math import inf
from typing import Final, TypeAlias, cast

from msgspec import UNSET

from aldis.hub.dialects import Dialect
from aldis.hub.later_turns import Part
from aldis.hub.outcomes import RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.privacy import UserPrivacy, settings_of
from aldis.hub.sessions import Session, WatchEnd, Watcher, WatchRequest
from aldis.hub.settings import HubSettings
from aldis.hub.watches import NewWatch, Watches, no_place
from aldis.hub.windows import PresenceWindows
from aldis.protocol.privacy import CONTACTS, PUBLIC, Privacy

# Watchers that are told in one go; it takes less than a millisecond.
MOST_AT_ONCE: Final = 64
# Watchers of one name that are told in one go, while others wait. So a user with few of them does not stand behind
# hundreds of users with thousands.
OF_ONE_NAME: Final = 16
# Names of which a watcher is told together, when their watchers wait to be told anyway: many users have come or gone at
# once. Each message is cheap; what costs is that a client is sent anything at all.
NAMES_AT_ONCE: Final = 8
# So many bytes of a presence count as one watcher more. With 16 devices and their sealing keys it has 44 KB, which take
# ten times as long to send, with TLS, as a small one.
BYTES_AT_ONCE: Final = 4096


# Devices of contacts that are looked at, to find who may see a user, for one unit of a client's rate.
DEVICES_PER_UNIT: Final = 100
# The same, in one go, where windows end.
DEVICES_AT_ONCE: Final = 1000

Frames: TypeAlias = dict[tuple[Dialect, bool], bytearray]
"""The presence of a user, encoded: by the dialect of who is told, and whether it may see the user."""


def _cost(frame: bytearray) -> int:
    """What it costs to send a presence, in watchers with a small one."""
    return 1 + len(frame) // BYTES_AT_ONCE


def _hears(watcher: Watcher, user_id: str) -> Session | None:
    """The session of a watcher, if it watches a name."""
    session = watcher.session
    return session if session is not None and session.watches and user_id in session.watches else None


class Watchers:
    """The watchers of each name, online or not.

    A watcher that has lost its connection, or does not read, gets the presence later, as it is then. `wake` is called
    with the seconds after which a part of the work that was put off is due. `admitted`: see `Watches`.
    """

    def __init__(
        self,
        settings: HubSettings,
        outgoing: Outgoing,
        *,
        presence: Presence,
        wake: Callable[[float], None],
        admitted: Callable[[Session, NewWatch, RequestRefused | None], None],
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._presence = presence
        self._wake = wake
        self.now = 0.0
        """The time of the call that the hub is handling."""
        self.watches: Final = Watches(settings, wake, admitted, self._ended)
        """Who watches whom."""
        self._table = self.watches.table
        self._looked_at = 0  # devices of contacts, so far
        # Connected watchers that are still to be told something, in turns; see `Session.untold`.
        self._telling: dict[Session, None] = {}
        # The names whose watchers have to be told, in order, with the privacy of each at the time of the change: a user
        # that has gone has none any more. And whether `holding_back` is active.
        self._changed: deque[tuple[str, UserPrivacy | None]] = deque()
        self._holding = False
        self.owed: Final[dict[str, set[Watcher]]] = {}
        """The watchers that are still to be told, by the name that has changed; the name whose turn it is first."""
        self.windows: Final = PresenceWindows()
        """The names that have changed lately."""

    # --- watches ----------------------------------------------------------------------------------------------------

    def watch(self, session: Session) -> None:
        """Watch the names that were admitted, send the presence of each, then acknowledge."""
        watch = self.watches.finish(session)
        owed, watcher = self.owed, session.watcher
        for user_id in watch.names if owed else ():
            if user_id in owed and watcher is not None:
                owed[user_id].discard(watcher)  # it is told below
        untold = session.untold = session.untold or {}
        untold.update(dict.fromkeys(watch.names))
        if watch.re is not UNSET:
            untold[WatchRequest(watch.re)] = None
        if len(watch.names) > MOST_AT_ONCE:
            self._telling[session] = None
            self._wake(0.0)
        else:
            self.tell_untold(session)

    def asks_too_much(self, session: Session) -> bool:
        """Whether a session has asked too often without reading."""
        return len(session.untold or ()) > self._settings.max_watches + self._settings.backlog_messages

    def unwatch(self, session: Session, user_ids: list[str]) -> None:
        """End some watches."""
        self.watches.unwatch(session, user_ids)
        if session.untold:
            for user_id in user_ids:
                session.untold.pop(user_id, None)
                session.untold.pop(WatchEnd(user_id), None)

    def unwatch_all(self, session: Session) -> None:
        """End all watches of a session."""
        self.watches.unwatch_all(session)
        session.untold = None

    def _ended(self, session: Session, user_id: str) -> None:
        """A session has lost the watch of a user, and is to be told so, even if it reads or comes back much later."""
        untold = session.untold = session.untold or {}
        untold.pop(user_id, None)
        untold[WatchEnd(user_id)] = None
        self._telling[session] = None
        self._wake(0.0)

    def _tell_end(self, session: Session, user_id: str) -> None:
        if session.watches and user_id in session.watches:
            return  # it has watched the user again meanwhile
        text = f"{user_id} has too many watchers, and most of them are of the network that you are in"
        presence = self._presence.of(user_id, session)
        self._outgoing.end_watch(session, presence, no_place(text, self._settings))

    def take_over(self, session: Session, old: Session) -> None:
        """Give a session the watches of the one that it resumes."""
        self.watches.take_over(session, old)
        session.untold, old.untold = old.untold, None
        self.forget_requests(session)

    # --- telling them -----------------------------------------------------------------------------------------------

    def announce(self, user_id: str) -> None:
        """Send the presence of a user to all its watchers that may see it."""
        self.announce_to(user_id, self._presence.privacy(user_id))

    def announce_to(self, user_id: str, privacy: UserPrivacy | None) -> None:
        """The same with this privacy, the last of a user that may have gone since."""
        if user_id in self._table or self._holding:  # who watches it may come within `holding_back`
            self._changed.append((user_id, privacy))
            if not self._holding:
                self._tell_watchers()

    @contextmanager
    def holding_back(self) -> Iterator[None]:
        """Announce each name that changes within the block once, at its end.

        For sessions that end together: those that watch each other need not be told, and one `presence` covers all
        devices of a user. A block within another one does nothing.
        """
        if self._holding:
            yield
            return
        self._holding = True
        try:
            yield
        finally:
            self._changed = deque(dict(self._changed).items())
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        if not self._changed:
            self._holding = False
            return
        self._holding, behind = True, bool(self.owed)
        try:
            while self._changed:
                user_id, privacy = self._changed.popleft()
                if user_id in self._table:
                    self._change(user_id, settings_of(privacy))
        finally:
            self._holding = False
        self._tell_soon(behind=behind)

    def _change(self, user_id: str, privacy: Privacy) -> None:
        audience = partial(self.audience, user_id)
        if self.windows.change_for_all(user_id, privacy, self.owed.get(user_id), audience):
            self._begin(user_id, audience(privacy))

    def _begin(self, user_id: str, watchers: set[Watcher]) -> None:
        """Have some watchers of a name told, and open its next window."""
        self.windows.telling(user_id, self._presence.state(user_id))
        self.owed[user_id] = watchers

    def _tell_soon(self, *, behind: bool) -> None:
        """Tell some of those that are to be told now, and the others in later turns. `behind`: others wait already, so
        all do: many users may change in the same turn."""
        before = self.windows.next_end()
        if not behind:
            self._tell_some()
        if self.owed:
            self._wake(0.0)
        elif self.windows.next_end() < before:
            self._wake(self.windows.next_end() - self.now)

    def audience(self, user_id: str, privacy: Privacy) -> set[Watcher]:
        """The watchers of a user that may see it. The time that it takes depends on the lists of names, and not on the
        number of watchers."""
        watchers = self._table.of(user_id)
        if not watchers:
            return set()
        if privacy.presence == PUBLIC:
            return set(watchers).difference(one.watcher for one in self._sessions(privacy.blocked))
        names = privacy.contacts - privacy.blocked if privacy.presence == CONTACTS else frozenset[str]()
        # As `privacy.shows_to` says, which is not asked for each: a thousand contacts may have 16 devices each.
        seeing = {one.watcher for one in self._sessions(names) if one.dialect.proves}
        seeing.update(one.watcher for one in self._presence.devices(user_id))
        return cast("set[Watcher]", seeing & watchers)  # None is none of them

    def _sessions(self, names: Iterable[str]) -> Iterable[Session]:
        sessions = self._presence.sessions_of(names)
        self._looked_at += len(sessions)
        return sessions

    @contextmanager
    def charging(self, session: Session) -> Iterator[None]:
        """Charge a session for finding who may see its user, where something changes within the block: many who do
        that at once would delay all others."""
        before = self._looked_at
        try:
            yield
        finally:
            session.charged += (self._looked_at - before) // DEVICES_PER_UNIT

    def tell_some(self, user_id: str, watchers: set[Watcher]) -> None:
        """Tell some watchers of a user what they may see of it now."""
        behind = bool(self.owed)
        if self.windows.change(user_id, watchers, self.owed.get(user_id)):
            self._begin(user_id, watchers)
        self._tell_soon(behind=behind)

    # --- what was put off -------------------------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[Part, ...]:
        """The kinds of work that this module puts off."""
        return self._tell_more, self._tell_one, self.watches.enter_some, self.watches.remove_some

    def due(self) -> float | None:
        """After how many seconds one of them has something to do; None when there is nothing."""
        if self.owed or self._telling or self.watches.due:
            return 0.0
        end = self.windows.next_end()
        return None if end == inf else max(end - self.now, 0.0)

    def _tell_more(self) -> bool:
        before = self._looked_at
        for user_id in islice(self.windows.due(self.now), MOST_AT_ONCE):
            self._end_window(user_id)
            if self._looked_at - before > DEVICES_AT_ONCE:
                return True
        if not self.owed:
            return False
        self._tell_some()
        return True

    def _tell_one(self) -> bool:
        if not self._telling:
            return False
        watcher = next(iter(self._telling))
        del self._telling[watcher]
        self.tell_untold(watcher)
        return True

    def _end_window(self, user_id: str) -> None:
        watchers = self.windows.close(user_id, self._presence.state(user_id), partial(self.audience, user_id))
        if watchers:
            self._begin(user_id, watchers)

    def _tell_some(self) -> None:
        room, frames = MOST_AT_ONCE, defaultdict[str, Frames](dict)
        while self.owed and room > 0:
            names = tuple(islice(self.owed, NAMES_AT_ONCE))
            room -= self._tell_of(names, frames, room if len(self.owed) == 1 else min(room, OF_ONE_NAME))
            first = names[0]
            for user_id in names:
                if not self.owed[user_id]:
                    del self.owed[user_id]
                    self.windows.told(user_id, self.now + self._settings.presence_interval)
            if first in self.owed:
                self.owed[first] = self.owed.pop(first)  # behind the others

    def tell_all(self) -> None:
        """Tell all that are still to be told, at once and without regard to windows: no more will be told."""
        while self.owed:
            self._tell_some()
        for user_id in self.windows.due(inf):
            self._end_window(user_id)
        while self.owed:
            self._tell_some()

    def tell_before(self, user_id: str, session: Session) -> None:
        """A message of a user is about to reach a session: tell it first what it has to be told of that user."""
        targets, watcher = self.owed.get(user_id), session.watcher
        if watcher is None:
            return
        if targets is not None and watcher in targets:
            targets.remove(watcher)
        elif user_id not in self.windows.changed or not self.windows.waits(
            user_id, watcher, sees=self._presence.shows(user_id, session)
        ):
            return
        if _hears(watcher, user_id) is not None:
            self._tell(session, user_id, {})
            self._told(user_id, (session,))

    def _tell_of(self, names: tuple[str, ...], frames: defaultdict[str, Frames], most: int) -> int:
        """Tell some that are owed the first of these names, until that has cost `most`, and each of them what it is
        owed of the others, too: that goes together. Returns what it has cost. `frames`: what was told in this turn."""
        told = defaultdict[str, list[Session]](list)
        first, *others = names
        targets, spent = self.owed[first], 0
        while targets and spent < most:
            watcher = targets.pop()
            due = [user_id for user_id in others if watcher in self.owed[user_id]]
            if not due or watcher.session is None:
                spent += self._tell_watcher(watcher, first, frames, told)
                continue
            with self._outgoing.together(watcher.session):
                spent += self._tell_watcher(watcher, first, frames, told)
                for user_id in due:
                    if spent < most:
                        self.owed[user_id].remove(watcher)
                        spent += self._tell_watcher(watcher, user_id, frames, told)
        for user_id, sessions in told.items():
            self._told(user_id, sessions)
        return max(spent, 1)

    def _tell_watcher(
        self, watcher: Watcher, user_id: str, frames: defaultdict[str, Frames], told: defaultdict[str, list[Session]]
    ) -> int:
        session = _hears(watcher, user_id)
        if session is None:
            return 1
        told[user_id].append(session)
        return self._tell(session, user_id, frames[user_id])

    def _tell(self, watcher: Session, user_id: str, frames: Frames) -> int:
        """Tell one, now or when it reads; `frames`: what was told others. Returns what it has cost."""
        if watcher.connection is None or watcher.connection.full:
            if watcher.untold is None:
                watcher.untold = {}
            watcher.untold[user_id] = None
            return 1
        look = watcher.dialect, self._presence.shows(user_id, watcher)
        frame = frames.get(look)
        if frame is None:
            news = self._presence.of(user_id, watcher)
            frame = frames[look] = self._outgoing.encode(news, watcher.dialect)
        self._outgoing.send_numbered_frame(watcher, frame)
        return _cost(frame)

    def _told(self, user_id: str, watchers: Iterable[Session]) -> None:
        """Some watchers know the state of a user, or will be told it when they read."""
        if user_id in self.windows.changed:
            self.windows.heard(user_id, [one.watcher for one in watchers if one.watcher is not None])

    def tell_untold(self, watcher: Session) -> None:
        """Send a connected watcher some of its pending presence, until its connection is full, and the rest in later
        turns."""
        untold = watcher.untold
        if untold:
            with self._outgoing.together(watcher):
                self._tell_some_of(untold, watcher)
        if watcher.untold is not untold:
            return
        if not untold:
            watcher.untold = None
        elif watcher.connection is not None and not watcher.connection.full:
            self._telling[watcher] = None
            self._wake(0.0)

    def _tell_some_of(self, untold: dict[str | WatchRequest | WatchEnd, None], watcher: Session) -> None:
        room = MOST_AT_ONCE
        for one in list(islice(untold, MOST_AT_ONCE)):
            if room <= 0 or watcher.connection is None or watcher.connection.full or watcher.untold is not untold:
                return
            del untold[one]
            if isinstance(one, WatchRequest):
                self._outgoing.acknowledge(watcher, one.id)
            elif isinstance(one, WatchEnd):
                self._tell_end(watcher, one.user_id)
            else:
                frame = self._outgoing.encode(self._presence.of(one, watcher), watcher.dialect)
                self._outgoing.send_numbered_frame(watcher, frame)
                room -= _cost(frame)
                self._told(one, (watcher,))

    def untold_of(self, watcher: Session, user_id: str) -> bytearray | None:
        """The pending presence of one user, encoded; None when there is nothing to tell."""
        if watcher.untold is None or user_id not in watcher.untold:
            return None
        return self._outgoing.encode(self._presence.of(user_id, watcher), watcher.dialect)

    def forget_untold(self, watcher: Session, user_id: str) -> None:
        """The watcher has been told about a user."""
        if watcher.untold is not None:
            watcher.untold.pop(user_id, None)
        self._told(user_id, (watcher,))

    def forget_requests(self, watcher: Session) -> None:
        """The watcher has lost its connection: acknowledge none of its requests on the next one."""
        self.watches.forget_request(watcher)
        if watcher.untold is not None:
            watcher.untold = {one: None for one in watcher.untold if not isinstance(one, WatchRequest)}
