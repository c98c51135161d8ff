"""What the privacy of a user means: who sees the user, and whose messages reach them.

Rules:

* Own devices are always admitted, blocked users never.
* A user who is called by somebody may answer, whatever the caller's privacy says. So a message to a user admits that
  user's messages for `ANSWER_SECONDS`. The table of them is bounded; the call that was longest ago goes first.
* A name that no key has proven is nobody's contact, because anybody may take it.

It knows no session and no other user: names go in, answers come out. Times are those of the caller.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from aldis.protocol.privacy import CONTACTS, DEFAULT_PRIVACY, PUBLIC, Privacy

# A call has its answer within 10 s, and its candidates within some more. Each message of the caller starts this anew.
ANSWER_SECONDS: Final = 120.0
# A program of this project has at most 72 calls under way. An entry costs 250 bytes.
MOST_CALLED: Final = 128


class UserPrivacy:
    """The privacy of a user that is online; all sessions of the user share it."""

    __slots__ = ("_called", "bytes", "settings", "user_id")

    def __init__(self, user_id: str, settings: Privacy) -> None:
        self.user_id = user_id
        self.settings = settings
        self.bytes = 0
        """What the settings cost. To find it out for 2,000 names takes 0.2 ms, so it is kept."""
        # Until when each user that was called may answer, in the order of the calls.
        self._called: OrderedDict[str, float] = OrderedDict()

    def shows_to(self, name: str, *, proven: bool) -> bool:
        """Whether somebody sees that the user is online."""
        settings = self.settings
        if name in settings.blocked:
            return False
        if settings.presence == PUBLIC or name == self.user_id:
            return True
        return settings.presence == CONTACTS and proven and name in settings.contacts

    def admits(self, name: str, now: float, *, proven: bool) -> bool:
        """Whether messages of somebody reach the user."""
        settings = self.settings
        if name in settings.blocked:
            return False
        if settings.offers == PUBLIC or name == self.user_id:
            return True
        if settings.offers == CONTACTS and proven and name in settings.contacts:
            return True
        return now < self._called.get(name, 0.0)

    def blocks(self, name: str) -> bool:
        """Whether the user has blocked somebody."""
        return name in self.settings.blocked

    def called(self, name: str, now: float) -> None:
        """The user has sent a message to somebody that may be answered."""
        if self.settings.offers == PUBLIC:
            return
        self._called[name] = now + ANSWER_SECONDS
        self._called.move_to_end(name)
        if len(self._called) > MOST_CALLED:
            self._called.popitem(last=False)


def settings_of(privacy: UserPrivacy | None) -> Privacy:
    """The settings of a user that is online; None has the default."""
    return DEFAULT_PRIVACY if privacy is None else privacy.settings
