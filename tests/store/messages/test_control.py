"""What the vectors (tests/vectors/controls.json) do not say."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aldis.errors import ProtocolViolation
from aldis.store.messages.control import (
    MAX_NAME,
    MAX_PIECE,
    FileDecline,
    Piece,
    decode_control,
    encode_control,
    encode_piece,
    new_id,
    safe_mime,
    safe_name,
)

ID = "AAECAwQFBgc"


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="limit"):
        decode_control(encode_control(FileDecline(ID, "x" * 17_000)))
    assert decode_control(encode_piece(ID, 0, bytes(MAX_PIECE))) == Piece(ID, 0, bytes(MAX_PIECE))
    with pytest.raises(ProtocolViolation, match="1 to"):
        decode_control(encode_piece(ID, 0, bytes(MAX_PIECE + 1)))
    with pytest.raises(ProtocolViolation):
        decode_control(b"{" + b'"a":[' * 3000)


@given(st.binary(min_size=8, max_size=8), st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=99))
def test_a_piece_is_read_as_it_was_written(raw: bytes, offset: int, data: bytes) -> None:
    assert decode_control(encode_piece(new_id(raw), offset, data)) == Piece(new_id(raw), offset, data)


@given(st.binary(max_size=60) | st.tuples(st.sampled_from([b"{", b"\x01"]), st.binary()).map(b"".join))
def test_any_bytes_are_a_control_message_or_ignored_or_a_violation(data: bytes) -> None:
    with suppress(ProtocolViolation):
        decode_control(data)


@given(st.text() | st.text("../\\ .:conNUL\u202e\x00ü🌍", max_size=400))
@example("." * 16_000)
@example("a" + " " * 16_000 + "b")
def test_any_name_is_made_one_that_stays_in_its_folder(given_name: str) -> None:
    name = safe_name(given_name)
    assert 0 < len(name.encode()) <= MAX_NAME
    assert not set(name) & set('/\\\x00<>:"|?*\n\u202e')
    assert name.strip() == name
    assert not name.startswith(".")
    assert not name.endswith(".")
    assert safe_name(name) == name


@given(st.text())
def test_any_type_is_made_one(mime: str) -> None:
    assert safe_mime(safe_mime(mime)) == safe_mime(mime)
    assert safe_mime(mime).isascii()
