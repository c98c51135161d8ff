"""Exactly once and in order, over any sequence of losses, restarts and slow readers (hypothesis state machine)."""

from __future__ import annotations

from collections import deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aldis.protocol.channel import CHUNK, Ack, Chunk, Content, Hello, decode, encode_ack, encode_hello
from aldis.store.messages.inbox import Inbox
from aldis.store.messages.outbox import Outbox

SIZES = st.sampled_from([0, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])


class Side:
    """One program: what it has sent, what it was handed, and one end of the channel."""

    def __init__(self, stream: str) -> None:
        self.outbox = Outbox(stream)
        self.inbox = Inbox()
        self.wire: deque[bytes] = deque()  # what it has sent on the channel, and has not come out yet
        self.greeted = False  # the other side's HELLO has come
        self.handed: list[bytes] = []

    def restart_channel(self) -> None:
        self.wire.clear()
        self.greeted = False
        hello = Hello(1, self.outbox.stream, self.outbox.hello_sent(), [], self.inbox.position())
        self.wire.append(encode_hello(hello))

    def lose_channel(self) -> None:
        self.wire.clear()
        self.greeted = False
        self.outbox.closed()
        self.inbox.closed()

    def transmit(self, frames: int) -> None:
        for _ in range(frames):
            frame = self.outbox.next_frame()
            if frame is None:
                return
            self.wire.append(frame)
            self.outbox.sent()

    def hand_over(self, messages: int) -> None:
        for _ in range(messages):
            first = self.inbox.first
            if first is None:
                return
            self.handed.append(first.data)
            self.inbox.take()

    def acknowledge(self) -> None:
        due = self.inbox.due
        if due is not None and self.greeted:
            self.wire.append(encode_ack(due))
            self.inbox.confirmed(due)

    def arrive(self, data: bytes) -> None:
        match decode(data):
            case Hello() as hello:
                self.outbox.opened(hello.received)
                self.inbox.opened(hello)
                self.greeted = True
            case Chunk() as chunk:
                self.inbox.receive(chunk)
            case Ack(sequence):
                self.outbox.acknowledge(sequence)


class Delivery(RuleBasedStateMachine):
    """Messages flow both ways; the checks look at what `left` sends to `right`, and the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.streams = 0

    @initialize()
    def start(self) -> None:
        self.sides = [self.new_side(), self.new_side()]
        # What each side's present stream has put in, and whether it was given up; and from which message on the
        # present process of the other side has to get all of them: those before were acknowledged by an earlier one.
        self.put: list[list[tuple[bytes, bool]]] = [[], []]
        self.since = [0, 0]
        self.connected = False

    def new_side(self) -> Side:
        self.streams += 1
        return Side(f"stream {self.streams}")

    @rule(who=st.integers(0, 1), size=SIZES)
    def send(self, who: int, size: int) -> None:
        self.count += 1
        data = f"{self.sides[who].outbox.stream}:{self.count}:".encode().ljust(size, b"x")
        self.put[who].append((data, False))
        self.sides[who].outbox.put(Content.BYTES, data)

    @rule()
    def connect(self) -> None:
        for side in self.sides:
            side.restart_channel()
        self.connected = True

    @precondition(lambda self: self.connected)
    @rule()
    def lose_the_channel(self) -> None:
        for side in self.sides:
            side.lose_channel()
        self.connected = False

    @rule(who=st.integers(0, 1), frames=st.integers(1, 8))
    def transmit(self, who: int, frames: int) -> None:
        if self.connected:
            self.sides[who].transmit(frames)

    @rule(who=st.integers(0, 1), frames=st.integers(1, 8))
    def deliver(self, who: int, frames: int) -> None:
        for _ in range(frames):
            if self.sides[who].wire:
                self.sides[1 - who].arrive(self.sides[who].wire.popleft())

    @precondition(lambda self: self.connected)
    @rule(who=st.integers(0, 1), frames=st.integers(1, 16))
    def carry(self, who: int, frames: int) -> None:
        """A stretch without trouble: the HELLOs, and some frames one way."""
        for side, other in ((0, 1), (1, 0)):
            while self.sides[side].wire:
                self.sides[other].arrive(self.sides[side].wire.popleft())
        self.sides[who].transmit(frames)

    @rule(who=st.integers(0, 1), messages=st.integers(1, 4))
    def read(self, who: int, messages: int) -> None:
        self.sides[who].hand_over(messages)

    @rule(who=st.integers(0, 1))
    def acknowledge(self, who: int) -> None:
        self.sides[who].acknowledge()

    @rule(who=st.integers(0, 1))
    def restart_the_program(self, who: int) -> None:
        if self.connected:
            self.lose_the_channel()
        other = 1 - who
        self.sides[who] = self.new_side()
        # As receiver: everything that its predecessor has not acknowledged must come to it.
        self.since[other] = self.sides[other].outbox.acknowledged
        # As sender: a new stream; its predecessor's unacknowledged messages died with it.
        self.put[who] = []
        self.since[who] = 0

    @rule(who=st.integers(0, 1))
    def restore_the_program(self, who: int) -> None:
        """It ends, and another one goes on with all that it has saved."""
        if self.connected:
            self.lose_the_channel()
        side = self.sides[who]
        side.outbox = Outbox.restore(side.outbox.snapshot())
        side.inbox = Inbox.restore(side.inbox.snapshot())

    @rule(who=st.integers(0, 1))
    def give_up(self, who: int) -> None:
        """The sender is told that its unacknowledged messages will not arrive, and sends others later."""
        if self.connected:
            self.lose_the_channel()
        given_up = self.sides[who].outbox.clear()
        for number in given_up:
            self.put[who][number - 1] = (self.put[who][number - 1][0], True)

    @invariant()
    def each_message_arrives_once_and_in_order(self) -> None:
        for who, sender in enumerate(self.sides):
            receiver = self.sides[1 - who]
            assert len(set(receiver.handed)) == len(receiver.handed), "a message came twice"
            stream = f"{sender.outbox.stream}:".encode()
            handed = [data for data in receiver.handed if data.startswith(stream)]
            expected = self.put[who][self.since[who] :]
            # One that was given up may have arrived all the same, and its place may have been skipped.
            arrived = iter(handed)
            due = next(arrived, None)
            for number, (data, given_up) in enumerate(expected, self.since[who] + 1):
                if data == due:
                    due = next(arrived, None)
                elif not given_up:
                    assert due is None, f"{data!r} is missing before {due!r}"
                    assert number > sender.outbox.acknowledged
            assert due is None, f"{due!r} is out of order"
            assert sender.outbox.messages == sender.outbox.last - sender.outbox.acknowledged

    def teardown(self) -> None:
        """Whatever has happened: one channel that holds brings everything over."""
        if not hasattr(self, "sides"):
            return
        self.connect()
        for _ in range(1000):
            for who, side in enumerate(self.sides):
                while side.wire:
                    self.sides[1 - who].arrive(side.wire.popleft())
                side.hand_over(2)
                if side.greeted:
                    side.acknowledge()
                    side.transmit(16)
            if not any(side.wire or side.outbox.messages for side in self.sides):
                break
        self.each_message_arrives_once_and_in_order()
        for sender in self.sides:
            assert sender.outbox.messages == 0


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
