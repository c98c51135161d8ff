"""The frames of the data channel: bytes there and back, and nothing else gets in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.errors import ProtocolViolation
from aldis.protocol import channel
from aldis.protocol.channel import Ack, Chunk, Content, Frame, Goodbye, Hello, Kind, Ping, Pong, StreamPosition

pytestmark = pytest.mark.usefixtures("no_collection")

U64 = st.integers(0, 2**64 - 1)
EXACT = 2**53 - 1
STREAMS = st.text(min_size=1, max_size=128)
HELLOS = st.builds(
    Hello,
    version=st.integers(0, 9),
    stream=STREAMS,
    next=st.integers(1, EXACT),
    features=st.lists(st.text(max_size=9), max_size=3),
    received=st.none() | st.builds(StreamPosition, stream=STREAMS, sequence=st.integers(0, EXACT)),
)


@given(HELLOS)
def test_a_hello_survives_the_channel(hello: Hello) -> None:
    assert channel.decode(channel.encode_hello(hello)) == hello


@given(U64)
def test_a_number_survives_the_channel(number: int) -> None:
    assert channel.decode(channel.encode_ack(number)) == Ack(number)
    assert channel.decode(channel.encode_ping(number)) == Ping(number)
    assert channel.decode(channel.encode_pong(number)) == Pong(number)


@given(st.text(max_size=60))
def test_a_reason_survives_the_channel(reason: str) -> None:
    assert channel.decode(channel.encode_goodbye(reason)) == Goodbye(reason)


@given(st.sampled_from(Content), U64, st.binary(max_size=500), st.integers(1, 64))
def test_the_chunks_of_a_message_make_the_message(content: Content, sequence: int, data: bytes, chunk: int) -> None:
    frames = channel.encode_message(content, sequence, data, chunk)
    chunks = [channel.decode(frame) for frame in frames]
    assert all(isinstance(piece, Chunk) for piece in chunks)
    pieces = [piece for piece in chunks if isinstance(piece, Chunk)]
    assert b"".join(piece.data for piece in pieces) == data
    assert {(piece.content, piece.sequence, piece.size) for piece in pieces} == {(content, sequence, len(data))}
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(0 < len(piece.data) <= chunk for piece in pieces) or not data


def test_an_empty_message_is_one_frame() -> None:
    (frame,) = channel.encode_message(Content.TEXT, 1, b"")
    assert channel.decode(frame) == Chunk(Content.TEXT, 1, 0, True, b"")


def test_a_message_that_fills_its_chunks_has_no_empty_one_behind_them() -> None:
    assert len(channel.encode_message(Content.BYTES, 1, bytes(2 * channel.CHUNK))) == 2
    assert len(channel.encode_message(Content.BYTES, 1, bytes(2 * channel.CHUNK + 1))) == 3


def test_no_frame_is_larger_than_any_stack_takes() -> None:
    frames = channel.encode_message(Content.BYTES, 1, bytes(10 * channel.CHUNK))
    assert max(map(len, frames)) < channel.MAX_FRAME


def test_a_frame_of_a_kind_from_the_future_is_skipped() -> None:
    for kind in (0, 7, 200, 255):
        assert channel.decode(bytes((kind,)) + b"anything") is None


def test_flags_from_the_future_are_ignored() -> None:
    (frame,) = channel.encode_message(Content.TEXT, 1, b"x")
    flags = frame[1] | 0b1111_1000
    assert channel.decode(frame[:1] + bytes((flags,)) + frame[2:]) == channel.decode(frame)


def test_a_hello_with_fields_from_the_future_is_read() -> None:
    frame = b'\x01{"version":2,"stream":"s","next":1,"colour":"blue"}'
    assert channel.decode(frame) == Hello(2, "s", 1)


def test_a_long_reason_is_cut_between_two_characters() -> None:
    frame = channel.encode_goodbye("x" + "é" * 200)
    assert len(frame) == channel.MAX_REASON
    assert channel.decode(frame) == Goodbye("x" + "é" * 99)


WHOLE: list[tuple[bytes, int]] = [
    # A frame, and how many of its first bytes are needed for it to be one.
    (channel.encode_ack(5), 9),
    (channel.encode_ping(5), 9),
    (channel.encode_pong(5), 9),
    (channel.encode_message(Content.TEXT, 1, b"text")[0], 14),
    (channel.encode_hello(Hello(1, "s", 1)), len(channel.encode_hello(Hello(1, "s", 1)))),
]


@pytest.mark.parametrize(("frame", "needed"), WHOLE)
def test_a_frame_that_was_cut_short_is_a_violation(frame: bytes, needed: int) -> None:
    for length in range(needed):
        with pytest.raises(ProtocolViolation):
            channel.decode(frame[:length])


@pytest.mark.parametrize("frame", [channel.encode_ack(1), channel.encode_ping(1), channel.encode_pong(1)])
def test_a_number_with_something_behind_it_is_a_violation(frame: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        channel.decode(frame + b"\x00")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01",
        b"\x01{}",
        b"\x01[]",
        b"\x01null",
        b"\x01\xff",
        b"\x01" + b"[" * 100_000,
        b'\x01{"version":1,"stream":"s"}',
        b'\x01{"version":1,"stream":"","next":1}',
        b'\x01{"version":1,"stream":"' + b"s" * 129 + b'","next":1}',
        b'\x01{"version":1,"stream":"s","next":0}',
        b'\x01{"version":1,"stream":"s","next":-1}',
        b'\x01{"version":1,"stream":"s","next":9007199254740992}',
        b'\x01{"version":1,"stream":"s","next":1,"features":"all"}',
        b'\x01{"version":1,"stream":"s","next":1,"received":{"stream":"t","sequence":-1}}',
        b'\x01{"version":1,"stream":"s","next":1,"received":{"stream":"t"}}',
        b"\x06\xff\xfe",
    ],
)
def test_a_broken_frame_is_a_violation(frame: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        channel.decode(frame)


@given(st.binary() | st.tuples(st.sampled_from(Kind), st.binary()).map(lambda pair: bytes((pair[0],)) + pair[1]))
def test_any_bytes_are_a_frame_or_a_violation(data: bytes) -> None:
    frame: Frame | None
    try:
        frame = channel.decode(data)
    except ProtocolViolation:
        return
    assert frame is None or isinstance(frame, Frame)


def test_the_numbers_of_the_wire_stand() -> None:
    # Both ends were built to these; a change needs a new version of the channel.
    assert (channel.LABEL, channel.VERSION) == ("aldis.v1", 1)
    assert {kind.name: kind.value for kind in Kind} == {
        "HELLO": 1,
        "MESSAGE": 2,
        "ACK": 3,
        "PING": 4,
        "PONG": 5,
        "GOODBYE": 6,
        "BUNDLE": 7,
    }
    assert [Content.TEXT, Content.BYTES, Content.JSON, Content.CONTROL] == [0, 1, 2, 3]
