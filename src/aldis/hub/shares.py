"""How much of the room for one recipient each sender may use.

A *friend* of the recipient may use up to half of what is left after its message (dynamic thresholds: Choudhury and
Hahne, 1998). So a single friend gets a third of the room, many get about the same each, and none leaves no room for the
next one. Friends are chosen by the recipient: those that it watches, its contacts, and its own devices.

Anybody may make up names, so *strangers* share by their networks:

    all strangers together     twice as much as they leave: two thirds of an empty room
    one network of them        half of what is left of that
    one sender of a network    two thirds of what is left of that

So strangers of however many networks leave room for friends, and many names of one network leave room for strangers
from elsewhere.
"""

from __future__ import annotations

from typing import Final, TypeAlias

# What each may use, as a part of what is left after its message.
_FRIEND: Final = 0.5
_STRANGERS: Final = 2.0
_NETWORK: Final = 1.0
_SENDER: Final = 2.0

_NOTHING: Final = (0, 0)

# A user, or the network of strangers; None: all strangers.
_Key: TypeAlias = "str | bytes | None"


def _room(left: float, used: int, part: float) -> float:
    """How much more of what is left somebody may use, so that all that it uses is `part` of what is left then."""
    return (part * left - used) / (1 + part)


class Shares:
    """What each sender uses of the room for one recipient: messages and bytes."""

    __slots__ = ("_used", "sealed", "size")

    def __init__(self) -> None:
        self.size = 0
        """The bytes that all senders use."""
        self.sealed: Shares | None = None
        """What each uses of the other room there, which is for sealed messages."""
        self._used: dict[_Key, tuple[int, int]] = {}

    def __len__(self) -> int:
        """The number of senders, and of networks of strangers."""
        return len(self._used) - (None in self._used)

    def take(
        self,
        sender: str,
        messages: int,
        size: int,
        *,
        friend: bool,
        network: bytes,
        bytes_left: float,
        messages_left: float,
    ) -> bool:
        """Use room for so many more messages. False, and no change, when that is more than the sender's share.

        `network`: where a stranger is (`hub.networks.group_of`).
        """
        parts: tuple[tuple[_Key, float], ...] = ((None, _STRANGERS), (network, _NETWORK), (sender, _SENDER))
        if friend:
            parts = ((sender, _FRIEND),)
        used = self._used
        for key, part in parts:
            had, had_bytes = used.get(key, _NOTHING)
            messages_left = _room(messages_left, had, part)
            bytes_left = _room(bytes_left, had_bytes, part)
        if messages > messages_left or size > bytes_left:
            return False
        for key, _ in parts:
            had, had_bytes = used.get(key, _NOTHING)
            used[key] = (had + messages, had_bytes + size)
        self.size += size
        return True
