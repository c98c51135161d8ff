"""Watches that are admitted and not in the tables yet: what they take of each limit, and whose turn it is.

A `watch` is admitted whole or not at all, in one step that only counts. Later turns of the transport's loop enter its
names in the tables, `ENTERED_AT_ONCE` in each, and sessions take turns: so a thousand names keep nobody waiting.
Meanwhile the later frames of the session wait. A watch of few names is entered at once.

It knows neither the tables nor what a watcher is told (`hub.watchers`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from msgspec import UNSET, UnsetType

from aldis.hub.outcomes import RequestRefused
from aldis.hub.sessions import Session
from aldis.protocol import messages as m
from aldis.protocol.addresses import are_user_ids, user_id_problem
from aldis.protocol.codes import ErrorCode

# Names that are entered in one go: a tenth of a millisecond.
ENTERED_AT_ONCE: Final = 128


def read_names(user_ids: list[str]) -> list[str] | RequestRefused:
    """The names of a message, without duplicates, in order."""
    problem: str | None = None
    if len(user_ids) > m.MAX_WATCHED_PER_MESSAGE:
        problem = f"at most {m.MAX_WATCHED_PER_MESSAGE} names in one message"
    elif not are_user_ids(user_ids):
        problem = next(filter(None, map(user_id_problem, user_ids)), None)
    if problem is None:
        return list(dict.fromkeys(user_ids))
    return RequestRefused(ErrorCode.INVALID_FIELD, f"userIds: {problem}")


def texts_bytes(texts: list[str]) -> int:
    """The most bytes that the content of some texts takes."""
    joined = "".join(texts)
    if joined.isascii():
        return len(joined)
    return sum([len(text) if text.isascii() else 4 * len(text) for text in texts])  # `text_bytes`, without a call


class NewWatch:
    """The names of one `watch`, in order. `re`: the request to acknowledge; UNSET: none."""

    __slots__ = ("_entered", "_names", "re")

    def __init__(self, names: list[str], re: m.RequestId | UnsetType) -> None:
        self._names = names
        self._entered = 0
        self.re = re

    def __len__(self) -> int:
        """How many names are to come."""
        return len(self._names) - self._entered

    def take(self, most: int) -> list[str]:
        """The next names to enter."""
        portion = self._names[self._entered : self._entered + most]
        self._entered += len(portion)
        return portion


class NewWatches:
    """The watch of each session that is admitted and not entered: one at most, because later frames wait for it."""

    def __init__(self) -> None:
        self._admitted: dict[Session, NewWatch] = {}
        # Those of them that may be entered, in turn. The others wait for an answer of the cluster.
        self._turns: dict[Session, NewWatch] = {}
        self.coming: Final[Counter[str]] = Counter()
        """How many sessions are about to watch a name, for each such name: to look at, not to change."""

    def __bool__(self) -> bool:
        """Whether there are names that may be entered now."""
        return bool(self._turns)

    def admit(self, session: Session, names: list[str], new: list[str], re: m.RequestId | UnsetType) -> None:
        """A session is about to watch some names, those in `new` for the first time."""
        self._admitted[session] = NewWatch(names, re)
        self.coming.update(new)

    def start(self, session: Session) -> NewWatch:
        """The names of an admitted watch may be entered from now on."""
        watch = self._turns[session] = self._admitted[session]
        return watch

    def next(self) -> tuple[Session, NewWatch]:
        """The session whose turn it is; it is the last one from now on."""
        session = next(iter(self._turns))
        watch = self._turns[session] = self._turns.pop(session)
        return session, watch

    def forget(self, session: Session) -> NewWatch | None:
        """All names of a session's watch are entered, or the session has ended. Returns the watch."""
        self._turns.pop(session, None)
        return self._admitted.pop(session, None)

    def entered(self, user_ids: Iterable[str]) -> None:
        """Names are in the tables, or will not be."""
        coming, pop = self.coming, self.coming.pop
        for user_id in user_ids:
            left = pop(user_id) - 1
            if left:
                coming[user_id] = left

    def take_over(self, session: Session, old: Session) -> bool:
        """Another connection goes on with a session. Returns whether names are still to be entered for it.

        A watch for which the cluster is still being asked is not passed on: its answer finds no session.
        """
        if old not in self._turns:
            return False
        self._admitted[session] = self._turns[session] = self._turns.pop(old)
        del self._admitted[old]
        return True

    def forget_request(self, session: Session) -> None:
        """The connection of a session is lost: do not acknowledge its watch on the next one."""
        watch = self._admitted.get(session)
        if watch is not None:
            watch.re = UNSET
