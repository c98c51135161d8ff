"""The frames of sessions that waited for an answer, or for a watch: they are handled in order, a few at a time.

A session may have hundreds of frames waiting. So one call handles only some of them, by their cost. The others wait for
a later turn of the transport's loop, in turn with those of other sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aldis.hub.lookups import PendingLookups
from aldis.hub.sessions import Session

# Handle no more frames of a session in one turn when they have cost so many units (`hub.costs`): 0.1 ms, and then what
# the last of them takes.
UNITS_AT_ONCE: Final = 16


class HeldBackFrames:
    """Goes on with them. `handle` handles a frame; `wake` is called with the seconds after which to call `work`."""

    def __init__(
        self,
        lookups: PendingLookups,
        handle: Callable[[Session, str, float], object],
        wake: Callable[[float], None],
    ) -> None:
        self._lookups = lookups
        self._handle = handle
        self._wake = wake
        # The sessions that go on in later turns. `Session.waiting` is set for each of them.
        self._later: dict[Session, None] = {}

    def answered(self, session: Session, now: float) -> None:
        """A session does not wait any more. What it has sent meanwhile is handled in later turns: many answers may come
        in one."""
        if session.backlog is None or session.waiting:
            self._go_on(session, now)
        else:
            session.waiting = True
            self.go_on_later(session)

    def _go_on(self, session: Session, now: float) -> None:
        """Handle some frames of a session that waits for nothing, until one of them has a question of its own."""
        spent = 0
        while session.connection is not None:
            if spent >= UNITS_AT_ONCE and session.backlog is not None and not session.waiting:
                session.waiting = True
                self.go_on_later(session)
                return
            text = self._lookups.next(session)
            if text is None:
                return
            before = session.charged
            self._handle(session, text, now)
            spent += 1 + session.charged - before

    def go_on_later(self, session: Session) -> None:
        """Go on with a waiting session in a later turn."""
        self._later[session] = None
        self._wake(0.0)

    def work(self, now: float) -> bool:
        """Go on with one session. Returns whether there was one."""
        if not self._later:
            return False
        session = next(iter(self._later))
        del self._later[session]
        session.waiting = False
        self._go_on(session, now)
        return True
