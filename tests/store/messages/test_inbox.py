from __future__ import annotations

import pytest

from aldis.errors import ProtocolViolation
from aldis.protocol.channel import (
    CHUNK,
    MAX_MESSAGE,
    Chunk,
    Content,
    Hello,
    StreamPosition,
    decode,
    encode_message,
)
from aldis.store.messages.inbox import MAX_SEQUENCE, MAX_STREAM_NAME, MAX_STREAMS, Inbox
from aldis.store.messages.outbox import WINDOW_BYTES, WINDOW_MESSAGES


def hello(stream: str = "s", first: int = 1) -> Hello:
    return Hello(1, stream, first)


def opened(stream: str = "s", first: int = 1) -> Inbox:
    inbox = Inbox()
    inbox.opened(hello(stream, first))
    return inbox


def chunk(sequence: int, data: bytes = b"x", *, size: int | None = None, last: bool = True) -> Chunk:
    return Chunk(Content.BYTES, sequence, len(data) if size is None else size, last, data)


def hand_over(inbox: Inbox) -> list[bytes]:
    """Hand over all that is held."""
    data = []
    while (first := inbox.first) is not None:
        data.append(first.data)
        inbox.take()
    return data


def test_chunks_become_a_message_when_the_last_one_is_here() -> None:
    inbox = opened()
    data = bytes(range(256)) * 160
    frames = [decode(frame) for frame in encode_message(Content.TEXT, 1, data)]
    assert len(frames) == 3
    assert [inbox.receive(frame) for frame in frames if isinstance(frame, Chunk)] == [False, False, True]
    assert inbox.first is not None
    assert (inbox.first.sequence, inbox.first.content, inbox.first.data) == (1, Content.TEXT, data)


def test_the_size_is_that_of_whole_messages_not_handed_over_and_of_the_one_that_is_coming() -> None:
    inbox = opened()
    inbox.receive(chunk(1, b"whole"))
    assert inbox.size == 5
    inbox.receive(chunk(2, b"x" * CHUNK, size=CHUNK + 1, last=False))
    assert inbox.size == 5 + CHUNK
    inbox.take()
    assert inbox.size == CHUNK


def test_an_empty_message_is_a_message() -> None:
    inbox = opened()
    assert inbox.receive(chunk(1, b""))
    assert hand_over(inbox) == [b""]


def test_only_what_was_handed_over_is_acknowledged() -> None:
    inbox = opened()
    inbox.receive(chunk(1, b"a"))
    inbox.receive(chunk(2, b"b"))
    assert inbox.due is None
    inbox.take()
    assert inbox.due == 1
    inbox.confirmed(1)
    assert inbox.due is None
    assert hand_over(inbox) == [b"b"]
    assert inbox.due == 2
    assert inbox.position() == StreamPosition("s", 2)


def test_nothing_is_acknowledged_without_a_channel() -> None:
    inbox = opened()
    inbox.receive(chunk(1))
    inbox.closed()
    hand_over(inbox)
    assert inbox.due is None
    inbox.opened(hello())
    assert inbox.due == 1


def test_a_message_that_comes_again_is_skipped_and_acknowledged_again() -> None:
    inbox = opened()
    inbox.receive(chunk(1))
    hand_over(inbox)
    inbox.confirmed(1)
    assert not inbox.receive(chunk(1))
    assert inbox.due == 1
    assert inbox.first is None


def test_a_message_that_comes_again_while_it_waits_to_be_handed_over_is_skipped_and_not_acknowledged() -> None:
    inbox = opened()
    inbox.receive(chunk(1, b"a"))
    inbox.opened(hello())
    assert not inbox.receive(chunk(1, b"a"))
    assert inbox.due is None
    assert hand_over(inbox) == [b"a"]


def test_half_a_message_is_dropped_with_its_channel() -> None:
    inbox = opened()
    inbox.receive(chunk(1, b"a", size=2, last=False))
    inbox.closed()
    inbox.opened(hello())
    inbox.receive(chunk(1, b"b", size=2, last=False))
    assert inbox.receive(chunk(1, b"c", size=2))
    assert hand_over(inbox) == [b"bc"]


def test_a_new_process_begins_where_the_senders_hello_says() -> None:
    inbox = opened(first=41)
    assert inbox.position() == StreamPosition("s", 40)
    assert inbox.due is None
    assert inbox.receive(chunk(41))


