"""What the hub counts, in plain numbers that cost nothing to keep.

The hub adds; `server.metrics` reads and exports. Nothing in here knows of Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

# Seconds. Relaying takes microseconds in this process; the upper end shows a process that is starved.
RELAY_BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1, 1.0)
# Seconds from the WebSocket connection to `registered`: round trips, a signature and a durable write.
HANDSHAKE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """Counts of observations by upper bound, as Prometheus wants them.

    `counts[i]` is the number of observations in `(bounds[i-1], bounds[i]]`; the last one is of those above all bounds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Tally:
    """How often one type of message was handled; a counter that costs one attribute."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class HubStats:
    """The hub's counters; each only grows but for those called `now`."""

    __slots__ = (
        "closes",
        "connections_now",
        "handled",
        "handshake_seconds",
        "refused",
        "registrations",
        "relay_seconds",
    )

    def __init__(self) -> None:
        # Open WebSocket connections, registered or not.
        self.connections_now = 0
        # By type: what was done as asked. Types come from the protocol, never from a client.
        self.handled: defaultdict[str, Tally] = defaultdict(Tally)
        # By type and error code: what was not.
        self.refused: Counter[tuple[str, str]] = Counter()
        # outcome: `new`, `replaced`, `resumed`, or the error code of a refusal.
        self.registrations: Counter[str] = Counter()
        # close code: connections that the hub closed.
        self.closes: Counter[int] = Counter()
        self.relay_seconds = Histogram(RELAY_BUCKETS)
        self.handshake_seconds = Histogram(HANDSHAKE_BUCKETS)

    @property
    def messages(self) -> Counter[tuple[str, str]]:
        """All messages by type and outcome: `ok` or an error code. Made when it is asked for."""
        counts = Counter({(kind, "ok"): tally.count for kind, tally in self.handled.items()})
        counts.update(self.refused)
        return counts
