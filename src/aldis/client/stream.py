"""Events for `async for`, instead of a callback."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Final

from aldis.client.events import AnswerReceived, OfferReceived, SignalingEvent
from aldis.errors import StateError

# A reader that is this far behind does not read at all.
LIMIT: Final = 1000
# Bytes of the descriptions in the events that wait; everything else in an event is short. An offer has some KiB, so a
# reader reaches the other limit first, unless a server or peer makes descriptions as long as it can.
BYTES: Final = 16 * 1024 * 1024


class EventStream:
    """An async iterator over all events since its creation; it ends after `Closed`.

    It never holds more than `limit` events, or more than `size` bytes of descriptions in them. When its reader falls
    further behind, it drops all waiting events, raises `StateError` once, and ends. Silently leaving out some events
    would be worse.
    """

    def __init__(self, limit: int = LIMIT, size: int = BYTES) -> None:
        self._limit = limit
        self._size = self._room = size
        self._events: deque[SignalingEvent] = deque()
        self._ended = False
        self._overrun = False
        self._changed = asyncio.Event()

    def put(self, event: SignalingEvent) -> None:
        """Add an event; does nothing after the end."""
        if self._ended:
            return
        self._room -= _size(event)
        if len(self._events) >= self._limit or self._room < 0:
            self._events.clear()
            self._overrun = self._ended = True
        else:
            self._events.append(event)
        self._changed.set()

    def end(self) -> None:
        """End the iteration."""
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> SignalingEvent:
        while not self._events:
            if self._overrun:
                self._overrun = False
                raise StateError(
                    f"the events were not read fast enough: more than {self._limit} of them, "
                    f"or of {self._size} bytes, waited"
                )
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        event = self._events.popleft()
        self._room += _size(event)
        return event


def _size(event: SignalingEvent) -> int:
    """The memory for the long part of an event, in bytes."""
    return sys.getsizeof(event.description.sdp) if isinstance(event, OfferReceived | AnswerReceived) else 0
