"""The messages between us and one device of a peer: what `outbox` and `inbox` decide, carried out on a path.

Rules of this module:

* A path takes frames while it has room, and says when it has room again. Today the direct channel is the only path.
  Nothing here depends on that, so the sealed relay can be another.
* Acknowledgements go before messages, or two full paths would wait for each other.
* Control messages (`control`) are numbered among the others and keep their place, so that a message between two stores
  neither overtakes a message nor gets lost. One that is first in the inbox is taken at once, whether the application
  has room or not; one behind a message that the application has no room for waits with it. They count in none of
  the application's queues, and have a limit of their own.
* Nothing here waits: everything happens within the calls of the path, the application, the mailbox and the journal.
* With a journal, a message is sent after the journal has it (`stored`). What has arrived goes to the mailbox, and is
  acknowledged, after the journal has that (`kept`). Of a control message the journal gets the number alone, and that
  some at a time, ahead (`control`): what it says is worth nothing after a restart, and a piece of a file must not wait.
* Messages that were sent to the user, and not to this device, can be taken back and sent to another one (`withdraw`,
  `take_over`). Pieces of files can be taken back so that messages need not wait for them (`take_back`).

It does not know how a path comes about, nor when there should be one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeAlias

from aldis.errors import JournalError, QueueFull
from aldis.peer.transport import Timer, Timers
from aldis.protocol.channel import VERSION, Ack, Chunk, Content, Hello, StreamPosition, encode_ack
from aldis.protocol.names import BUNDLES, FILES, FILES_2, FILES_3
from aldis.store.clock import wall
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.inbox import Arrived, Inbox, InboxSnapshot
from aldis.store.messages.mailbox import QueuedMessage
from aldis.store.messages.outbox import VOID, Outbox, OutboxSnapshot
from aldis.store.messages.stored import Leaving, StoredMessage, StoredStream, StreamJournal
from aldis.store.state import StoreLimits

# One acknowledgement covers many messages: sending a frame costs an engine more than anything that is done here. It
# waits for this many messages, or this long, whatever comes first, or goes along when we send something ourselves that
# it can be combined with.
ACK_MESSAGES: Final = 32
ACK_SECONDS: Final = 0.02
_CONTROL: Final = Content.CONTROL
# What this program can do beyond messages, as its HELLO says it.
FEATURES: Final = (FILES, FILES_2, FILES_3, BUNDLES)
# Control messages that wait for one peer. 64 transfers need some 200. The limit keeps a peer that asks and never
# acknowledges from filling the memory with our answers.
MAX_CONTROLS: Final = 1024


class Path(Protocol):
    """A way to the peer."""

    def send_frame(self, frame: bytes) -> bool:
        """Take one frame; False when there is no path, or no room. Call `pump` when there is."""

    def combines(self, size: int) -> bool:
        """Whether a frame of so many bytes goes together with small ones before it, at little more cost."""


class Recipient(Protocol):
    """Where messages go that have arrived: `mailbox.Mailbox`."""

    @property
    def has_room(self) -> bool:
        """Whether `put` may be called."""

    def put(self, *messages: QueuedMessage) -> None:
        """Take in messages."""

    def reserve(self, size: int) -> None:
        """Keep room for a message of so many bytes, which will be put in later."""


class StreamRenewed(Exception):
    """The peer knows more of our stream than the journal: there is a new stream now."""


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
        journaled: bool = False,
        now: Callable[[], float] = wall,
    ) -> None:
        """`control` is given each control message that arrives; it must not raise. `journaled`: nothing is sent before
        there is a journal (`bind`). `now`: seconds since 1970."""
        self._owner = owner
        self._limits = limits
        self._path = path
        self._recipient = recipient
        self._control = control
        self._timers = timers
        self._now = now
        self._journaled = journaled
        self._journal: StreamJournal | None = None
        self._new_stream: Callable[[], str] | None = None
        self._rolled_back = False
        self._left: Leaving | None = None
        self._held = False  # the journal knows which of our messages have not been sent (`StreamJournal.hold`)
        self._releasing = False
        self._accepted: set[int] = set()  # numbers of what the journal had before it has moved here, and not yet here
        self._their_run: str | None = None
        self._hellos = int(now() * 1000) if journaled else 0  # where the stream goes on: more than in any run before
        self._outbox = Outbox(stream, journaled=journaled)
        self._inbox = Inbox()
        self._deliveries: dict[int, Delivery] = {}
        self._movable: dict[int, None] = {}  # the numbers of those that are for any device of the user, in order
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
        """The deliveries of the newest message that may move and of the newest that stays, of those that wait. All
        others come before these, or fail with them."""
        last = [self._deliveries[number] for number in itertools.islice(reversed(self._movable), 1)]
        here = (
            delivery
            for number, delivery in reversed(self._deliveries.items())
            if number not in self._movable
            and (found := self._outbox.content(number)) is not None
            and found[0] is not Content.CONTROL
        )
        return last + list(itertools.islice(here, 1))

    def send(self, content: Content, data: bytes, *, addressed: bool = False) -> Delivery:
        """Queue a message, and send it when it is its turn. `addressed`: it is for this device and no other. Raises
        `QueueFull`."""
        outbox, owner, limits = self._outbox, self._owner, self._limits
        is_control = content is _CONTROL
        waiting, size = outbox.messages, outbox.size
        if is_control:
            waiting = outbox.controls
            full = waiting >= MAX_CONTROLS
        else:
            full = waiting >= limits.queue_messages or size + len(data) > limits.queue_size
        if full and waiting:
            raise QueueFull(owner.user_id, waiting, size)
        if self._journal is not None and not is_control:
            self._journal.check_room(len(data))
        device = owner.name if addressed else None
        delivery = Delivery.made(owner.user_id, device, self._now(), stored=not self._journaled)
        self._put(delivery, content, data, movable=not (addressed or is_control))
        self.pump()
        return delivery

    def _put(self, delivery: Delivery, content: Content, data: bytes, *, movable: bool) -> int:
        delivery.sequence = number = self._outbox.put(content, data)
        self._deliveries[number] = delivery
        if movable:
            self._movable[number] = None
        if self._journal is None:
            return number
        self._hold(self._journal)
        if content is not Content.CONTROL:
            self._journal.queue(number, content, data, delivery.queued_at, movable)
        elif self._journal.control(number) and self._outbox.unstored.start == number:
            self._outbox.stored(number)
            delivery.reached_journal()
        return number

    def _hold(self, journal: StreamJournal) -> None:
        """There is a message that no earlier run can have sent. If this run ends before the peer has said what it has,
        the next one has to know that: the peer's numbers may mean other messages."""
        if self._outbox.unproved is not None and not self._held:
            self._held = True
            journal.hold(self._outbox.unproved)

    def _store(self, number: int) -> None:
        """Have the journal keep a message as it is now, unless it is acknowledged: the journal is told of that."""
        journal = self._journal
        if journal is None or number <= self._outbox.acknowledged:
            return
        found = self._outbox.content(number)
        if found is None:
            journal.remove(number)
            return
        content, data = found
        delivery = self._deliveries.get(number)
        queued_at = 0.0 if delivery is None else delivery.queued_at
        kept = VOID if content is Content.CONTROL else data
        journal.queue(number, content, kept, queued_at, number in self._movable)

    @property
    def movable(self) -> int:
        """How many messages `withdraw` would take back."""
        return len(self._movable)

    def withdraw(self) -> Withdrawn:
        """Take back all messages that are not acknowledged and were sent to the user. Only while no channel is open."""
        return self._withdraw(list(self._movable))

    def _withdraw(self, numbers: list[int]) -> Withdrawn:
        contents = self._outbox.withdraw(numbers)
        taken = [(self._deliveries.pop(number), *content) for number, content in zip(numbers, contents, strict=True)]
        self._given_up(numbers)
        if self._outbox.is_void and self._journal is not None and self._new_stream is not None:
            # Nothing has to be sent, so no number of this stream has to be used.
            name = self._new_stream()
            self._outbox.renew(name, StreamPosition(self._outbox.stream, 0))
            self._journal.renew(name)
            self._rolled_back = self._held = self._releasing = False
        return taken

    def _given_up(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._movable.pop(number, None)
            self._accepted.discard(number)
            self._store(number)
        if self._journal is not None:
            self._journal.acknowledge(self._outbox.acknowledged)

    def take_back(self, deliveries: Iterable[Delivery]) -> None:
        """Take back control messages that are not acknowledged: whoever has sent them sends them again, later. Voids
        take their places. Only while no channel is open."""
        numbers = [delivery.sequence for delivery in deliveries]
        self._outbox.withdraw(numbers, skip=False)
        for number in numbers:
            del self._deliveries[number]
        self._given_up(numbers)

    def take_over(self, withdrawn: Withdrawn) -> None:
        """Send what was taken back from another device. The limits do not count: it was accepted before."""
        for delivery, content, data in withdrawn:
            number = self._put(delivery, content, data, movable=True)
            if self._journaled and delivery.stored:
                self._accepted.add(number)
        self.pump()

    def fail(self, reason: str, *, keep: bool = False) -> None:
        """Give up all messages that are not acknowledged. Only while no channel is open. With `keep` the journal keeps
        them for the next run of the program, and nothing can be sent here any more."""
        journal = self._journal if keep else None
        unstored = set(self._outbox.unstored) - self._accepted
        given_up = self._outbox.clear()
        deliveries, self._deliveries = self._deliveries, {}
        if journal is not None:
            self._journal = None
            # The journal is given them just now, and says soon what becomes of them.
            left = {number: deliveries.pop(number) for number in unstored if number in deliveries}
            self._left = Leaving(journal, reason, left)
        self._given_up(given_up)
        self._movable.clear()
        for delivery in deliveries.values():
            delivery.fail(reason, kept=journal is not None)

    def expire(self, age: float) -> bool:
        """Give up the messages of the application that wait for longer than `age` seconds, unless there is a channel.
        Whether there were any."""
        if self._outbox.is_open:
            return False
        oldest = self._now() - age
        old = [
            number
            for number, delivery in self._deliveries.items()
            if delivery.queued_at < oldest and (found := self._outbox.content(number)) and found[0] != Content.CONTROL
        ]
        for delivery, _, _ in self._withdraw(old) if old else ():
            delivery.expire(f"it has waited for more than {age:g} s")
        return bool(old)

    def clock_was_set(self, step: float) -> None:
        """The wall clock was set by so many seconds: what waits is no older by that, in later runs either."""
        for number, delivery in self._deliveries.items():
            delivery.queued_at += step
            found = self._outbox.content(number)
            if found is not None and found[0] is not Content.CONTROL:
                self._store(number)

    # --- the journal ----------------------------------------------------------------------------------------------

    def bind(self, journal: StreamJournal, stored: StoredStream, new_stream: Callable[[], str]) -> None:
        """From now on the journal keeps this stream. `stored` is what it has of the device: that goes before all that
        waits here already. Only before the first channel. `new_stream` makes a random name."""
        waiting = [
            (self._deliveries[number], content, data, number in self._movable)
            for number, (content, data) in enumerate(self._outbox.snapshot().messages, self._outbox.acknowledged + 1)
            if number in self._deliveries  # else a void
        ]
        self._journal, self._new_stream = journal, new_stream
        self._deliveries.clear()
        self._movable.clear()
        self._accepted.clear()
        self._restore(stored)
        for delivery, content, data, movable in waiting:
            number = self._put(delivery, content, data, movable=movable)
            if delivery.stored:
                self._accepted.add(number)

    def unbind(self) -> StoredStream:
        """The journal does not keep this stream any more. Return what it has to know, to go on later."""
        self._journal = None
        outbox = self._outbox.snapshot()
        messages = []
        for number, (content, data) in enumerate(outbox.messages, outbox.acknowledged + 1):
            delivery = self._deliveries.get(number)
            queued_at = 0.0 if delivery is None else delivery.queued_at
            kept = VOID if content is Content.CONTROL else data
            messages.append(StoredMessage(content, kept, queued_at, number in self._movable))
        positions = self._inbox.snapshot().streams
        sent = self._outbox.unproved if self._held and not self._releasing else None
        return StoredStream(
            outbox.stream, outbox.acknowledged, tuple(messages), positions, self._rolled_back, sent=sent
        )

    def _restore(self, stored: StoredStream) -> None:
        messages = tuple((message.content, message.data) for message in stored.messages)
        # All of them may have been sent, unless the journal knows better.
        sent = newest = stored.acknowledged + len(messages)
        self._held, self._releasing = stored.sent is not None, False
        if stored.sent is not None:
            sent = min(max(stored.sent, stored.acknowledged), newest)
        self._outbox = (
            Outbox(stored.stream, journaled=True)
            if stored.fresh
            else Outbox.restore(OutboxSnapshot(stored.stream, stored.acknowledged, sent, messages), journaled=True)
        )
        self._inbox = Inbox.restore(InboxSnapshot(stored.positions))
        self._rolled_back = stored.rolled_back
        for number, message in enumerate(stored.messages, stored.acknowledged + 1):
            if message.content is Content.CONTROL:
                continue
            device = None if message.movable else self._owner.name
            delivery = Delivery(self._owner.user_id, number, device, queued_at=message.queued_at)
            delivery.reached_journal()
            self._deliveries[number] = delivery
            if message.movable:
                self._movable[number] = None

    def stored(self, number: int) -> None:
        """The journal has all messages up to `number`."""
        if self._left is not None:
            self._left.stored(number)
        first = self._outbox.unstored.start
        self._outbox.stored(number)
        for each in range(first, number + 1):
            delivery = self._deliveries.get(each)
            if delivery is not None:
                delivery.reached_journal()
            self._accepted.discard(each)
        self.pump()

    def not_stored(self, error: JournalError) -> None:
        """The journal cannot take what it was given. New messages fail; what it had accepted before goes on waiting."""
        if self._left is not None:
            self._left.not_stored(error)
        lost = [
            number
            for number in self._outbox.unstored
            if number not in self._accepted
            and (found := self._outbox.content(number)) is not None
            and found[0] is not Content.CONTROL
        ]
        self._outbox.drop(lost)
        deliveries = [self._deliveries.pop(number) for number in lost]
        for number in lost:
            self._movable.pop(number, None)
            self._store(number)
        for delivery in deliveries:
            delivery.fail(str(error))

    def free(self) -> None:
        """The journal knows that all of our messages may be sent."""
        self._held = self._releasing = False
        self._outbox.free()
        self.pump()

    def kept(self, places: Sequence[int]) -> None:
        """The journal has the next messages that have arrived, at these places."""
        together: list[QueuedMessage] = []  # what is handed over together costs the journal less
        for place in places:
            first = self._inbox.first
            assert first is not None  # the journal was given it  # noqa: S101
            together.append(self._queued_message(first, self._inbox.take(), place))
            while self._inbox.kept and (first := self._inbox.first) is not None and first.content is _CONTROL:
                self._inbox.take()
                self._recipient.put(*together)
                together = []
                self._control(first.data)
        self._recipient.put(*together)
        self.flush()
        self.hand_over()

    # --- the channel ----------------------------------------------------------------------------------------------

    def hello(self, *, early: bool = False) -> Hello:
        """Our first frame on a new channel. `early`: messages may follow before the other side's HELLO has come."""
        self._outbox.hello_sent()
        hello = self.greeting()
        if early and not self._rolled_back:  # else it is not known which messages are there
            self._outbox.begin()
        return hello

    def greeting(self) -> Hello:
        """A HELLO that leaves the messages where they are: for a channel on which nothing will follow, or which they
        take when the other side's HELLO has come."""
        self._hellos += 1
        return Hello(
            VERSION,
            self._outbox.stream,
            self._outbox.acknowledged + 1,
            list(FEATURES),
            self._inbox.hello_sent(),
            None if self._journal is None else self._journal.run,
            self._hellos,
        )

    def is_new_program(self, hello: Hello) -> bool:
        """Whether the other side is not the program that was there before; true when there was none."""
        if self._their_run is not None and hello.run is not None:
            return self._their_run != hello.run
        return hello.stream != self.their_stream

    def opened(self, hello: Hello) -> bool:
        """A channel is open; `hello` is the other side's. Raises `ProtocolViolation`, and `StreamRenewed`.

        True when the other side is not the program that was there before: what was under way between the two, beyond
        messages, is over.
        """
        restarted = self.their_stream is not None and self.is_new_program(hello)
        received = hello.received
        ours = received is not None and received.stream == self._outbox.stream
        if received is not None and ours and (self._rolled_back or self._outbox.is_behind(received)):
            self._renew(received)
        self._rolled_back = False
        self._inbox.opened(hello)
        self._their_run = hello.run
        self._delivered(self._outbox.opened(hello.received, held=self._held))
        if self._held and not self._releasing and self._journal is not None:
            self._releasing = True
            self._journal.release()
        self.pump()
        return restarted

    def _renew(self, received: StreamPosition) -> None:
        """The peer has got messages of our stream that the journal does not know: our numbers mean others there."""
        journal, new_stream = self._journal, self._new_stream
        if journal is None or new_stream is None:
            return
        self._rolled_back = self._held = self._releasing = False
        name = new_stream()
        arrived, rest = self._outbox.renew(name, received)
        self._delivered(arrived)
        journal.renew(name)
        deliveries, movable = self._deliveries, self._movable
        self._deliveries = {new: deliveries[old] for new, old in enumerate(rest, 1) if old in deliveries}
        self._movable = {new: None for new, old in enumerate(rest, 1) if old in movable}
        self._accepted = set(range(1, len(rest) + 1))
        for number in self._accepted:
            if number in self._deliveries:
                self._deliveries[number].sequence = number
            self._store(number)
        raise StreamRenewed

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
        if self._acknowledging is None and not self.flush():
            return
        outbox, deliveries, send_frame = self._outbox, self._deliveries, self._path.send_frame
        while (frame := outbox.next_frame()) is not None:
            if self._acknowledging is not None and self._path.combines(len(frame)):
                self.flush()
            if not send_frame(frame):
                break
            number = outbox.sent()
            if number is not None and (delivery := deliveries.get(number)) is not None:
                delivery.reached_path()

    def _delivered(self, sequences: range) -> None:
        movable, deliveries = self._movable, self._deliveries
        for sequence in sequences:
            movable.pop(sequence, None)
            delivery = deliveries.pop(sequence, None)
            if delivery is not None:  # else a void
                delivery.succeed()
        if sequences and self._journal is not None:
            self._journal.acknowledge(sequences[-1])

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
        """Give the application, or first the journal, what has arrived, as far as there is room, and acknowledge what
        was given soon."""
        inbox, recipient = self._inbox, self._recipient
        while (message := inbox.unkept) is not None:
            if message.content is _CONTROL:
                if inbox.kept:
                    inbox.keep()  # its turn comes when the journal has what is before it (`kept`)
                else:
                    inbox.take()  # first: a callback may lead back here
                    self._control(message.data)
            elif not recipient.has_room:
                break
            elif self._journal is not None:
                recipient.reserve(len(message.data))
                self._journal.arrived(self._their_name, inbox.keep(), message)
            else:
                recipient.put(self._queued_message(message, inbox.take()))
        unconfirmed = inbox.unconfirmed
        if unconfirmed >= ACK_MESSAGES:
            self.flush()
        elif unconfirmed and self._acknowledging is None:
            self._acknowledging = self._timers.call_later(ACK_SECONDS, self._flush_later)

    @property
    def _their_name(self) -> str:
        device = self._owner.name
        assert device is not None  # a device that has sent something has said which one it is  # noqa: S101
        return device

    def _queued_message(self, message: Arrived, stream: str, place: int | None = None) -> QueuedMessage:
        owner = self._owner
        sender, device = owner.user_id, owner.name or self._their_name
        return QueuedMessage(sender, device, message.content, message.data, message.sequence, stream, place)

    def let_go(self) -> None:
        """Forget what has arrived and is not handed over; it will come again. Only while no channel is open."""
        self._inbox.let_go()

    def _flush_later(self) -> None:
        self._acknowledging = None
        self.flush()

    def flush(self) -> bool:
        """Send the acknowledgement that is due. False when there was no room for it."""
        if self._acknowledging is not None:
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
