"""How much of the files for one peer may be on its way, so that a message does not wait long behind it.

A message stands behind all pieces that are said and not acknowledged. On a quick line a full window of them is gone in
milliseconds; on one of 25 KB a second it takes 40 s. So each acknowledged piece tells how quick the line is: in the
time that it took, all went through that was on its way with it. As much as goes through in `DELAY` seconds, beyond the
time that the line takes by itself, may be on its way, or one piece where that is more. (LEDBAT, RFC 6817, has such a
target for the delay, too.)

Pure: no I/O, no clock. It does not know what a file is.
"""

from __future__ import annotations

from math import inf
from typing import Final

from aldis.store.files.window import CONFIRM, WINDOW
from aldis.store.messages.control import MAX_PIECE

# Seconds that a message may wait behind files.
DELAY: Final = 0.5
# The longest time that a line may take by itself: even one by satellite hardly does. On a slow line nobody can tell it
# from the time of the piece.
_MOST_LATENCY: Final = 0.5
# One piece: on a slow line the acknowledgement of one is awaited before the next.
LEAST: Final = MAX_PIECE
# Before anything is known.
BEGIN: Final = CONFIRM


class Pace:
    """What is known of the line to one peer. Bytes and seconds."""

    def __init__(self) -> None:
        self._limit: float = BEGIN
        self._quickest = inf

    def allows(self, on_its_way: int) -> bool:
        """Whether one more piece may go, while so many bytes are said and not acknowledged."""
        return on_its_way < self._limit

    @property
    def limits(self) -> bool:
        """Whether it ever says no: the window of files may be less."""
        return self._limit < WINDOW

    def took(self, on_its_way: int, seconds: float) -> None:
        """A piece was acknowledged so long after it was said, when so much was on its way with it, itself included."""
        self._quickest = min(self._quickest, seconds)
        target = min(self._quickest, _MOST_LATENCY) + DELAY
        passes = on_its_way * target / max(seconds, 1e-3)
        if seconds > target or passes > self._limit:
            self._limit = min(max(passes, LEAST), WINDOW)
