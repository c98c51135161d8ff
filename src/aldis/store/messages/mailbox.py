"""The messages that have arrived and wait for the application.

Rules: messages are handed over in the order of their arrival, each once. The mailbox says whether it has room; whoever
puts messages in asks first, so that a reader that is slow holds the senders back. With a journal, a message is handed
over when that has noted it; while it cannot, the message stays in the box (`try_again`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from aldis.errors import JournalError, StateError
from aldis.protocol.channel import Content
from aldis.store.journal.journal import MAX_READERS, Hands
from aldis.store.subscriptions import Callbacks


class QueuedMessage(msgspec.Struct, gc=False):
    """A message as it waits for the application: still in bytes, since JSON takes 20 times the room once it is read.
    `place`: where the journal has it."""

    sender: str
    device: str
    content: Content
    data: bytes
    sequence: int
    stream: str = ""
    place: int | None = None
    redelivered: bool = False


class Reader:
    """One iterator of the application. It has one message at a time, until it asks for the next."""

    __slots__ = ("__weakref__", "_mailbox", "slot")

    def __init__(self, mailbox: Mailbox) -> None:
        self.slot: int | None = None  # while it has a message that is in the journal
        self._mailbox = mailbox
        mailbox.joined()

    def __del__(self) -> None:
        self._mailbox.left_by(self.slot)


_CALLBACKS: Final = 0  # the reader for all callbacks


class Mailbox:
    """The messages that wait for the application, in the order of their arrival.

    While there are callbacks, messages go to them and not into the box.
    """

    def __init__(self, max_messages: int, max_size: int, *, on_room: Callable[[], None]) -> None:
        """`on_room` is called when there is room again after there was none."""
        self._max_messages = max_messages
        self._max_size = max_size
        self._on_room = on_room
        self._queued: deque[QueuedMessage] = deque()
        self._size = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._callbacks: Callbacks[QueuedMessage] = Callbacks()
        self._telling = False
        self._closed = False
        self._reserved = 0  # messages that the journal is storing; and their bytes
        self._reserved_size = 0
        self._hands: Hands | None = None
        self._stuck = False  # the journal cannot note who has which message
        self._free = list(range(MAX_READERS - 1, _CALLBACKS, -1))
        self._readers = 0  # how many iterators there are
        self._over: Callable[[], None] | None = None
        self._left: list[int] = []  # of iterators that are gone, and had a message

    def bind(self, hands: Hands, messages: Iterable[QueuedMessage]) -> None:
        """There is a journal: `messages` are in it, and were not handed over."""
        self._hands = hands
        found = list(messages)
        for message in found:
            self.reserve(len(message.data))
        self.put(*found)

    def joined(self) -> None:
        """There is one more iterator."""
        self._readers += 1

    def left_by(self, slot: int | None) -> None:
        """An iterator is gone. A message that it had counts as handed over when another one asks for the next."""
        self._readers -= 1
        if slot is not None:
            self._left.append(slot)
        self._look_whether_over()

    @property
    def is_over(self) -> bool:
        """Whether nobody reads any more what is left. After `close`."""
        done = not self._queued and len(self._free) + len(self._left) == MAX_READERS - 1
        return done or not self._readers

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call back when that is so."""
        self._over = callback

    def _look_whether_over(self) -> None:
        if self._over is not None and self.is_over:
            over, self._over = self._over, None
            over()

    @property
    def has_room(self) -> bool:
        """Whether `put` may be called."""
        if self._closed:
            return False
        full = (
            len(self._queued) + self._reserved >= self._max_messages
            or self._size + self._reserved_size >= self._max_size
        )
        return not full or (bool(self._callbacks) and not self._stuck)

    def reserve(self, size: int) -> None:
        """Keep room for a message of so many bytes, which will be put in later, when the journal has it."""
        self._reserved += 1
        self._reserved_size += size

    def put(self, *messages: QueuedMessage) -> None:
        """Take in messages; those that have a place in the journal were reserved before."""
        for message in messages:
            size = len(message.data)
            if message.place is not None:
                self._reserved -= 1
                self._reserved_size -= size
            self._queued.append(message)
            self._size += size
        self._tell()
        if self._queued:
            self._wake(len(messages))

    def on_message(self, callback: Callable[[QueuedMessage], None]) -> Callable[[], None]:
        """Hand messages to `callback` from now on, those in the box at once. Returns what ends it."""
        remove = self._callbacks.add(callback)
        self._tell()
        self._on_room()
        return remove

    def _tell(self) -> None:
        if self._telling:
            return  # from within a callback: the loop below goes on with it
        self._telling = True
        try:
            while self._queued and self._callbacks:
                if not self._noted(_CALLBACKS, self._queued[0].place):
                    break
                self._callbacks.tell(self._pop())
            if self._hands is not None:
                self._hands.release(_CALLBACKS)
        finally:
            self._telling = False

    def close(self) -> None:
        """Nothing more comes in; what is in the box can still be read."""
        self._closed = True
        self._wake(len(self._waiters))

    async def next(self, reader: Reader) -> QueuedMessage | None:
        """The next message; waits for one. None when the box is closed and empty.

        What the reader had is handed over.
        """
        self._release_left()
        while not (self._queued and self._may_have(reader, self._queued[0].place)):
            self._release(reader)
            if self._closed:
                self._look_whether_over()
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                # The call that woke us may be meant for the next in line now.
                elif waiter.done() and not waiter.cancelled() and self._queued:
                    self._wake(1)
                raise
        was_full = not self.has_room
        message = self._pop()
        if was_full:
            self._on_room()
        return message

    def _may_have(self, reader: Reader, place: int | None) -> bool:
        if self._hands is None:
            return True
        if place is None:
            self._release(reader)
            return True
        if reader.slot is None:
            if not self._free:
                raise StateError(f"{MAX_READERS - 1} iterators have a message of the journal; no more can")
            reader.slot = self._free.pop()
        return self._noted(reader.slot, place)

    def _noted(self, slot: int, place: int | None) -> bool:
        """Whether the journal knows that a reader has a message."""
        if self._hands is None or place is None:
            return True
        if not self._stuck:
            try:
                self._hands.give(slot, place)
            except JournalError:  # its `state.journal_error` says why
                self._stuck = True
        return not self._stuck

    def try_again(self) -> None:
        """The journal works again."""
        if self._stuck:
            self._stuck = False
            self._tell()
            self._wake(len(self._queued))
            self._on_room()

    def _release(self, reader: Reader) -> None:
        if reader.slot is not None:
            self._left.append(reader.slot)
            reader.slot = None
            self._release_left()

    def _release_left(self) -> None:
        while self._left and self._hands is not None:
            slot = self._left.pop()
            self._hands.release(slot)
            self._free.append(slot)

    def _pop(self) -> QueuedMessage:
        message = self._queued.popleft()
        self._size -= len(message.data)
        return message

    def _wake(self, count: int) -> None:
        while count and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1
