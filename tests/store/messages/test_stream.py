"""Two conversations over a route that a test can stop, break and look into."""

from __future__ import annotations

import pytest

from aldis.errors import DeliveryFailed, ProtocolViolation, QueueFull
from aldis.protocol.channel import Ack, Chunk, Content, Hello, StreamPosition, decode
from aldis.store.messages.mailbox import Mailbox, Reader
from aldis.store.messages.outbox import VOID, WINDOW_MESSAGES
from aldis.store.messages.stream import ACK_MESSAGES, ACK_SECONDS, FEATURES, MAX_CONTROLS, MessageStream
from aldis.store.state import StoreLimits
from support.peers import FakeTimers


class Path:
    """Takes so many frames, and keeps them."""

    def __init__(self) -> None:
        self.room = 10**6
        self.frames: list[bytes] = []

    def send_frame(self, frame: bytes) -> bool:
        if self.room == 0:
            return False
        self.room -= 1
        self.frames.append(frame)
        return True

    def combines(self, size: int) -> bool:
        return size < 2048

    def take(self) -> list[Chunk | Ack]:
        """What was sent since."""
        frames, self.frames = self.frames, []
        decoded = [decode(frame) for frame in frames]
        return [frame for frame in decoded if isinstance(frame, Chunk | Ack)]


class Side:
    def __init__(self, name: str = "bob", limits: StoreLimits | None = None, stream: str = "s") -> None:
        self.limits = limits or StoreLimits()
        self.path = Path()
        self.timers = FakeTimers()
        self.controls: list[bytes] = []
        self.mailbox = Mailbox(self.limits.unread_messages, self.limits.unread_size, on_room=self.emptied)
        self.user_id = name
        self.name: str | None = "phone"
        self.talk = MessageStream(
            self,
            stream,
            limits=self.limits,
            path=self.path,
            recipient=self.mailbox,
            control=self.controls.append,
            timers=self.timers,
        )

    def emptied(self) -> None:
        self.talk.hand_over()

    def send(self, *texts: str) -> None:
        for text in texts:
            self.talk.send(Content.TEXT, text.encode())


def opened(limits: StoreLimits | None = None) -> Side:
    side = Side(limits=limits)
    side.talk.hello()
    side.talk.opened(Hello(1, "theirs", 1))
    return side


def chunk(sequence: int, data: bytes = b"x", content: Content = Content.BYTES) -> Chunk:
    return Chunk(content, sequence, len(data), True, data)


async def test_messages_wait_for_a_channel_and_are_delivered_when_they_are_acknowledged() -> None:
    side = Side()
    delivery = side.talk.send(Content.TEXT, b"a")
    assert side.talk.last == [delivery]
    assert not side.path.frames
    assert side.talk.hello().next == 1
    side.talk.opened(Hello(1, "theirs", 1))
    assert [type(frame) for frame in side.path.take()] == [Chunk]
    assert (side.talk.queued, delivery.done) == (1, False)
    side.talk.received(Ack(1))
    await delivery
    assert (side.talk.queued, side.talk.last) == (0, [])


def test_an_acknowledgement_goes_along_with_a_small_message_and_not_with_a_large_one() -> None:
    side = opened()
    side.talk.received(chunk(1))
    side.talk.send(Content.BYTES, bytes(4096))
    assert [type(frame) for frame in side.path.take()] == [Chunk]
    side.send("a")
    assert [type(frame) for frame in side.path.take()] == [Ack, Chunk]
    side.talk.received(chunk(2))
    side.talk.send(Content.BYTES, bytes(4096))
    side.path.take()
    side.timers.advance(ACK_SECONDS)
    assert side.path.take() == [Ack(2)]


def test_a_route_without_room_is_asked_again_when_it_has_some() -> None:
    side = opened()
    side.path.room = 1
    side.send("a", "b", "c")
    assert len(side.path.take()) == 1
    side.path.room = 9
    side.talk.pump()
    assert [frame.sequence for frame in side.path.take()] == [2, 3]


def test_an_acknowledgement_without_room_goes_before_the_messages_later() -> None:
    side = opened()
    side.send("a")
    side.path.take()
    side.path.room = 0
    side.send("b")
    side.talk.received(chunk(1))
    side.timers.advance(ACK_SECONDS)
    side.path.room = 9
    side.talk.pump()
    assert side.path.take() == [Ack(1), Chunk(Content.TEXT, 2, 1, True, b"b")]


def test_one_acknowledgement_covers_what_comes_in_a_short_while() -> None:
    side = opened()
    for number in range(1, 4):
        side.talk.received(chunk(number))
    assert not side.path.take()
    side.timers.advance(ACK_SECONDS)
    assert side.path.take() == [Ack(3)]
    side.timers.advance(1)
    assert not side.path.take()


def test_many_messages_are_acknowledged_without_waiting() -> None:
    side = opened()
    for number in range(1, ACK_MESSAGES + 1):
        side.talk.received(chunk(number))
    assert side.path.take() == [Ack(ACK_MESSAGES)]


