"""Another attempt to connect, which ends early when the network changes.

An attempt that began before the network changed may succeed only long after: a kernel repeats the first packet ever
more seldom. So the client begins a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

from aldis.errors import ServerUnreachable

# Seconds for the TCP connection. The first packet and one repetition fit.
TCP_SECONDS: Final = 2.5
# Seconds. An attempt that is older was made in the network as it was before.
FRESH_SECONDS: Final = 0.5


class Redialling:
    """The attempts of one client after its first, one at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._attempt: asyncio.Task[None] | None = None
        self._since = 0.0

    async def attempt(self, dial: Callable[[float], Coroutine[object, object, None]]) -> None:
        """Run `dial` with the seconds for the TCP connection. Raises `ServerUnreachable` when the network changes, and
        what `dial` raises."""
        loop = asyncio.get_running_loop()
        attempt = self._attempt = loop.create_task(dial(TCP_SECONDS))
        self._since = loop.time()
        try:
            await attempt
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not attempt.cancelled() or (task is not None and task.cancelling()):
                raise
            raise ServerUnreachable(self._url, "tried anew, as the network may have changed") from None
        finally:
            self._attempt = None

    def network_changed(self) -> None:
        """End the attempt under way, unless it is fresh."""
        if self._attempt is not None and asyncio.get_running_loop().time() - self._since >= FRESH_SECONDS:
            self._attempt.cancel()
