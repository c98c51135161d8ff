"""What an application may send, as bytes and back.

Rules: what arrives equals what was sent. So nothing is converted on the way: a tuple, a NaN or a number as a key is
refused here, though other JSON writers would turn them into something similar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final, TypeAlias

import msgspec

from aldis.errors import MessageTooLarge, ProtocolViolation, UsageError
from aldis.protocol.channel import MAX_MESSAGE, Content

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"
# What may be sent. Sequence and Mapping are for the type checker, which takes a list[str] for no list[JsonValue];
# at run time only list and dict pass.
Sendable: TypeAlias = "str | bytes | int | float | bool | Sequence[Sendable] | Mapping[str, Sendable] | None"
# What arrives.
Received: TypeAlias = "str | bytes | JsonValue"

# Deeper ones could be written, and then not be read on the other side, whose stack may have less room.
MAX_DEPTH: Final = 100
# Browsers have no larger numbers (ECMA-262 section 6.1.6.1), and lose digits beyond 2^53.
MAX_INTEGER_BITS: Final = 1023

_decoder = msgspec.json.Decoder()


def encode(message: Sendable) -> tuple[Content, bytes]:
    """The kind and the bytes of a message: a str is text, bytes are bytes, all else a JSON value.

    Raises `MessageTooLarge`, and `UsageError` for what would not arrive as it is.
    """
    match message:
        case str():
            content, data = Content.TEXT, _utf8(message)
        case bytes() | bytearray() | memoryview():
            content, data = Content.BYTES, bytes(message)
        case _:
            content, data = Content.JSON, _json(message)
    if len(data) > MAX_MESSAGE:
        raise MessageTooLarge(len(data), MAX_MESSAGE)
    return content, data


def decode(content: Content, data: bytes) -> Received:
    """The message that `encode` was given. Raises `ProtocolViolation` when the bytes are not what they should be."""
    try:
        match content:
            case Content.TEXT:
                return data.decode()
            case Content.BYTES:
                return data
            case Content.JSON:
                value: Received = _decoder.decode(data)
                return value
            case Content.CONTROL:
                raise ProtocolViolation("a control message where one for the application was due")
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise ProtocolViolation(f"a {content.name} message that is none: {error}") from None


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the text cannot be sent: it has half a surrogate pair at {error.start}") from None


def _json(value: Sendable) -> bytes:
    _check(value, MAX_DEPTH)
    # Not msgspec, which writes null for NaN, and does not say what it cannot write.
    return _utf8(json.dumps(value, ensure_ascii=False, check_circular=False, separators=(",", ":")))


def _check(value: object, depth: int) -> None:
    if value is None or isinstance(value, str):
        return
    if isinstance(value, int):
        if value.bit_length() > MAX_INTEGER_BITS:
            raise UsageError(f"an integer of {value.bit_length()} bits cannot be sent; the limit is {MAX_INTEGER_BITS}")
    elif isinstance(value, float):
        if not isfinite(value):
            raise UsageError(f"{value} cannot be sent: JSON has no such number")
    elif depth == 0 and isinstance(value, list | dict):
        raise UsageError(f"the message is nested more than {MAX_DEPTH} levels deep, or contains itself")
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UsageError(f"a {type(key).__name__} cannot be a key of a JSON object; use text")
            _check(item, depth - 1)
    else:
        raise UsageError(f"a {type(value).__name__} cannot be sent; use text, bytes, or a JSON value")
