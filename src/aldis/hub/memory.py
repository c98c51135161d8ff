"""What the server keeps for its clients, in bytes, and who goes when that is too much.

Counted as it changes, so asking for the total is a sum of a few numbers:

* each connection by what an idle one costs (`HubSettings.connection_bytes`);
* messages that clients have not confirmed, and frames that wait for the directory;
* what the transport keeps: read buffers, parts of messages, frames that wait for their turn, what is not sent yet;
* watches, privacy lists and lost sessions, which have budgets of their own, too.

Not counted: the program itself, the kernel's socket buffers, and tables of a fixed size.

Above the budget new connections, registrations and watches are refused, and sessions end until `GOAL` of it is in use.
First go those that keep more than their share, then the others; among them those that were active for the shortest
time, from their connection to their last message: the newest and the idlest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aldis.hub.outcomes import RequestRefused
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.stages import Stage
from aldis.hub.use import FRAME_BYTES, MemoryUse
from aldis.hub.watches import WATCH_BYTES
from aldis.protocol.codes import ErrorCode

# How far sessions end at a time, so that it is not one for each new one.
GOAL: Final = 0.95


class MemoryBudget:
    """The memory of one hub. `elsewhere`: bytes by kind that others count."""

    def __init__(self, settings: HubSettings, use: MemoryUse, *, elsewhere: dict[str, Callable[[], int]]) -> None:
        self._settings = settings
        self.use = use
        """The counters of those that keep something."""
        self._elsewhere = elsewhere

    def bytes(self) -> dict[str, int]:
        """What is kept, by kind."""
        use = self.use
        return {
            "connections": use.connections * self._settings.connection_bytes,
            "unconfirmed": use.replays,
            "waiting": use.backlogs,
            "transport": use.transports,
            **{kind: count() for kind, count in self._elsewhere.items()},
        }

    @property
    def total(self) -> int:
        """All that is kept."""
        return sum(self.bytes().values())

    @property
    def is_full(self) -> bool:
        """Whether nothing new should be taken on."""
        return self.total > self._settings.memory_budget

    def refusal(self) -> RequestRefused | None:
        """Why something new is refused; None while there is memory."""
        if not self.is_full:
            return None
        text = "this server has no memory left for more now"
        return RequestRefused(ErrorCode.OVER_CAPACITY, text, retry_after=self._settings.memory_pause, limit="memory")

    def surplus(self, all_sessions: Callable[[], list[Session]]) -> list[Session]:
        """Those of the sessions that have to end, in order."""
        left = self.total
        if left <= self._settings.memory_budget:
            return []
        sessions = [session for session in all_sessions() if session.stage is not Stage.CLOSED]
        share = self._settings.memory_budget / max(len(sessions), 1)
        sizes = {session: self._size(session) for session in sessions}
        chosen = []
        for session in sorted(sessions, key=lambda one: _rank(one, sizes[one] > share)):
            if left <= GOAL * self._settings.memory_budget:
                break
            chosen.append(session)
            left -= sizes[session]
        return chosen

    def _size(self, session: Session) -> int:
        """About what ends with a session."""
        size = self._settings.connection_bytes + WATCH_BYTES * len(session.watches or ())
        if session.replay is not None:
            size += session.replay.size + FRAME_BYTES * session.replay.waiting
        if session.backlog is not None:
            size += session.backlog.size
        if session.connection is not None:
            size += session.connection.kept
        return size


def _rank(session: Session, is_large: bool) -> tuple[bool, float, float]:
    return not is_large, session.spoke_at - session.connected_at, -session.connected_at
