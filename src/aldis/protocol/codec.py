"""The only place where JSON is read or written.

Decoding has a fast path (one typed decode). If that fails, a slow path finds out why, so that the answer has the error
code that docs/protocol.md promises. Both take valid UTF-8. The WebSocket layer checks that first: `Raw` fields are
passed on unread, and one client's bad bytes must not end another's connection (a browser closes on invalid UTF-8, RFC
6455 section 8.1).
"""

from __future__ import annotations

import binascii
import re
import struct
import typing
from base64 import b64decode, b64encode, urlsafe_b64encode
from functools import cache
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from aldis.errors import ProtocolViolation
from aldis.protocol.codes import ErrorCode
from aldis.protocol.messages import (
    Candidate,
    Capabilities,
    ClassicMessage,
    ClientMessage,
    Description,
    Proof,
    Relayed,
    RequestId,
    ServerMessage,
)

# RFC 8259 section 9 lets a parser limit the depth; msgspec raises RecursionError at the interpreter's limit.
UNREADABLE: Final = (msgspec.DecodeError, RecursionError)
"""The exceptions of decoding for a frame that is not a message."""

# Annotated, because a type checker does not see a union as a type of its own.
_client_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)
_classic_decoder: msgspec.json.Decoder[ClassicMessage] = msgspec.json.Decoder(ClassicMessage)
_server_decoder: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
_description_decoder = msgspec.json.Decoder(Description)
_candidate_decoder: msgspec.json.Decoder[Candidate | None] = msgspec.json.Decoder(Candidate | None)
_proof_decoder = msgspec.json.Decoder(Proof)
_capabilities_decoder = msgspec.json.Decoder(Capabilities)
_fields_decoder = msgspec.json.Decoder(dict[str, Raw])
_text_decoder = msgspec.json.Decoder(str)
_id_decoder: msgspec.json.Decoder[RequestId] = msgspec.json.Decoder(RequestId)
_encoder = msgspec.json.Encoder()

_first_two: Final = struct.Struct("<H").unpack_from
_BRACE_AND_QUOTE: Final = int.from_bytes(b'{"', "little")
_OPENING_BRACE: Final = ord("{")
_CLOSING_BRACE: Final = ord("}")
_JSON_SPACE: Final = b" \t\n\r"  # RFC 8259 section 2

encode_into: Final = _encoder.encode_into
"""`encode_into(message, buffer, offset)`: write a message into a bytearray, which is resized to fit."""


class DecodeFailed(ProtocolViolation):
    """A frame is not a message.

    Attributes: `code` (an `ErrorCode`), `text`, and `re`, the id of the request if it had one.
    """

    def __init__(self, code: str, text: str, re: RequestId | UnsetType = UNSET) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.re = re


class NestedTooDeeply(DecodeFailed):
    """The JSON is nested deeper than we can read. Another user wrote it, and the server could read it."""


def _members(union: object) -> dict[str, type[Struct]]:
    return {str(member.__struct_config__.tag): member for member in union.__args__}  # type: ignore[attr-defined]


_CLIENT_TYPES: Final = _members(ClientMessage)
_CLASSIC_TYPES: Final = _members(ClassicMessage)
_SERVER_TYPES: Final = _members(ServerMessage)
_RELAYED_TYPES: Final = _members(Relayed)
# Servers of this project write the type first.
_first_tag: Final = re.compile(r'\{"type":"([a-z-]+)"')


decode_client_frame: Final = _client_decoder.decode
"""`decode_client_frame(text)`: the fast path of `decode_client_message`; raises one of `UNREADABLE`."""


def why_not_client_message(text: str) -> DecodeFailed:
    """The slow path: why a client's frame is not a message, with the documented code."""
    return _why_not(text, _CLIENT_TYPES)


decode_classic_frame: Final = _classic_decoder.decode
"""Like `decode_client_frame`, for the classic dialect."""


def why_not_classic_message(text: str) -> DecodeFailed:
    """Like `why_not_client_message`, for the classic dialect."""
    return _why_not(text, _CLASSIC_TYPES)


def decode_client_message(text: str) -> ClientMessage:
    """Read one frame from a client. Raises `DecodeFailed` with the documented code when it is not a message."""
    try:
        return decode_client_frame(text)
    except UNREADABLE:
        raise why_not_client_message(text) from None


def decode_server_message(text: str) -> ServerMessage | None:
    """Read one frame from a server. None for a `type` that this version does not know; `DecodeFailed` for bad JSON.

    The possible depth of JSON depends on the stack that is left, here and in the server. A server that relays a frame
    may have had more of it; then this raises `NestedTooDeeply`.
    """
    try:
        return _server_decoder.decode(text)
    except RecursionError:
        found = _first_tag.match(text)
        kind = NestedTooDeeply if found is not None and found[1] in _RELAYED_TYPES else DecodeFailed
        raise kind(ErrorCode.INVALID_MESSAGE, "the frame is nested too deeply") from None
    except msgspec.DecodeError:
        failure = _why_not(text, _SERVER_TYPES)
        if failure.code == ErrorCode.UNKNOWN_TYPE:
            return None
        raise failure from None


def encode(message: Struct) -> bytes:
    """Write a message as UTF-8 JSON."""
    return _encoder.encode(message)


def encode_text(message: Struct) -> str:
    """Write a message as a JSON text."""
    return _encoder.encode(message).decode()


