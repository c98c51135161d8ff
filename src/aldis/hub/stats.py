"""The hub's counters, in plain numbers that are cheap to update.

The hub adds; `server.metrics` reads and exports. This module knows nothing of Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

# The limits that are counted when a client meets them.
LIMITS = (
    "devices-per-user",
    "failed-proofs-per-address",
    "failed-proofs-per-connection",
    "failed-proofs-per-name",
    "memory",
    "new-names-per-address",
    "pair-sealed-bytes",
    "privacy-bytes",
    "privacy-names",
    "sealed-window",
    "share-of-recipient",
    "user-messages",
    "user-relayed-bytes",
    "user-discovers",
    "user-sealed-bytes",
    "watchers-per-user",
    "watches-bytes",
    "watches-per-session",
    "watches-per-user",
)
# Seconds. Relaying takes microseconds in this process; the upper bounds show a process without CPU time.
RELAY_BUCKETS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.1, 1.0)
# Seconds from the WebSocket connection to `registered`: round trips, a signature and a durable write.
HANDSHAKE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """Counts of observations by upper bound, in the form that Prometheus needs.

    `counts[i]` is the number of observations in `(bounds[i-1], bounds[i]]`; the last one counts those above all bounds.
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
    """The number of handled messages of one type; a counter that costs one attribute."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class HubStats:
    """The hub's counters. Each only grows, except those whose name has `now`."""

    __slots__ = (
        "closes",
        "connections_now",
        "detached_ended",
        "handled",
        "handshake_seconds",
        "limited",
        "memory_ended",
        "refused",
        "registrations",
        "relay_seconds",
        "sealed_bytes",
    )

    def __init__(self) -> None:
        # Open WebSocket connections, registered or not.
        self.connections_now = 0
        # Successful messages by type. Types come from the protocol, never from a client.
        self.handled: defaultdict[str, Tally] = defaultdict(Tally)
        # Failed messages by type and error code.
        self.refused: Counter[tuple[str, str]] = Counter()
        # How often a limit was met, by its name in `LIMITS`.
        self.limited: Counter[str] = Counter(dict.fromkeys(LIMITS, 0))
        # outcome: `new`, `replaced`, `resumed`, or the error code of a refusal.
        self.registrations: Counter[str] = Counter()
        # Connections that the hub closed, by close code.
        self.closes: Counter[int] = Counter()
        # Detached sessions that ended because more was kept than may be.
        self.detached_ended = 0
        # Bytes of sealed messages, in base64, that were passed on or wait for their recipients.
        self.sealed_bytes = 0
        # Sessions that ended because all memory was in use.
        self.memory_ended = 0
        self.relay_seconds = Histogram(RELAY_BUCKETS)
        self.handshake_seconds = Histogram(HANDSHAKE_BUCKETS)

    @property
    def messages(self) -> Counter[tuple[str, str]]:
        """All messages by type and outcome: `ok` or an error code. Computed at each call."""
        counts = Counter({(kind, "ok"): tally.count for kind, tally in self.handled.items()})
        counts.update(self.refused)
        return counts
