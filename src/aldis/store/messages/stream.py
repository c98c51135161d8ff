"""The messages between us and one device of a peer: what `outbox` and `inbox` decide, carried out on a path.

Rules of this module:

* A path takes frames while it has room, and says when it has room again. Today the direct channel is the only path.
  Nothing here depends on that, so the sealed relay can be another.
* Acknowledgements go before messages, or two full paths would wait for each other.
* Control messages (`control`) are numbered among the others and keep their place, so that a message between two stores
  neither overtakes a message nor gets lost. One that is first in the inbox is taken at once, whether the application
  has room or not; one behind a message that the application has no room for waits with it. They count in none of
  the application's queues, and have a limit of their own.
* Nothing here waits: everything happens within the calls of the path, the application and the mailbox.

* Messages that were sent to the user, and not to this device, can be taken back and sent to another one (`withdraw`,
  `take_over`).

It does not know how a path comes about, nor when there should be one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from aldis.errors import QueueFull
from aldis.peer.transport import Timer, Timers
from aldis.protocol.channel import VERSION, Ack, Chunk, Content, Hello, encode_ack
from aldis.protocol.names import FILES
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.inbox import Arrived, Inbox
from aldis.store.messages.mailbox import QueuedMessage
from aldis.store.messages.outbox import Outbox
from aldis.store.state import StoreLimits

# One acknowledgement covers many messages: sending a frame costs an engine more than anything that is done here. It
# waits for this many messages, or this long, whatever comes first, or goes along when we send something ourselves.
ACK_MESSAGES: Final = 32
ACK_SECONDS: Final = 0.02
# What this program can do beyond messages, as its HELLO says it.
FEATURES: Final = (FILES,)
# Control messages that wait for one peer. 64 transfers need some 200. The limit keeps a peer that asks and never
# acknowledges from filling the memory with our answers.
MAX_CONTROLS: Final = 1024


class Path(Protocol):
    """A way to the peer."""

    def send_frame(self, frame: bytes) -> bool:
        """Take one frame; False when there is no path, or no room. Call `pump` when there is."""


class Recipient(Protocol):
    """Where messages go that have arrived: `mailbox.Mailbox`."""

    @property
    def has_room(self) -> bool:
        """Whether `put` may be called."""

    def put(self, message: QueuedMessage) -> None:
        """Take in a message."""


Withdrawn: TypeAlias = list[tuple[Delivery, Content, bytes]]


class StreamOwner(Protocol):
    """The device."""

    user_id: str
    name: str | None  # None until it is known; nothing comes from it before


class MessageStream:
    """What is said to and by one device."""

    def __init__(
        self,
        owner: StreamOwner,
        stream: str,
        *,
        limits: StoreLimits,
        path: Path,
        recipient: Recipient,
        control: Callable[[bytes], None],
        timers: Timers,
    ) -> None:
        """`control` is given each control message that arrives; it must not raise."""
        self._owner = owner
        self._limits = limits
        self._path = path
        self._recipient = recipient
        self._control = control
        self._timers = timers
        self._outbox = Outbox(stream)
        self._inbox = Inbox()
        self._deliveries: dict[int, Delivery] = {}
        self._movable: dict[int, None] = {}  # the numbers of those that are for any device of the user, in order
        self._last_here: Delivery | None = None  # of the application's messages that are for this device
        self._acknowledging: Timer | None = None

    # --- sending --------------------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many messages of the application the peer has not acknowledged yet."""
        return self._outbox.messages

    @property
    def their_stream(self) -> str | None:
        """The stream of the program that was connected last; None before the first."""
        position = self._inbox.position()
        return None if position is None else position.stream

    @property
    def last(self) -> list[Delivery]:
        """The deliveries of the newest message that may move and of the newest that stays, as far as they are not
        acknowledged. All others come before these, or fail with them."""
        last = [self._deliveries[number] for number in itertools.islice(reversed(self._movable), 1)]
        if self._last_here is not None and not self._last_here.done:
            last.append(self._last_here)
        return last

    def send(self, content: Content, data: bytes, *, addressed: bool = False) -> Delivery:
        """Queue a message, and send it when it is its turn. `addressed`: it is for this device and no other. Raises
        `QueueFull`."""
        waiting, size = self._outbox.messages, self._outbox.size
        if content is Content.CONTROL:
            waiting = self._outbox.controls
            full = waiting >= MAX_CONTROLS
        else:
            full = waiting >= self._limits.queue_messages or size + len(data) > self._limits.queue_size
        if waiting and full:
            raise QueueFull(self._owner.user_id, waiting, size)
        number = self._outbox.put(content, data)
        delivery = Delivery(self._owner.user_id, number, self._owner.name if addressed else None)
        self._deliveries[number] = delivery
        if addressed:
            self._last_here = delivery
        elif content is not Content.CONTROL:
            self._movable[number] = None
        self.pump()
        return delivery

    @property
    def movable(self) -> int:
        """How many messages `withdraw` would take back."""
        return len(self._movable)

    def withdraw(self) -> Withdrawn:
        """Take back all messages that are not acknowledged and were sent to the user. Only while no channel is open."""
        numbers = list(self._movable)
        contents = self._outbox.withdraw(numbers)
        taken = [(self._deliveries.pop(number), *content) for number, content in zip(numbers, contents, strict=True)]
        self._movable.clear()
        return taken

    def take_over(self, withdrawn: Withdrawn) -> None:
        """Send what was taken back from another device. The limits do not count: it was accepted before."""
        for delivery, content, data in withdrawn:
            delivery.sequence = number = self._outbox.put(content, data)
            self._deliveries[number] = delivery
            self._movable[number] = None
        self.pump()

    def fail(self, reason: str) -> None:
        """Give up all messages that are not acknowledged. Only while no channel is open."""
        self._outbox.clear()
        self._movable.clear()
        deliveries, self._deliveries = self._deliveries, {}
        for delivery in deliveries.values():
            delivery.fail(reason)

    # --- the channel ----------------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Our first frame on a new channel."""
        self._outbox.hello_sent()
        return self.greeting()

    def greeting(self) -> Hello:
        """A HELLO for a channel on which nothing will follow."""
        return Hello(
            VERSION, self._outbox.stream, self._outbox.acknowledged + 1, list(FEATURES), self._inbox.position()
        )

    def opened(self, hello: Hello) -> bool:
        """A channel is open; `hello` is the other side's. Raises `ProtocolViolation`.

        True when the other side is not the program that was there before: what was under way between the two, beyond
        messages, is over.
        """
        before = self._inbox.position()
        self._inbox.opened(hello)
        self._delivered(self._outbox.opened(hello.received))
        self.pump()
        return before is not None and before.stream != hello.stream

    def closed(self) -> None:
        """The channel is gone."""
        self._forget_timer()
        self._outbox.closed()
        self._inbox.closed()

    def received(self, frame: Chunk | Ack) -> None:
        """A frame has come. Raises `ProtocolViolation`."""
        if isinstance(frame, Ack):
            self._delivered(self._outbox.acknowledge(frame.sequence))
            self.pump()
        else:
            self._inbox.receive(frame)
            self.hand_over()

    def pump(self) -> None:
        """Send what is due and has room on the path."""
        if not self.flush():
            return
        while (frame := self._outbox.next_frame()) is not None and self._path.send_frame(frame):
            self._outbox.sent()

    def _delivered(self, sequences: range) -> None:
        for sequence in sequences:
            self._movable.pop(sequence, None)
            delivery = self._deliveries.pop(sequence, None)
            if delivery is not None:  # else a void
                delivery.succeed()

    # --- receiving ------------------------------------------------------------------------------------------------

    @property
    def arriving(self) -> int:
        """Bytes that have arrived and are not handed over."""
        return self._inbox.size

    @property
    def waiting(self) -> bool:
        """Whether a whole message waits for room in the mailbox."""
        return self._inbox.first is not None

    def hand_over(self) -> None:
        """Give the application what has arrived, as far as it has room, and acknowledge that soon."""
        while (first := self._inbox.first) is not None:
            if first.content is not Content.CONTROL and not self._recipient.has_room:
                break
            self._inbox.take()  # first: a callback may lead back here
            if first.content is Content.CONTROL:
                self._control(first.data)
            else:
                self._put(first)
        if self._inbox.unconfirmed >= ACK_MESSAGES:
            self.flush()
        elif self._inbox.unconfirmed and self._acknowledging is None:
            self._acknowledging = self._timers.call_later(ACK_SECONDS, self._flush_later)

    def _put(self, first: Arrived) -> None:
        device = self._owner.name
        assert device is not None  # a device that has sent something has said which one it is  # noqa: S101
        self._recipient.put(QueuedMessage(self._owner.user_id, device, first.content, first.data, first.sequence))

    def let_go(self) -> None:
        """Forget what has arrived and is not handed over; it will come again. Only while no channel is open."""
        self._inbox.let_go()

    def _flush_later(self) -> None:
        self._acknowledging = None
        self.flush()

    def flush(self) -> bool:
        """Send the acknowledgement that is due. False when there was no room for it."""
        self._forget_timer()
        due = self._inbox.due
        if due is not None:
            if not self._path.send_frame(encode_ack(due)):
                return False
            self._inbox.confirmed(due)
        return True

    def _forget_timer(self) -> None:
        if self._acknowledging is not None:
            self._acknowledging.cancel()
            self._acknowledging = None
