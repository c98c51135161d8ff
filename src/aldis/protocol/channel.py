"""The frames inside the data channel, which two directly connected peers exchange.

One reliable, ordered channel with the label `aldis.v1` carries binary messages, each of them one frame. All integers
are big-endian.

    HELLO    01  JSON in UTF-8                                   first frame of each side, once
    MESSAGE  02  flags:u8  sequence:u64  size:u32  chunk         a chunk of a message
    ACK      03  sequence:u64                                    all messages up to this number have arrived
    PING     04  token:u64                                       every 1 to 2 s
    PONG     05  token:u64                                       the token of a PING, back
    GOODBYE  06  UTF-8 text                                      an orderly end; the reason may be empty
    BUNDLE   07  (size:u16  frame)*                              several small frames, in order

`flags`: bits 0 and 1 hold the kind of content (0 text, 1 bytes, 2 JSON, 3 control), bit 2 marks the last chunk of a
message. Control messages go from store to store (files, calls; `store.messages.control`), and no application sees them.
`size` is the size of the whole message, the same in each of its chunks. Chunks of one message follow each other without
chunks of others in between. A message that was cut off by the end of the channel is sent again whole on the next one.

Sequence numbers count the messages of one *stream*: all messages from one store to one peer, over any number of
channels. A stream has a random name. Each HELLO gives the name of the stream that the sender continues, the number of
its next message (`next`), and how far it has received the other side's stream. This makes delivery exactly once
possible across channels (docs/protocol.md, "Data channel").

A receiver skips frames of an unknown kind, so that a later version may add some. This module turns frames into bytes
and back. `peer.session` (HELLO, heartbeat) and `store.messages` (messages, acknowledgements) know what they mean.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final, TypeAlias

import msgspec

from aldis.errors import ProtocolViolation
from aldis.protocol.names import PROTOCOL

LABEL: Final = PROTOCOL
VERSION: Final = 1
# By RFC 8841 a peer that says nothing accepts 64 KiB. The W3C examples use 16 KiB, which every stack accepts
# unfragmented.
MAX_FRAME: Final = 64 * 1024
CHUNK: Final = 16 * 1024
# Of a control message: a piece of a file with its header makes two frames. Each frame costs both ends: with frames of
# 16 KiB files had three quarters of the speed.
CONTROL_CHUNK: Final = 2 * CHUNK + 16
# The largest message, because both ends hold it in memory whole. Files go in pieces (`store.files`).
MAX_MESSAGE: Final = 16 * 1024 * 1024
# Bytes of a reason, which is one line of a log.
MAX_REASON: Final = 200
# Bytes of a frame that is worth bundling, and of a bundle: what the engine does for each message of the channel costs
# more than copying so much.
BUNDLED: Final = 2 * 1024
MAX_BUNDLE: Final = 16 * 1024

_LAST: Final = 0b100
_CONTENT_MASK: Final = 0b011
_MESSAGE = struct.Struct(">BBQI")
_NUMBER = struct.Struct(">BQ")
_SIZE = struct.Struct(">H")
_BUNDLE = b"\x07"
_MESSAGE_KIND: Final = 2  # `Kind.MESSAGE`, which costs three times as much to look up


class Kind(IntEnum):
    """The first byte of a frame."""

    HELLO = 1
    MESSAGE = 2
    ACK = 3
    PING = 4
    PONG = 5
    GOODBYE = 6
    BUNDLE = 7


class Content(IntEnum):
    """The content of a message: UTF-8 text, bytes, a JSON value, or a control message from store to store."""

    TEXT = 0
    BYTES = 1
    JSON = 2
    CONTROL = 3


_CONTENTS: Final = tuple(Content)  # by number: calling the class takes five times as long
_HEAD: Final = _MESSAGE.size
# What we send is never larger; `MAX_FRAME` is for what we take.
LARGEST_SENT: Final = _HEAD + CONTROL_CHUNK

# Numbers are u64 in the binary frames. JSON carries them exactly only up to this, which no stream reaches.
_MAX_SEQUENCE: Final = 2**53 - 1
_StreamName: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class StreamPosition(msgspec.Struct, gc=False):
    """How far a stream has been received: all messages up to `sequence` (0: none yet)."""

    stream: _StreamName
    sequence: Annotated[int, msgspec.Meta(ge=0, le=_MAX_SEQUENCE)]


class Hello(msgspec.Struct, gc=False):
    """The first frame of each side.

    `stream` is the name of the sender's stream, and `next` the number of the first message that it will send on this
    channel. `received` says how far the other side's stream has arrived here (absent: none is known). `run` names this
    run of the sender's program, where its stream goes on over several runs (absent: the stream names the run).
    `channel` counts the sender's HELLOs in this stream, on all paths: a lower number than one that has come is that of
    an older one (absent: they are not counted).
    """

    version: int
    stream: _StreamName
    next: Annotated[int, msgspec.Meta(ge=1, le=_MAX_SEQUENCE)]
    features: list[str] = []
    received: StreamPosition | None = None
    run: _StreamName | None = None
    channel: Annotated[int, msgspec.Meta(ge=1, le=_MAX_SEQUENCE)] | None = None


# Those that are made for each message are structs: a frozen dataclass takes five times as long to make.
class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of a message."""

    content: Content
    sequence: int
    size: int
    last: bool
    data: bytes


