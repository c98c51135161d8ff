"""The receiving half of exactly-once delivery: puts chunks together, drops what has come before, says what to confirm.

Rules of this module:

* A message has *arrived* when its last chunk is here, and is *handed over* when the application's queue has taken it
  (`take`). Only what is handed over is acknowledged, so an application that does not read holds the sender back.
* With a journal a message is handed over when the journal has it: `keep` says that the first one not kept is being
  stored, `take` that it is. The journal hands it to the application, which may be much later. What is being stored
  stays, whatever becomes of its stream.
* Where a stream stands outlives the channel: a message that comes again on the next one is skipped. Where our process
  is new and the stream is not, it begins at what the sender's HELLO says; what came before went to another process,
  or another device, and was acknowledged there.
* Only so much is held for an application that does not read as the sender's window allows (`outbox`); who sends more
  breaks the protocol.
* What the other side sent may be wrong in any way; `ProtocolViolation` says how, and the channel has to end.

Pure: no I/O, no clock. It does not know what a message means.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec

from aldis.errors import ProtocolViolation, UsageError
from aldis.protocol.channel import MAX_MESSAGE, Chunk, Content, Hello, StreamPosition
from aldis.store.messages.outbox import WINDOW_BYTES, WINDOW_MESSAGES

# Each device and each run of the peer's program has a stream of its own. Only the last few can still have something
# unacknowledged that was seen here; 16 is generous, and costs 2 KiB a peer.
MAX_STREAMS: Final = 16
MAX_STREAM_NAME: Final = 128  # characters; ours have 22
MAX_SEQUENCE: Final = 2**63  # half of what the frame can carry: more than can be sent, and adding to it is safe


@dataclass(slots=True)
class _Stream:
    name: str
    arrived: int
    handed_over: int


@dataclass(slots=True)
class _Partial:
    sequence: int
    content: Content
    size: int
    data: bytearray


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """A whole message."""

    sequence: int
    content: Content
    data: bytes


@dataclass(frozen=True, slots=True)
class InboxSnapshot:
    """How far each stream of the peer was handed over, in the order of their use: the last one is in use.

    What has arrived and was not handed over is not in it: it was not acknowledged, so it comes again.
    """

    streams: tuple[StreamPosition, ...]


class Inbox:
    """All that comes from one peer."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}  # the one that was used last is the last one
        self._name: str | None = None
        self._stream = _Stream("", 0, 0)
        self._partial: _Partial | None = None
        self._held: deque[tuple[_Stream, Arrived]] = deque()  # arrived, not handed over
        self._kept = 0  # how many of these the journal is storing: the first ones
        self._run: str | None = None  # of the sender's program
        self._told: StreamPosition | None = None  # what our last HELLO says
        self._held_bytes = 0
        self._open = False
        self._confirmed = 0  # what the sender knows on this channel

    def snapshot(self) -> InboxSnapshot:
        """All that has to be kept for `restore`."""
        return InboxSnapshot(tuple(StreamPosition(name, stream.handed_over) for name, stream in self._streams.items()))

    @classmethod
    def restore(cls, snapshot: InboxSnapshot) -> Inbox:
        """The inbox as it was, without a channel. Raises `UsageError` for streams that cannot be."""
        inbox = cls()
        for position in snapshot.streams:
            if not position.stream or position.sequence < 0 or position.stream in inbox._streams:
                raise UsageError(f"no snapshot of an inbox: {position.sequence} of {position.stream!r}")
            inbox._streams[position.stream] = _Stream(position.stream, position.sequence, position.sequence)
        if len(inbox._streams) > MAX_STREAMS:
            raise UsageError(f"no snapshot of an inbox: {len(inbox._streams)} streams")
        if inbox._streams:
            inbox._name, inbox._stream = next(reversed(inbox._streams.items()))
        return inbox

    # --- channels -------------------------------------------------------------------------------------------------

    def position(self) -> StreamPosition | None:
        """How far the other side's stream has been received, for our HELLO; None when none is known."""
        return None if self._name is None else StreamPosition(self._name, self._stream.handed_over)

    def hello_sent(self) -> StreamPosition | None:
        """`position`, which is in our HELLO."""
        self._told = self.position()
        return self._told

    def opened(self, hello: Hello) -> None:
        """A channel is open; `hello` is the other side's. Raises `ProtocolViolation` for one that cannot be used."""
        if not 0 < len(hello.stream) <= MAX_STREAM_NAME:
            raise ProtocolViolation("a HELLO whose stream has no name, or far too long a one")
        if not 0 < hello.next <= MAX_SEQUENCE:
            raise ProtocolViolation(f"a HELLO with {hello.next} as its first message")
        self.closed()
        # What another stream's sender was never told has arrived is not ours to deliver: where that sender is still
        # alive, on another device, it will send it again. And another run of the program, with a journal that was put
        # back to an earlier state, gives the numbers of what is held to other messages.
        is_new_run = self._run is not None and hello.run != self._run
        if is_new_run or hello.stream != self._name:
            self.let_go()
        before = hello.next - 1
        known = self._streams.pop(hello.stream, None)
        stream = known or _Stream(hello.stream, before, before)
        self._streams[hello.stream] = stream
        if len(self._streams) > MAX_STREAMS:
            del self._streams[next(iter(self._streams))]
        self._name, self._stream = hello.stream, stream
        if known is not None and self._is_unknown(known, before, is_new_run=is_new_run):
            raise ProtocolViolation("our HELLO has not named all that has come of this stream")
        self._run = hello.run
        if stream.arrived < before:
            # Acknowledged by another of our devices, or given up by the sender. What is held comes before that.
            stream.arrived = before
            if not any(held is stream for held, _ in self._held):
                stream.handed_over = before
        self._open = True
        self._confirmed = before

    def _is_unknown(self, stream: _Stream, before: int, *, is_new_run: bool) -> bool:
        """Whether the sender may take numbers for new ones that have come already: it has an older journal, and our
        HELLO did not name them. The next one does, at the latest when the journal has what is kept."""
        told = self._told
        if told is not None and told.stream != stream.name:
            return stream.handed_over > before
        if not is_new_run:
            return False
        kept = any(held is stream for held, _ in self._held)
        return kept or (told is not None and told.sequence < stream.handed_over)

    def closed(self) -> None:
        """The channel is gone; half a message is dropped: it will come again whole. Harmless when none is open."""
        self._open = False
        self._partial = None

    def receive(self, chunk: Chunk) -> bool:
        """Take in a chunk; True when a message has arrived by it. Raises `ProtocolViolation`."""
        stream = self._stream
        if not self._open:
            raise ProtocolViolation("a message before the HELLO")
        if chunk.sequence <= stream.arrived:
            if chunk.last and chunk.sequence <= stream.handed_over:
                # The sender does not know: say it again.
                self._confirmed = min(self._confirmed, chunk.sequence - 1)
            return False
        if chunk.sequence != stream.arrived + 1:
            raise ProtocolViolation(f"message {chunk.sequence} came where {stream.arrived + 1} was due")
        partial = self._partial
        if partial is None and chunk.last and len(chunk.data) == chunk.size:
            self._check_room(chunk)
            self._hold(stream, Arrived(chunk.sequence, chunk.content, chunk.data))
            return True
        if partial is None:
            partial = self._partial = self._begin(chunk)
        elif (chunk.content, chunk.size) != (partial.content, partial.size):
            raise ProtocolViolation(f"the chunks of message {chunk.sequence} contradict each other")
        partial.data += chunk.data
        if len(partial.data) > partial.size or (chunk.last and len(partial.data) < partial.size):
            raise ProtocolViolation(f"message {chunk.sequence} has another size than it says")
        if not chunk.last:
            if not chunk.data:
                raise ProtocolViolation(f"an empty chunk within message {chunk.sequence}")
            return False
        self._partial = None
        self._hold(stream, Arrived(chunk.sequence, partial.content, bytes(partial.data)))
        return True

    def _hold(self, stream: _Stream, message: Arrived) -> None:
        stream.arrived = message.sequence
        self._held.append((stream, message))
        self._held_bytes += len(message.data)

    def _begin(self, chunk: Chunk) -> _Partial:
        self._check_room(chunk)
        return _Partial(chunk.sequence, chunk.content, chunk.size, bytearray())

    def _check_room(self, chunk: Chunk) -> None:
        if chunk.size > MAX_MESSAGE:
            raise ProtocolViolation(f"a message of {chunk.size} bytes; the limit is {MAX_MESSAGE}")
        if len(self._held) >= WINDOW_MESSAGES or self._held_bytes >= WINDOW_BYTES:
            raise ProtocolViolation("more messages than the window allows")

    # --- handing over ---------------------------------------------------------------------------------------------

    @property
    def first(self) -> Arrived | None:
        """The message that is to be handed over next."""
        return self._held[0][1] if self._held else None

    @property
    def unkept(self) -> Arrived | None:
        """The first message that the journal is not storing."""
        held, kept = self._held, self._kept
        return held[kept][1] if len(held) > kept else None

    @property
    def kept(self) -> int:
        """How many messages the journal is storing."""
        return self._kept

    def keep(self) -> str:
        """The journal is storing `unkept`; return the stream's name."""
        self._kept += 1
        assert self._name is not None  # something has come  # noqa: S101
        return self._name

    @property
    def size(self) -> int:
        """Bytes that are here and not handed over, of whole messages and of one that is still coming."""
        return self._held_bytes + (len(self._partial.data) if self._partial is not None else 0)

    def let_go(self) -> None:
        """Forget what is not handed over; it will come again. Only while no channel is open."""
        while len(self._held) > self._kept:
            _, message = self._held.pop()
            self._held_bytes -= len(message.data)
        kept = [message.sequence for stream, message in self._held if stream is self._stream]
        self._stream.arrived = max(self._stream.handed_over, *kept, 0)

    def take(self) -> str:
        """The first message has been handed over; return the name of its stream."""
        held = self._held
        stream, message = held.popleft()
        self._held_bytes -= len(message.data)
        if self._kept:
            self._kept -= 1
        # What was skipped at a channel's beginning (see `opened`) counts with the last one before it.
        stream.handed_over = message.sequence if held and held[0][0] is stream else stream.arrived
        return stream.name

    @property
    def due(self) -> int | None:
        """What to acknowledge on this channel, or None when the sender knows already."""
        handed_over = self._stream.handed_over
        return handed_over if self._open and handed_over > self._confirmed else None

    @property
    def unconfirmed(self) -> int:
        """How many messages the sender could be told of."""
        return max(self._stream.handed_over - self._confirmed, 0) if self._open else 0

    def confirmed(self, sequence: int) -> None:
        """The acknowledgement of `sequence` has been sent."""
        self._confirmed = max(self._confirmed, sequence)