def raw(value: object) -> Raw:
    """Encode a value (a struct, dict, list or None) for one of the `Raw` fields."""
    return Raw(_encoder.encode(value))


def is_object(value: Raw) -> bool:
    """Whether an opaque field holds a JSON object that is not empty, without parsing it."""
    # Nearly every message ends here: this is the cheapest look into an opaque buffer.
    if len(value) > 2 and _first_two(value)[0] == _BRACE_AND_QUOTE:
        return True
    view = memoryview(value)
    if not view or view[0] != _OPENING_BRACE:
        return False
    # The decoder has skipped over the JSON, so it is well-formed and has a closing brace.
    position = 1
    while view[position] in _JSON_SPACE:
        position += 1
    return view[position] != _CLOSING_BRACE


def is_object_or_null(value: Raw) -> bool:
    """Like `is_object`, or the JSON `null`."""
    return is_object(value) or bytes(value) == b"null"


def read_description(value: Raw) -> Description:
    """Parse an `offer` or `answer` field. Raises `ProtocolViolation` when it is not valid."""
    try:
        return _description_decoder.decode(value)
    except UNREADABLE as error:
        raise ProtocolViolation(f"unreadable session description: {error}") from None


def read_candidate(value: Raw) -> Candidate | None:
    """Parse a `candidate` field; None is the end of candidates. Raises `ProtocolViolation` when it is not valid."""
    try:
        return _candidate_decoder.decode(value)
    except UNREADABLE as error:
        raise ProtocolViolation(f"unreadable ICE candidate: {error}") from None


def read_proof(value: Raw) -> Proof:
    """Parse a `proof` field. Raises `ProtocolViolation` when it is not valid."""
    try:
        return _proof_decoder.decode(value)
    except UNREADABLE as error:
        raise ProtocolViolation(f"unreadable proof: {error}") from None


def read_capabilities(value: Raw | UnsetType) -> Capabilities:
    """Parse a `capabilities` field. An absent or unreadable field means that the peer can do everything."""
    if value is UNSET:
        return Capabilities()
    try:
        return _capabilities_decoder.decode(value)
    except UNREADABLE:
        return Capabilities()


def to_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4), as everywhere on the wire."""
    return b64encode(data).decode("ascii")


def to_base64url(data: bytes) -> str:
    """Base64url without padding (RFC 4648 section 5), for random names."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64(text: str, size: int | None = None) -> bytes:
    """Read standard base64. Raises ValueError when it is not strict, or does not have `size` bytes."""
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    if size is not None and len(data) != size:
        raise ValueError(f"not {size} bytes but {len(data)}")
    # Bits after the last byte must be zero, or one key would have several spellings.
    if b64encode(data).decode("ascii") != text:
        raise ValueError("not canonical base64")
    return data


def _why_not(text: str, types: dict[str, type[Struct]]) -> DecodeFailed:
    """Find out why a frame is not a message of the union. Slow, and only for frames that are wrong.

    It reads the fields one by one, so that an unknown field (a number of a million digits) is never the reason.
    """
    try:
        fields = _fields_decoder.decode(text)
    except msgspec.ValidationError:
        return DecodeFailed(ErrorCode.INVALID_MESSAGE, "the frame is not a JSON object")
    except UNREADABLE:
        return DecodeFailed(ErrorCode.INVALID_MESSAGE, "the frame is not valid JSON, or is nested too deeply")
    try:
        re: RequestId | UnsetType = _id_decoder.decode(fields["id"])
    except (KeyError, *UNREADABLE):
        re = UNSET
    try:
        kind = _text_decoder.decode(fields["type"])
    except (KeyError, *UNREADABLE):
        return DecodeFailed(ErrorCode.INVALID_MESSAGE, "the message has no type", re)
    if kind not in types:
        return DecodeFailed(ErrorCode.UNKNOWN_TYPE, f"unknown message type {kind[:64]!r}", re)
    return _which_field(types[kind], fields, re)


@cache
def _field_decoders(struct: type[Struct]) -> dict[str, tuple[bool, msgspec.json.Decoder[object]]]:
    """By the name on the wire: whether a field is required, and its decoder."""
    fields = msgspec.structs.fields(struct)
    return {field.encode_name: (field.required, msgspec.json.Decoder(field.type)) for field in fields}


def _which_field(struct: type[Struct], fields: dict[str, Raw], re: RequestId | UnsetType) -> DecodeFailed:
    """Name the fields: `missing-fields` for required ones (absent, empty, of a wrong type), else `invalid-field`."""
    missing: list[str] = []
    bad: list[str] = []
    for name, (required, decoder) in _field_decoders(struct).items():
        if name not in fields:
            if required:
                missing.append(name)
            continue
        try:
            decoder.decode(fields[name])
        except UNREADABLE:
            (missing if required and not _right_type(decoder, fields[name]) else bad).append(name)
    if missing:
        return DecodeFailed(ErrorCode.MISSING_FIELDS, f"missing or wrong: {', '.join(missing)}", re)
    return DecodeFailed(ErrorCode.INVALID_FIELD, f"not valid: {', '.join(bad) or 'the message'}", re)


def _right_type(decoder: msgspec.json.Decoder[object], value: Raw) -> bool:
    """Whether a value that exceeds a limit (too long, too large) has the right type and is not empty."""
    plain = typing.get_args(decoder.type)[0] if typing.get_origin(decoder.type) is typing.Annotated else decoder.type
    try:
        return bool(msgspec.json.decode(value, type=plain))
    except UNREADABLE:
        return False