def test_a_sender_that_skips_numbers_was_acknowledged_elsewhere_or_has_given_up() -> None:
    inbox = opened()
    inbox.receive(chunk(1, b"a"))
    inbox.opened(hello(first=5))
    assert inbox.receive(chunk(5, b"e"))
    assert hand_over(inbox) == [b"a", b"e"]
    assert inbox.due == 5


def test_skipped_numbers_count_as_received_once_all_before_them_is_handed_over() -> None:
    inbox = opened()
    inbox.receive(chunk(1))
    inbox.opened(hello(first=5))
    assert inbox.position() == StreamPosition("s", 0)
    hand_over(inbox)
    assert inbox.position() == StreamPosition("s", 4)
    inbox.opened(hello(first=9))
    assert inbox.position() == StreamPosition("s", 8)


def test_a_stream_that_comes_back_goes_on_where_it_was() -> None:
    inbox = opened("phone")
    inbox.receive(chunk(1))
    hand_over(inbox)
    inbox.opened(hello("main"))
    inbox.receive(chunk(1))
    hand_over(inbox)
    inbox.opened(hello("phone"))
    assert inbox.position() == StreamPosition("phone", 1)
    assert not inbox.receive(chunk(1))


def test_what_was_not_handed_over_when_another_stream_begins_is_left_to_its_sender() -> None:
    inbox = opened("phone")
    inbox.receive(chunk(1, b"a"))
    inbox.opened(hello("main"))
    assert inbox.first is None
    inbox.opened(hello("phone"))
    assert inbox.receive(chunk(1, b"a"))


def test_only_the_last_streams_are_remembered() -> None:
    inbox = opened("first")
    inbox.receive(chunk(1))
    hand_over(inbox)
    for number in range(MAX_STREAMS):
        inbox.opened(hello(f"stream {number}"))
    inbox.opened(hello("first"))
    assert inbox.position() == StreamPosition("first", 0)


@pytest.mark.parametrize(
    "greeting",
    [hello(""), hello("x" * (MAX_STREAM_NAME + 1)), hello(first=0), hello(first=-1), hello(first=MAX_SEQUENCE + 1)],
)
def test_a_hello_that_cannot_be_used_is_refused(greeting: Hello) -> None:
    inbox = Inbox()
    with pytest.raises(ProtocolViolation):
        inbox.opened(greeting)
    assert inbox.position() is None


def test_a_chunk_before_the_hello_is_refused() -> None:
    inbox = Inbox()
    with pytest.raises(ProtocolViolation, match="before the HELLO"):
        inbox.receive(chunk(1))
    inbox.opened(hello())
    inbox.closed()
    with pytest.raises(ProtocolViolation, match="before the HELLO"):
        inbox.receive(chunk(1))


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        ([chunk(2)], "where 1 was due"),
        ([chunk(1, last=False, size=2), chunk(2)], "where 1 was due"),
        ([chunk(1, last=False, size=2), chunk(1, size=3)], "contradict"),
        ([chunk(1, b"xx", size=1)], "another size"),
        ([chunk(1, b"x", size=2)], "another size"),
        ([chunk(1, b"x", size=1, last=False), chunk(1, b"x", size=1)], "another size"),
        ([chunk(1, b"", size=1, last=False)], "empty chunk"),
        ([chunk(1, b"x", size=MAX_MESSAGE + 1, last=False)], "the limit is"),
        ([chunk(number) for number in range(1, WINDOW_MESSAGES + 2)], "window"),
        ([chunk(1, b"x" * WINDOW_BYTES), chunk(2)], "window"),
    ],
)
def test_a_sender_that_breaks_the_rules_is_found_out(chunks: list[Chunk], why: str) -> None:
    inbox = opened()
    for good in chunks[:-1]:
        inbox.receive(good)
    with pytest.raises(ProtocolViolation, match=why):
        inbox.receive(chunks[-1])


def test_reading_makes_room_in_the_window() -> None:
    inbox = opened()
    for number in range(1, 3 * WINDOW_MESSAGES):
        inbox.receive(chunk(number))
        if number % WINDOW_MESSAGES == 0:
            hand_over(inbox)
    assert inbox.due == 2 * WINDOW_MESSAGES


def test_the_largest_message_comes_through() -> None:
    inbox = opened()
    data = bytes(MAX_MESSAGE)
    for frame in encode_message(Content.BYTES, 1, data, CHUNK):
        piece = decode(frame)
        assert isinstance(piece, Chunk)
        inbox.receive(piece)
    assert hand_over(inbox) == [data]
