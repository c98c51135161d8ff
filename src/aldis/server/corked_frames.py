"""Frames that go to one client together, as TCP_CORK has it (tcp(7)), but above TLS.

A client that watches a thousand names is told a thousand small messages in a row. Each of them would be a call of the
kernel, and with TLS a record of its own, which costs more than the message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aldis.protocol.frames import Opcode, unmasked_header

# Bytes that are sent as soon as there are so many: less than a connection keeps before it counts as slow
# (`websocket.UNSENT`), and than one record of TLS may have (RFC 8446 section 5.1).
MOST: Final = 12 * 1024


class CorkedFrames:
    """What is written to one client, until it is sent. `send` gets the bytes of whole frames."""

    __slots__ = ("_frames", "_send")

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._frames = bytearray()

    def write(self, kind: int, frame: bytearray, headroom: int) -> None:
        """As `Connection.write`."""
        self._frames += unmasked_header(Opcode(kind), len(frame) - headroom)
        self._frames += memoryview(frame)[headroom:]
        if len(self._frames) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Send what waits."""
        if self._frames:
            frames, self._frames = self._frames, bytearray()
            self._send(bytes(frames))
