"""The sealing keys that a client shows to others: the values of the messages, and when to publish another key.

A client publishes one with each registration. While a session is resumed, its key stays. `identity.seal_keys` makes and
keeps the keys; this module knows no private ones.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from aldis.client.effects import Effect, SealKeyDue
from aldis.identity.seal_keys import PublishedSealKey
from aldis.protocol import messages as m
from aldis.protocol.codec import to_base64

# Seconds. What was sealed to a key can be read as long as the key is kept.
RENEWAL_SECONDS: Final = 3600.0
# Seconds until the next try, if a key could not be published.
RETRY_SECONDS: Final = 60.0


def wire(seal_key: PublishedSealKey) -> m.SealKey:
    """A sealing key as the messages carry it."""
    return m.SealKey(to_base64(seal_key.public_key), to_base64(seal_key.signature))


class SealKeySchedule:
    """When another key is due, for one client. Then it asks for it by an effect."""

    def __init__(self, effects: list[Effect]) -> None:
        self.due: float | None = None
        """When to publish another key; None without one, and where the server relays no sealed messages."""
        self._effects = effects

    def registered(self, request: m.Register, limits: m.Limits | None, now: float, *, resumed: bool) -> None:
        """The server shows the key of this registration, if it has one."""
        if request.seal_key is UNSET or limits is None or not limits.relay:
            self.due = None
        elif request.resume is not UNSET and not resumed:
            self._ask(now)  # the key is that of the session that is over
        elif not resumed or self.due is None:
            self.due = now + RENEWAL_SECONDS

    def published(self, now: float) -> None:
        """The server shows the key of a `seal-key`, be it the first one."""
        self.due = now + RENEWAL_SECONDS

    def rotated(self, now: float) -> None:
        """The old identity has signed the key: the server does not show it any more."""
        if self.due is not None:
            self._ask(now)

    def look(self, now: float) -> None:
        """Time has passed."""
        if self.due is not None and now >= self.due:
            self._ask(now)

    def _ask(self, now: float) -> None:
        self.due = now + RETRY_SECONDS
        self._effects.append(SealKeyDue())
