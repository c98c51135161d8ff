"""Limits that count in a whole cluster: what nodes tell each other about their use of them.

Each node has its own buckets, and decides at once. It tells the other nodes how much of each limit its users and
networks have used, and the others take that from their own buckets. So over any longer time a client gets no more than
its limit, at however many nodes it is. What it may get beyond that is what the nodes allow before they have heard of
each other, and it is paid back.

Rules:

* Of N nodes, each tells at once when somebody has used the Nth part of a burst since it has told last. So all nodes
  together allow one burst too much, and a little more in the milliseconds until the others have heard. Of a user with
  devices at several nodes, each allows a part of the burst only (`hub.rates`).
* The rest is told every `TOLD_EVERY`.
* What is less than the part `UNTOLD` of a limit, over all nodes, is not told: most users use far less.
* What is told at a time is bounded, in bytes. What does not fit is told next.
* How many connections a network has is told as a number, when it changes, and as a whole now and then.

Pure: it knows neither the other nodes nor the buckets. `hub.cluster_router` carries what it has to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isfinite
from typing import Final, NamedTuple, Protocol, TypeAlias

from aldis.hub.use import text_bytes

# Seconds.
TOLD_EVERY: Final = 1.0
# The part of a limit that all nodes together may leave untold.
UNTOLD: Final = 1 / 8
# Bytes of one message, and of what an entry has beside its key.
MAX_TOLD_BYTES: Final = 64 * 1024
ENTRY_BYTES: Final = 48
# Entries that wait: of networks and users in an attack, as others use little.
MAX_WAITING: Final = 20_000
# Seconds between two times when all connections are told, for nodes that have missed a change.
WHOLE_EVERY: Final = 30.0
# Networks in one message about connections: 24 bytes each.
MOST_COUNTS: Final = 2_500

Key: TypeAlias = str | bytes
"""A user; a user, a blank and another one; or a network (`hub.networks.network_of`)."""


class Use(NamedTuple):
    """So much of a limit has been used. Less than 0: it was given back."""

    limit: str
    key: Key
    amount: float


class OpenCounts(NamedTuple):
    """How many connections some networks have at a node. `whole`: all others have none, or few."""

    whole: bool
    counts: tuple[tuple[bytes, int], ...]


class Connections(Protocol):
    """Counts the connections of each network."""

    def changed_counts(self, nodes: int, *, whole: bool) -> list[tuple[bytes, int]]:
        """The networks whose count has changed since the last call, or all of them, without those with a few."""

    def heard_counts(self, node: str, counts: OpenCounts) -> None:
        """What another node has told."""

    def lost_node(self, node: str) -> None:
        """A node is no more, and its connections neither."""


class Limit(Protocol):
    """A limit: so much a second, and so much at once. 0 a second: each use is told."""

    @property
    def per_second(self) -> float: ...

    @property
    def burst(self) -> float: ...


class _Shared:
    __slots__ = ("at_once", "limit", "take")

    def __init__(self, limit: Limit, take: Callable[[Key, float, float], None]) -> None:
        self.limit = limit
        self.take = take
        self.at_once = inf  # what is told at once; known when it is known how many nodes there are


class SharedUsage:
    """What one node has used since it has told the others, and what these have told."""

    def __init__(self, tell: Callable[[Use], None]) -> None:
        """`tell` tells the other nodes at once."""
        self._tell = tell
        self._limits: dict[str, _Shared] = {}
        self._used: dict[tuple[str, Key], float] = {}
        self._told_at: float | None = None
        self._whole_at = float("-inf")
        self.connections: Connections | None = None
        """Whose connections count, if any do."""

    def __len__(self) -> int:
        """How many entries wait to be told."""
        return len(self._used)

    def share(self, name: str, take: Callable[[Key, float, float], None], limit: Limit) -> None:
        """A limit counts in the whole cluster: `take(key, amount, now)` takes what others have used."""
        self._limits[name] = _Shared(limit, take)

    def count(self, limit: str, key: Key, amount: float) -> None:
        """Somebody has used some of a limit here."""
        entry = limit, key
        used = self._used
        amount += used.get(entry, 0.0)
        if amount >= self._limits[limit].at_once:
            used.pop(entry, None)
            self._tell(Use(limit, key, amount))
        else:
            used[entry] = amount

    def is_due(self, now: float) -> bool:
        """Whether to tell something."""
        return self._told_at is None or now - self._told_at >= TOLD_EVERY

    def due(self, nodes: int, now: float) -> list[Use]:
        """What to tell the other nodes now, of `nodes` in all with this one. Call it when it `is_due`."""
        elapsed = TOLD_EVERY if self._told_at is None else now - self._told_at
        self._told_at = now
        for shared in self._limits.values():
            shared.at_once = shared.limit.burst / nodes if nodes > 1 else inf
        used, self._used = self._used, {}
        told: list[Use] = []
        size = 0
        for (limit, key), amount in used.items():
            least = self._limits[limit].limit.per_second * elapsed * UNTOLD / nodes
            if nodes < 2 or abs(amount) <= least:
                continue
            if size < MAX_TOLD_BYTES:
                size += ENTRY_BYTES + (len(key) if isinstance(key, bytes) else text_bytes(key))
                told.append(Use(limit, key, amount))
            elif len(self._used) < MAX_WAITING:
                self._used[limit, key] = amount
        return told

    def heard(self, uses: Sequence[Use], now: float) -> None:
        """Another node has told what was used there. Skips limits that only newer releases know."""
        for limit, key, amount in uses:
            shared = self._limits.get(limit)
            if shared is not None and isfinite(amount):
                shared.take(key, amount, now)

    # --- connections --------------------------------------------------------------------------------------------------

    def due_counts(self, nodes: int, now: float) -> list[OpenCounts]:
        """What to tell of connections now. Call it when `due` is called."""
        if self.connections is None:
            return []
        whole = nodes > 1 and now - self._whole_at >= WHOLE_EVERY
        if whole:
            self._whole_at = now
        counts = self.connections.changed_counts(nodes, whole=whole)
        if nodes < 2:
            return []
        parts = [tuple(counts[first : first + MOST_COUNTS]) for first in range(0, len(counts), MOST_COUNTS)]
        if whole:
            parts = parts or [()]
        return [OpenCounts(whole and not place, part) for place, part in enumerate(parts)]

    def tell_all(self) -> None:
        """Another node has come: tell it of all connections with the next call of `due_counts`."""
        self._whole_at = float("-inf")
