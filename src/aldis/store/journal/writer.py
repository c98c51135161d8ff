"""The journal as a store uses it, on its event loop.

Rules of this module:

* The event loop never waits for a disk. What is to be kept is collected, and written by a thread, one set of changes at
  a time. While it writes, the next set grows: that is the group commit.
* What belongs together is said within one turn of the loop, and is written together or not at all.
* When a write fails, the messages that were never stored fail (`MessageStream.not_stored`). All else is kept and tried
  again: at once when there is a new message, else every `RETRY_SECONDS`. Until a write succeeds, `error` says why not.
* A message that has arrived is not handed over while `hands` cannot note that.
* One writer, one owner, one login: a store is bound to it when it first connects.

It does not know what a message means, nor when it is sent.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from aldis.errors import JournalCorrupt, JournalError, JournalForeign, JournalFull
from aldis.protocol.channel import Content, StreamPosition
from aldis.store.journal.device import Batch, DeviceJournal, JournaledStream
from aldis.store.journal.files import JournalFiles
from aldis.store.journal.idle import IdleDevices
from aldis.store.journal.journal import Journal
from aldis.store.journal.rows import MAX_QUEUE, Changes, Contents, DeviceRow, HandedOver, Owner, PositionRow, QueuedRow
from aldis.store.messages.inbox import MAX_STREAMS
from aldis.store.messages.mailbox import QueuedMessage
from aldis.store.messages.outbox import VOID
from aldis.store.messages.stored import StoredMessage, StoredStream

_log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 2.0
# What was handed over is deleted together with the next changes, or after so many seconds.
_TIDY_SECONDS: Final = 1.0
# Numbers of a queue that have no message, when a journal is loaded: each takes some 100 bytes. Control messages leave a
# few hundred, messages that have moved to another device so many at most; a damaged number leaves any.
MAX_VOIDS: Final = 2**20
_STREAM_BYTES: Final = 16


def new_stream() -> str:
    """A random name for a stream."""
    return secrets.token_urlsafe(_STREAM_BYTES)


class JournalLimits(Protocol):
    """A `state.StoreLimits`."""

    @property
    def journal_messages(self) -> int: ...
    @property
    def journal_size(self) -> int: ...


class JournalWriter:
    """See the module."""

    def __init__(
        self,
        journal: Journal,
        limits: JournalLimits,
        *,
        on_error: Callable[[], None],
        thread: Executor | None = None,
    ) -> None:
        """Open the journal. Raises `JournalError`. `on_error` is called when `error` has changed. `thread` runs one
        call at a time; its own when None."""
        journal.open()
        self.run = new_stream()
        self.error: JournalError | None = None
        self.pending = Batch()
        self.files = JournalFiles(self)
        self._hands = journal.hands
        self._journal = journal
        self._limits = limits
        self._on_error = on_error
        self._owner: Owner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="aldis-journal")
        self._writing: Batch | None = None
        self._scheduled: asyncio.Handle | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._tidying: asyncio.TimerHandle | None = None
        self._flushed: list[asyncio.Future[None]] = []
        self._hands_fail = False
        self._failing = False  # in the midst of telling that
        self._due = False  # something in `pending` has to be written soon
        self._idle = IdleDevices()
        self._streams: dict[JournaledStream, DeviceJournal] = {}
        self._place = 0
        self._number = 0  # the last one that was given to a device or a queue
        self._last_free = MAX_QUEUE  # the numbers between are free
        self._messages = 0
        self._size = 0
        self._told_given = 0
        self._closed = False

    @property
    def name(self) -> str:
        """The journal's, for people."""
        return self._journal.name

    # --- opening ----------------------------------------------------------------------------------------------------

    @property
    def bound(self) -> bool:
        """Whether it is known whose it is, and what was in it is loaded."""
        return self._loop is not None

    def check_owner(self, owner: Owner) -> None:
        """Raise `JournalForeign` unless it is theirs."""
        if self._owner is not None and owner != self._owner:
            raise JournalForeign(self.name, f"belongs to {self._owner}, not to {owner}")

    async def bind(self, owner: Owner) -> list[QueuedMessage]:
        """Load what is in it; return what has arrived and was not handed over. Raises `JournalError`."""
        self.check_owner(owner)
        loop = asyncio.get_running_loop()
        contents = await loop.run_in_executor(self._thread, self._journal.load)
        if contents.owner is not None and contents.owner != owner:
            raise JournalForeign(self.name, f"belongs to {contents.owner}, not to {owner}")
        queues = _by_queue(contents)
        self._check_numbers(contents, queues)
        self._loop = loop
        self._owner = owner
        self._told_given = self._hands.handed_over.given
        self._place = max(contents.last_place, self._told_given)
        numbers = [each for device in contents.devices.values() for each in (device.id, device.queue)]
        self._number = max([0, *numbers, *(queue for queue, _ in contents.queued)])
        self._load_devices(contents, queues)
        self.files.load(contents.files)
        if contents.owner is None:
            self.pending.changes.owner = owner
        self.changed()
        return [
            QueuedMessage(
                row.sender,
                row.device,
                row.content,
                row.data,
                row.sequence,
                stream=row.stream,
                place=place,
                redelivered=place in contents.redelivered,
            )
            for place, row in sorted(contents.arrived.items())
        ]

    def _check_numbers(self, contents: Contents, queues: dict[int, list[QueuedRow]]) -> None:
        for device in contents.devices.values():
            used = _last_used(device, queues)
            if used - device.acknowledged - len(queues.get(device.queue, [])) > MAX_VOIDS:
                raise JournalCorrupt(self.name, f"is damaged: numbers of {device.user_id} are missing up to {used}")

    def _load_devices(self, contents: Contents, queues: dict[int, list[QueuedRow]]) -> None:
        positions: dict[int, list[PositionRow]] = {}
        for position in sorted(contents.positions.values(), key=lambda each: each.place):
            if position.device in contents.devices:
                positions.setdefault(position.device, []).append(position)
            else:  # a device that gets its number must not get this
                self.pending.changes.positions[position.device, position.stream] = None
        newest = {number: each[-1].place for number, each in positions.items()}
        for device in sorted(contents.devices.values(), key=lambda each: newest.get(each.id, 0)):
            known = positions.get(device.id, [])
            for old in known[:-MAX_STREAMS]:
                self.pending.changes.positions[device.id, old.stream] = None
            used = _last_used(device, queues)
            rows = [row for row in queues.pop(device.queue, []) if row.content is not Content.CONTROL]
            if not rows and used > device.acknowledged:
                # Nothing is left that the peer has to get. From the next HELLO on, all of it counts as received.
                device = replace(device, acknowledged=used)
                self.pending.changes.acknowledged[device.queue] = used
            stored = StoredStream(
                device.stream,
                device.acknowledged,
                _messages(device, rows, used),
                tuple(StreamPosition(each.stream, each.sequence) for each in known[-MAX_STREAMS:]),
                contents.rolled_back,
                sent=device.sent,
            )
            self._keep_idle(device, stored)
        self.pending.changes.dropped |= set(queues)  # of no device

    # --- the devices ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> list[tuple[str, str | None]]:
        """The users and devices, not in use yet, for whom the application's messages wait."""
        return self._idle.waiting

    def _keep_idle(self, row: DeviceRow, stored: StoredStream) -> None:
        for forgotten in self._idle.keep(row, stored):
            self.pending.changes.add(Changes(devices={forgotten.id: None}, dropped={forgotten.queue}))
            self.changed()

    def attach(self, stream: JournaledStream, user_id: str, device: str | None) -> None:
        """Keep the stream of a device from now on; what the journal has of the device goes into it."""
        found = self._idle.take(user_id, device)
        if found is None:
            row = DeviceRow(self.next_number(), user_id, device, self.next_number(), new_stream())
            stored = StoredStream(row.stream, fresh=True)
        else:
            row, stored = found
        journal = self._streams[stream] = DeviceJournal(
            self, row, stream, kept=found is not None, positions=stored.positions
        )
        numbered = enumerate(stored.messages, stored.acknowledged + 1)
        journal.count([_row(row, number, message) for number, message in numbered])
        stream.bind(journal, stored, new_stream)

    def name_device(self, stream: JournaledStream, user_id: str, device: str) -> None:
        """It is known now which device a stream belongs to: one that the journal knows, perhaps."""
        journal = self._streams.get(stream)
        if journal is None:
            return
        if (user_id, device) in self._idle:
            journal.forget()
            self.attach(stream, user_id, device)
        else:
            journal.rename(device)

    def detach(self, stream: JournaledStream) -> None:
        """The store forgets a device that is idle; the journal does not."""
        journal = self._streams.pop(stream, None)
        if journal is None:
            return
        stored = stream.unbind()
        if journal.known:
            self._keep_idle(journal.certain_row, stored)

    # --- changes ----------------------------------------------------------------------------------------------------

    def check_room(self, user_id: str, size: int) -> None:
        """Raise `JournalFull` when there is no room for one more message."""
        limits = self._limits
        full = self._messages >= limits.journal_messages or self._size + size > limits.journal_size
        if self._messages and full:
            raise JournalFull(user_id, self._messages, self._size)

    def count(self, messages: int, size: int) -> None:
        """So many more messages of the application wait."""
        self._messages += messages
        self._size += size

    def next_place(self) -> int:
        """A place for a message that has arrived."""
        self._place += 1
        return self._place

    def next_number(self) -> int:
        """A number for a device, or a queue, that none has."""
        self._number += 1
        if self._number > self._last_free:
            self._find_free_numbers()
        return self._number

    def _find_free_numbers(self) -> None:
        """All numbers up to `MAX_QUEUE` were used: each device of a stranger takes two. Use those again that are free,
        beginning where most are free in a row."""
        used = {0, MAX_QUEUE + 1}
        rows = [*self._idle] + [device.row for device in self._streams.values()]
        for row in rows:
            used |= {row.id, row.queue}
        for batch in self._batches:
            changes = batch.changes  # what they take away is not free before it is gone
            used |= changes.devices.keys() | changes.dropped | changes.acknowledged.keys()
            used |= {key[0] for key in (*changes.queued, *changes.positions)}
        gaps = itertools.pairwise(sorted(each for each in used if each <= MAX_QUEUE + 1))
        before, after = max(gaps, key=lambda gap: gap[1] - gap[0])
        self._number, self._last_free = before + 1, after - 1

    def removed(self, device: DeviceJournal, number: int) -> None:
        """A message is not in its queue any more; another one may get its number."""
        self.pending.changes.queued[device.row.queue, number] = None
        for batch in self._batches:
            batch.not_beyond(device, number - 1)
        self.changed()

    def dropped(self, device: DeviceJournal, queue: int) -> None:
        """A queue is given up as a whole."""
        for batch in self._batches:
            batch.stored.pop(device, None)
            batch.reserved.pop(device, None)
        changes = self.pending.changes
        for key in [key for key in changes.queued if key[0] == queue]:
            del changes.queued[key]
        changes.acknowledged.pop(queue, None)
        changes.dropped.add(queue)

    def held(self, device: DeviceJournal) -> None:
        """What it was told of `release` does not hold any more."""
        for batch in self._batches:
            batch.free.discard(device)

    def batch_before(self, device: DeviceJournal, reserved: int) -> Batch | None:
        """What has to be written before the next message of a device may be sent: the messages before it and, unless
        that is 0, the reservation of the number `reserved`. None when the journal has all of it."""
        pending, writing = self.pending, self._writing
        if device in pending.stored:
            return pending
        if writing is not None and (device in writing.stored or writing.reserved.get(device, 0) >= reserved > 0):
            return writing if writing.reserved.get(device, 0) >= reserved else pending
        return pending if reserved else None

    @property
    def _batches(self) -> list[Batch]:
        return [self.pending] if self._writing is None else [self.pending, self._writing]

    def changed(self, *, urgent: bool = False) -> None:
        """Something is in `pending`. It is written after this turn of the loop, or when the thread is free; after a
        fault later, unless it is `urgent`."""
        self._due = True
        if self._loop is None or self._scheduled is not None or self._writing is not None or self._failing:
            return
        if self.error is not None and not urgent:
            self._retry_later()
        else:
            self._scheduled = self._loop.call_soon(self._write)

    def give(self, reader: int, place: int) -> None:
        """As `journal.Hands`; what was handed over is deleted soon."""
        try:
            self._hands.give(reader, place)
        except JournalError as error:
            self._hands_fail = True
            self._set_error(error)
            self._retry_later()
            raise
        if self._loop is None or self._tidying is not None or self._closed:
            return
        self._tidying = self._loop.call_later(_TIDY_SECONDS, self._tidy)

    def release(self, reader: int) -> None:
        """As `journal.Hands`."""
        self._hands.release(reader)

    def check(self) -> None:
        """As `journal.Hands`."""
        self._hands.check()

    @property
    def handed_over(self) -> HandedOver:
        """As `journal.Hands`."""
        return self._hands.handed_over

    def _tidy(self) -> None:
        self._tidying = None
        if self._note_handed_over():
            self.changed()

    def _note_handed_over(self) -> bool:
        handed_over = self._hands.handed_over
        if handed_over.given <= self._told_given:
            return False
        self._told_given = handed_over.given
        self.pending.changes.handed_over = handed_over
        return True

    def _write(self, *, probe: bool = False) -> None:
        """Write what is pending; with `probe` also when nothing is, to see whether the disk works again."""
        self._scheduled = None
        if self._writing is not None:
            return
        self._due = False
        self._note_handed_over()
        if self.error is not None and (probe or self.pending.changes):
            # SQLite writes nothing when it deletes what is not there. That would look like a disk that works.
            self.pending.changes.owner = self._owner
        if not self.pending.changes:
            self._told_flushed()
            return
        self._writing, self.pending = self.pending, Batch()
        loop = self._loop
        future = self._thread.submit(self._journal.write, self._writing.changes)

        def done(future: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                if loop is not None:
                    loop.call_soon_threadsafe(self._written, future.exception())

        future.add_done_callback(done)

    def _written(self, error: BaseException | None) -> None:
        batch, self._writing = self._writing, None
        if batch is None:
            return
        if error is not None:
            self._failed(batch, error)
            return
        self._check_hands()
        if not self._hands_fail:
            self._set_error(None)
        if self._due or self._flushed:
            self._write()  # first: the thread works on while the others are told
        for device in batch.free:
            device.stream.free()
        for device, number in batch.reserved.items():
            device.reserved(number)
        for device, number in batch.stored.items():
            device.stream.stored(number)
        for device, places in batch.kept.items():
            device.stream.kept(places)
        if self._writing is None:
            self._told_flushed()

    def _failed(self, batch: Batch, error: BaseException) -> None:
        if not isinstance(error, JournalError):
            _log.error("the journal has a fault", exc_info=error)
            error = JournalError(self.name, f"cannot be used: {error}")
        batch.add(self.pending)
        self.pending = batch
        self._set_error(error)
        self._failing = True
        try:
            for device in list(batch.stored):
                device.stream.not_stored(error)
        finally:
            self._failing = False
        self._told_flushed(error)
        self._retry_later()

    def _retry_later(self) -> None:
        if self._retry is None and self._loop is not None and not self._closed:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._check_hands()
        if self._hands_fail:
            self._retry_later()
        self._write(probe=not self._hands_fail)

    def _check_hands(self) -> None:
        if self._hands_fail:
            with suppress(JournalError):
                self.check()
                self._hands_fail = False

    def _set_error(self, error: JournalError | None) -> None:
        before, self.error = self.error, error
        if type(error) is not type(before):
            if error is not None:
                _log.error("%s; new messages fail, and what arrives is not acknowledged", error)
            else:
                _log.warning("the journal %s works again", self.name)
            self._on_error()

    # --- the end ----------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return when all that was said so far is written. Raises `JournalError`."""
        if self._loop is None:
            return
        done = self._loop.create_future()
        self._flushed.append(done)
        if self._writing is None:
            self._write()
        await done

    def _told_flushed(self, error: JournalError | None = None) -> None:
        flushed, self._flushed = self._flushed, []
        for each in flushed:
            if each.done():
                continue
            if error is None:
                each.set_result(None)
            else:
                each.set_exception(error)

    async def close(self) -> None:
        """Write what is left, and let go of the journal. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.flush()
        except JournalError as error:
            _log.warning("%s; what was not stored is lost", error)
        for timer in (self._retry, self._tidying, self._scheduled):
            if timer is not None:
                timer.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._journal.close)
        self._thread.shutdown(wait=False)


def _by_queue(contents: Contents) -> dict[int, list[QueuedRow]]:
    queues: dict[int, list[QueuedRow]] = {}
    for (queue, _), row in sorted(contents.queued.items()):
        queues.setdefault(queue, []).append(row)
    return queues


def _last_used(device: DeviceRow, queues: dict[int, list[QueuedRow]]) -> int:
    """The highest number that a message to a device may have had."""
    return max([device.acknowledged, device.reserved, *(row.number for row in queues.get(device.queue, []))])


def _messages(device: DeviceRow, rows: list[QueuedRow], last: int) -> tuple[StoredMessage, ...]:
    """What waits, without gaps up to `last`. A number that is missing is a void: its message was a control message, or
    was never accepted."""
    by_number = {row.number: row for row in rows}
    void = StoredMessage(Content.CONTROL, VOID, 0.0, movable=False)
    return tuple(
        StoredMessage(row.content, row.data, row.queued_at, row.movable) if row is not None else void
        for row in (by_number.get(number) for number in range(device.acknowledged + 1, last + 1))
    )


def _row(device: DeviceRow, number: int, message: StoredMessage) -> QueuedRow:
    return QueuedRow(device.queue, number, message.content, message.data, message.queued_at, message.movable)
