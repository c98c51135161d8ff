"""The arithmetic of a file on its way: what may be sent, what has to be confirmed, and what breaks the protocol.

Rules of this module:

* The sender sends pieces in order, at most `WINDOW` bytes beyond what the recipient has confirmed as written. So no
  more than that has to be kept in memory at either end, and a message of the application waits behind little more.
* Several files to one peer share the window; `AT_ONCE` of them go at a time, the others wait for their turn. A share
  is never less than `CONFIRM`, or the two sides would wait for each other. A file that others join keeps what it has
  on its way already: while four begin, that may come to two windows.
* The recipient confirms whenever `CONFIRM` bytes more are written, and once more when the file is complete and has its
  name.
* To confirm every byte is to say that the file is complete. So the recipient confirms of a stream, whose end is not
  known, all but the last byte, and one piece earlier: the sender has one piece less on its way.
* A piece that has come before is skipped: a sender may not know that it has (`outgoing`).
* A transfer may start behind what the recipient has kept of it. The sender starts from 0 all the same where that is
  not the beginning of its file.
* What the other side says may be wrong in any way; `ProtocolViolation` says how, and the transfer has to end.

Pure: no I/O, no clock. It does not know what a transfer is, nor how bytes are read or written.
"""

from __future__ import annotations

from typing import Final

from aldis.errors import ProtocolViolation
from aldis.store.messages.control import MAX_PIECE, MAX_SIZE

WINDOW: Final = 1024 * 1024
CONFIRM: Final = 256 * 1024
# What a message of the application waits behind on the relay, where this takes a second: two pieces, so that one is on
# its way while the other is acknowledged.
RELAY_WINDOW: Final = 2 * MAX_PIECE
AT_ONCE: Final = WINDOW // CONFIRM
# Files on offer or under way from one peer; who offers more is refused, so that offers cannot fill the memory.
MAX_OPEN: Final = 64


def share(position: int, running: int) -> int:
    """How much of the window a file may use that is at `position` (from 0) among `running` ones; 0: not its turn."""
    return WINDOW // min(running, AT_ONCE) if position < AT_ONCE else 0


class SendWindow:
    """A file that is being sent; sizes and positions in bytes."""

    def __init__(self, size: int, start: int = 0) -> None:
        self.size = size
        self.sent = start
        self.confirmed = start

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

    def __init__(self, size: int | None, start: int = 0) -> None:
        """`size`: None for a stream, until it `ends`."""
        self.size = MAX_SIZE if size is None else size
        self.arrived = start
        self.written = start
        self.restarted = False  # the sender starts from 0: what was kept is not the beginning of its file
        self._start = start
        self._confirmed = start
        self._writing = start  # all up to here is written, or being written
        self._end_known = size is not None

    def ends(self, size: int) -> None:
        """The sender has sent everything."""
        self.size, self._end_known = size, True

    def arrive(self, offset: int, size: int) -> bool:
        """A piece has come; False when it had come before. Raises `ProtocolViolation` for one that is not due, or must
        not come yet."""
        if offset == 0 < self._start == self.arrived:
            self.restarted = True
            self.arrived = self.written = self._confirmed = self._writing = self._start = 0
        if self._start <= offset and offset + size <= self.arrived:
            return False
        if offset != self.arrived:
            raise ProtocolViolation(f"a piece at {offset} came where {self.arrived} was due")
        if offset + size > self.size:
            raise ProtocolViolation(f"more data than the {self.size} bytes on offer")
        if offset + size > self._confirmed + WINDOW:
            raise ProtocolViolation("more data than the window allows")
        self.arrived += size
        return True

    @property
    def is_due(self) -> bool:
        """Whether the sender may wait for what has arrived to be written: then that is confirmed, or it is the end."""
        least = CONFIRM if self._end_known else CONFIRM - MAX_PIECE + 1
        confirmed = self._writing if self._writing - self._confirmed >= least else self._confirmed
        return self.arrived == self.size or self.arrived - confirmed >= least

    def write(self) -> None:
        """All that has arrived is being written; `wrote` follows."""
        self._writing = self.arrived

    def wrote(self, size: int) -> int | None:
        """So many bytes more are written; what to confirm now, if it is time. The end is confirmed elsewhere."""
        self.written += size
        unconfirmed = self.written - self._confirmed
        if not self._end_known:
            due = self.written - 1 if unconfirmed > CONFIRM - MAX_PIECE else None
        else:
            due = self.written if unconfirmed >= CONFIRM and self.written < self.size else None
        if due is not None:
            self._confirmed = due
        return due