def test_an_acknowledgement_goes_along_with_a_message() -> None:
    side = opened()
    side.talk.received(chunk(1))
    side.send("a")
    assert [type(frame) for frame in side.path.take()] == [Ack, Chunk]
    side.timers.advance(1)
    assert not side.path.take()


def test_nothing_is_acknowledged_on_a_channel_that_is_gone() -> None:
    side = opened()
    side.talk.received(chunk(1))
    side.talk.closed()
    side.timers.advance(1)
    assert not side.path.take()
    received = side.talk.hello().received
    assert received is not None
    assert (received.stream, received.sequence) == ("theirs", 1)


async def test_what_the_application_has_no_room_for_is_not_acknowledged_until_it_reads() -> None:
    side = opened(StoreLimits(unread_messages=2))
    for number in range(1, 6):
        side.talk.received(chunk(number))
    side.timers.advance(1)
    assert side.path.take() == [Ack(2)]
    assert side.talk.waiting
    assert side.talk.arriving == 3
    for number in range(1, 6):
        letter = await side.mailbox.next(Reader(side.mailbox))
        assert letter is not None
        assert letter.sequence == number
    side.timers.advance(1)
    assert side.path.take()[-1] == Ack(5)
    assert not side.talk.waiting


def test_the_queue_is_limited_in_messages_and_in_bytes() -> None:
    side = Side(limits=StoreLimits(queue_messages=2))
    side.send("a", "b")
    with pytest.raises(QueueFull) as caught:
        side.send("c")
    assert (caught.value.user_id, caught.value.messages, caught.value.size) == ("bob", 2, 2)
    assert side.talk.queued == 2
    side = Side(limits=StoreLimits(queue_size=3))
    side.send("four")  # alone, any size goes
    with pytest.raises(QueueFull):
        side.send("x")


async def test_giving_up_fails_what_is_not_acknowledged_and_nothing_else() -> None:
    side = opened()
    first, second = (side.talk.send(Content.TEXT, b"x") for _ in range(2))
    side.talk.received(Ack(1))
    side.talk.closed()
    side.talk.fail("nobody is there")
    assert first.delivered
    with pytest.raises(DeliveryFailed, match="nobody is there"):
        await second
    assert side.talk.queued == 0
    assert side.talk.hello().next == 3


@pytest.mark.parametrize("addressed", [True, False])
def test_a_newest_message_that_has_failed_does_not_stand_for_older_ones_that_wait(addressed: bool) -> None:
    side = Side()
    older, newest = (side.talk.send(Content.TEXT, b"x", addressed=addressed) for _ in range(2))
    side.talk.send(Content.CONTROL, b"something")
    newest.queued_at = 0
    assert side.talk.expire(1)
    assert newest.expired
    assert side.talk.last == [older]


def test_the_newest_message_to_the_device_counts_beside_the_newest_to_the_user() -> None:
    side, other = Side(), Side()
    ours = [side.talk.send(Content.TEXT, b"x", addressed=True) for _ in range(2)]
    theirs = [side.talk.send(Content.TEXT, b"x") for _ in range(2)]
    assert side.talk.last == [theirs[1], ours[1]]
    other.talk.take_over(side.talk.withdraw())
    assert (side.talk.last, other.talk.last) == ([ours[1]], [theirs[1]])
    side.talk.fail("nobody is there")
    assert (side.talk.queued, side.talk.last) == (0, [])
    later = side.talk.send(Content.TEXT, b"x")
    assert side.talk.last == [later]


def test_a_new_channel_sends_again_what_the_other_side_does_not_have() -> None:
    side = opened()
    side.send("a", "b", "c")
    side.talk.closed()
    side.path.take()
    side.talk.hello()
    side.talk.opened(Hello(1, "theirs", 1, [], None))
    assert [frame.sequence for frame in side.path.take()] == [1, 2, 3]


def test_a_greeting_promises_nothing() -> None:
    side = opened()
    side.send("a")
    side.talk.greeting()
    side.talk.received(Ack(1))
    assert side.talk.queued == 0


def test_our_hellos_are_counted_whatever_path_they_take() -> None:
    side = opened()
    numbers = [side.talk.greeting().channel, side.talk.hello().channel, side.talk.hello(early=True).channel]
    assert numbers == [2, 3, 4]


def test_what_is_let_go_of_comes_again() -> None:
    side = opened(StoreLimits(unread_messages=1))
    side.talk.received(chunk(1))
    side.talk.received(chunk(2))
    side.talk.closed()
    side.talk.let_go()
    assert (side.talk.arriving, side.talk.waiting) == (0, False)
    side.talk.hello()
    side.talk.opened(Hello(1, "theirs", 2))
    side.talk.received(chunk(2))
    assert side.talk.waiting


def test_breaking_the_protocol_is_told() -> None:
    side = opened()
    with pytest.raises(ProtocolViolation):
        side.talk.received(Ack(1))
    with pytest.raises(ProtocolViolation):
        side.talk.received(chunk(5))
    with pytest.raises(ProtocolViolation):
        side.talk.opened(Hello(1, "", 1))


