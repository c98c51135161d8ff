"""The arithmetic of a file on its way: what may be sent, what has to be confirmed, and what breaks the protocol.

Rules of this module:

* The sender sends pieces in order, at most `WINDOW` bytes beyond what the recipient has confirmed as written. So no
  more than that has to be kept in memory at either end, and a message of the application waits behind little more.
* Several files to one peer share the window; `AT_ONCE` of them go at a time, the others wait for their turn. A share
  is never less than `CONFIRM`, or the two sides would wait for each other. A file that others join keeps what it has
  on its way already: while four begin, that may come to two windows.
* The recipient confirms whenever `CONFIRM` bytes more are written, and once more when the file is complete and has its
  name.
* What the other side says may be wrong in any way; `ProtocolViolation` says how, and the transfer has to end.

Pure: no I/O, no clock. It does not know what a transfer is, nor how bytes are read or written.
"""

from __future__ import annotations

from typing import Final

from aldis.errors import ProtocolViolation
from aldis.store.messages.control import MAX_PIECE

WINDOW: Final = 1024 * 1024
CONFIRM: Final = 256 * 1024
AT_ONCE: Final = WINDOW // CONFIRM
# Files on offer or under way from one peer; who offers more is refused, so that offers cannot fill the memory.
MAX_OPEN: Final = 64


def share(position: int, running: int) -> int:
    """How much of the window a file may use that is at `position` (from 0) among `running` ones; 0: not its turn."""
    return WINDOW // min(running, AT_ONCE) if position < AT_ONCE else 0


class SendWindow:
    """A file that is being sent; sizes and positions in bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0
        self.confirmed = 0

    def room(self, window: int) -> int:
        """How much may be sent now, in whole pieces, the last one aside: 0 when it is time to wait."""
        left = self.size - self.sent
        allowed = self.confirmed + window - self.sent
        return left if left <= allowed else max(allowed - allowed % MAX_PIECE, 0)

    def received(self, count: int) -> bool:
        """The recipient has written so many bytes; True when that is all. Raises `ProtocolViolation`."""
        if not self.confirmed <= count <= self.sent:
            raise ProtocolViolation(
                f"{count} bytes confirmed, of {self.sent} sent and {self.confirmed} confirmed before"
            )
        self.confirmed = count
        return count == self.size


class ReceiveWindow:
    """A file that is being received."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.arrived = 0
        self.written = 0
        self._confirmed = 0

    def arrive(self, offset: int, size: int) -> None:
        """A piece has come. Raises `ProtocolViolation` for one that is not due, or must not come yet."""
        if offset != self.arrived:
            raise ProtocolViolation(f"a piece at {offset} came where {self.arrived} was due")
        if offset + size > self.size:
            raise ProtocolViolation(f"more data than the {self.size} bytes on offer")
        if offset + size > self._confirmed + WINDOW:
            raise ProtocolViolation("more data than the window allows")
        self.arrived += size

    def wrote(self, size: int) -> int | None:
        """So many bytes more are written; what to confirm now, if it is time. The end is confirmed elsewhere."""
        self.written += size
        if self.written - self._confirmed < CONFIRM or self.written == self.size:
            return None
        self._confirmed = self.written
        return self.written
