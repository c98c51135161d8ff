"""How much of the room for one recipient each sender may use.

A sender may use up to half of what is left after its message (dynamic thresholds: Choudhury and Hahne, 1998). So a
single sender gets a third of the room, a hundred senders get about the same each, and nobody, however many names they
have, leaves no room for the next sender.
"""

from __future__ import annotations

from typing import Final

# What a sender uses at most, as a part of what is left.
_PART: Final = 0.5


class Shares:
    """What each sender uses of the room for one recipient: messages and bytes."""

    __slots__ = ("_senders", "sealed", "size")

    def __init__(self) -> None:
        self.size = 0
        """The bytes that all senders use."""
        self.sealed: Shares | None = None
        """What each uses of the other room there, which is for sealed messages."""
        self._senders: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        """The number of senders."""
        return len(self._senders)

    def take(self, sender: str, messages: int, size: int, *, bytes_left: int, messages_left: float) -> bool:
        """Use room for so many more messages. False, and no change, when that is more than the sender's share."""
        had, used = self._senders.get(sender, (0, 0))
        if used + size > _PART * (bytes_left - size) or had + messages > _PART * (messages_left - messages):
            return False
        self._senders[sender] = (had + messages, used + size)
        self.size += size
        return True
