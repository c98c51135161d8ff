"""Who may see and call our user, and whom the user has blocked, as the store knows it.

Rules: the server keeps it for all devices of the user, and what it says counts, since another device may have changed
it. A name that is blocked here counts at once, and stays blocked here until the server has kept it: a server that
cannot be reached must not let a blocked user in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy


class Blocking:
    """The privacy of the store's user."""

    def __init__(self) -> None:
        self.privacy = DEFAULT_PRIVACY
        """All of it, with those whose block the server does not keep yet."""
        self._kept = DEFAULT_PRIVACY
        self._here: set[str] = set()

    def blocks(self, user_id: str) -> bool:
        """Whether a user is blocked."""
        return user_id in self.privacy.blocked

    @property
    def here(self) -> frozenset[str]:
        """Those whose block the server does not keep yet."""
        return frozenset(self._here)

    def told(self, privacy: Privacy) -> frozenset[str]:
        """The server has said what it keeps. Returns those that are blocked by it and were not before."""
        self._kept = privacy
        self._here -= privacy.blocked
        return self._changed()

    def block(self, user_ids: Iterable[str]) -> frozenset[str]:
        """Block some users from now on. Returns those that were not blocked before."""
        self._here.update(user_ids)
        return self._changed()

    def unblock(self, user_ids: Iterable[str]) -> None:
        """Block some users no more, unless the server keeps them."""
        self._here.difference_update(user_ids)
        self._changed()

    def _changed(self) -> frozenset[str]:
        before = self.privacy.blocked
        self.privacy = replace(self._kept, blocked=self._kept.blocked | self._here)
        return self.privacy.blocked - before
