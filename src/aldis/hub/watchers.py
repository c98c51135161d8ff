"""The watchers of each name. Each gets presence as fast as it reads; changes that come together are sent once.

One call tells `MOST_AT_ONCE` watchers. The others are told in later turns of the transport's loop (`tell_more`), so a
user with thousands of watchers keeps nobody else waiting. So it is with one that watches thousands of names: it is told
of some at once, and its watches are entered and forgotten by some at a time (`hub.new_watches`). A watcher is told
before any message of that user reaches it.
A name that changes again and again is told at the ends of its windows (`hub.windows`).

Not every watcher may see a user (`hub.privacy`). One that may not is told only what it would be told of a user that is
offline: that, once, when it loses sight of the user.

It does not know the state of a user: it asks for the presence when it has to send it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from math import inf
from typing import Final

from msgspec import UNSET, UnsetType

from aldis.hub.dialects import Dialect
from aldis.hub.new_watches import ENTERED_AT_ONCE, NewWatch, NewWatches, texts_bytes
from aldis.hub.outcomes import RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.privacy import UserPrivacy
from aldis.hub.sessions import Session, WatchRequest
from aldis.hub.settings import HubSettings
from aldis.hub.use import text_bytes
from aldis.hub.windows import PresenceWindows
from aldis.protocol import messages as m
from aldis.protocol.codes import ErrorCode
from aldis.protocol.privacy import CONTACTS, PUBLIC

_NOBODY: frozenset[Session] = frozenset()
# Watchers that are told in one go; it takes less than a millisecond.
MOST_AT_ONCE: Final = 64
# Watches of ended sessions that are removed in one go: half a millisecond.
MOST_REMOVED: Final = 512
# Bytes of a watch, and of a name that is watched at all, beside the text of the name: entries of sets and tables, which
# are up to two thirds empty.
WATCH_BYTES: Final = 240
WATCHED_BYTES: Final = 320


def _size(user_ids: list[str], alone: list[str]) -> int:
    """Bytes of one watch of each of these names. `alone`: those of them that are not watched by anybody else."""
    texts = texts_bytes(user_ids)
    alone_texts = texts if len(alone) == len(user_ids) else texts_bytes(alone)
    return WATCH_BYTES * len(user_ids) + texts + WATCHED_BYTES * len(alone) + alone_texts


class Watchers:
    """The watchers of each name, online or not.

    A watcher that has lost its connection, or does not read, gets the presence later, as it is then. `wake` is called
    with the seconds after which `tell_more` has something to do. `entered` is called with a session when the names of a
    `watch` are entered that were not entered at once.
    """

    def __init__(
        self,
        settings: HubSettings,
        outgoing: Outgoing,
        *,
        presence: Presence,
        wake: Callable[[float], None],
        entered: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._presence = presence
        self._wake = wake
        self._entered = entered
        self.now = 0.0
        """The time of the call that the hub is handling."""
        self._watchers: dict[str, set[Session]] = {}
        # The watches that count below, and are not in the table above yet.
        self._new = NewWatches()
        # How many names each user watches, over all its sessions.
        self._of_user: dict[str, int] = {}
        self.bytes = 0
        """What all watches cost."""
        # Connected watchers that are still to be told something, in turns; see `Session.untold`.
        self._telling: dict[Session, None] = {}
        # Watches that are over, and are still in the tables. They are in no `Session.watches` any more. A session may
        # watch again, after `unregister`: a name is in one of the two sets at most.
        self._over: dict[Session, set[str]] = {}
        # The names whose watchers have to be told, in order, with the privacy of each at the time of the change: a user
        # that has gone has none any more. And whether `holding_back` is active.
        self._changed: deque[tuple[str, UserPrivacy | None]] = deque()
        self._holding = False
        self.owed: Final[dict[str, set[Session]]] = {}
        """The watchers that are still to be told, by the name that has changed, in the order of the changes."""
        self.windows: Final = PresenceWindows()
        """The names that have changed lately."""

    def watches(self, user_id: str) -> bool:
        """Whether anybody watches a user, or is about to."""
        return user_id in self._watchers or user_id in self._new.coming

    # --- watches ----------------------------------------------------------------------------------------------------

    def admit(
        self, session: Session, user_ids: list[str], re: m.RequestId | UnsetType, settings: HubSettings
    ) -> RequestRefused | None:
        """Count some names as watched by a session; `watch` them next, or `give_up`. Returns why not, if it may not."""
        watches = session.watches
        new = [user_id for user_id in user_ids if user_id not in watches] if watches else user_ids
        if len(watches or ()) + len(new) > settings.max_watches:
            text = f"at most {settings.max_watches} names can be watched by one session"
            return RequestRefused(ErrorCode.TOO_LARGE, text, limit="watches-per-session")
        if self._of_user.get(session.user_id, 0) + len(new) > settings.max_user_watches:
            text = f"at most {settings.max_user_watches} names can be watched by all devices of a user"
            return RequestRefused(ErrorCode.TOO_LARGE, text, limit="watches-per-user")
        pause = settings.watch_pause
        first = self._unwatched(new)
        if len(first) < len(new):
            most, watchers, coming = settings.max_watchers, self._watchers.get, self._new.coming.get
            crowded = [user_id for user_id in new if len(watchers(user_id, ())) + coming(user_id, 0) >= most]
            if crowded:
                text = f"{crowded[0]} is watched by {most} sessions, which is all that there may be"
                return RequestRefused(ErrorCode.OVER_CAPACITY, text, pause, limit="watchers-per-user")
        size = _size(new, first)
        if self.bytes + size > settings.watches_bytes:
            text = "this server has no room for more watches now"
            return RequestRefused(ErrorCode.OVER_CAPACITY, text, pause, limit="watches-bytes")
        self._new.admit(session, user_ids, new, re)
        self.bytes += size
        self._count(session, len(new))
        return None

    def watch(self, session: Session) -> bool:
        """Watch the names that were admitted, send the presence of each, then acknowledge.

        Returns whether that is done, but for what the client does not read. If not, `entered` is called later.
        """
        watch = self._new.start(session)
        if len(watch) > ENTERED_AT_ONCE:
            self._wake(0.0)
            return False
        self._enter(session, watch, ENTERED_AT_ONCE)
        self.tell_untold(session)
        return True

    def asks_too_much(self, session: Session) -> bool:
        """Whether a session has asked too often without reading."""
        return len(session.untold or ()) > self._settings.max_watches + self._settings.backlog_messages

    def _enter(self, session: Session, watch: NewWatch, most: int) -> None:
        """Enter the next names of a watch, and note what the session is to be told."""
        names = watch.take(most)
        if session.watches is None:
            session.watches = set()
        watches, owed = session.watches, self.owed
        new = [user_id for user_id in names if user_id not in watches]
        watches.update(new)
        self._add(new, session)
        self._new.entered(new)
        for user_id in names if owed else ():
            if user_id in owed:
                owed[user_id].discard(session)  # it is told below
        untold = session.untold = session.untold or {}
        untold.update(dict.fromkeys(names))
        if not watch:
            self._new.forget(session)
            if watch.re is not UNSET:
                untold[WatchRequest(watch.re)] = None

    def _enter_some(self) -> None:
        session, watch = self._new.next()
        self._enter(session, watch, ENTERED_AT_ONCE)
        self._telling[session] = None
        if not watch:
            self._entered(session)

    def enter_all(self) -> None:
        """Enter all names that may be entered, at once: the sessions are about to be saved."""
        while self._new:
            self._enter_some()

    def give_up(self, session: Session) -> None:
        """Count those names no longer that were admitted and are not entered."""
        watch = self._new.forget(session)
        if watch is None:
            return
        watches = session.watches or ()
        left = [user_id for user_id in watch.take(len(watch)) if user_id not in watches]
        self._new.entered(left)
        self.bytes -= _size(left, self._unwatched(left))
        self._count(session, -len(left))

    def unwatch(self, session: Session, user_ids: list[str]) -> None:
        """End some watches."""
        watches, untold = session.watches, session.untold
        ended = [user_id for user_id in user_ids if user_id in watches] if watches else []
        if watches and ended:
            watches.difference_update(ended)
            self._count(session, -len(ended))
            self._drop(ended, session)
        if untold:
            for user_id in user_ids:
                untold.pop(user_id, None)

    def unwatch_all(self, session: Session) -> None:
        """End all watches of a session."""
        self.give_up(session)
        watches = session.watches
        session.watches = session.untold = None
        if watches:
            self._count(session, -len(watches))
            self._over.setdefault(session, set()).update(watches)
            self._remove_some()
            if self._over:
                self._wake(0.0)

    def restore(self, session: Session, user_ids: list[str]) -> None:
        """Give a session of an earlier process its watches back."""
        if user_ids:
            session.watches = set(user_ids)
            names = list(session.watches)
            self.bytes += _size(names, self._unwatched(names))
            self._count(session, len(names))
            self._add(names, session)

    def take_over(self, session: Session, old: Session) -> None:
        """Give a session the watches of the one that it resumes."""
        if self._new.take_over(session, old):
            session.waiting = True  # until the rest is entered, as with `old`
        else:
            self.give_up(old)
        session.watches, old.watches = old.watches, None
        session.untold, old.untold = old.untold, None
        self.forget_requests(session)
        for user_id in session.watches or ():
            self._take_back(user_id, session)
            watchers = self._watchers[user_id]
            watchers.remove(old)
            watchers.add(session)
            if old in self.owed.get(user_id, _NOBODY):
                self.owed[user_id].add(session)
            self.windows.pass_on(user_id, old, session)

    def _unwatched(self, user_ids: list[str]) -> list[str]:
        """Those of the names that nobody watches, nor is about to."""
        watched, coming = self._watchers, self._new.coming
        return [user_id for user_id in user_ids if user_id not in watched and user_id not in coming]

    def _add(self, user_ids: list[str], session: Session) -> None:
        """Enter names that are counted already."""
        table, over = self._watchers, session in self._over
        for user_id in user_ids:
            if over:
                self._take_back(user_id, session)
            watchers = table.get(user_id)
            if watchers is None:
                table[user_id] = {session}
            else:
                watchers.add(session)

    def _take_back(self, user_id: str, session: Session) -> None:
        """A session watches a name: if it has watched the name before it left, that is not to be forgotten any more."""
        over = self._over.get(session)
        if over is not None and user_id in over:
            over.remove(user_id)
            self.bytes -= WATCH_BYTES + text_bytes(user_id)

    def _drop(self, user_ids: list[str], session: Session) -> None:
        table, gone = self._watchers, []
        for user_id in user_ids:
            watchers = table[user_id]
            watchers.remove(session)
            if not watchers:
                del table[user_id]
                gone.append(user_id)
        self.bytes -= _size(user_ids, [user_id for user_id in gone if user_id not in self._new.coming])

    def _count(self, session: Session, more: int) -> None:
        count = self._of_user.get(session.user_id, 0) + more
        if count:
            self._of_user[session.user_id] = count
        else:
            self._of_user.pop(session.user_id, None)

    def _remove_some(self) -> None:
        room = MOST_REMOVED
        while self._over and room:
            session, watches = next(iter(self._over.items()))
            some = min(room, len(watches))
            self._drop([watches.pop() for _ in range(some)], session)
            room -= some
            if not watches:
                del self._over[session]

    # --- telling them -----------------------------------------------------------------------------------------------

    def announce(self, user_id: str) -> None:
        """Send the presence of a user to all its watchers that may see it."""
        if user_id in self._watchers or self._holding:  # who watches it may come within `holding_back`
            self._changed.append((user_id, self._presence.privacy(user_id)))
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
            self._changed = deque(dict(self._changed).items())
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        if not self._changed:
            self._holding = False
            return
        self._holding = True
        try:
            while self._changed:
                user_id, privacy = self._changed.popleft()
                if user_id in self._watchers:
                    self._change(user_id, self.audience(user_id, privacy), undoable=True)
        finally:
            self._holding = False
        self._tell_soon()

    def _change(self, user_id: str, watchers: set[Session], *, undoable: bool) -> None:
        if self.windows.change(user_id, watchers, self.owed.get(user_id), undoable=undoable):
            self._begin(user_id, watchers)

    def _begin(self, user_id: str, watchers: set[Session]) -> None:
        """Have some watchers of a name told, and open its next window."""
        self.windows.telling(user_id, self._presence.state(user_id))
        self.owed[user_id] = watchers

    def _tell_soon(self) -> None:
        """Tell some of those that are to be told now, and the others in later turns."""
        before = self.windows.next_end()
        self._tell_some()
        if self.owed:
            self._wake(0.0)
        elif self.windows.next_end() < before:
            self._wake(self.windows.next_end() - self.now)

    def audience(self, user_id: str, privacy: UserPrivacy | None) -> set[Session]:
        """The watchers of a user that may see it. The time that it takes depends on the lists of names, and not on the
        number of watchers."""
        watchers = self._watchers.get(user_id)
        if not watchers:
            return set()
        if privacy is None:
            return set(watchers)
        settings, sessions = privacy.settings, self._presence.devices
        if settings.presence == PUBLIC:
            return watchers.difference(*map(sessions, settings.blocked))
        names = settings.contacts if settings.presence == CONTACTS else frozenset[str]()
        found = (session for name in (*names, user_id) for session in sessions(name) if session in watchers)
        return {one for one in found if privacy.shows_to(one.user_id, proven=one.dialect.proves)}

    def tell_some(self, user_id: str, watchers: set[Session]) -> None:
        """Tell some watchers of a user what they may see of it now."""
        self._change(user_id, watchers, undoable=False)
        self._tell_soon()

    def tell_more(self) -> float | None:
        """Tell some of those that are to be told now. Returns after how many seconds there are more of them; None when
        there are none."""
        for user_id in self.windows.due(self.now):
            self._end_window(user_id)
        self._tell_some()
        self._remove_some()
        if self._new:
            self._enter_some()
        if self._telling:
            watcher = next(iter(self._telling))
            del self._telling[watcher]
            self.tell_untold(watcher)
        if self.owed or self._over or self._new or self._telling:
            return 0.0
        end = self.windows.next_end()
        return None if end == inf else max(end - self.now, 0.0)

    def _end_window(self, user_id: str) -> None:
        watchers = self.windows.close(user_id, self._presence.state(user_id))
        if watchers:
            self._begin(user_id, watchers)

    def _tell_some(self) -> None:
        room = MOST_AT_ONCE
        while self.owed and room:
            user_id, targets = next(iter(self.owed.items()))
            some = [targets.pop() for _ in range(min(room, len(targets)))]
            if not targets:
                del self.owed[user_id]
            room -= max(len(some), 1)
            self._tell([watcher for watcher in some if watcher.watches and user_id in watcher.watches], user_id)
            if not targets:
                self.windows.told(user_id, self.now + self._settings.presence_interval)

    def tell_all(self) -> None:
        """Tell all that are still to be told, at once and without regard to windows: no more will be told."""
        while self.owed:
            self._tell_some()
        for user_id in self.windows.due(inf):
            self._end_window(user_id)
        while self.owed:
            self._tell_some()

    def tell_before(self, user_id: str, watcher: Session) -> None:
        """A message of a user is about to reach a session: tell it first what it has to be told of that user."""
        targets = self.owed.get(user_id)
        if targets is not None and watcher in targets:
            targets.remove(watcher)
        elif not self.windows.waits(user_id, watcher):
            return
        if watcher.watches and user_id in watcher.watches:
            self._tell([watcher], user_id)

    def _tell(self, watchers: list[Session], user_id: str) -> None:
        if not watchers:
            return
        frames: dict[tuple[Dialect, bool], bytearray] = {}
        for watcher in watchers:
            if watcher.connection is None or watcher.connection.full:
                if watcher.untold is None:
                    watcher.untold = {}
                watcher.untold[user_id] = None
                continue
            look = watcher.dialect, self._presence.shows(user_id, watcher)
            frame = frames.get(look)
            if frame is None:
                news = self._presence.of(user_id, watcher)
                frame = frames[look] = self._outgoing.encode(news, watcher.dialect)
            self._outgoing.send_numbered_frame(watcher, frame)
        self._told(user_id, watchers)

    def _told(self, user_id: str, watchers: Iterable[Session]) -> None:
        """Some watchers know the state of a user, or will be told it when they read."""
        if user_id in self.windows.changed:
            self.windows.heard(user_id, watchers)

    def tell_untold(self, watcher: Session) -> None:
        """Send a connected watcher some of its pending presence, until its connection is full, and the rest in later
        turns."""
        untold = watcher.untold
        for one in list(islice(untold or (), MOST_AT_ONCE)):
            if watcher.connection is None or watcher.connection.full or watcher.untold is not untold:
                return
            del untold[one]  # type: ignore[union-attr]  # there is one in it
            if isinstance(one, WatchRequest):
                self._outgoing.acknowledge(watcher, one.id)
            else:
                self._outgoing.send_numbered(watcher, self._presence.of(one, watcher))
                self._told(one, (watcher,))
        if not untold:
            if watcher.untold is untold:
                watcher.untold = None
        elif watcher.connection is not None and not watcher.connection.full:
            self._telling[watcher] = None
            self._wake(0.0)

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
        self._new.forget_request(watcher)
        if watcher.untold is not None:
            watcher.untold = {one: None for one in watcher.untold if not isinstance(one, WatchRequest)}
