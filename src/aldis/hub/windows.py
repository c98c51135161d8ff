"""When the watchers of a name may be told of it again.

A change is sent at once, and opens a *window* of `HubSettings.presence_interval` seconds from when the last watcher has
been told. What changes in the window is sent at its end, as it is then, and opens the next one. So no watcher gets more
than one `presence` of a name in the interval, however often it changes.

Not every watcher may see each change (`hub.privacy`), so a window notes whom its changes concern.

Changes that are told as one can hide that a program was restarted: a client that has heard of two devices takes one of
them for what is left. So that is told once more at the end of the next window.

A change that is over by the end of the window is not sent: a client takes a `presence` with the same devices as the
sign of a program that was restarted.

One queue holds the ends of all windows, in order, because all windows are equally long. This module does not know what
a presence is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from math import inf
from typing import Final

from aldis.hub.presence import PresenceState, hides_a_restart
from aldis.hub.sessions import Watcher


class _Window:
    """One name that has changed lately.

    `told`: the state that all watchers have been told; None when it is not the same for all. `later`: the watchers to
    tell at the end of the window. `again`: those to tell the same again then.
    """

    __slots__ = ("again", "later", "told")

    def __init__(self) -> None:
        self.told: PresenceState | None = None
        self.later: set[Watcher] = set()
        self.again: set[Watcher] | None = None


class PresenceWindows:
    """The windows of all names. Times are those of the caller; states are compared, and never None."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}
        # A name stands here unless its watchers are being told just now.
        self._ends: deque[tuple[float, str]] = deque()
        self.changed: Final[set[str]] = set()
        """The names with watchers that wait for the end of a window."""
        self.folded = 0
        """How many changes have waited for the end of a window."""

    def __len__(self) -> int:
        """The number of open windows."""
        return len(self._windows)

    def change(
        self, name: str, watchers: AbstractSet[Watcher], telling: AbstractSet[Watcher] | None, *, undoable: bool
    ) -> bool:
        """A name has changed for these watchers. True: tell them now. False: they are told at the end of the window.

        `telling`: the watchers that are still to be told of an earlier change, if they are being told; they hear of
        this one with it. `undoable`: watchers need not hear of it if the state is the same again in the end.
        """
        window = self._windows.get(name)
        if window is None:
            self._windows[name] = _Window()
            return True
        window.later |= watchers if telling is None else watchers - telling
        if telling is not None or not undoable:
            window.told = None
        self.changed.add(name)
        self.folded += 1
        return False

    def telling(self, name: str, state: PresenceState) -> None:
        """The watchers of a name are about to be told this state."""
        window = self._windows[name]
        window.told, window.later = state, set()
        self.changed.discard(name)

    def told(self, name: str, until: float) -> None:
        """The last watcher has been told: the window is open until then."""
        self._ends.append((until, name))
        window = self._windows[name]
        if window.again is not None:
            window.later |= window.again
            window.again = window.told = None
            self.changed.add(name)

    def heard(self, name: str, watchers: Iterable[Watcher]) -> None:
        """These have been told the state of a name in `changed` before the end of its window."""
        window = self._windows[name]
        window.told = None
        window.later.difference_update(watchers)

    def waits(self, name: str, watcher: Watcher) -> bool:
        """Whether a watcher is to be told of a name at the end of its window."""
        return name in self.changed and watcher in self._windows[name].later

    def due(self, now: float, most: float = inf) -> list[str]:
        """The names whose window has ended, `most` at most. Call `close` for each."""
        names: list[str] = []
        while self._ends and self._ends[0][0] <= now and len(names) < most:
            names.append(self._ends.popleft()[1])
        return names

    def close(self, name: str, state: PresenceState) -> set[Watcher]:
        """A window has ended. Return the watchers to tell now that the name has this state; then call `telling`.
        Without any, the window is gone."""
        window = self._windows[name]
        if window.later and (window.told is None or window.told != state):
            if window.told is not None and hides_a_restart(window.told, state):
                window.again = set(window.later)
            return window.later
        del self._windows[name]
        self.changed.discard(name)
        return set()

    def next_end(self) -> float:
        """When the next window ends; infinite when none is open."""
        return self._ends[0][0] if self._ends else inf
