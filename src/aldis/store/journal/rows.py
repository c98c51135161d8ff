"""What a journal keeps, as rows, and a set of changes to it.

Rules of this module:

* `Changes` says how rows are to be, not what to do with them. So two sets of changes make one (`add`), and the same set
  may be written again after a fault.
* A *queue* has what waits for one device of a user. It has a number of its own: a stream that begins anew, or a queue
  that was moved to another device, is another queue, and no row of the old one can be taken for one of the new.
* A *place* counts the messages that have arrived, over all peers, in the order in which the application gets them.

Rows that are made for each message are structs: a frozen dataclass takes seven times as long to make.

Pure: no I/O. It does not know where the rows are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from aldis.protocol.channel import Content

# The most that a file keeps: a queue's number and that of a message in it make one row's number of 63 bits. At 30,000
# messages a second, those of one queue last for more than a year. The numbers of queues are used again.
NUMBER_BITS: Final = 40
MAX_NUMBER: Final = (1 << NUMBER_BITS) - 1
MAX_QUEUE: Final = (1 << 63 - NUMBER_BITS) - 1


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose journal it is. `server` is the host and port of the server's URL, as pins have it."""

    server: str
    user_id: str
    device: str

    def __str__(self) -> str:
        return f"{self.user_id}/{self.device} at {self.server}"


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device of a peer; `device` is None until it is known which one will get what waits for the user. `stream` is
    the name of our stream to it, in which everything up to `acknowledged` has arrived. No message behind number `sent`
    was sent; None: all of them may have been. Control messages, which have no rows, may have had numbers up to
    `reserved`."""

    id: int
    user_id: str
    device: str | None
    queue: int
    stream: str
    acknowledged: int = 0
    sent: int | None = None
    reserved: int = 0


class QueuedRow(msgspec.Struct, frozen=True, gc=False):
    """A message that waits for a device. `queued_at` in seconds since 1970. `movable`: it is for the user, so another
    device of the user may get it."""

    queue: int
    number: int
    content: Content
    data: bytes
    queued_at: float
    movable: bool


class PositionRow(msgspec.Struct, frozen=True, gc=False):
    """How far a stream of a device has arrived, at all times the newest at `place`."""

    device: int
    stream: str
    sequence: int
    place: int


class ArrivedRow(msgspec.Struct, frozen=True, gc=False):
    """A message that has arrived, and was not handed over. `sender` and `device` are names."""

    place: int
    sender: str
    device: str
    stream: str
    sequence: int
    content: Content
    data: bytes


@dataclass(frozen=True, slots=True)
class HandedOver:
    """All places up to `given` were given to the application. Those `in_hands` it still works on; the others were
    handed over."""

    given: int = 0
    in_hands: frozenset[int] = frozenset()

    def covers(self, place: int) -> bool:
        """Whether the message was handed over."""
        return place <= self.given and place not in self.in_hands


@dataclass(slots=True)
class Contents:
    """All that is in a journal. `redelivered`: the places of what the application had, and did not hand over.
    `rolled_back`: the journal was put back to an earlier state since it was last open, as when a backup is restored."""

    owner: Owner | None = None
    devices: dict[int, DeviceRow] = field(default_factory=dict)
    queued: dict[tuple[int, int], QueuedRow] = field(default_factory=dict)
    positions: dict[tuple[int, str], PositionRow] = field(default_factory=dict)
    arrived: dict[int, ArrivedRow] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    redelivered: set[int] = field(default_factory=set)
    rolled_back: bool = False

    @property
    def last_place(self) -> int:
        """The highest place that was ever used, as far as the rows tell."""
        return max([0, *self.arrived, *(position.place for position in self.positions.values())])

    def apply(self, changes: Changes) -> None:
        """Make the changes."""
        self.owner = changes.owner or self.owner
        for queue in changes.dropped:
            for key in [key for key in self.queued if key[0] == queue]:
                del self.queued[key]
        for number, device in changes.devices.items():
            if device is None:
                self.devices.pop(number, None)
                for position in [key for key in self.positions if key[0] == number]:
                    del self.positions[position]
            else:
                self.devices[number] = device
        by_queue = {device.queue: device for device in self.devices.values()}
        for queue, acknowledged in changes.acknowledged.items():
            for key in [key for key in self.queued if key[0] == queue and key[1] <= acknowledged]:
                del self.queued[key]
            if queue in by_queue:
                device = by_queue[queue]
                self.devices[device.id] = replace(device, acknowledged=acknowledged)
        for key, row in changes.queued.items():
            if row is None:
                self.queued.pop(key, None)
            else:
                self.queued[key] = row
        self.arrived.update(changes.arrived)
        for stream, reached in changes.positions.items():
            if reached is None:
                self.positions.pop(stream, None)
            else:
                self.positions[stream] = reached
        if changes.handed_over is not None:
            for place in [place for place in self.arrived if changes.handed_over.covers(place)]:
                del self.arrived[place]
                self.redelivered.discard(place)
        for name, value in changes.files.items():
            if value is None:
                self.files.pop(name, None)
            else:
                self.files[name] = value


@dataclass(slots=True)
class Changes:
    """Changes that are made together or not at all. None as a row: there is none any more."""

    owner: Owner | None = None
    dropped: set[int] = field(default_factory=set)  # queues
    devices: dict[int, DeviceRow | None] = field(default_factory=dict)
    acknowledged: dict[int, int] = field(default_factory=dict)  # by queue
    queued: dict[tuple[int, int], QueuedRow | None] = field(default_factory=dict)
    arrived: dict[int, ArrivedRow] = field(default_factory=dict)
    positions: dict[tuple[int, str], PositionRow | None] = field(default_factory=dict)
    handed_over: HandedOver | None = None
    files: dict[str, bytes | None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(
            self.owner
            or self.dropped
            or self.devices
            or self.acknowledged
            or self.queued
            or self.arrived
            or self.positions
            or self.handed_over
            or self.files
        )

    def add(self, later: Changes) -> None:
        """Make these changes as well, after the others."""
        if later.dropped:
            self.queued = {key: row for key, row in self.queued.items() if key[0] not in later.dropped}
            self.acknowledged = {queue: n for queue, n in self.acknowledged.items() if queue not in later.dropped}
        if gone := {number for number, device in later.devices.items() if device is None}:
            self.positions = {key: row for key, row in self.positions.items() if key[0] not in gone}
        self.owner = later.owner or self.owner
        self.dropped |= later.dropped
        self.devices |= later.devices
        self.acknowledged |= later.acknowledged
        self.queued |= later.queued
        self.arrived |= later.arrived
        self.positions |= later.positions
        self.handed_over = later.handed_over or self.handed_over
        self.files |= later.files
