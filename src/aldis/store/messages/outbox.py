"""The sending half of exactly-once delivery: what is on its way to one peer, over however many channels.

Rules of this module:

* Messages are numbered from 1 within one *stream*; a message stays here until the peer has acknowledged it. What a
  channel took with it when it ended is sent again on the next one, from the first unacknowledged message on.
* On each channel our HELLO comes first (`hello_sent`), then the other side's (`opened`), then frames. Acknowledgements
  between the two belong to the channel before and are not counted: what our HELLO has promised to send stays here.
* Control messages are numbered and sent with the others; only in what waits for the application they do not count.
* A message that is taken back (`withdraw`) leaves a void behind when others come before it, and it or one behind it
  was sent or stays: their numbers stay.
* At most `WINDOW_MESSAGES` messages are unacknowledged on a channel, and no message is begun while `WINDOW_BYTES` or
  more are. So a peer that stops acknowledging holds the sender back, and has to keep no more than that in memory.

Pure: no I/O, no clock, no randomness. It does not know what a message means, nor who waits for its delivery.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aldis.errors import ProtocolViolation, UsageError
from aldis.protocol.channel import Content, StreamPosition, encode_message

# On a path of 100 ms these allow 40 MB/s, and 10,000 small messages a second. The receiver counts on them
# (`inbox.Inbox`), so they are part of the protocol and no settings.
WINDOW_BYTES: Final = 4 * 1024 * 1024
WINDOW_MESSAGES: Final = 1024
# A control message of a kind that no version knows, so every version ignores it.
VOID: Final = b"\x00"


@dataclass(frozen=True, slots=True)
class _Message:
    content: Content
    data: bytes

    @property
    def is_void(self) -> bool:
        return self.content is Content.CONTROL and self.data == VOID


@dataclass(frozen=True, slots=True)
class OutboxSnapshot:
    """What an outbox has to know after a restart of the program.

    `messages` are those from number `acknowledged` + 1 on. `sent` is the newest that was ever sent whole. A snapshot is
    worth nothing any more when a message has been put in or sent after it: its number would be used twice.
    """

    stream: str
    acknowledged: int
    sent: int
    messages: tuple[tuple[Content, bytes], ...]


class Outbox:
    """All that is on its way to one peer. `stream` is a random name, new for each outbox."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._messages: dict[int, _Message] = {}  # those not acknowledged yet, in order
        self._acknowledged = 0
        self._last = 0  # the number of the newest message
        self._size = 0
        self._controls = 0
        self._voids = 0
        self._open = False
        # On the current channel: the message that is next or being sent, what is left of its frames (the next one
        # last), and the size of those that are unacknowledged, itself included once begun.
        self._current = 1
        self._frames: list[bytes] = []
        self._flying_bytes = 0
        self._sent = 0  # the newest message that was ever sent whole: nothing beyond it can be acknowledged

    def snapshot(self) -> OutboxSnapshot:
        """All that has to be kept for `restore`."""
        messages = tuple((message.content, message.data) for message in self._messages.values())
        return OutboxSnapshot(self.stream, self._acknowledged, self._sent, messages)

    @classmethod
    def restore(cls, snapshot: OutboxSnapshot) -> Outbox:
        """The outbox as it was, without a channel. Raises `UsageError` for numbers that cannot be."""
        newest = snapshot.acknowledged + len(snapshot.messages)
        if not 0 <= snapshot.acknowledged <= snapshot.sent <= newest:
            raise UsageError(f"no snapshot of an outbox: {snapshot.acknowledged}, {snapshot.sent}, {newest}")
        outbox = cls(snapshot.stream)
        outbox._acknowledged = outbox._last = snapshot.acknowledged
        for content, data in snapshot.messages:
            outbox.put(content, data)
        outbox._sent = snapshot.sent
        outbox.closed()
        return outbox

    # --- what is in it --------------------------------------------------------------------------------------------

    @property
    def acknowledged(self) -> int:
        """All messages up to this number have arrived."""
        return self._acknowledged

    @property
    def last(self) -> int:
        """The number of the newest message; 0 when there was none yet."""
        return self._last

    @property
    def messages(self) -> int:
        """How many messages of the application are not acknowledged yet."""
        return len(self._messages) - self._controls - self._voids

    @property
    def controls(self) -> int:
        """How many control messages are not acknowledged yet."""
        return self._controls

    @property
    def size(self) -> int:
        """The bytes of the application's messages that are not acknowledged yet."""
        return self._size

    def put(self, content: Content, data: bytes) -> int:
        """Add a message; return its number."""
        self._last += 1
        message = self._messages[self._last] = _Message(content, data)
        self._count(message, 1)
        return self._last

    def _count(self, message: _Message, change: int) -> None:
        if message.is_void:
            self._voids += change
        elif message.content is Content.CONTROL:
            self._controls += change
        else:
            self._size += len(message.data) * change

    def clear(self) -> range:
        """Give up all messages that are not acknowledged; return their numbers. Only while no channel is open."""
        given_up = range(self._acknowledged + 1, self._last + 1)
        self._messages.clear()
        self._size = self._controls = self._voids = 0
        # For the peer they count as received from the next HELLO on, and it may say so.
        self._acknowledged = self._sent = self._last
        self.closed()
        return given_up

    def withdraw(self, numbers: Collection[int]) -> list[tuple[Content, bytes]]:
        """Take back messages that are not acknowledged, to send them elsewhere; return them in order. Only while no
        channel is open.

        The peer may have got them nevertheless. The others keep their numbers.
        """
        withdrawn = []
        for number in sorted(numbers):
            message = self._messages[number]
            withdrawn.append((message.content, message.data))
            self._count(message, -1)
            self._messages[number] = _Message(Content.CONTROL, VOID)
            self._voids += 1
        if len(self._messages) == self._voids:
            self.clear()
        while self._voids and (first := self._messages[self._acknowledged + 1]).is_void:
            self._count(first, -1)
            del self._messages[self._acknowledged + 1]
            # For the peer it counts as received from the next HELLO on, as in `clear`.
            self._acknowledged += 1
        self._sent = max(self._sent, self._acknowledged)
        while self._last > self._sent and (newest := self._messages[self._last]).is_void:
            # Nobody has seen its number, so the next message may have it.
            self._count(newest, -1)
            del self._messages[self._last]
            self._last -= 1
        self.closed()
        return withdrawn

    # --- channels -------------------------------------------------------------------------------------------------

    def hello_sent(self) -> int:
        """A channel begins. Return `next` for our HELLO: the first message that is not acknowledged."""
        self.closed()
        return self._current

    def opened(self, received: StreamPosition | None) -> range:
        """The other side's HELLO has come, with what it has of our stream; return what is acknowledged by that.

        Nothing is known there when its process is a new one (`received` is None or names another stream): sending
        begins at the first unacknowledged message then too. Raises `ProtocolViolation` for more than was ever sent.
        """
        newly = range(0)
        if received is not None and received.stream == self.stream:
            newly = self._cover(received.sequence)
        self._open = True
        self._current = self._acknowledged + 1
        return newly

    def closed(self) -> None:
        """The channel is gone, and what was under way on it too. Harmless when none is open."""
        self._open = False
        self._frames = []
        self._flying_bytes = 0
        self._current = self._acknowledged + 1

    def next_frame(self) -> bytes | None:
        """The frame to send now, or None: nothing to send, window used up, no channel. The same one until `sent()`."""
        if self._frames:
            return self._frames[-1]
        if not self._open or self._current > self._last:
            return None
        flying = self._current - self._acknowledged - 1
        if flying >= WINDOW_MESSAGES or self._flying_bytes >= WINDOW_BYTES:
            return None
        message = self._messages[self._current]
        self._frames = encode_message(message.content, self._current, message.data)[::-1]
        self._flying_bytes += len(message.data)
        return self._frames[-1]

    def sent(self) -> None:
        """The channel has taken the frame that `next_frame` returned."""
        self._frames.pop()
        if not self._frames:
            self._sent = max(self._sent, self._current)
            self._current += 1

    def acknowledge(self, sequence: int) -> range:
        """The peer has everything up to `sequence`; return the numbers that are newly acknowledged.

        Raises `ProtocolViolation` for a message that was never sent whole.
        """
        return self._cover(sequence) if self._open else range(0)

    def _cover(self, sequence: int) -> range:
        if sequence > self._sent:
            raise ProtocolViolation(f"message {sequence} is acknowledged, and only {self._sent} were sent")
        newly = range(self._acknowledged + 1, sequence + 1)
        for number in newly:
            message = self._messages.pop(number)
            self._count(message, -1)
            if number < self._current or (number == self._current and self._frames):
                self._flying_bytes -= len(message.data)
        self._acknowledged = max(self._acknowledged, sequence)
        if self._current <= self._acknowledged:
            # It was being sent again, and has arrived by the channel before: the peer skips what it has got of it.
            self._current = self._acknowledged + 1
            self._frames = []
        return newly
