from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.protocol.codes import CloseCode
from aldis.protocol.frames import Assembler, BadFrame, Opcode, close_reason, read_close, unmasked_header


def test_a_message_in_one_frame_is_that_message() -> None:
    assembler = Assembler(10)
    assert assembler.data(Opcode.TEXT, True, b"hello") == "hello"
    assert assembler.data(Opcode.TEXT, True, b"") == ""


@given(st.text(max_size=50), st.lists(st.integers(0, 200), max_size=6))
def test_a_message_in_fragments_is_the_same_message(text: str, cuts: list[int]) -> None:
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in pairwise(edges)]
    assembler = Assembler(1000)
    for _ in range(2):
        got = [
            assembler.data(Opcode.TEXT if i == 0 else Opcode.CONTINUATION, i == len(parts) - 1, part)
            for i, part in enumerate(parts)
        ]
        assert got == [None] * (len(parts) - 1) + [text]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(Opcode.BINARY, True, b"")], CloseCode.UNSUPPORTED_DATA),
        ([(Opcode.TEXT, False, b""), (Opcode.BINARY, True, b"")], CloseCode.UNSUPPORTED_DATA),
        ([(Opcode.CONTINUATION, True, b"x")], CloseCode.PROTOCOL_ERROR),
        ([(Opcode.TEXT, True, b"x"), (Opcode.CONTINUATION, True, b"x")], CloseCode.PROTOCOL_ERROR),
        ([(Opcode.TEXT, False, b"x"), (Opcode.TEXT, True, b"x")], CloseCode.PROTOCOL_ERROR),
        ([(Opcode.TEXT, True, b"x" * 11)], CloseCode.TOO_BIG),
        ([(Opcode.TEXT, False, b"x" * 6), (Opcode.CONTINUATION, False, b"x" * 5)], CloseCode.TOO_BIG),
        ([(Opcode.TEXT, True, b"\xff")], CloseCode.INVALID_UTF8),
        ([(Opcode.TEXT, False, b"\xc3"), (Opcode.CONTINUATION, True, b"")], CloseCode.INVALID_UTF8),
        ([(Opcode.TEXT, True, b"\xed\xa0\x80")], CloseCode.INVALID_UTF8),
    ],
)
def test_what_may_not_be_has_its_close_code(frames: list[tuple[Opcode, bool, bytes]], code: CloseCode) -> None:
    assembler = Assembler(10)
    for opcode, final, payload in frames[:-1]:
        assembler.data(opcode, final, payload)
    with pytest.raises(BadFrame) as caught:
        assembler.data(*frames[-1])
    assert caught.value.code == code


def test_a_message_in_a_great_many_fragments_costs_its_bytes() -> None:
    assembler = Assembler(300_000)
    assembler.data(Opcode.TEXT, False, b"")
    tracemalloc.start()
    try:
        for _ in range(100_000):
            assembler.data(Opcode.CONTINUATION, False, bytes(bytearray(b"xy")))
            assembler.data(Opcode.CONTINUATION, False, b"")
        assert tracemalloc.get_traced_memory()[0] < 400_000
    finally:
        tracemalloc.stop()
    assert assembler.data(Opcode.CONTINUATION, True, b"z") == "xy" * 100_000 + "z"


def test_a_character_cut_in_two_by_a_fragment_is_whole_again() -> None:
    assembler = Assembler(10)
    assert assembler.data(Opcode.TEXT, False, "ü".encode()[:1]) is None
    assert assembler.data(Opcode.CONTINUATION, True, "ü".encode()[1:]) == "ü"


def test_a_close_frame_says_code_and_reason_or_nothing() -> None:
    assert read_close(b"") == (1005, "")
    assert read_close((4001).to_bytes(2, "big") + b"replaced") == (4001, "replaced")
    assert read_close((4001).to_bytes(2, "big") + b"\xff") == (4001, "\ufffd")


@given(st.text(max_size=200))
def test_a_reason_always_fits_into_a_close_frame(text: str) -> None:
    data = close_reason(text)
    assert len(data) <= 123
    assert text.startswith(data.decode()) or "\ud800" <= max(text) <= "\udfff"


def test_wrong_utf8_is_refused_with_its_fragment_and_not_at_the_end() -> None:
    assembler = Assembler(100)
    assert assembler.data(Opcode.TEXT, False, "\u20ac".encode()[:2]) is None
    with pytest.raises(BadFrame) as refused:
        assembler.data(Opcode.CONTINUATION, False, b"x")
    assert refused.value.code == CloseCode.INVALID_UTF8


def test_a_character_may_be_in_two_fragments_of_one_message_and_of_the_next() -> None:
    assembler = Assembler(100)
    euro = "\u20ac".encode()
    for _ in range(2):
        assert assembler.data(Opcode.TEXT, False, euro[:1]) is None
        assert assembler.data(Opcode.CONTINUATION, False, euro[1:2]) is None
        assert assembler.data(Opcode.CONTINUATION, True, euro[2:]) == "\u20ac"


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (0, "8100"),
        (125, "817d"),
        (126, "817e007e"),
        (65535, "817effff"),
        (65536, "817f0000000000010000"),
    ],
)
def test_the_header_of_an_unmasked_message_has_the_shortest_length(size: int, header: str) -> None:
    # RFC 6455 section 5.2: "the minimal number of bytes MUST be used to encode the length".
    assert unmasked_header(Opcode.TEXT, size).hex() == header
