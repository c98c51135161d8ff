from __future__ import annotations

import pytest

from aldis.errors import ProtocolViolation
from aldis.protocol.channel import CHUNK, LARGEST_SENT, Chunk, Content, StreamPosition, decode
from aldis.store.messages.control import MAX_PIECE, encode_piece, new_id
from aldis.store.messages.outbox import WINDOW_BYTES, WINDOW_MESSAGES, Outbox


def opened(*messages: bytes, received: StreamPosition | None = None) -> Outbox:
    outbox = Outbox("s")
    for message in messages:
        outbox.put(Content.BYTES, message)
    outbox.hello_sent()
    outbox.opened(received)
    return outbox


def send(outbox: Outbox, frames: int = 10**6) -> list[Chunk]:
    """Send up to so many frames; return them."""
    sent = []
    while len(sent) < frames and (frame := outbox.next_frame()) is not None:
        chunk = decode(frame)
        assert isinstance(chunk, Chunk)
        sent.append(chunk)
        outbox.sent()
    return sent


def test_messages_are_numbered_from_one_and_sent_in_order() -> None:
    outbox = opened(b"a", b"b")
    assert [(chunk.sequence, chunk.data) for chunk in send(outbox)] == [(1, b"a"), (2, b"b")]
    assert outbox.put(Content.TEXT, b"c") == 3
    assert [chunk.content for chunk in send(outbox)] == [Content.TEXT]
    assert outbox.next_frame() is None


def test_nothing_is_sent_before_the_other_sides_hello() -> None:
    outbox = Outbox("s")
    outbox.put(Content.TEXT, b"a")
    assert outbox.next_frame() is None
    assert outbox.hello_sent() == 1
    assert outbox.next_frame() is None
    outbox.opened(None)
    assert outbox.next_frame() is not None


def test_a_frame_that_the_channel_did_not_take_is_offered_again() -> None:
    outbox = opened(b"a", b"b")
    first = outbox.next_frame()
    assert outbox.next_frame() is first
    assert outbox.messages == 2


def test_an_acknowledgement_covers_all_before_it() -> None:
    outbox = opened(b"aa", b"bb", b"cc")
    send(outbox)
    assert outbox.acknowledge(2) == range(1, 3)
    assert (outbox.messages, outbox.size, outbox.acknowledged, outbox.last) == (1, 2, 2, 3)
    assert not outbox.acknowledge(1)
    assert not outbox.acknowledge(2)
    assert outbox.acknowledge(3) == range(3, 4)


def test_control_messages_are_numbered_among_the_others_and_counted_apart() -> None:
    outbox = opened(b"aa")
    assert outbox.put(Content.CONTROL, b"ctrl") == 2
    assert (outbox.messages, outbox.controls, outbox.size) == (1, 1, 2)
    assert [chunk.content for chunk in send(outbox)] == [Content.BYTES, Content.CONTROL]
    outbox.acknowledge(1)
    assert (outbox.messages, outbox.controls, outbox.size) == (0, 1, 0)
    outbox.acknowledge(2)
    assert (outbox.messages, outbox.controls, outbox.size) == (0, 0, 0)


@pytest.mark.parametrize("sequence", [2, 3, 2**63])
def test_a_message_that_was_not_sent_whole_cannot_be_acknowledged(sequence: int) -> None:
    outbox = opened(b"a", b"b" * (CHUNK + 1), b"c")
    send(outbox, 2)
    with pytest.raises(ProtocolViolation):
        outbox.acknowledge(sequence)
    with pytest.raises(ProtocolViolation):
        outbox.opened(StreamPosition("s", sequence))


def test_what_a_lost_channel_took_with_it_is_sent_again_from_the_first_unacknowledged_message() -> None:
    outbox = opened(b"a", b"b", b"c" * (CHUNK + 1))
    send(outbox, 3)
    outbox.acknowledge(1)
    outbox.closed()
    assert outbox.next_frame() is None
    assert outbox.hello_sent() == 2
    outbox.opened(None)
    assert [(chunk.sequence, chunk.last) for chunk in send(outbox)] == [(2, True), (3, False), (3, True)]


