"""What a client has been sent and has not confirmed, so that it can be sent again after a lost connection.

Both sides count the numbered messages (relayed ones and presence) from `registered` on; there is no number on the
wire. The rule: a resumed client gets all that came after what it has received, or is told that it cannot resume;
never a part.

What is kept is the message and not its frame: a relayed message still holds the text that it came in, so keeping it
copies nothing on the path that every message takes. It is encoded once more in the rare case that it is sent again.
"""

from __future__ import annotations

from msgspec import Struct


class Replay:
    """The unconfirmed messages of one session, bounded in number and bytes.

    When they outgrow the bounds, all of them are let go of: the session can be resumed again as soon as the client has
    confirmed beyond that point. That is better than keeping the newest, which could not be used without the others.
    """

    __slots__ = ("_bytes", "_max_bytes", "_max_messages", "_messages", "_sizes", "confirmed")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # The number of messages before the first one that is kept.
        self.confirmed = 0
        # Messages and their sizes, in two lists: a pair for each would be one more object a message.
        self._messages: list[Struct] = []
        self._sizes: list[int] = []
        self._bytes = 0

    @property
    def count(self) -> int:
        """How many numbered messages the session has had."""
        return self.confirmed + len(self._messages)

    def add(self, message: Struct, size: int) -> bool:
        """Keep a message of `size` bytes; False when that was too much and everything was let go of."""
        self._messages.append(message)
        self._sizes.append(size)
        self._bytes += size
        if self._bytes <= self._max_bytes and len(self._sizes) <= self._max_messages:
            return True
        self.confirmed += len(self._messages)
        self._messages = []
        self._sizes = []
        self._bytes = 0
        return False

    def confirm(self, received: int) -> bool:
        """Let go of what the client has received; False when it claims to have received what was never sent."""
        if received > self.count:
            return False
        done = received - self.confirmed
        if done > 0:
            self._bytes -= sum(self._sizes[:done])
            del self._messages[:done]
            del self._sizes[:done]
            self.confirmed = received
        return True

    def since(self, received: int) -> list[Struct] | None:
        """The messages after the first `received` ones, or None when they are not all here any more."""
        if not self.confirmed <= received <= self.count:
            return None
        return self._messages[received - self.confirmed :]