class Ack(msgspec.Struct, frozen=True, gc=False):
    sequence: int


@dataclass(frozen=True, slots=True)
class Ping:
    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    token: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    reason: str


Frame: TypeAlias = Hello | Chunk | Ack | Ping | Pong | Goodbye

_hello_decoder = msgspec.json.Decoder(Hello)


def encode_hello(hello: Hello) -> bytes:
    """The bytes of a HELLO frame."""
    fields = msgspec.to_builtins(hello)
    for name in ("run", "channel"):
        if fields[name] is None:
            del fields[name]
    return bytes((Kind.HELLO,)) + msgspec.json.encode(fields)


def encode_ack(sequence: int) -> bytes:
    """The bytes of an ACK frame."""
    return _NUMBER.pack(Kind.ACK, sequence)


def encode_ping(token: int) -> bytes:
    """The bytes of a PING frame."""
    return _NUMBER.pack(Kind.PING, token)


def encode_pong(token: int) -> bytes:
    """The bytes of a PONG frame."""
    return _NUMBER.pack(Kind.PONG, token)


def encode_goodbye(reason: str = "") -> bytes:
    """The bytes of a GOODBYE frame. A reason longer than 200 bytes is cut between two characters."""
    cut = reason.encode()[:MAX_REASON].decode(errors="ignore")
    return bytes((Kind.GOODBYE,)) + cut.encode()


def encode_message(content: Content, sequence: int, data: bytes, chunk: int = CHUNK) -> list[bytes]:
    """The frames of one message, in order: at least one, each with at most `chunk` bytes of data."""
    size = len(data)
    if size <= chunk:
        return [_MESSAGE.pack(_MESSAGE_KIND, content | _LAST, sequence, size) + data]
    frames = []
    view = memoryview(data)  # a slice of it is no copy
    for start in range(0, size, chunk):
        piece = view[start : start + chunk]
        flags = content | (_LAST if start + chunk >= size else 0)
        frames.append(_MESSAGE.pack(_MESSAGE_KIND, flags, sequence, size) + piece)
    return frames


def encode_bundle(frames: Iterable[bytes]) -> bytes:
    """The bytes of a BUNDLE of frames, each of at most `BUNDLED` bytes."""
    parts = [bytes((Kind.BUNDLE,))]
    for frame in frames:
        parts += (_SIZE.pack(len(frame)), frame)
    return b"".join(parts)


def unbundle(data: bytes) -> list[bytes]:
    """The frames of a BUNDLE, in order; any other frame alone. Raises `ProtocolViolation` for a broken bundle.

    A bundle within a bundle is a frame of a kind that `decode` does not know.
    """
    if data[:1] != _BUNDLE:
        return [data]
    frames, position, end = [], 1, len(data)
    while position < end - 1:
        start = position + 2
        position = start + (data[position] << 8) + data[position + 1]
        frames.append(data[start:position])
    if position != end:
        raise ProtocolViolation("a broken bundle")
    return frames


def decode(data: bytes) -> Frame | None:
    """Read one frame. None for a kind that this version does not know; raises `ProtocolViolation` for a broken one."""
    if not data:
        raise ProtocolViolation("an empty frame")
    try:
        match data[0]:
            case Kind.MESSAGE:
                _, flags, sequence, size = _MESSAGE.unpack_from(data)
                return Chunk(_CONTENTS[flags & _CONTENT_MASK], sequence, size, flags & _LAST != 0, data[_HEAD:])
            case Kind.ACK:
                return Ack(_NUMBER.unpack(data)[1])
            case Kind.PING:
                return Ping(_NUMBER.unpack(data)[1])
            case Kind.PONG:
                return Pong(_NUMBER.unpack(data)[1])
            case Kind.HELLO:
                return _hello_decoder.decode(data[1:])
            case Kind.GOODBYE:
                return Goodbye(data[1:].decode())
            case _:
                return None
    except (struct.error, msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ProtocolViolation(f"a broken frame of kind {data[0]}: {error}") from None
