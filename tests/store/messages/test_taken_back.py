"""Messages, and pieces of a file that are taken back when another path begins: over any sequence of losses each message
arrives once and in order, and no piece before the one before it (hypothesis state machine)."""

from __future__ import annotations

from collections import deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aldis.protocol.channel import CONTROL_CHUNK, Ack, Chunk, Content, Hello, decode, encode_ack, encode_hello
from aldis.store.messages.inbox import Inbox
from aldis.store.messages.outbox import VOID, Outbox


def piece(index: int) -> bytes:
    return bytes([1, index]).ljust(CONTROL_CHUNK + 1, b"x")  # two frames


class Transfer(RuleBasedStateMachine):
    """A sender of messages and pieces, and a recipient, which `skips` what has come before or does not."""

    @initialize(skips=st.booleans(), journaled=st.booleans())
    def start(self, skips: bool, journaled: bool) -> None:
        self.skips, self.journaled = skips, journaled
        self.outbox, self.inbox = Outbox("ours", journaled=journaled), Inbox()
        self.there: deque[bytes] = deque()  # on the way to the recipient, and back
        self.back: deque[bytes] = deque()
        self.greeted = [False, False]  # the other side's HELLO has come: at the sender, at the recipient
        self.connected = False
        self.messages = 0
        self.got: list[bytes] = []
        self.pieces = 0  # that were said ever
        self.flying: list[tuple[int, int]] = []  # number and piece
        self.waiting: deque[int] = deque()  # pieces that were taken back
        self.next_piece = 0  # at the recipient

    # --- the sender -----------------------------------------------------------------------------------------------

    @rule()
    def send(self) -> None:
        self.put(Content.TEXT, b"%d" % self.messages)
        self.messages += 1

    @rule(count=st.integers(1, 3))
    def say_pieces(self, count: int) -> None:
        for _ in range(count):
            if self.waiting:
                index = self.waiting.popleft()
            elif self.pieces < 250:
                index, self.pieces = self.pieces, self.pieces + 1
            else:
                return
            self.flying.append((self.put(Content.CONTROL, piece(index)), index))

    def put(self, content: Content, data: bytes) -> int:
        number = self.outbox.put(content, data)
        if self.journaled:
            self.outbox.stored(number)
        return number

    @rule(early=st.booleans())
    def relay(self, early: bool) -> None:
        """Another path begins, and the pieces go behind what waits."""
        sent = self.outbox.snapshot().sent
        self.flying = [each for each in self.flying if each[0] > self.outbox.acknowledged]
        taken = [each for each in self.flying if self.skips or each[0] > sent]
        self.flying = [each for each in self.flying if each not in taken]
        self.waiting.extendleft(index for _, index in reversed(taken))
        self.outbox.withdraw([number for number, _ in taken], skip=False)
        self.connect(early)

    @rule(early=st.booleans())
    def connect(self, early: bool) -> None:
        self.there.clear()
        self.back.clear()
        self.greeted = [False, False]
        self.connected = True
        self.there.append(encode_hello(Hello(1, "ours", self.outbox.hello_sent(), [])))
        if early:
            self.outbox.begin()
        self.back.append(encode_hello(Hello(1, "theirs", 1, [], self.inbox.position())))

    @precondition(lambda self: self.connected)
    @rule()
    def lose(self) -> None:
        self.there.clear()
        self.back.clear()
        self.connected = False
        self.outbox.closed()
        self.inbox.closed()

    @precondition(lambda self: self.connected)
    @rule(frames=st.integers(1, 8))
    def transmit(self, frames: int) -> None:
        for _ in range(frames):
            frame = self.outbox.next_frame()
            if frame is None:
                return
            self.there.append(frame)
            self.outbox.sent()

    @rule(frames=st.integers(1, 8))
    def hear(self, frames: int) -> None:
        for _ in range(min(frames, len(self.back))):
            match decode(self.back.popleft()):
                case Hello() as hello:
                    self.outbox.opened(hello.received)
                case Ack(sequence):
                    self.outbox.acknowledge(sequence)

    @precondition(lambda self: self.connected)
    @rule(frames=st.integers(1, 16), read=st.booleans())
    def carry(self, frames: int, read: bool) -> None:
        """A stretch without trouble, but for acknowledgements."""
        self.hear(99)
        self.transmit(frames)
        self.arrive(99)
        if read:
            self.read(99)

    # --- the recipient --------------------------------------------------------------------------------------------

    @rule(frames=st.integers(1, 8))
    def arrive(self, frames: int) -> None:
        for _ in range(min(frames, len(self.there))):
            match decode(self.there.popleft()):
                case Hello() as hello:
                    self.inbox.opened(hello)
                    self.greeted[1] = True
                case Chunk() as chunk:
                    self.inbox.receive(chunk)

    @rule(messages=st.integers(1, 8))
    def read(self, messages: int) -> None:
        for _ in range(messages):
            first = self.inbox.first
            if first is None:
                return
            self.inbox.take()
            if first.content is not Content.CONTROL:
                self.got.append(first.data)
                assert self.got[-1] == b"%d" % (len(self.got) - 1), "a message is missing, came twice or too early"
            elif first.data != VOID:
                index = first.data[1]
                assert index <= self.next_piece, "a piece is missing"
                assert index == self.next_piece or self.skips, "a piece has come twice"
                self.next_piece = max(self.next_piece, index + 1)

    @rule()
    def acknowledge(self) -> None:
        due = self.inbox.due
        if due is not None and self.greeted[1]:
            self.back.append(encode_ack(due))
            self.inbox.confirmed(due)

    def teardown(self) -> None:
        """Whatever has happened: one path that holds brings everything over."""
        if not hasattr(self, "outbox"):
            return
        self.connect(early=False)
        for _ in range(2000):
            if self.waiting:
                self.say_pieces(1)
            self.hear(99)
            self.transmit(99)
            self.arrive(99)
            self.read(99)
            self.acknowledge()
            if self.outbox.acknowledged == self.outbox.last and not self.waiting:
                break
        assert (len(self.got), self.next_piece) == (self.messages, self.pieces)
        assert (self.outbox.messages, self.outbox.controls, self.outbox.size) == (0, 0, 0)


TestTransfer = Transfer.TestCase
TestTransfer.settings = settings(
    max_examples=100, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
