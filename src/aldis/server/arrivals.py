"""What is to be done for new connections, and in which order.

Rules:

* The addresses take turns, one connection each. So a thousand connections from one address keep nobody from another
  address waiting for longer than one of them takes.
* The addresses of one customer of a provider (IPv6: a /48) are one address. Anybody has 2^64 of them, or more.
* All of it happens within the slices of `server.scheduler`, beside the turns of open connections.
* Behind a proxy that does not tell of its clients before their request, these share the turns of the proxy.

Pure: it knows no socket and no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from aldis.hub.networks import customer_of
from aldis.server.scheduler import FairScheduler


class Arrivals:
    """The work that waits for its turn, by address."""

    def __init__(self, scheduler: FairScheduler) -> None:
        self._scheduler = scheduler
        self._queues: dict[bytes | str, _Queue] = {}

    def __len__(self) -> int:
        """How much work waits."""
        return sum(map(len, self._queues.values()))

    def add(self, address: str, work: Callable[[], object]) -> None:
        """Do this when it is the turn of the address. `work` raises nothing."""
        who = customer_of(address) or address
        waiting = self._queues.get(who)
        if waiting is not None:
            waiting.work.append(work)
            return
        self._queues[who] = waiting = _Queue(self._queues, who)
        waiting.work.append(work)
        self._scheduler.arrive(waiting)

    def charge(self, seconds: float) -> None:
        """See `FairScheduler.charge`."""
        self._scheduler.charge(seconds)


class _Queue:
    """The work for one address."""

    __slots__ = ("_queues", "_who", "work")

    def __init__(self, queues: dict[bytes | str, _Queue], who: bytes | str) -> None:
        self._queues = queues
        self._who = who
        self.work: deque[Callable[[], object]] = deque()

    def __len__(self) -> int:
        return len(self.work)

    def run(self, units: int, now: float) -> float | None:
        """Do one piece of work, which is about as much as a connection may do in its turn."""
        self.work.popleft()()
        if self.work:
            return now
        del self._queues[self._who]
        return None
