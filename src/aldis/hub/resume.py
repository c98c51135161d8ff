"""Messages that a client has not confirmed, kept so that they can be sent again after a lost connection.

Both sides count the numbered messages (relayed ones and presence) from `registered` on; there is no number on the wire.
The rule: a resumed client gets all messages that it has missed, or is told that it cannot resume; never a part of them.

A message is kept as the frame that was sent, in a buffer of its own, so its cost is its length. Keeping the message
would cost more: its `Raw` fields hold the whole received text, which may have 64 KiB of spaces around the 60 bytes of
the frame.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from aldis.hub.settings import HubSettings
from aldis.hub.use import FRAME_BYTES, MemoryUse

# For frames that are counted by others.
_NOWHERE: Final = MemoryUse()
# Shared by all sessions without sealed messages, which are most of them. Nothing is added to it.
_NONE: Final[list[int]] = []


class Replay:
    """The unconfirmed messages of one session, bounded in number and bytes.

    When they exceed the limits, all of them are dropped, and the session can be resumed again once the client has
    confirmed beyond that point. Keeping only the newest would not help: a client cannot use them without the others.

    Sealed messages stand among them, because there is one order. They have limits of their own, and do not count for
    the others: one that would exceed them is refused before it is added, so nothing is dropped because of it.
    """

    __slots__ = (
        "_bytes",
        "_frames",
        "_max_bytes",
        "_max_messages",
        "_max_sealed",
        "_max_sealed_bytes",
        "_most",
        "_sealed",
        "_sealed_bytes",
        "_use",
        "confirmed",
    )

    def __init__(self, max_messages: int, max_bytes: int, *, sealed_messages: int = 0, sealed_bytes: int = 0) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._max_sealed = sealed_messages
        self._max_sealed_bytes = sealed_bytes
        # The number of messages before the first kept one.
        self.confirmed = 0
        self._frames: list[bytearray] = []
        self._bytes = 0  # of those that are not sealed
        # The numbers of the sealed messages, their bytes, and how many frames there may be with them.
        self._sealed: list[int] = _NONE
        self._sealed_bytes = 0
        self._most = max_messages
        # Where its memory counts.
        self._use = _NOWHERE

    def count_in(self, use: MemoryUse | None) -> None:
        """Count the memory of the frames there, and no longer elsewhere. None: whoever keeps them counts them."""
        size = self.size + FRAME_BYTES * len(self._frames)
        self._use.replays -= size
        self._use = _NOWHERE if use is None else use
        self._use.replays += size

    @property
    def count(self) -> int:
        """The number of numbered messages of the session so far."""
        return self.confirmed + len(self._frames)

    @property
    def waiting(self) -> int:
        """How many messages are not confirmed."""
        return len(self._frames)

    @property
    def size(self) -> int:
        """Bytes of the messages that are not confirmed."""
        return self._bytes + self._sealed_bytes

    @property
    def sealed(self) -> list[int]:
        """Which of the messages that are not confirmed are sealed ones, counted from 0."""
        return [number - self.confirmed for number in self._sealed]

    @property
    def messages_left(self) -> int:
        """How many more messages that are not sealed may wait."""
        return self._most - len(self._frames)

    @property
    def bytes_left(self) -> int:
        """How many bytes more of messages that are not sealed may wait."""
        return self._max_bytes - self._bytes

    @property
    def sealed_left(self) -> int:
        """How many more sealed messages may wait."""
        return self._max_sealed - len(self._sealed)

    @property
    def sealed_bytes_left(self) -> int:
        """How many bytes more of sealed messages may wait."""
        return self._max_sealed_bytes - self._sealed_bytes

    def takes_sealed(self, size: int) -> bool:
        """Whether a sealed message of `size` bytes fits. An empty window takes the largest one."""
        return not self._sealed or (self.sealed_left > 0 and size <= self.sealed_bytes_left)

    def add(self, frame: bytearray) -> bool:
        """Keep a frame; False when it exceeded the limits and all frames were dropped."""
        frames = self._frames
        frames.append(frame)
        size = len(frame)
        self._use.replays += size + FRAME_BYTES
        self._bytes = kept = self._bytes + size
        if kept <= self._max_bytes and len(frames) <= self._most:
            return True
        self.confirmed += len(frames)
        self._use.replays -= self.size + FRAME_BYTES * len(frames)
        self._frames = []
        self._bytes = self._sealed_bytes = 0
        self._sealed, self._most = _NONE, self._max_messages
        return False

    def add_sealed(self, frame: bytearray) -> None:
        """Keep the frame of a sealed message, which `takes_sealed` has allowed."""
        if self._sealed:
            self._sealed.append(self.count)
        else:
            self._sealed = [self.count]
        self._frames.append(frame)
        size = len(frame)
        self._sealed_bytes += size
        self._most += 1
        self._use.replays += size + FRAME_BYTES

    def confirm(self, received: int) -> bool:
        """Drop what the client has received; False when it claims more than was sent."""
        if received > self.count:
            return False
        done = received - self.confirmed
        if done > 0:
            size = sum(map(len, self._frames[:done]))
            self._bytes -= size - (self._confirm_sealed(received) if self._sealed else 0)
            self._use.replays -= size + FRAME_BYTES * done
            del self._frames[:done]
            self.confirmed = received
        return True

    def _confirm_sealed(self, received: int) -> int:
        """Forget the sealed messages that the client has received. Returns their bytes."""
        done = bisect_left(self._sealed, received)
        size = sum(len(self._frames[number - self.confirmed]) for number in self._sealed[:done])
        self._sealed = self._sealed[done:] or _NONE
        self._sealed_bytes -= size
        self._most -= done
        return size

    def since(self, received: int) -> list[bytearray] | None:
        """The frames after the first `received` ones; None when some of them were dropped."""
        if not self.confirmed <= received <= self.count:
            return None
        return self._frames[received - self.confirmed :]


def new_replay(settings: HubSettings) -> Replay:
    """What a new session has."""
    return Replay(
        settings.resume_messages,
        settings.resume_bytes,
        sealed_messages=settings.sealed_messages,
        sealed_bytes=settings.sealed_bytes,
    )
