"""The frames of one session that wait while a question of it is open.

They stand one behind the other in a single buffer, each with its size before it. So they cost the bytes that came, also
when a client sends thousands of tiny ones, and not an object each.
"""

from __future__ import annotations

from typing import Final

# Bytes of the size before each frame.
_SIZE: Final = 4


class Backlog:
    """A queue of texts. `paused` says whether its owner has stopped reading because of it."""

    __slots__ = ("_buffer", "_count", "_start", "paused")

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Where the first frame that is left begins.
        self._start = 0
        self._count = 0
        self.paused = False

    def __len__(self) -> int:
        """How many frames wait."""
        return self._count

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return len(self._buffer) - self._start

    def append(self, text: str) -> None:
        """Put a text at the end. It is kept in UTF-8: a str has up to four bytes for each character."""
        frame = text.encode()
        self._buffer += len(frame).to_bytes(_SIZE, "little")
        self._buffer += frame
        self._count += 1

    def pop(self) -> str | None:
        """Take the first text out; None when there is none."""
        if not self._count:
            return None
        self._count -= 1
        begin = self._start + _SIZE
        end = begin + int.from_bytes(self._buffer[self._start : begin], "little")
        text = self._buffer[begin:end].decode()
        self._start = end
        if 2 * self._start >= len(self._buffer):
            # What is left is moved once for as many bytes as have gone.
            del self._buffer[: self._start]
            self._start = 0
        return text
