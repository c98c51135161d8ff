"""The messages that other nodes of a cluster have, until they say what has become of them.

A message may wait for half a minute: its recipient has lost its connection there, and may come back. Anybody may have
such recipients, so the room is shared by networks: one of them has at most as much as it leaves. So the room of others
is never less than a part of it, with however many names somebody sends.

Those of which nobody knows any more what has become are given up, and their senders told, by some at a time: all of
them together would take a third of a second.

It does not know why a message is given up.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from aldis.hub.sessions import Delivered, Receipt

# Messages; beyond them the other nodes, or Redis, are slower than the clients of this one.
MAX_UNANSWERED: Final = 50_000
# Those that are given up in one go, and those that are looked at for them: 0.2 ms.
GIVEN_UP_AT_ONCE: Final = 32
LOOKED_AT_ONCE: Final = 1024


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that another node has. `network`: where its sender is (`networks.group_of`)."""

    node: str
    network: bytes
    receipt: Receipt
    done: Delivered
    until: float


class Unanswered:
    """The messages of one node, by their numbers, which grow."""

    def __init__(self) -> None:
        self._sent: dict[int, Sent] = {}
        self._of_network: dict[bytes, int] = {}
        # The numbers of messages that may be to be given up: those of a node, or all of them.
        self._doubtful: deque[tuple[str | None, deque[int]]] = deque()

    def __len__(self) -> int:
        return len(self._sent)

    def has_room(self, network: bytes) -> bool:
        """Whether there is room for one more from this network."""
        return self._of_network.get(network, 0) < MAX_UNANSWERED - len(self._sent)

    def add(self, number: int, sent: Sent) -> None:
        """A node has a message."""
        self._sent[number] = sent
        self._of_network[sent.network] = self._of_network.get(sent.network, 0) + 1

    def pop(self, number: int) -> Sent | None:
        """Take out a message whose outcome is known; None when it is not there any more."""
        sent = self._sent.pop(number, None)
        if sent is not None:
            left = self._of_network[sent.network] - 1
            if left:
                self._of_network[sent.network] = left
            else:
                del self._of_network[sent.network]
        return sent

    def give_up(self, node: str | None = None) -> None:
        """Give up the messages that a node has, or all; `given_up` takes them out."""
        if self._sent:
            self._doubtful.append((node, deque(self._sent)))

    def give_up_late(self, now: float) -> None:
        """The same for those that have waited for too long."""
        late: deque[int] = deque()
        for number, sent in self._sent.items():  # nearly in the order of their ends
            if sent.until > now:
                break
            late.append(number)
        if late:
            self._doubtful.append((None, late))

    @property
    def due(self) -> bool:
        """Whether some are to be given up."""
        return bool(self._doubtful)

    def given_up(self) -> list[Sent]:
        """Take out the next ones that are given up."""
        found: list[Sent] = []
        for _ in range(LOOKED_AT_ONCE):
            if not self._doubtful or len(found) == GIVEN_UP_AT_ONCE:
                break
            node, numbers = self._doubtful[0]
            if not numbers:
                self._doubtful.popleft()
                continue
            number = numbers.popleft()
            if node is None or (number in self._sent and self._sent[number].node == node):
                sent = self.pop(number)
                if sent is not None:
                    found.append(sent)
        return found