def test_a_window_that_is_used_up_opens_with_the_acknowledgement() -> None:
    side = opened()
    side.send(*["x"] * (WINDOW_MESSAGES + 1))
    assert len(side.path.take()) == WINDOW_MESSAGES
    side.talk.received(Ack(1))
    assert [frame.sequence for frame in side.path.take()] == [WINDOW_MESSAGES + 1]


# --- control messages -----------------------------------------------------------------------------------------------


def test_messages_need_not_wait_for_pieces_that_are_taken_back() -> None:
    side = opened()
    pieces = [side.talk.send(Content.CONTROL, bytes([1, number]) * 5000) for number in range(5)]
    side.path.room = 2
    side.talk.pump()
    side.send("a")
    side.talk.received(Ack(1))
    assert pieces[0].done
    side.talk.take_back(pieces[1:])
    side.path.take()
    side.path.room = 99
    assert side.talk.hello(early=True).next == 2
    side.talk.pump()
    sent = [(frame.sequence, frame.data) for frame in side.path.take() if isinstance(frame, Chunk)]
    assert sent == [(2, VOID), (3, VOID), (4, VOID), (5, VOID), (6, b"a")]
    side.talk.opened(Hello(1, "theirs", 1, received=StreamPosition("s", 2)))
    side.talk.received(Ack(6))
    assert (side.talk.queued, any(piece.done for piece in pieces[1:])) == (0, False)


def test_our_hello_says_what_we_can_do() -> None:
    side = Side()
    assert tuple(side.talk.hello().features) == tuple(side.talk.greeting().features) == FEATURES


async def test_control_messages_go_to_the_store_and_keep_their_place_among_the_others() -> None:
    side = opened()
    side.talk.received(chunk(1, b"one"))
    side.talk.received(chunk(2, b"c", Content.CONTROL))
    assert side.controls == [b"c"]
    letter = await side.mailbox.next(Reader(side.mailbox))
    assert letter is not None
    assert letter.data == b"one"
    side.timers.advance(ACK_SECONDS)
    assert side.path.take() == [Ack(2)]


async def test_a_full_mailbox_holds_back_no_control_message_but_one_behind_a_message() -> None:
    side = opened(StoreLimits(unread_messages=1))
    side.talk.received(chunk(1))
    side.talk.received(chunk(2, b"taken", Content.CONTROL))
    side.talk.received(chunk(3))
    side.talk.received(chunk(4, b"behind", Content.CONTROL))
    assert side.controls == [b"taken"]
    side.timers.advance(ACK_SECONDS)
    assert side.path.take() == [Ack(2)]
    assert await side.mailbox.next(Reader(side.mailbox)) is not None
    assert side.controls == [b"taken", b"behind"]
    side.timers.advance(ACK_SECONDS)
    assert side.path.take() == [Ack(4)]


def test_a_closed_mailbox_holds_back_no_control_message() -> None:
    side = opened()
    side.mailbox.close()
    side.talk.received(chunk(1, b"c", Content.CONTROL))
    assert side.controls == [b"c"]


def test_control_messages_do_not_count_among_those_of_the_application() -> None:
    side = Side(limits=StoreLimits(queue_messages=1, queue_size=3))
    for _ in range(3):
        side.talk.send(Content.CONTROL, b"much to say")
    assert (side.talk.queued, side.talk.last) == (0, [])
    delivery = side.talk.send(Content.TEXT, b"a")
    side.talk.send(Content.CONTROL, b"one more")
    assert side.talk.queued == 1
    assert side.talk.last == [delivery]
    with pytest.raises(QueueFull):
        side.send("b")
    side.talk.hello()
    side.talk.opened(Hello(1, "theirs", 1))
    side.talk.received(Ack(4))
    assert delivery.delivered
    assert side.talk.last == []
    side.send("b")


def test_control_messages_have_a_limit_of_their_own() -> None:
    side = Side()
    for _ in range(MAX_CONTROLS):
        side.talk.send(Content.CONTROL, b"c")
    with pytest.raises(QueueFull):
        side.talk.send(Content.CONTROL, b"c")
    side.send("a")


def test_a_control_message_may_be_answered_at_once() -> None:
    side = opened()

    def answer(data: bytes) -> None:
        side.talk.send(Content.CONTROL, b"re: " + data)

    side.talk = MessageStream(
        side,
        "s",
        limits=side.limits,
        path=side.path,
        recipient=side.mailbox,
        control=answer,
        timers=side.timers,
    )
    side.talk.hello()
    side.talk.opened(Hello(1, "theirs", 1))
    side.talk.received(chunk(1, b"c", Content.CONTROL))
    assert side.path.take() == [Ack(1), Chunk(Content.CONTROL, 1, 5, True, b"re: c")]


def test_another_stream_is_told_apart_from_the_one_before() -> None:
    side = Side()
    side.talk.hello()
    assert not side.talk.opened(Hello(1, "theirs", 1))
    side.talk.closed()
    side.talk.hello()
    assert not side.talk.opened(Hello(1, "theirs", 1))
    side.talk.closed()
    side.talk.hello()
    assert side.talk.opened(Hello(1, "another", 1))
