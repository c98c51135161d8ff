"""The sending half of exactly-once delivery: what is on its way to one peer, over however many channels.

Rules of this module:

* Messages are numbered from 1 within one *stream*; a message stays here until the peer has acknowledged it. What a
  channel took with it when it ended is sent again on the next one, from the first unacknowledged message on.
* On each channel our HELLO comes first (`hello_sent`), then the other side's (`opened`), then frames. Acknowledgements
  between the two belong to the channel before and are not counted: what our HELLO has promised to send stays here.
* Control messages are numbered and sent with the others; only in what waits for the application they do not count.
* A message that is taken back (`withdraw`) leaves a void behind when others come before it, and it or one behind it
  was sent or stays: their numbers stay.
* With a journal (`journaled`) a message is sent after the journal has it (`stored`). A number that was sent and is not
  in the journal would be given to another message after a crash, and the peer would skip that one.
* A peer that has more of a stream than the journal knows (`is_behind`) shows that the journal was put back to an
  earlier state, from a backup perhaps. `renew` settles what the peer has, and begins a new stream with the rest.
* At most `WINDOW_MESSAGES` messages are unacknowledged on a channel, and no message is begun while `WINDOW_BYTES` or
  more are. So a peer that stops acknowledging holds the sender back, and has to keep no more than that in memory.

Pure: no I/O, no clock, no randomness. It does not know what a message means, nor who waits for its delivery.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from aldis.errors import ProtocolViolation, UsageError
from aldis.protocol.channel import CHUNK, CONTROL_CHUNK, Content, StreamPosition, encode_message

# On a path of 100 ms these allow 40 MB/s, and 10,000 small messages a second. The receiver counts on them
# (`inbox.Inbox`), so they are part of the protocol and no settings.
WINDOW_BYTES: Final = 4 * 1024 * 1024
WINDOW_MESSAGES: Final = 1024
# A control message of a kind that no version knows, so every version ignores it.
VOID: Final = b"\x00"
_CONTROL: Final = Content.CONTROL


class _Message(msgspec.Struct, frozen=True, gc=False):
    """No object that Python's collector of garbage looks at: there may be thousands, and it would look often."""

    content: Content
    data: bytes


