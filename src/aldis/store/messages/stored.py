"""What of a stream a journal keeps, as the stream and its journal say it to each other.

It does not know where that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from aldis.errors import JournalError
from aldis.protocol.channel import Content, StreamPosition
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.inbox import Arrived


class StoredMessage(NamedTuple):
    """A message as the journal has it; see `journal.rows.QueuedRow`."""

    content: Content
    data: bytes
    queued_at: float
    movable: bool


@dataclass(frozen=True, slots=True)
class StoredStream:
    """What the journal has of a device: our messages from number `acknowledged` + 1 on, and how far the device's
    streams have arrived. `rolled_back`: that may be an earlier state. `fresh`: the stream has never been used. `sent`:
    nothing behind this number was sent; None: all may have been."""

    stream: str
    acknowledged: int = 0
    messages: tuple[StoredMessage, ...] = ()
    positions: tuple[StreamPosition, ...] = ()
    rolled_back: bool = False
    fresh: bool = False
    sent: int | None = None


class StreamJournal(Protocol):
    """Where a stream is kept: `journal.writer.DeviceJournal`. It calls `stored`, `not_stored`, `kept`, `free` later."""

    run: str  # of this program

    def check_room(self, size: int) -> None:
        """Raise `JournalFull` when there is no room for one more message of so many bytes."""

    def queue(self, number: int, content: Content, data: bytes, queued_at: float, movable: bool) -> None:
        """Store a message, in place of one with the same number; see `StoredMessage`."""

    def control(self, number: int) -> bool:
        """A control message has this number. Whether the journal knows already that it may be used; else `stored`
        follows."""

    def remove(self, number: int) -> None:
        """Forget a message."""

    def acknowledge(self, number: int) -> None:
        """Everything up to `number` has arrived."""

    def arrived(self, device: str, stream: str, message: Arrived) -> None:
        """Store a message that has arrived."""

    def hold(self, sent: int) -> None:
        """Nothing behind this number was sent, nor is before `free`, which `release` asks for."""

    def release(self) -> None:
        """Messages behind the number of `hold` may be sent now."""

    def renew(self, stream: str) -> None:
        """Our stream is a new one, and empty."""


@dataclass(slots=True)
class Leaving:
    """What the journal is storing while the program ends; by number."""

    journal: StreamJournal
    reason: str
    deliveries: dict[int, Delivery]

    def stored(self, number: int) -> None:
        """See `MessageStream`."""
        for each in [each for each in self.deliveries if each <= number]:
            self.deliveries.pop(each).fail(self.reason, kept=True)

    def not_stored(self, error: JournalError) -> None:
        """See `MessageStream`."""
        for number in list(self.deliveries):
            delivery = self.deliveries.pop(number)
            self.journal.remove(number)
            delivery.fail(str(error))
