"""WebSocket frames: joining the fragments of a message, and what a CLOSE frame says (RFC 6455 sections 5.4 and 5.5).

Server and client use it alike: the WebSocket library gives them frames. A message has a limit, is text in UTF-8, and is
whole before anybody sees it. Pure: it knows opcodes and bytes, no library.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from aldis.protocol.codes import CloseCode

# RFC 6455 section 5.5: a control frame has at most 125 bytes, two of them the close code.
MAX_REASON: Final = 123


class Opcode(IntEnum):
    """RFC 6455 section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class BadFrame(Exception):
    """A frame that may not be. Attributes: `code`, the close code that it is answered with, and `reason`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Assembler:
    """Joins the data frames of one connection. `limit` is the largest message, in bytes."""

    __slots__ = ("_limit", "_parts")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # One buffer: a list of fragments would hold an object for each, of which a server can make a million.
        self._parts: bytearray | None = None

    def data(self, opcode: Opcode, final: bool, payload: bytes) -> str | None:
        """Take a TEXT, BINARY or CONTINUATION frame; the text of the message that it ends, or None.

        Raises `BadFrame`, after which the connection has to be closed.
        """
        if opcode is Opcode.BINARY:
            raise BadFrame(CloseCode.UNSUPPORTED_DATA, "a binary frame")
        if (opcode is Opcode.TEXT) == (self._parts is not None):
            problem = "a new message within a fragmented one" if self._parts is not None else "a fragment of nothing"
            raise BadFrame(CloseCode.PROTOCOL_ERROR, problem)
        if len(payload) + (0 if self._parts is None else len(self._parts)) > self._limit:
            raise BadFrame(CloseCode.TOO_BIG, f"a message of more than {self._limit} bytes")
        if not final:
            if self._parts is None:
                self._parts = bytearray()
            self._parts += payload
            return None
        data = payload if self._parts is None else bytes(self._parts + payload)
        self._parts = None
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise BadFrame(CloseCode.INVALID_UTF8, "text that is not UTF-8") from None


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a CLOSE frame's payload (RFC 6455 section 5.5.1); 1005 stands for an empty one."""
    if len(payload) < 2:
        return CloseCode.NO_STATUS, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")


def close_reason(text: str) -> bytes:
    """A reason that fits into a CLOSE frame: it is cut between two characters."""
    return text.encode(errors="replace")[:MAX_REASON].decode(errors="ignore").encode()
