"""The bans of a cluster, as one node knows and applies them.

Rules:

* Changes are applied in the order of their versions. One whose `previous` is not what is known shows that others were
  missed: then the whole list is read (`catch_up`), and what is heard meanwhile waits.
* `catch_up` is also for the start, and for each time when changes may have been missed.
* No ban is lost with the data of the server while a node is up. A node that knows a later version than the server puts
  its list back. When a change shows that the server's list was begun anew, or is an old one (it follows on an older
  version than is known), the node makes the changes that it has heard to its own list, and puts that back. So it does
  when the list that it reads has not gone through the version that it knows: then not all changes are known, and the
  bans of both lists hold.

It knows no Redis and no session: it calls a `BanStore` and a `BanWatcher`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from aldis.cluster.messages import BanChange, BansRestored
from aldis.hub.bans import Ban

# Changes that wait until the list was read, which fails while Redis is away. With more, it is read again.
_MOST_WAITING: Final = 1000


class BanList(NamedTuple):
    """All bans, and the version of the list; 0: there was never a ban.

    `passed`: the last versions that the list has gone through, from the oldest that is kept on.
    """

    version: int
    bans: tuple[Ban, ...]
    passed: frozenset[int] = frozenset()

    def goes_on_from(self, version: int) -> bool:
        """Whether this list has gone through a version, or nobody knows it any more."""
        return not self.passed or version <= min(self.passed) or version in self.passed


class BanStore(Protocol):
    """What is needed of a `BanTable`."""

    async def read(self) -> BanList:
        """See `BanTable`."""

    async def restore(self, known: BanList, own: int) -> bool:
        """See `BanTable`."""


class BanWatcher(Protocol):
    """Carries bans out, and knows them."""

    def known_bans(self) -> Sequence[Ban]:
        """All bans that are not over."""

    def banned(self, ban: Ban) -> int:
        """This is banned from now on, in place of an earlier ban of the same. Returns how many sessions have ended."""

    def lifted(self, ban: Ban) -> None:
        """This is banned no more."""

    def answer_ban(self, change: BanChange, sessions: int) -> None:
        """A change has been applied: tell its origin."""


class SharedBans:
    """The bans, from the first `catch_up` on."""

    def __init__(self, store: BanStore, watcher: BanWatcher) -> None:
        self._store = store
        self._watcher = watcher
        self.version = 0
        """Of the list that is applied."""
        self._reading = False
        self._again = False
        self._anew = False  # the list of the server does not go on from ours
        self._waiting: deque[BanChange] = deque()

    def heard(self, change: BanChange) -> bool:
        """Apply a change; False when changes are missing before it: `catch_up`."""
        if self._reading:
            self._wait(change)
            return True
        if change.version <= self.version:
            self._watcher.answer_ban(change, 0)  # the list that was read had it already
            return True
        if change.previous != self.version:
            self._anew |= change.previous < self.version
            self._wait(change)  # it is answered when the list was read
            return False
        self.version = change.version
        self._watcher.answer_ban(change, self._apply(change.ban, lift=change.lifted))
        return True

    def is_behind(self, restored: BansRestored) -> bool:
        """Whether to `catch_up`, as a list was put back."""
        return restored.version > self.version

    async def catch_up(self) -> None:
        """Read the whole list, and apply what is new. Raises what the store raises; then call it again."""
        self._again = True
        if self._reading:
            return  # the other call does it
        while self._again:
            self._reading = True
            try:
                while self._again:
                    self._again = False
                    await self._read()
            finally:
                self._reading = False
            waiting, self._waiting = self._waiting, deque()
            while waiting and self.heard(waiting.popleft()):
                pass
            if self._waiting:  # one of them shows that the list was read too early
                self._waiting.extend(waiting)
                self._again = True

    async def _read(self) -> None:
        found = await self._store.read()
        if found.version < self.version:
            known = BanList(self.version, tuple(self._watcher.known_bans()))
            if not await self._store.restore(known, self.version):
                self._anew = True  # a change of the old list came between
            self._again = True
            return
        forked = self.version < found.version and not found.goes_on_from(self.version)
        if self._anew or forked or any(each.previous < self.version < each.version for each in self._waiting):
            self._anew = True
            both = self._merged(found)
            if forked or both != found.bans:
                found = BanList(found.version + 1, both)
                if not await self._store.restore(found, self.version):
                    self._again = True
                    return
        self._anew = False
        self._take(found)

    def _merged(self, found: BanList) -> tuple[Ban, ...]:
        """Our bans with the changes of a list that does not go on from them.

        Where not all changes were heard, all bans of both: one that was lifted may come back, and none is lost.
        """
        bans = {(ban.kind, ban.value): ban for ban in self._watcher.known_bans()}
        theirs = {(ban.kind, ban.value): ban for ban in found.bans}
        version, gap = self.version, False
        for change in self._waiting:
            if change.version <= version:
                continue
            gap |= change.previous > version
            version = change.version
            if change.lifted:
                bans.pop((change.ban.kind, change.ban.value), None)
            else:
                bans[change.ban.kind, change.ban.value] = change.ban
        if gap or version != found.version:
            bans |= theirs
        return (*(bans[key] for key in theirs if key in bans), *(bans[key] for key in bans if key not in theirs))

    def _wait(self, change: BanChange) -> None:
        if len(self._waiting) == _MOST_WAITING:
            self._waiting.popleft()  # nobody waits for its answer any more
            self._again = True
        self._waiting.append(change)

    def _take(self, found: BanList) -> None:
        self.version = found.version
        ours = {(ban.kind, ban.value): ban for ban in self._watcher.known_bans()}
        theirs = {(ban.kind, ban.value): ban for ban in found.bans}
        for key in ours.keys() - theirs.keys():
            self._apply(ours[key], lift=True)
        for key, ban in theirs.items():
            if ours.get(key) != ban:
                self._apply(ban, lift=False)

    def _apply(self, ban: Ban, *, lift: bool) -> int:
        if lift:
            self._watcher.lifted(ban)
            return 0
        return self._watcher.banned(ban)
