"""Counts what the server has sent, so that a lost connection can be resumed (docs/protocol.md, "Resume").

Both sides count the relayed and presence messages of a session; no number goes over the wire. The server keeps what the
client has not confirmed, within limits: by default 256 messages and 256 KiB. So the client may confirm seldom, if it
stays within these limits.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, UnsetType

from aldis.protocol.messages import ResumeTicket

# An eighth of what a server keeps by default, so that there is room for messages that are on their way.
MOST_MESSAGES: Final = 32
MOST_CHARACTERS: Final = 32 * 1024
# Seconds after the first of a few messages at which they are confirmed.
MOST_SECONDS: Final = 2.0


class ResumeCounter:
    """The count of one session, and when to tell it to the server.

    A session without a name or a secret cannot be resumed, so nothing is counted.
    """

    __slots__ = ("_characters", "_confirmed", "_secret", "_session", "count", "deadline")

    def __init__(self, session: str = "", secret: str = "") -> None:
        self.count = 0
        """The number of numbered messages that were processed in this session."""
        self.deadline: float | None = None
        """The latest time to confirm the count; None when there is nothing to confirm."""
        self._confirmed = 0
        self._characters = 0
        self._session = session
        self._secret = secret

    @property
    def ticket(self) -> ResumeTicket | UnsetType:
        """What a registration shows to resume this session; unset when that is not possible."""
        return ResumeTicket(self._session, self._secret, self.count) if self._resumable else UNSET

    @property
    def _resumable(self) -> bool:
        return bool(self._session and self._secret)

    def resumed(self, session: str, secret: str) -> None:
        """The session goes on on a new connection; the ticket has confirmed the count."""
        self._session, self._secret = session, secret
        self.confirmed()

    def processed(self, size: int, now: float) -> bool:
        """Count a processed message of `size` characters. Returns whether to confirm at once."""
        if not self._resumable:
            return False
        self.count += 1
        self._characters += size
        if self.deadline is None:
            self.deadline = now + MOST_SECONDS
        return self.count - self._confirmed >= MOST_MESSAGES or self._characters >= MOST_CHARACTERS

    def confirmed(self) -> None:
        """The server knows `count`, from a `received` or from the ticket of a resumed session."""
        self._confirmed = self.count
        self._characters = 0
        self.deadline = None
