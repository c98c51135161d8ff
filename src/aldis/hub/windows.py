"""When the watchers of a name may be told of it again.

A change is sent at once, and opens a *window* of `HubSettings.presence_interval` seconds from when the last watcher has
been told. What changes in the window is sent at its end, as it is then, and opens the next one. So no watcher gets more
than one `presence` of a name in the interval, however often it changes.

Not every watcher may see each change (`hub.privacy`), so a window notes whom its changes concern, or with which privacy
they are found at its end.

Changes that are told as one can hide that a program was restarted: a client that has heard of two devices takes one of
them for what is left. So that is told once more at the end of the next window.

A change that is over by the end of the window is not sent: a client takes a `presence` with the same devices as the
sign of a program that was restarted.

One queue holds the ends of all windows, in order, because all windows are equally long. This module does not know what
a presence is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from math import inf
from typing import Final, TypeAlias

from aldis.hub.presence import PresenceState, hides_a_restart
from aldis.hub.sessions import Watcher
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy

Audience: TypeAlias = Callable[[Privacy], set[Watcher]]
"""Finds the watchers of a user that may see it with this privacy."""


class _Window:
    """One name that has changed lately.

    `told`: the state that all watchers have been told; None when it is not the same for all. `later`: the watchers to
    tell at the end of the window. `again`: those to tell the same again then. `all_but`: tell all that may see the user
    with this `privacy`, but these; None: no more than `later`.
    """

    __slots__ = ("again", "all_but", "later", "privacy", "told")

    def __init__(self) -> None:
        self.told: PresenceState | None = None
        self.later: set[Watcher] = set()
        self.again: set[Watcher] | None = None
        self.all_but: set[Watcher] | None = None
        self.privacy = DEFAULT_PRIVACY

    def find(self, audience: Audience) -> None:
        """Put those that are to be told at the end, and were not looked for, into `later`."""
        if self.all_but is not None:
            self.later |= audience(self.privacy) - self.all_but


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

    def change(self, name: str, watchers: AbstractSet[Watcher], telling: AbstractSet[Watcher] | None) -> bool:
        """A name has changed for these watchers. True: tell them now. False: they are told at the end of the window.

        `telling`: the watchers that are still to be told of an earlier change, if they are being told; they hear of
        this one with it.
        """
        window = self._open(name)
        if window is None:
            return True
        window.later |= watchers if telling is None else watchers - telling
        window.told = None
        return False

    def change_for_all(
        self, name: str, privacy: Privacy, telling: AbstractSet[Watcher] | None, audience: Audience
    ) -> bool:
        """Like `change`, for all that may see the user with this privacy, who need not hear of it if the state is the
        same again in the end. They are looked for then: there may be thousands, and the user may come and go on and on.
        """
        window = self._open(name)
        if window is None:
            return True
        if window.privacy != privacy:
            window.find(audience)
        window.privacy, window.all_but = privacy, set(telling or ())
        if telling is not None:
            window.told = None
        return False

    def _open(self, name: str) -> _Window | None:
        """The window of a name that changes; None when there was none, and now is."""
        window = self._windows.get(name)
        if window is None:
            self._windows[name] = _Window()
            return None
        self.changed.add(name)
        self.folded += 1
        return window

    def telling(self, name: str, state: PresenceState) -> None:
        """The watchers of a name are about to be told this state."""
        window = self._windows[name]
        window.told, window.later, window.all_but = state, set(), None
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
        if window.all_but is not None:
            window.all_but.update(watchers)

    def waits(self, name: str, watcher: Watcher, *, sees: bool) -> bool:
        """Whether a watcher, which sees the user now or not, is to be told of a name in `changed` at the end of its
        window."""
        window = self._windows[name]
        return watcher in window.later or (sees and window.all_but is not None and watcher not in window.all_but)

    def due(self, now: float) -> Iterator[str]:
        """The names whose window has ended, which are taken out one by one. Call `close` for each."""
        while self._ends and self._ends[0][0] <= now:
            yield self._ends.popleft()[1]

    def close(self, name: str, state: PresenceState, audience: Audience) -> set[Watcher]:
        """A window has ended. Return the watchers to tell now that the name has this state; then call `telling`.
        Without any, the window is gone."""
        window = self._windows[name]
        if window.told is None or window.told != state:
            window.find(audience)
            if window.later:
                if window.told is not None and hides_a_restart(window.told, state):
                    window.again = set(window.later)
                return window.later
        del self._windows[name]
        self.changed.discard(name)
        return set()

    def next_end(self) -> float:
        """When the next window ends; infinite when none is open."""
        return self._ends[0][0] if self._ends else inf
