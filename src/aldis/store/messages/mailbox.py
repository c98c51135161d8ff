"""The messages that have arrived and wait for the application.

Rules: messages are handed over in the order of their arrival, each once. The mailbox says whether it has room; whoever
puts messages in asks first, so that a reader that is slow holds the senders back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aldis.protocol.channel import Content
from aldis.store.subscriptions import Callbacks


class QueuedMessage:
    """A message as it waits for the application: still in bytes, since JSON takes 20 times the room once it is read."""

    __slots__ = ("content", "data", "device", "sender", "sequence")

    def __init__(self, sender: str, device: str, content: Content, data: bytes, sequence: int) -> None:
        self.sender = sender
        self.device = device
        self.content = content
        self.data = data
        self.sequence = sequence


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

    @property
    def has_room(self) -> bool:
        """Whether `put` may be called."""
        if self._closed:
            return False
        full = len(self._queued) >= self._max_messages or self._size >= self._max_size
        return not full or bool(self._callbacks)

    def put(self, message: QueuedMessage) -> None:
        """Take in a message."""
        self._queued.append(message)
        self._size += len(message.data)
        self._tell()
        if self._queued:
            self._wake(1)

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
                self._callbacks.tell(self._pop())
        finally:
            self._telling = False

    def close(self) -> None:
        """Nothing more comes in; what is in the box can still be read."""
        self._closed = True
        self._wake(len(self._waiters))

    async def next(self) -> QueuedMessage | None:
        """The next message; waits for one. None when the box is closed and empty."""
        while not self._queued:
            if self._closed:
                return None
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # The call that woke us may be meant for the next in line now.
                if waiter.done() and not waiter.cancelled() and self._queued:
                    self._wake(1)
                raise
        was_full = not self.has_room
        message = self._pop()
        if was_full:
            self._on_room()
        return message

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
