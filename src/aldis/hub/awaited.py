"""The messages of a node that wait until Redis has said where their recipients are.

Anybody may write to names of which the node does not know yet, and Redis may hang for seconds. So the room is shared by
networks, as that of messages without an answer is (`hub.unanswered`): one of them has at most as much as it leaves.

What is known of a user at last is used for some of its messages at a time: thousands may have waited for it. Those that
come meanwhile are behind them, so that messages keep their order.

It does not know how a message is delivered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from aldis.hub.sessions import Delivered, Receipt

# In bytes of memory. Beyond it Redis is slower than the clients of this node.
MOST_BYTES: Final = 8 * 1024 * 1024
# What a message takes beside its text, and a user who is looked up.
MESSAGE_BYTES: Final = 400
USER_BYTES: Final = 1400
# Messages in one go: each takes as long as one that is relayed.
AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message whose recipient is being looked up. `network`: where its sender is (`networks.group_of`)."""

    network: bytes
    frame: bytes
    receipt: Receipt
    done: Delivered

    @property
    def bytes(self) -> int:
        """What it takes."""
        return len(self.frame) + MESSAGE_BYTES


class Awaited:
    """The messages that wait, by their recipients."""

    def __init__(self) -> None:
        self.of_user: dict[str, deque[Waiting]] = {}
        """By users; to look at, not to change."""
        # The networks that have had them looked up.
        self._asker: dict[str, bytes] = {}
        self._of_network: dict[bytes, int] = {}
        # The users of whom Redis has said something, and those of whom it has not: whether it has.
        self._looked_up: dict[str, bool] = {}
        self.bytes = 0
        """What all of them take."""

    def has_room(self, user_id: str, waiting: Waiting) -> bool:
        """Whether there is room for one more."""
        size = waiting.bytes + (0 if user_id in self.of_user else USER_BYTES)
        return self._of_network.get(waiting.network, 0) + size <= MOST_BYTES - self.bytes - size

    def add(self, user_id: str, waiting: Waiting) -> bool:
        """A message waits. Returns whether it is the first for this user, who is to be looked up now."""
        messages = self.of_user.get(user_id)
        self._count(waiting.network, waiting.bytes + (0 if messages else USER_BYTES))
        if messages is None:
            self.of_user[user_id] = deque((waiting,))
            self._asker[user_id] = waiting.network
            return True
        messages.append(waiting)
        return False

    def looked_up(self, user_id: str, *, known: bool) -> None:
        """Nothing waits for this user any more; `known`: it is known where it is. `take` its messages."""
        if user_id in self.of_user:
            self._looked_up[user_id] = known

    @property
    def due(self) -> bool:
        """Whether there are some to take."""
        return bool(self._looked_up)

    def take(self) -> tuple[bool, list[Waiting]]:
        """Take out the next messages of one user, and whether it is known where it is."""
        user_id, known = next(iter(self._looked_up.items()))
        messages = self.of_user[user_id]
        taken = [messages.popleft() for _ in range(min(AT_ONCE, len(messages)))]
        del self._looked_up[user_id]
        if messages:
            self._looked_up[user_id] = known  # behind the others
        else:
            del self.of_user[user_id]
            self._count(self._asker.pop(user_id), -USER_BYTES)
        for each in taken:
            self._count(each.network, -each.bytes)
        return known, taken

    def _count(self, network: bytes, more: int) -> None:
        self.bytes += more
        left = self._of_network.get(network, 0) + more
        if left:
            self._of_network[network] = left
        else:
            del self._of_network[network]
