"""What the server keeps for its clients, in bytes.

Counted as it changes, so asking for the total is a sum of a few numbers:

* each connection by what an idle one costs (`HubSettings.connection_bytes`);
* messages that clients have not confirmed, and frames that wait for the directory;
* what the transport keeps: read buffers, parts of messages, frames that wait for their turn, what is not sent yet;
* watches, privacy lists and lost sessions, which have budgets of their own, too.

Not counted: the program itself, the kernel's socket buffers, and tables of a fixed size.

Above the budget new connections, registrations and watches are refused, and sessions end (`hub.surplus`).
"""

from __future__ import annotations

from collections.abc import Callable

from aldis.hub.outcomes import RequestRefused
from aldis.hub.settings import HubSettings
from aldis.hub.use import MemoryUse
from aldis.protocol.codes import ErrorCode


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
