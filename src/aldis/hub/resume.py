"""What a client has been sent and has not confirmed, so that it can be sent again after a lost connection.

Both sides count the numbered messages (relayed ones and presence) from `registered` on; there is no number on the
wire. The rule: a resumed client gets all that came after what it has received, or is told that it cannot resume;
never a part.

What is kept is the frame as it was sent, in a buffer of its own: its length is what it costs. The message would not do:
its `Raw` fields hold the whole text that it came in, 64 KiB of spaces for instance, of which the frame has 60 bytes.
"""

from __future__ import annotations


class Replay:
    """The unconfirmed messages of one session, bounded in number and bytes.

    When they outgrow the bounds, all of them are let go of: the session can be resumed again as soon as the client has
    confirmed beyond that point. That is better than keeping the newest, which could not be used without the others.
    """

    __slots__ = ("_bytes", "_frames", "_max_bytes", "_max_messages", "confirmed")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # The number of messages before the first one that is kept.
        self.confirmed = 0
        self._frames: list[bytearray] = []
        self._bytes = 0

    @property
    def count(self) -> int:
        """How many numbered messages the session has had."""
        return self.confirmed + len(self._frames)

    def add(self, frame: bytearray) -> bool:
        """Keep a frame; False when that was too much and everything was let go of."""
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
        """Let go of what the client has received; False when it claims to have received what was never sent."""
        if received > self.count:
            return False
        done = received - self.confirmed
        if done > 0:
            self._bytes -= sum(map(len, self._frames[:done]))
            del self._frames[:done]
            self.confirmed = received
        return True

    def since(self, received: int) -> list[bytearray] | None:
        """The frames after the first `received` ones, or None when they are not all here any more."""
        if not self.confirmed <= received <= self.count:
            return None
        return self._frames[received - self.confirmed :]
