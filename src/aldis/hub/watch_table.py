"""Who watches each name.

An attacker may have a million names watched, and the event loop must not stand still for them. So the names stand in
many small tables: Python moves all entries of a table when it outgrows its room, which takes 16 ms with 350,000 of
them. And a name with one watcher, which is nearly every one, has no set of its own: that saves 200 bytes, and
the collector of garbage the look into it.

A name with many watchers also has them by their groups, so that the largest group can give way. A name with few is
looked through instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

from aldis.hub.groups import Groups
from aldis.hub.sessions import Watcher

# A power of two. Each table of a million names moves 4,000 entries at most: 0.1 ms.
TABLES = 256
_LAST = TABLES - 1
_NOBODY: frozenset[Watcher] = frozenset()

# A set that has lost so many watchers that it takes more bytes for each is made anew.
_ROOMY = 256

# The only watcher of a name, or all of them: two at least.
_Watchers: TypeAlias = "Watcher | set[Watcher]"
# Of one name, by `Watcher.group`.
Crowd: TypeAlias = "Groups[bytes, Watcher]"

# With so many watchers a name has a `Crowd`, and until it has fewer than so many. So none is made again and again, and
# to make one takes a tenth of a millisecond.
CROWD_FROM: Final = 128
CROWD_TO: Final = 64


class WatchTable:
    """The watchers of each name that has any."""

    def __init__(self) -> None:
        self._tables: tuple[dict[str, _Watchers], ...] = tuple({} for _ in range(TABLES))
        self.shared = 0
        """How many watches are of names that are watched by more than one."""
        self._crowds: dict[str, Crowd] = {}
        self.crowded = 0
        """How many watches are of names with a `Crowd`."""

    def __contains__(self, name: str) -> bool:
        """Whether anybody watches a name."""
        return name in self._tables[hash(name) & _LAST]

    def of(self, name: str) -> AbstractSet[Watcher]:
        """The watchers of a name: to look at, not to change."""
        watchers = self._tables[hash(name) & _LAST].get(name)
        if watchers is None:
            return _NOBODY
        return watchers if isinstance(watchers, set) else {watchers}

    def count(self, name: str) -> int:
        """How many watch a name."""
        watchers = self._tables[hash(name) & _LAST].get(name)
        return 0 if watchers is None else len(watchers) if isinstance(watchers, set) else 1

    def crowd(self, name: str) -> Crowd:
        """The watchers of a name by their groups: to look at, not to change."""
        return self._crowds.get(name) or _crowd(self.of(name))

    def unwatched(self, names: Iterable[str]) -> list[str]:
        """Those of the names that nobody watches."""
        tables = self._tables
        return [name for name in names if name not in tables[hash(name) & _LAST]]

    def add(self, names: Iterable[str], watcher: Watcher) -> None:
        """Somebody watches some names that it has not watched."""
        tables = self._tables
        for name in names:
            table = tables[hash(name) & _LAST]
            watchers = table.get(name)
            if watchers is None:
                table[name] = watcher
            elif isinstance(watchers, set):
                watchers.add(watcher)
                self.shared += 1
                if len(watchers) >= CROWD_FROM or name in self._crowds:
                    self._join(name, watchers, watcher)
            else:
                table[name] = {watchers, watcher}
                self.shared += 2

    def remove(self, names: Iterable[str], watcher: Watcher) -> list[str]:
        """Somebody does not watch some names any more, which it has watched. Returns those that nobody watches now."""
        tables, gone = self._tables, []
        for name in names:
            table = tables[hash(name) & _LAST]
            watchers = table[name]
            if not isinstance(watchers, set):
                del table[name]
                if not table:
                    table.clear()  # gives its memory back, too
                gone.append(name)
                continue
            watchers.remove(watcher)
            left = len(watchers)
            if name in self._crowds:
                self._part(name, left, watcher)
            self.shared -= 1 if left > 1 else 2
            if left == 1:
                table[name] = watchers.pop()
            elif watchers.__sizeof__() > _ROOMY * (left + 1):
                table[name] = set(watchers)
        return gone

    def _join(self, name: str, watchers: set[Watcher], watcher: Watcher) -> None:
        crowd = self._crowds.get(name)
        if crowd is None:
            self._crowds[name] = _crowd(watchers)
            self.crowded += len(watchers)
        else:
            crowd.add(watcher.group, watcher)
            self.crowded += 1

    def _part(self, name: str, left: int, watcher: Watcher) -> None:
        self._crowds[name].discard(watcher.group, watcher)
        self.crowded -= 1
        if left < CROWD_TO:
            del self._crowds[name]
            self.crowded -= left
            if not self._crowds:
                self._crowds.clear()  # gives its memory back, too


def _crowd(watchers: Iterable[Watcher]) -> Crowd:
    return Groups((watcher.group, watcher) for watcher in watchers)
