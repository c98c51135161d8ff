"""WebSocket frames: join the fragments of a message, and read a CLOSE frame (RFC 6455 sections 5.4 and 5.5).

Server and client share this module, and get frames from the WebSocket library. What a server sends together it frames
by itself. A message is returned only when it is whole, within the limit, and text in UTF-8. Pure: it knows opcodes and
bytes, no library.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from enum import IntEnum
from typing import Final

from aldis.protocol.codes import CloseCode

# RFC 6455 section 5.5: a control frame has at most 125 bytes, two of them the close code.
MAX_REASON: Final = 123
_Utf8Decoder: Final = getincrementaldecoder("utf-8")


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class BadFrame(Exception):
    """A frame that is not allowed. Attributes: `code`, the close code to answer it with, and `reason`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def unmasked_header(opcode: Opcode, size: int) -> bytes:
    """What stands before a payload of so many bytes, in the one frame of a message (RFC 6455 section 5.2).

    Unmasked, as a server sends it."""
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, size))
    if size < 1 << 16:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


class Assembler:
    """Joins the data frames of one connection. `limit` is the largest message, in bytes."""

    __slots__ = ("_decoder", "_limit", "_parts")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # One buffer, because a list would hold one object for each fragment, and the other side can send a million
        # fragments.
        self._parts: bytearray | None = None
        # Finds wrong UTF-8 in the fragment that has it (RFC 6455 section 8.1), before the message is whole.
        self._decoder = _Utf8Decoder()

    @property
    def size(self) -> int:
        """Bytes of the message so far."""
        return 0 if self._parts is None else len(self._parts)

    def data(self, opcode: Opcode, final: bool, payload: bytes) -> str | None:
        """Take a TEXT, BINARY or CONTINUATION frame. Return the text if the frame ends a message, else None.

        Raises `BadFrame`; then close the connection.
        """
        if opcode is Opcode.BINARY:
            raise BadFrame(CloseCode.UNSUPPORTED_DATA, "a binary frame")
        if (opcode is Opcode.TEXT) == (self._parts is not None):
            problem = "a new message within a fragmented one" if self._parts is not None else "a fragment of nothing"
            raise BadFrame(CloseCode.PROTOCOL_ERROR, problem)
        if len(payload) + (0 if self._parts is None else len(self._parts)) > self._limit:
            raise BadFrame(CloseCode.TOO_BIG, f"a message of more than {self._limit} bytes")
        try:
            if final and self._parts is None:
                return payload.decode()
            self._decoder.decode(payload, final)
        except UnicodeDecodeError:
            raise BadFrame(CloseCode.INVALID_UTF8, "text that is not UTF-8") from None
        if self._parts is None:
            self._parts = bytearray()
        self._parts += payload
        if not final:
            return None
        text = self._parts.decode()
        self._parts = None
        return text


def read_close(payload: bytes) -> tuple[int, str]:
    """The code and reason in a CLOSE frame's payload (RFC 6455 section 5.5.1); 1005 for an empty payload."""
    if len(payload) < 2:
        return CloseCode.NO_STATUS, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")


def close_reason(text: str) -> bytes:
    """A reason for a CLOSE frame, cut between two characters if it is too long."""
    return text.encode(errors="replace")[:MAX_REASON].decode(errors="ignore").encode()
