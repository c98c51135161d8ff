"""What is to be done for new connections, and in which order.

Rules:

* The addresses take turns, one connection each. So a thousand connections from one address keep nobody from another
  address waiting for longer than one of them takes.
* All of it happens within the slices of `server.scheduler`, beside the turns of open connections.
* Behind a proxy that does not tell of its clients before their request, these share the turns of the proxy.

Pure: it knows no socket and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from aldis.server.scheduler import FairScheduler


class Arrivals:
    """The work that waits for its turn, by address."""

    def __init__(self, scheduler: FairScheduler) -> None:
        self._scheduler = scheduler
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        """How much work waits."""
        return sum(map(len, self._queues.values()))

    def add(self, address: str, work: Callable[[], object]) -> None:
        """Do this when it is the turn of the address. `work` raises nothing."""
        waiting = self._queues.get(address)
        if waiting is not None:
            waiting.work.append(work)
            return
        self._queues[address] = waiting = _Queue(self._queues, address)
        waiting.work.append(work)
        self._scheduler.arrive(waiting)

    def charge(self, seconds: float) -> None:
        """See `FairScheduler.charge`."""
        self._scheduler.charge(seconds)


class _Queue:
    """The work for one address."""

    __slots__ = ("_address", "_queues", "work")

    def __init__(self, queues: dict[str, _Queue], address: str) -> None:
        self._queues = queues
        self._address = address
        self.work: deque[Callable[[], object]] = deque()

    def __len__(self) -> int:
        return len(self.work)

    def run(self, units: int, now: float) -> float | None:
        """Do one piece of work, which is about as much as a connection may do in its turn."""
        self.work.popleft()()
        if self.work:
            return now
        del self._queues[self._address]
        return None
