"""How a store's state and messages reach the application: callbacks and iterators.

Rules of this module:

* A callback that raises is logged, and harms neither the store nor the other callbacks.
* State may be conflated, messages never: who iterates over states slowly sees the newest, who reads messages slowly
  holds the senders back.
* An iterator belongs to the loop of the store. Cancelling its `anext` loses nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from aldis.store.state import StoreState

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Callbacks(Generic[_T]):
    """The callbacks of the application for values of one kind."""

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[_T], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def add(self, callback: Callable[[_T], None]) -> Callable[[], None]:
        """Add a callback; the same one may be added twice. Returns what takes it away again, which may be repeated."""
        key = object()
        self._callbacks[key] = callback

        def remove() -> None:
            self._callbacks.pop(key, None)

        return remove

    def tell(self, value: _T) -> None:
        """Call all callbacks, in the order in which they were added."""
        for key, callback in list(self._callbacks.items()):
            if key in self._callbacks:  # another one may have taken it away
                call(callback, value)


def call(callback: Callable[[_T], None], value: _T) -> None:
    """Call a callback of the application; log what it raises."""
    try:
        callback(value)
    except Exception:  # noqa: BLE001 - whatever an application's callback raises is its own fault, and stays there
        _log.exception("the callback %r raised", callback)


class StateFeed:
    """The state, and who wants to know of it."""

    def __init__(self) -> None:
        self.current = StoreState()
        self.closed = False
        self._callbacks: Callbacks[StoreState] = Callbacks()
        self._untold: deque[StoreState] = deque()
        self._telling = False
        self._waiters: list[asyncio.Future[None]] = []

    def publish(self, state: StoreState) -> None:
        """Tell a new state; nothing happens when it equals the current one.

        A change that a callback sets off is told to all of them after the one that set it off.
        """
        if state == self.current:
            return
        self.current = state
        self._wake()
        self._untold.append(state)
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                self._callbacks.tell(self._untold.popleft())
        finally:
            self._telling = False

    def subscribe(self, callback: Callable[[StoreState], None]) -> Callable[[], None]:
        """Call back now and at each change, until what is returned is called."""
        unsubscribe = self._callbacks.add(callback)
        call(callback, self.current)
        return unsubscribe

    def close(self) -> None:
        """There will be no more: iterators end after the last state."""
        self.closed = True
        self._wake()

    async def changed(self) -> None:
        """Wait for the next change, or the end."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class States:
    """An iterator over the states: the current one first, then the newest whenever it has changed."""

    def __init__(self, feed: StateFeed) -> None:
        self._feed = feed
        self._seen: StoreState | None = None

    def __aiter__(self) -> States:
        return self

    async def __anext__(self) -> StoreState:
        while self._feed.current is self._seen:
            if self._feed.closed:
                raise StopAsyncIteration
            await self._feed.changed()
        self._seen = self._feed.current
        return self._seen
