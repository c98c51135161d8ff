"""Events for those who prefer `async for` to a callback."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from aldis.client.events import SignalingEvent
from aldis.errors import StateError

# A reader that is this far behind does not read. Each event holds at most one message of the server.
LIMIT: Final = 1000


class EventStream:
    """An async iterator over events from the moment it was made; it ends after `Closed`.

    It never holds more than `limit` events. When its reader falls further behind, leaving out some of them silently
    would be worse than stopping: what is kept is dropped, and the reader gets `StateError` once; then it ends.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._events: deque[SignalingEvent] = deque()
        self._ended = False
        self._overrun = False
        self._changed = asyncio.Event()

    def put(self, event: SignalingEvent) -> None:
        """Add an event; nothing happens after the end."""
        if self._ended:
            return
        if len(self._events) >= self._limit:
            self._events.clear()
            self._overrun = self._ended = True
        else:
            self._events.append(event)
        self._changed.set()

    def end(self) -> None:
        """There will be no more."""
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> SignalingEvent:
        while not self._events:
            if self._overrun:
                self._overrun = False
                raise StateError(f"the events were not read fast enough: more than {self._limit} of them waited")
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()