def test_the_hello_of_the_other_side_acknowledges_what_was_lost_on_the_way_back() -> None:
    outbox = opened(b"a", b"b")
    send(outbox)
    assert outbox.hello_sent() == 1
    assert outbox.opened(StreamPosition("s", 2)) == range(1, 3)
    assert outbox.next_frame() is None


def test_what_was_sent_on_the_channel_before_may_be_acknowledged_before_it_is_sent_again() -> None:
    outbox = opened(b"a", b"b", b"c")
    send(outbox)
    outbox.hello_sent()
    outbox.opened(None)
    assert [chunk.sequence for chunk in send(outbox, 1)] == [1]
    assert outbox.acknowledge(2) == range(1, 3)
    assert [chunk.sequence for chunk in send(outbox)] == [3]


def test_a_position_in_another_stream_says_nothing_about_this_one() -> None:
    outbox = opened(b"a", received=StreamPosition("another", 99))
    assert [chunk.sequence for chunk in send(outbox)] == [1]


def test_an_acknowledgement_between_the_hellos_is_not_counted_because_ours_has_promised_the_message() -> None:
    outbox = opened(b"a")
    send(outbox)
    outbox.hello_sent()
    assert not outbox.acknowledge(1)
    outbox.opened(None)
    assert [chunk.sequence for chunk in send(outbox)] == [1]


def test_a_message_that_is_acknowledged_while_it_is_sent_again_is_not_finished() -> None:
    outbox = opened(b"a" * (3 * CHUNK), b"b")
    send(outbox, 3)
    outbox.hello_sent()
    outbox.opened(None)
    assert [chunk.sequence for chunk in send(outbox, 2)] == [1, 1]
    assert outbox.acknowledge(1) == range(1, 2)
    assert [chunk.sequence for chunk in send(outbox)] == [2]


def test_unacknowledged_messages_are_limited_in_number() -> None:
    outbox = opened(*[b"x"] * (WINDOW_MESSAGES + 5))
    assert len(send(outbox)) == WINDOW_MESSAGES
    outbox.acknowledge(3)
    assert len(send(outbox)) == 3


def test_no_message_is_begun_while_the_window_is_full_of_bytes() -> None:
    half = b"x" * (WINDOW_BYTES // 2)
    outbox = opened(half, half, b"c", b"d")
    assert {chunk.sequence for chunk in send(outbox)} == {1, 2}
    outbox.acknowledge(1)
    assert [chunk.sequence for chunk in send(outbox)] == [3, 4]


def test_a_message_larger_than_the_window_goes_when_nothing_else_is_on_its_way() -> None:
    outbox = opened(b"x" * (WINDOW_BYTES + 1), b"b")
    assert {chunk.sequence for chunk in send(outbox)} == {1}
    outbox.acknowledge(1)
    assert [chunk.sequence for chunk in send(outbox)] == [2]


def test_the_window_is_free_again_on_a_new_channel() -> None:
    outbox = opened(*[b"x"] * (WINDOW_MESSAGES + 5))
    send(outbox)
    outbox.hello_sent()
    outbox.opened(None)
    assert len(send(outbox)) == WINDOW_MESSAGES


def test_what_is_given_up_is_named_and_its_numbers_are_skipped() -> None:
    outbox = opened(b"a", b"b", b"c")
    send(outbox, 2)
    outbox.acknowledge(1)
    outbox.closed()
    assert outbox.clear() == range(2, 4)
    assert (outbox.messages, outbox.size) == (0, 0)
    assert outbox.put(Content.TEXT, b"d") == 4
    assert outbox.hello_sent() == 4
    assert not outbox.opened(StreamPosition("s", 2))
    assert [chunk.sequence for chunk in send(outbox)] == [4]


def test_a_piece_of_a_file_makes_two_frames_that_the_relay_can_carry() -> None:
    outbox = opened()
    outbox.put(Content.CONTROL, encode_piece(new_id(bytes(8)), 0, bytes(MAX_PIECE)))
    frames = []
    while (frame := outbox.next_frame()) is not None:
        frames.append(len(frame))
        outbox.sent()
    assert len(frames) == 2
    assert max(frames) <= LARGEST_SENT