_VOID: Final = _Message(Content.CONTROL, VOID)


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

    def __init__(self, stream: str, *, journaled: bool = False) -> None:
        """`journaled`: nothing is sent before `stored` was called for it."""
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
        self._stored = 0 if journaled else None  # the newest that the journal has; None: there is no journal
        # Until the peer's first HELLO after `restore`: the newest message that may have been sent before. The numbers
        # behind it may mean other messages there (`is_behind`).
        self._unproved: int | None = None

    def snapshot(self) -> OutboxSnapshot:
        """All that has to be kept for `restore`."""
        messages = tuple((message.content, message.data) for message in self._messages.values())
        return OutboxSnapshot(self.stream, self._acknowledged, self._sent, messages)

    @classmethod
    def restore(cls, snapshot: OutboxSnapshot, *, journaled: bool = False) -> Outbox:
        """The outbox as it was, without a channel. Raises `UsageError` for numbers that cannot be. `journaled`: it is
        from a journal, which has all of it."""
        newest = snapshot.acknowledged + len(snapshot.messages)
        if not 0 <= snapshot.acknowledged <= snapshot.sent <= newest:
            raise UsageError(f"no snapshot of an outbox: {snapshot.acknowledged}, {snapshot.sent}, {newest}")
        outbox = cls(snapshot.stream, journaled=journaled)
        outbox._acknowledged = outbox._last = snapshot.acknowledged
        for content, data in snapshot.messages:
            outbox.put(content, data)
        outbox._sent = snapshot.sent
        if journaled:
            outbox._stored = outbox._last
            outbox._unproved = snapshot.sent
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
        self._last = number = self._last + 1
        self._messages[number] = message = _Message(content, data)
        if content is _CONTROL:
            self._count(message, 1)
        else:
            self._size += len(data)
        return number

    def _count(self, message: _Message, change: int) -> None:
        if message.content is not _CONTROL:
            self._size += len(message.data) * change
        elif message.data == VOID:
            self._voids += change
        else:
            self._controls += change

    def clear(self) -> range:
        """Give up all messages that are not acknowledged; return their numbers. Only while no channel is open."""
        given_up = range(self._acknowledged + 1, self._last + 1)
        self._messages.clear()
        self._size = self._controls = self._voids = 0
        if self._stored is not None:
            # Nobody has seen the numbers behind it. After a crash they may be given to other messages, so our HELLO
            # must not name them.
            self._last = min(self._last, self._stored)
        # For the peer they count as received from the next HELLO on, and it may say so.
        self._acknowledged = self._sent = self._last
        self.closed()
        return given_up

    def withdraw(self, numbers: Collection[int], *, skip: bool = True) -> list[tuple[Content, bytes]]:
        """Take back messages that are not acknowledged, to send them elsewhere or later; return them in order. Only
        while no channel is open.

        The peer may have got them nevertheless. The others keep their numbers. `skip`: the first voids are not sent.
        """
        withdrawn = []
        for number in sorted(numbers):
            message = self._messages[number]
            withdrawn.append((message.content, message.data))
            self._count(message, -1)
            self._messages[number] = _VOID
            self._voids += 1
        if skip and self._stored is None:
            self._skip_voids()
        self._cut_voids()
        self.closed()
        return withdrawn

    def _skip_voids(self) -> None:
        # Not with a journal: until that knows of it, the next run of the program would take the messages for received.
        if len(self._messages) == self._voids:
            self.clear()
        while self._voids and (first := self._messages[self._acknowledged + 1]) == _VOID:
            self._count(first, -1)
            del self._messages[self._acknowledged + 1]
            # For the peer it counts as received from the next HELLO on, as in `clear`.
            self._acknowledged += 1
        self._sent = max(self._sent, self._acknowledged)

    @property
    def is_void(self) -> bool:
        """Whether there are messages, and nobody needs any of them."""
        return 0 < self._voids == len(self._messages)

    def _cut_voids(self) -> None:
        while self._last > self._sent and self._messages.get(self._last) == _VOID:
            # Nobody has seen its number, so the next message may have it.
            self._count(_VOID, -1)
            del self._messages[self._last]
            self._last -= 1
        if self._stored is not None:
            self._stored = min(self._stored, self._last)

    def content(self, number: int) -> tuple[Content, bytes] | None:
        """A message as it would be sent, perhaps a void; None when it is acknowledged or was cut off."""
        message = self._messages.get(number)
        return None if message is None else (message.content, message.data)

    @property
    def is_open(self) -> bool:
        """Whether there is a channel."""
        return self._open

    # --- the journal ----------------------------------------------------------------------------------------------

    @property
    def unstored(self) -> range:
        """The numbers of the messages that the journal does not have yet."""
        return range(0) if self._stored is None else range(self._stored + 1, self._last + 1)

    def stored(self, number: int) -> None:
        """The journal has all messages up to `number`: they may be sent."""
        if self._stored is not None:
            self._stored = min(max(self._stored, number), self._last)

    def drop(self, numbers: Collection[int]) -> None:
        """Give up messages that the journal could not take. They were never sent, so a channel may be open."""
        for number in numbers:
            self._count(self._messages[number], -1)
            self._messages[number] = _VOID
            self._voids += 1
        self._cut_voids()

    def is_behind(self, received: StreamPosition | None) -> bool:
        """Whether the other side's HELLO says that it has more of this stream than was ever sent, as far as we know."""
        return (
            self._stored is not None
            and received is not None
            and received.stream == self.stream
            and received.sequence > self._sent
        )

    def renew(self, stream: str, received: StreamPosition) -> tuple[range, list[int]]:
        """Begin a new stream with what the peer does not have. Only while no channel is open.

        Returns the numbers of the old stream that have arrived, and those of the rest, which has the numbers from 1 on
        now. What is void stays behind.
        """
        arrived = self._cover(min(received.sequence, self._sent))
        rest = {number: message for number, message in self._messages.items() if message != _VOID}
        self.stream = stream
        self._messages = dict(enumerate(rest.values(), 1))
        self._acknowledged = self._sent = self._voids = 0
        self._last = len(rest)
        self._stored = None if self._stored is None else 0
        self._unproved = None
        self.closed()
        return arrived, list(rest)

    # --- channels -------------------------------------------------------------------------------------------------

    def hello_sent(self) -> int:
        """A channel begins. Return `next` for our HELLO: the first message that is not acknowledged."""
        self.closed()
        return self._current

    def opened(self, received: StreamPosition | None, *, held: bool = False) -> range:
        """The other side's HELLO has come, with what it has of our stream; return what is acknowledged by that. `held`:
        what was not sent before `restore` waits for `free`.

        Nothing is known there when its process is a new one (`received` is None or names another stream): sending
        begins at the first unacknowledged message then too. Raises `ProtocolViolation` for more than was ever sent.
        """
        newly = range(0)
        if received is not None and received.stream == self.stream:
            newly = self._cover(received.sequence)
        if not held:
            self.free()
        if not self._open:
            self._open = True
            self._current = self._acknowledged + 1
        return newly

    @property
    def unproved(self) -> int | None:
        """Behind this number nothing is sent before `opened` or `free`; None: everything may be sent."""
        return self._unproved

    def free(self) -> None:
        """All messages may be sent that the journal has."""
        self._unproved = None

    def begin(self) -> None:
        """Send behind our HELLO, before the other side's has come. What it has already it skips."""
        self._open = True

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
        current = self._current
        last = self._last if self._stored is None else self._stored
        if self._unproved is not None:
            last = min(last, self._unproved)
        if not self._open or current > last:
            return None
        flying = current - self._acknowledged - 1
        if flying >= WINDOW_MESSAGES or self._flying_bytes >= WINDOW_BYTES:
            return None
        message = self._messages[current]
        content, data = message.content, message.data
        frames = encode_message(content, current, data, CONTROL_CHUNK if content is _CONTROL else CHUNK)
        frames.reverse()
        self._frames = frames
        self._flying_bytes += len(data)
        return frames[-1]

    def sent(self) -> int | None:
        """The channel has taken the frame that `next_frame` returned. Return the number of the message when that was
        its last frame."""
        self._frames.pop()
        if self._frames:
            return None
        number = self._current
        if number > self._sent:
            self._sent = number
        self._current = number + 1
        return number

    def acknowledge(self, sequence: int) -> range:
        """The peer has everything up to `sequence`; return the numbers that are newly acknowledged.

        Raises `ProtocolViolation` for a message that was never sent whole.
        """
        return self._cover(sequence) if self._open else range(0)

    def _cover(self, sequence: int) -> range:
        if sequence > self._sent:
            raise ProtocolViolation(f"message {sequence} is acknowledged, and only {self._sent} were sent")
        newly = range(self._acknowledged + 1, sequence + 1)
        begun = self._current - (not self._frames)  # the newest message that counts as on its way
        for number in newly:
            message = self._messages.pop(number)
            size = len(message.data)
            if message.content is _CONTROL:
                self._count(message, -1)
            else:
                self._size -= size
            if number <= begun:
                self._flying_bytes -= size
        self._acknowledged = max(self._acknowledged, sequence)
        if self._current <= self._acknowledged:
            # It was being sent again, and has arrived by the channel before: the peer skips what it has got of it.
            self._current = self._acknowledged + 1
            self._frames = []
        return newly
