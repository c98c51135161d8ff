"""Messages that a client has not confirmed, kept so that they can be sent again after a lost connection.

Both sides count the numbered messages (relayed ones and presence) from `registered` on; there is no number on the wire.
The rule: a resumed client gets all messages that it has missed, or is told that it cannot resume; never a part of them.

A message is kept as the frame that was sent, in a buffer of its own, so its cost is its length. Keeping the message
would cost more: its `Raw` fields hold the whole received text, which may have 64 KiB of spaces around the 60 bytes of
the frame.
"""

from __future__ import annotations


class Replay:
    """The unconfirmed messages of one session, bounded in number and bytes.

    When they exceed the limits, all of them are dropped, and the session can be resumed again once the client has
    confirmed beyond that point. Keeping only the newest would not help: a client cannot use them without the others.
    """

    __slots__ = ("_bytes", "_frames", "_max_bytes", "_max_messages", "confirmed")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # The number of messages before the first kept one.
        self.confirmed = 0
        self._frames: list[bytearray] = []
        self._bytes = 0

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
        return self._bytes

    def add(self, frame: bytearray) -> bool:
        """Keep a frame; False when it exceeded the limits and all frames were dropped."""
        frames = self._frames
        frames.append(frame)
        self._bytes += len(frame)
        if self._bytes <= self._max_bytes and len(frames) <= self._max_messages:
            return True
        self.confirmed += len(frames)
        self._frames = []
        self._bytes = 0
        return False

    def confirm(self, received: int) -> bool:
        """Drop what the client has received; False when it claims more than was sent."""
        if received > self.count:
            return False
        done = received - self.confirmed
        if done > 0:
            self._bytes -= sum(map(len, self._frames[:done]))
            del self._frames[:done]
            self.confirmed = received
        return True

    def since(self, received: int) -> list[bytearray] | None:
        """The frames after the first `received` ones; None when some of them were dropped."""
        if not self.confirmed <= received <= self.count:
            return None
        return self._frames[received - self.confirmed :]
