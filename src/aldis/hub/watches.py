"""Who watches whom: what each session may watch, what that costs, and how it gets into the table and out of it.

A `watch` is admitted whole or not at all. Its names are looked at by some at a time, `ENTERED_AT_ONCE` in each turn of
the transport's loop, and sessions take turns: so a thousand names keep nobody waiting. A name counts from when it is
looked at. Nobody is told of it, and the later frames of the session wait, until the last one is admitted. If one is
not, all are given up. A watch of few names needs one step.

A name has so many watchers at most. Then one of the network with most of them gives way to one of a network with fewer:
nobody, with however many sessions, keeps others from watching a user.

What a session does not watch any more leaves the table by some names at a time, too, and counts until then.

It does not know what a watcher is told (`hub.watchers`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from msgspec import UNSET, UnsetType

from aldis.hub.networks import group_of
from aldis.hub.outcomes import DONE, PENDING, RequestOutcome, RequestRefused
from aldis.hub.sessions import Session, Watcher
from aldis.hub.settings import HubSettings
from aldis.hub.use import texts_bytes
from aldis.hub.watch_table import CROWD_FROM, CROWD_TO, WatchTable
from aldis.protocol import messages as m
from aldis.protocol.addresses import user_ids_problem
from aldis.protocol.codes import ErrorCode

# Names that are entered in one go, and names that are removed in one go: a tenth of a millisecond.
ENTERED_AT_ONCE: Final = 128
REMOVED_AT_ONCE: Final = 128
# Of the names that are entered in one go, so many may get enough watchers to have them by networks: each takes 0.05 ms.
CROWDS_AT_ONCE: Final = 8
# Bytes beside the text of the name, of entries of tables which may be mostly empty. Of a watch; of a name that is
# watched at all, which may have a text of its own; of a watch of a name that others watch, too; of a session that
# watches anybody.
WATCH_BYTES: Final = 96
WATCHED_BYTES: Final = 88
SHARED_BYTES: Final = 150
WATCHER_BYTES: Final = 400
# Of a watch of a name with many watchers, which stand by their networks, too: half of it if they are of few networks.
CROWDED_BYTES: Final = 450
# How many watchers of the largest network are looked at for one that can give way. Those cannot whose `watch` is still
# being admitted; they are the newest, so they come last.
_LOOKED_AT: Final = 8


def read_names(user_ids: list[str]) -> list[str] | RequestRefused:
    """The names of a message, without duplicates, in order."""
    if len(user_ids) > m.MAX_WATCHED_PER_MESSAGE:
        problem: str | None = f"at most {m.MAX_WATCHED_PER_MESSAGE} names in one message"
    else:
        problem = user_ids_problem(user_ids)
    if problem is None:
        return list(dict.fromkeys(user_ids))
    return RequestRefused(ErrorCode.INVALID_FIELD, f"userIds: {problem}")


def _size(names: list[str], alone: list[str]) -> int:
    """Bytes of one watch of each of these names. `alone`: those of them that are not watched by anybody else."""
    texts = texts_bytes(names)
    alone_texts = texts if len(alone) == len(names) else texts_bytes(alone)
    return WATCH_BYTES * len(names) + texts + WATCHED_BYTES * len(alone) + alone_texts


def no_place(text: str, settings: HubSettings) -> RequestRefused:
    """Why a watch of a name with too many watchers is refused, or has ended."""
    return RequestRefused(ErrorCode.OVER_CAPACITY, text, settings.watch_pause, limit="watchers-per-user")


class NewWatch:
    """A `watch` that is being admitted.

    `names`: all of its names, in order. `re`: the request to acknowledge; UNSET: none.
    """

    __slots__ = ("entered", "names", "new", "re")

    def __init__(self, names: list[str], new: list[str], re: m.RequestId | UnsetType) -> None:
        self.names = names
        self.new = new
        """Those of them that the session does not watch yet."""
        self.entered = 0
        """How many of these are in the table."""
        self.re = re


class Watches:
    """The watches of all sessions.

    `wake` is called with the seconds after which there is something to do. `admitted` is called when the last name of a
    `watch` is admitted for which `admit` has returned PENDING, with None, or when it is not to be, with the reason.
    Call `finish` next, or `give_up`. `ended` is called when a session has lost the watch of a name to somebody else.
    """

    def __init__(
        self,
        settings: HubSettings,
        wake: Callable[[float], None],
        admitted: Callable[[Session, NewWatch, RequestRefused | None], None],
        ended: Callable[[Session, str], None],
    ) -> None:
        self._settings = settings
        self._wake = wake
        self._admitted = admitted
        self._ended = ended
        self.table: Final = WatchTable()
        """Who watches each name. The names of a `watch` that is being admitted are among them."""
        # Without what `SHARED_BYTES` stands for.
        self._bytes = 0
        # How many names each user watches, over all its sessions.
        self._of_user: dict[str, int] = {}
        # The `watch` of each session that is being admitted: one at most, because later frames wait for it. Those of
        # them whose turn is to come; the others wait for an answer of the cluster.
        self._new: dict[Session, NewWatch] = {}
        self._turns: dict[Session, NewWatch] = {}
        # Watches that are over, and are still in the table. They are in no `Session.watches` any more.
        self._over: dict[Watcher, dict[str, None]] = {}

    @property
    def bytes(self) -> int:
        """What all of it costs."""
        return self._bytes + SHARED_BYTES * self.table.shared + CROWDED_BYTES * self.table.crowded

    @property
    def due(self) -> bool:
        """Whether there is something to do."""
        return bool(self._turns or self._over)

    def new(self, session: Session) -> NewWatch:
        """The watch of a session that is being admitted."""
        return self._new[session]

    # --- admission --------------------------------------------------------------------------------------------------

    def admit(self, session: Session, names: list[str], re: m.RequestId | UnsetType) -> RequestOutcome:
        """A session wants to watch some names. DONE: they are admitted; call `finish` next, or `give_up`."""
        watches, settings = session.watches, self._settings
        new = [name for name in names if name not in watches] if watches else names
        if len(watches or ()) + len(new) > settings.max_watches:
            text = f"at most {settings.max_watches} names can be watched by one session"
            return RequestRefused(ErrorCode.TOO_LARGE, text, limit="watches-per-session")
        if self._of_user.get(session.user_id, 0) + len(new) > settings.max_user_watches:
            text = f"at most {settings.max_user_watches} names can be watched by all devices of a user"
            return RequestRefused(ErrorCode.TOO_LARGE, text, limit="watches-per-user")
        if session.watcher is None:
            session.watcher = self._watcher(session)
        watch = self._new[session] = NewWatch(names, new, re)
        self._count(session, len(new))
        refused = None if len(new) > ENTERED_AT_ONCE else self._enter(session.watcher, watch)
        if refused is not None:
            self.give_up(session)
            return refused
        if watch.entered < len(new):
            self._turns[session] = watch
            self._wake(0.0)
            return PENDING
        return DONE

    def _watcher(self, session: Session) -> Watcher:
        self._bytes += WATCHER_BYTES
        return Watcher(session, group_of(session.client_address, session.user_id))

    def _enter(self, watcher: Watcher, watch: NewWatch) -> RequestRefused | None:
        """Enter the next names of a watch. Returns why not, if they may not be."""
        names = self._next_names(watch)
        over = self._over.get(watcher)
        fresh = names if over is None else [name for name in names if name not in over]
        first = self.table.unwatched(fresh)
        settings = self._settings
        size, shared = _size(fresh, first), 0
        giving_way: list[tuple[str, Watcher]] = []
        if len(first) < len(fresh):
            count, most = self.table.count, settings.max_watchers
            counts = [count(name) for name in fresh]
            shared = SHARED_BYTES * (len(fresh) - len(first) + counts.count(1))
            shared += CROWDED_BYTES * sum(count >= CROWD_TO for count in counts)
            for name in (name for name, number in zip(fresh, counts, strict=True) if number >= most):
                other = self._gives_way(name, watcher)
                if other is None:
                    return no_place(f"{name} is watched by {most} sessions, which is all that there may be", settings)
                giving_way.append((name, other))
        if self.bytes + size + shared > settings.watches_bytes:
            text = "this server has no room for more watches now"
            return RequestRefused(ErrorCode.OVER_CAPACITY, text, settings.watch_pause, limit="watches-bytes")
        for name, other in giving_way:
            self._end(name, other)
        self._bytes += size
        self.table.add(fresh, watcher)
        if over is not None:
            for name in names:
                over.pop(name, None)  # what has not left the table yet stays there
        watch.entered += len(names)
        return None

    def _next_names(self, watch: NewWatch) -> list[str]:
        """The names of a watch that may be entered in one go."""
        names, table = watch.new[watch.entered : watch.entered + ENTERED_AT_ONCE], self.table
        if table.shared < CROWDS_AT_ONCE * (CROWD_FROM - 1):
            return names
        crowds = [index for index, name in enumerate(names) if table.count(name) == CROWD_FROM - 1]
        return names if len(crowds) <= CROWDS_AT_ONCE else names[: crowds[CROWDS_AT_ONCE]]

    def _gives_way(self, name: str, newcomer: Watcher) -> Watcher | None:
        """The watcher of a name whose place another one gets, if there is one."""
        crowd = self.table.crowd(name)
        if crowd.most <= crowd.count(newcomer.group) + 1:
            return None
        found: Watcher | None = None
        for watcher in islice(crowd.of_largest(), _LOOKED_AT):
            if name in self._over.get(watcher, ()):
                return watcher  # nobody misses it
            watches = None if watcher.session is None else watcher.session.watches
            if found is None and watches and name in watches:
                found = watcher
        return found

    def _end(self, name: str, watcher: Watcher) -> None:
        """End one watch for the sake of another one."""
        session, over = watcher.session, self._over.get(watcher)
        if over is not None and name in over:
            del over[name]
            if not over:
                del self._over[watcher]
            self._drop([name], watcher)
        elif session is not None:
            self.unwatch(session, [name])
            self._ended(session, name)

    def enter_some(self) -> bool:
        """Enter some names of the session whose turn it is. Returns whether there was one."""
        if not self._turns:
            return False
        session = next(iter(self._turns))
        watch = self._turns.pop(session)
        assert session.watcher is not None  # noqa: S101 - until its watch is given up
        refused = self._enter(session.watcher, watch)
        if refused is not None:
            self.give_up(session)
        elif watch.entered < len(watch.new):
            self._turns[session] = watch
            return True
        self._admitted(session, watch, refused)
        return True

    def finish(self, session: Session) -> NewWatch:
        """A session watches the names that are admitted from now on."""
        watch = self._new.pop(session)
        if session.watches is None:
            session.watches = {}
        session.watches.update(dict.fromkeys(watch.new))
        return watch

    def give_up(self, session: Session) -> None:
        """A session is not to watch those names that it has been waiting for."""
        watch, watcher = self._take_new(session), session.watcher
        if watch is not None and watcher is not None:
            self._count(session, -len(watch.new))
            self._leave(watcher, watch.new[: watch.entered])
            self._forget_idle(session)

    def _take_new(self, session: Session) -> NewWatch | None:
        self._turns.pop(session, None)
        return self._new.pop(session, None)

    def forget_request(self, session: Session) -> None:
        """The connection of a session is lost: do not acknowledge its watch on the next one."""
        watch = self._new.get(session)
        if watch is not None:
            watch.re = UNSET

    def restore(self, session: Session, names: list[str]) -> None:
        """Give a session of an earlier process its watches back."""
        if names:
            watcher = session.watcher = self._watcher(session)
            session.watches = dict.fromkeys(names)
            self._bytes += _size(names, self.table.unwatched(names))
            self._count(session, len(names))
            self.table.add(names, watcher)

    def take_over(self, session: Session, old: Session) -> None:
        """Give a session the watches of the one that it resumes."""
        session.watches, old.watches = old.watches, None
        session.watcher, old.watcher = old.watcher, None
        if session.watcher is not None:
            session.watcher.session = session
        watch = self._take_new(old)
        if watch is not None:
            # Its last step comes again: if the cluster has been asked, the answer finds no session.
            self._new[session] = self._turns[session] = watch
            session.waiting = True
            self._wake(0.0)

    # --- the end of watches -----------------------------------------------------------------------------------------

    def unwatch(self, session: Session, names: list[str]) -> None:
        """End some watches."""
        watches, watcher = session.watches, session.watcher
        if watches and watcher is not None:
            ended = [name for name in names if name in watches]
            for name in ended:
                del watches[name]
            self._count(session, -len(ended))
            self._leave(watcher, ended)
            self._forget_idle(session)

    def unwatch_all(self, session: Session) -> None:
        """End all watches of a session."""
        watcher = session.watcher
        if watcher is None:
            return
        ended, session.watches = session.watches or {}, None
        watch = self._take_new(session)
        self._count(session, -len(ended) - (0 if watch is None else len(watch.new)))
        if watch is not None:
            ended.update(dict.fromkeys(watch.new[: watch.entered]))
        self._forget_idle(session)
        ended.update(self._over.get(watcher, {}))
        if ended:
            self._over[watcher] = ended
            self.remove_some()
            self._wake(0.0)

    def _forget_idle(self, session: Session) -> None:
        """Forget the watcher of a session that watches nobody. Names of it may be still in the table."""
        if session.watcher is not None and not session.watches and session not in self._new:
            session.watcher.session = session.watcher = session.watches = None
            self._bytes -= WATCHER_BYTES

    def _leave(self, watcher: Watcher, names: list[str]) -> None:
        """Have some names leave the table: now, if they are few."""
        if len(names) <= REMOVED_AT_ONCE:
            self._drop(names, watcher)
        else:
            self._over.setdefault(watcher, {}).update(dict.fromkeys(names))
            self._wake(0.0)

    def remove_some(self) -> bool:
        """Remove some watches that are over from the table. Returns whether there were any."""
        if not self._over:
            return False
        watcher, names = next(iter(self._over.items()))
        self._drop([names.popitem()[0] for _ in range(min(REMOVED_AT_ONCE, len(names)))], watcher)
        if not names:
            del self._over[watcher]
        return True

    def _drop(self, names: list[str], watcher: Watcher) -> None:
        self._bytes -= _size(names, self.table.remove(names, watcher))

    def _count(self, session: Session, more: int) -> None:
        count = self._of_user.get(session.user_id, 0) + more
        if count:
            self._of_user[session.user_id] = count
        else:
            self._of_user.pop(session.user_id, None)
