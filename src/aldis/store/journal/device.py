"""What the journal keeps of one device: its queue, and how far its streams have arrived.

It says what is to be written, in the writer's next batch, and counts what that takes. It does not know when it is
written, nor what a message means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from aldis.errors import JournalError
from aldis.protocol.channel import Content, StreamPosition
from aldis.store.journal.rows import ArrivedRow, Changes, DeviceRow, PositionRow, QueuedRow
from aldis.store.messages.inbox import MAX_STREAMS, Arrived
from aldis.store.messages.stored import StoredStream, StreamJournal

# How many numbers of a stream are reserved at a time for control messages, which have no rows: 256 pieces are 16 MiB of
# a file. As many voids may be sent after a restart. The next are reserved when half are used, so that no piece waits.
RESERVED: Final = 256


class JournaledStream(Protocol):
    """What is kept: a `messages.stream.MessageStream`."""

    def bind(self, journal: StreamJournal, stored: StoredStream, new_stream: Callable[[], str]) -> None:
        """From now on the journal keeps this stream."""

    def unbind(self) -> StoredStream:
        """The journal does not keep it any more; return what it has to know."""

    def stored(self, number: int) -> None:
        """The journal has all messages up to `number`."""

    def not_stored(self, error: JournalError) -> None:
        """The journal cannot take what it was given."""

    def kept(self, places: Sequence[int]) -> None:
        """The journal has the next messages that have arrived."""

    def free(self) -> None:
        """The journal knows that all messages may be sent."""


@dataclass(slots=True)
class Batch:
    """Changes that are written together, and who wants to know."""

    changes: Changes = field(default_factory=Changes)
    stored: dict[DeviceJournal, int] = field(default_factory=dict)
    kept: dict[DeviceJournal, list[int]] = field(default_factory=dict)
    reserved: dict[DeviceJournal, int] = field(default_factory=dict)
    free: set[DeviceJournal] = field(default_factory=set)

    def add(self, later: Batch) -> None:
        self.changes.add(later.changes)
        self.stored |= later.stored
        self.reserved |= later.reserved
        self.free |= later.free
        for device, places in later.kept.items():
            self.kept.setdefault(device, []).extend(places)

    def not_beyond(self, device: DeviceJournal, number: int) -> None:
        if self.stored.get(device, 0) > number:
            self.stored[device] = number


class DeviceWriter(Protocol):
    """The journal's writer."""

    run: str
    pending: Batch

    def changed(self, *, urgent: bool = False) -> None:
        """Something is in `pending`."""

    def check_room(self, user_id: str, size: int) -> None:
        """Raise `JournalFull` when there is no room for one more message."""

    def count(self, messages: int, size: int) -> None:
        """So many more messages of the application wait."""

    def next_place(self) -> int:
        """A place for a message that has arrived."""

    def next_number(self) -> int:
        """A number for a device, or a queue, that none has."""

    def removed(self, device: DeviceJournal, number: int) -> None:
        """A message is not in its queue any more; another one may get its number."""

    def dropped(self, device: DeviceJournal, queue: int) -> None:
        """A queue is given up as a whole."""

    def held(self, device: DeviceJournal) -> None:
        """What it was told of `release` does not hold any more."""

    def batch_before(self, device: DeviceJournal, reserved: int) -> Batch | None:
        """What has to be written before the next message of a device may be sent: the messages before it and, unless
        that is 0, the reservation of the number `reserved`. None when the journal has all of it."""


