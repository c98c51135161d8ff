"""The frames of one session that wait while a question or a large `watch` of this session is under way.

A single buffer holds all frames, each behind its size. So thousands of tiny frames cost only their bytes, and no object
for each.
"""

from __future__ import annotations

from typing import Final

# Bytes of the size before each frame.
_SIZE: Final = 4


class Backlog:
    """A queue of texts. `paused` says whether the hub has stopped reading the session's connection because of it."""

    __slots__ = ("_buffer", "_count", "_start", "paused")

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Where the first waiting frame begins.
        self._start = 0
        self._count = 0
        self.paused = False

    def __len__(self) -> int:
        """The number of frames that wait."""
        return self._count

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return len(self._buffer) - self._start

    def append(self, text: str) -> None:
        """Add a text at the end. It is kept in UTF-8, because a str takes up to four bytes for each character."""
        frame = text.encode()
        self._buffer += len(frame).to_bytes(_SIZE, "little")
        self._buffer += frame
        self._count += 1

    def pop(self) -> str | None:
        """Take out the first text; None when the queue is empty."""
        if not self._count:
            return None
        self._count -= 1
        begin = self._start + _SIZE
        end = begin + int.from_bytes(self._buffer[self._start : begin], "little")
        text = self._buffer[begin:end].decode()
        self._start = end
        if 2 * self._start >= len(self._buffer):
            # Move the rest only when as many bytes have gone, so that each byte is moved about once.
            del self._buffer[: self._start]
            self._start = 0
        return text
