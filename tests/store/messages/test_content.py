from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.errors import MessageTooLarge, ProtocolViolation, UsageError
from aldis.protocol.channel import MAX_MESSAGE, Content
from aldis.store.messages.content import MAX_DEPTH, MAX_INTEGER_BITS, Received, Sendable, decode, encode

pytestmark = pytest.mark.usefixtures("no_collection")

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(SCALARS | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=20)


def same(one: object, other: object) -> bool:
    return one == other and type(one) is type(other)


@given(JSON | st.binary())
def test_what_arrives_is_what_was_sent(message: Received) -> None:
    content, data = encode(message)
    assert same(decode(content, data), message)


def test_the_kind_follows_the_type() -> None:
    assert encode("1")[0] is Content.TEXT
    assert encode(b"1")[0] is encode(bytearray(b"1"))[0] is encode(memoryview(b"1"))[0] is Content.BYTES
    assert encode(1)[0] is encode(None)[0] is encode(["1"])[0] is Content.JSON


def nested(levels: int) -> Sendable:
    value: Sendable = 1
    for _ in range(levels):
        value = [value]
    return value


def contains_itself() -> Sendable:
    value: list[Sendable] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "make",
    [
        lambda: math.nan,
        lambda: [math.inf],
        lambda: (1, 2),
        lambda: {1: "a"},
        lambda: {"a": b"bytes"},
        lambda: {1, 2},
        object,
        lambda: "\ud800",
        lambda: {"a": "\udfff"},
        lambda: 2**MAX_INTEGER_BITS,
        lambda: nested(MAX_DEPTH + 1),
        contains_itself,
    ],
)
def test_what_would_not_arrive_as_it_is_cannot_be_sent(make: Callable[[], Sendable]) -> None:
    with pytest.raises(UsageError):
        encode(make())


def test_the_deepest_and_the_largest_come_through() -> None:
    for message in (nested(MAX_DEPTH), 2**MAX_INTEGER_BITS - 1):
        assert decode(*encode(message)) == message


def test_the_largest_number_is_one_that_browsers_have() -> None:
    assert math.isfinite(float(2**MAX_INTEGER_BITS - 1))


def test_the_size_is_limited_in_bytes() -> None:
    encode(b"x" * MAX_MESSAGE)
    for message in (b"x" * (MAX_MESSAGE + 1), "é" * (MAX_MESSAGE // 2 + 1)):
        with pytest.raises(MessageTooLarge) as caught:
            encode(message)
        assert caught.value.limit == MAX_MESSAGE


@pytest.mark.parametrize(
    ("content", "data"),
    [
        (Content.TEXT, b"\xff"),
        (Content.JSON, b""),
        (Content.JSON, b"{"),
        (Content.JSON, b"NaN"),
        (Content.JSON, b'"\\ud800"'),
        (Content.JSON, b"[" * 100_000),
        (Content.JSON, b"1e999"),
    ],
)
def test_a_message_that_is_not_what_it_says_breaks_the_protocol(content: Content, data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        decode(content, data)