class DeviceJournal:
    """What the journal keeps of one device: its `StreamJournal`."""

    def __init__(
        self,
        writer: DeviceWriter,
        row: DeviceRow,
        stream: JournaledStream,
        *,
        kept: bool,
        positions: Sequence[StreamPosition] = (),
    ) -> None:
        """`positions`: of the device's streams, as the journal has them."""
        self.run = writer.run
        self.row = row
        self.stream = stream
        self._writer = writer
        self._kept = kept  # the journal has the row
        self._sizes: dict[int, int] = {}  # of the application's messages that wait
        self._positions = [position.stream for position in positions]  # streams with a row, the newest last
        self._reserved = row.reserved if kept else 0  # as far as the journal has it

    @property
    def known(self) -> bool:
        """Whether the journal has the row of the device, or is given it."""
        return self._kept

    def check_room(self, size: int) -> None:
        self._writer.check_room(self.row.user_id, size)

    def queue(self, number: int, content: Content, data: bytes, queued_at: float, movable: bool) -> None:
        self.keep()
        if number in self._sizes:
            self._forget_size(number)
        if content is not Content.CONTROL:
            self._sizes[number] = len(data)
            self._writer.count(1, len(data))
        batch = self._writer.pending
        queue = self.row.queue
        batch.changes.queued[queue, number] = QueuedRow(queue, number, content, data, queued_at, movable)
        if batch.stored.get(self, 0) < number:
            batch.stored[self] = number
        self._writer.changed(urgent=content is not Content.CONTROL)

    def control(self, number: int) -> bool:
        self.keep()
        if number > self.row.reserved - RESERVED // 2:
            self.row = replace(self.row, reserved=max(number, self.row.reserved) + RESERVED)
            batch = self._writer.pending
            batch.changes.devices[self.row.id] = self.row
            batch.reserved[self] = self.row.reserved
            self._writer.changed()
        waits_for = self._writer.batch_before(self, number if number > self._reserved else 0)
        if waits_for is not None:
            waits_for.stored[self] = number
        return waits_for is None

    @property
    def certain_row(self) -> DeviceRow:
        """The row, without a reservation that is not written yet."""
        return replace(self.row, reserved=min(self.row.reserved, self._reserved))

    def reserved(self, number: int) -> None:
        """The journal knows that numbers up to this one may be used."""
        self._reserved = number

    def remove(self, number: int) -> None:
        self._forget_size(number)
        self._writer.removed(self, number)

    def _forget_size(self, number: int) -> None:
        size = self._sizes.pop(number, None)
        if size is not None:
            self._writer.count(-1, -size)

    def acknowledge(self, number: int) -> None:
        if number <= self.row.acknowledged:
            return
        gone = [self._sizes.pop(each, None) for each in range(self.row.acknowledged + 1, number + 1)]
        sizes = [size for size in gone if size is not None]
        self._writer.count(-len(sizes), -sum(sizes))
        self.row = replace(self.row, acknowledged=number)
        changes = self._writer.pending.changes
        if self.row.id in changes.devices:
            changes.devices[self.row.id] = self.row
        changes.acknowledged[self.row.queue] = number
        if self._kept and sizes:  # else it is written with the next change
            self._writer.changed()

    def arrived(self, device: str, stream: str, message: Arrived) -> None:
        self.keep()
        place = self._writer.next_place()
        batch = self._writer.pending
        batch.changes.arrived[place] = ArrivedRow(
            place, self.row.user_id, device, stream, message.sequence, message.content, message.data
        )
        if self._positions[-1:] != [stream]:
            self._met(stream)
        batch.changes.positions[self.row.id, stream] = PositionRow(self.row.id, stream, message.sequence, place)
        batch.kept.setdefault(self, []).append(place)
        self._writer.changed(urgent=True)

    def _met(self, stream: str) -> None:
        """Another stream has come. The journal keeps the last few, as the inbox does."""
        self._positions = [*(each for each in self._positions if each != stream), stream]
        for old in self._positions[:-MAX_STREAMS]:
            self._writer.pending.changes.positions[self.row.id, old] = None
        self._positions = self._positions[-MAX_STREAMS:]

    def hold(self, sent: int) -> None:
        self._writer.held(self)
        self.row = replace(self.row, sent=sent)
        self._kept = False
        self.keep()

    def release(self) -> None:
        self.row = replace(self.row, sent=None)
        self._kept = False
        self.keep()
        self._writer.pending.free.add(self)

    def renew(self, stream: str) -> None:
        self._drop_queue()
        self._writer.held(self)
        number = self._writer.next_number()
        self.row = replace(self.row, queue=number, stream=stream, acknowledged=0, sent=None, reserved=0)
        self._reserved = 0
        self._kept = False
        self.keep()

    def _drop_queue(self) -> None:
        for number in list(self._sizes):
            self._forget_size(number)
        self._writer.dropped(self, self.row.queue)

    def keep(self) -> None:
        """See that the journal has the row of the device."""
        if not self._kept:
            self._kept = True
            self._writer.pending.changes.devices[self.row.id] = self.row
            self._writer.changed()

    def forget(self) -> None:
        """The journal need not know anything of the device."""
        self._drop_queue()
        self._writer.pending.changes.add(Changes(devices={self.row.id: None}))
        self._positions = []
        self._kept = False
        self._writer.changed()

    def rename(self, device: str) -> None:
        """It is known now which device it is."""
        self.row = replace(self.row, device=device)
        if self._kept:
            self._writer.pending.changes.devices[self.row.id] = self.row
            self._writer.changed()

    def count(self, queued: Sequence[QueuedRow]) -> None:
        """These wait already."""
        for row in queued:
            if row.content is not Content.CONTROL:
                self._sizes[row.number] = len(row.data)
                self._writer.count(1, len(row.data))
