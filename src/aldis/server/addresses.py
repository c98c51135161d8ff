"""How many connections each address has, and how fast it makes new ones.

Rules:

* What counts as one client: `hub.networks.network_of`. Loopback addresses have no limits of their own.
* One customer of a provider may have 65,536 networks of IPv6 (a /48): as many connections as `NETWORKS` at most.
* A client may make as many new connections at once as in `BURST_SECONDS` seconds.
* The last part of what all clients together may make at once (`RESERVE`) is for clients that have hardly made any
  lately. So some hundred addresses that connect as fast as they may do not keep the others out.
  Here the networks of one customer of a provider (IPv6: a /48) are one client, or each of its 65,536 would hardly have
  made any.
* Where a client behind a trusted proxy comes from is known later (`identify`). The last part is for such clients, too.
  One that is refused then has taken nothing from the others.
* In a cluster the limits of a network count at all nodes together. Each node counts its own connections and tells the
  others (`hub.usage`); what all clients may make together is for each node alone.
* Addresses without a connection are remembered while there is room, the latest first: `MAX_IDLE`. One that is
  forgotten has its whole burst again, but new connections are limited in all as well.

Pure: the caller passes the time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final, cast

from aldis.hub.networks import CUSTOMER_PREFIX, NETWORKS
from aldis.hub.usage import UNTOLD, Key, OpenCounts, SharedUsage
from aldis.server.refusals import Refusal

# After a restart of the server all clients behind one address come back at once, and a page takes ten connections.
BURST_SECONDS: Final = 10.0
# Each costs 400 bytes, so 13 MB in all. Those with connections are limited by `max_connections`.
MAX_IDLE: Final = 32_768
# How many seconds' worth of connections a network may have made too much, at nodes that had not heard of each other.
DEBT_SECONDS: Final = 30.0
CONNECTS: Final = "connects-per-address"
# The part of the connections that all may make at once, of which a client gets none that has made more new ones than
# `HARDLY_ANY` in 5 to 10 seconds. A page takes ten. Each of 450 addresses that use up the rest together has made 40.
RESERVE: Final = 0.1
HARDLY_ANY: Final = 40
_COUNT_SECONDS: Final = 5.0


class _Counted:
    """One network: its open connections, and how many new ones it may make."""

    __slots__ = ("connections", "left", "left_at")

    def __init__(self, left: float, now: float) -> None:
        self.connections = 0
        self.left = left
        self.left_at = now


class _Lately:
    """How many connections each network has made lately. It forgets the oldest half of them every `_COUNT_SECONDS`."""

    def __init__(self) -> None:
        self._now: dict[bytes, int] = {}
        self._before: dict[bytes, int] = {}
        self._turned_at = 0.0

    def count(self, network: bytes, now: float) -> int:
        """Count one more, and return how many there were before. Beyond `MAX_IDLE` networks it counts no other ones."""
        network = network[:CUSTOMER_PREFIX]
        if now - self._turned_at >= _COUNT_SECONDS:
            stale = now - self._turned_at >= 2 * _COUNT_SECONDS
            self._now, self._before = {}, {} if stale else self._now
            self._turned_at = now
        made = self._now.get(network, 0)
        if made or len(self._now) < MAX_IDLE:
            self._now[network] = made + 1
        return made + self._before.get(network, 0)


class AddressLimits:
    """The limits of new connections, by network and in all. Numbers are connections, or connections a second."""

    def __init__(
        self,
        *,
        connections_per_address: int,
        connects_per_address: int,
        connects_per_second: int,
        now: float,
    ) -> None:
        self.limit(
            connections_per_address=connections_per_address,
            connects_per_address=connects_per_address,
            connects_per_second=connects_per_second,
        )
        self._total = _Counted(connects_per_second * BURST_SECONDS, now)
        self._lately = _Lately()
        self._busy: dict[bytes, _Counted] = {}
        # The connections of each customer that has networks of IPv6.
        self._customers: Counter[bytes] = Counter()
        self._idle: OrderedDict[bytes, _Counted] = OrderedDict()
        # With other nodes: their connections, by node and in all; our networks whose count has changed, and what was
        # told of them.
        self._usage: SharedUsage | None = None
        self._at_nodes: dict[str, dict[bytes, int]] = {}
        self._elsewhere: Counter[bytes] = Counter()
        self._changed: set[bytes] = set()
        self._told: dict[bytes, int] = {}

    def limit(self, *, connections_per_address: int, connects_per_address: int, connects_per_second: int) -> None:
        """Use these limits for the connections to come."""
        self._connections_per_address = connections_per_address
        self._rate = float(connects_per_address)
        self._burst = max(connects_per_address * BURST_SECONDS, 1.0)
        self._total_rate = float(connects_per_second)

    @property
    def per_second(self) -> float:
        """See `usage.Limit`."""
        return self._rate

    @property
    def burst(self) -> float:
        """See `usage.Limit`."""
        return self._burst

    def __len__(self) -> int:
        """How many networks are known."""
        return len(self._busy) + len(self._idle)

    def accept(self, source: bytes | None, now: float, *, proxied: bool = False) -> Refusal | None:
        """Count a new connection; return why it is refused, if it is. `source` is the network that it comes from, also
        that of this machine; None when it is not known. `proxied`: `identify` tells what is behind it."""
        total, most, kept = self._total, self._total_rate * BURST_SECONDS, 0.0
        if not proxied and (source is None or self._lately.count(source, now) >= HARDLY_ANY):
            kept = most * RESERVE
        return None if _spend(total, self._total_rate, now, most, kept) else Refusal.RATE

    def enter(self, network: bytes, now: float) -> Refusal | None:
        """Count a connection of a network; return why it is refused, if it is. Otherwise call `leave` at its end."""
        counted = self._busy.get(network)
        if counted is None:
            counted = self._idle.pop(network, None) or _Counted(self._burst, now)
        if not _spend(counted, self._rate, now, self._burst):
            refusal: Refusal | None = Refusal.ADDRESS_RATE
        else:
            refusal = None
            if self._usage is not None:
                self._usage.count(CONNECTS, network, 1)
            most, customer = self._connections_per_address, network[:CUSTOMER_PREFIX]
            too_many = counted.connections + self._elsewhere.get(network, 0) >= most
            if too_many or (customer != network and self._customers[customer] >= NETWORKS * most):
                refusal = Refusal.ADDRESS
            else:
                counted.connections += 1
                if customer != network:
                    self._customers[customer] += 1
        self._keep(network, counted)
        return refusal

    def identify(self, network: bytes, now: float) -> Refusal | None:
        """Like `enter`, for a connection that was accepted as a proxy's."""
        refusal, most = self.enter(network, now), self._total_rate * BURST_SECONDS
        often = self._lately.count(network, now) >= HARDLY_ANY
        if refusal is None and often and self._total.left < most * RESERVE:
            self.leave(network)
            refusal = Refusal.RATE
        if refusal is not None:
            self._total.left += 1
        return refusal

    def leave(self, network: bytes) -> None:
        """A connection that has entered is over."""
        counted = self._busy.pop(network)
        counted.connections -= 1
        customer = network[:CUSTOMER_PREFIX]
        if customer != network:
            self._customers[customer] -= 1
            if not self._customers[customer]:
                del self._customers[customer]
        self._keep(network, counted)

    # --- with other nodes -------------------------------------------------------------------------------------------

    def share(self, usage: SharedUsage) -> None:
        """This server is one of several: count with the others. `usage` is that of the hub."""
        self._usage = usage
        usage.share(CONNECTS, self._used_elsewhere, self)
        usage.connections = self

    def _used_elsewhere(self, key: Key, amount: float, now: float) -> None:
        """A network has made connections to another node."""
        network = cast(bytes, key)
        counted = self._busy.get(network) or self._idle.pop(network, None) or _Counted(self._burst, now)
        left = min(counted.left + (now - counted.left_at) * self._rate, self._burst) - amount
        counted.left, counted.left_at = max(left, -DEBT_SECONDS * self._rate), now
        self._keep(network, counted)

    def changed_counts(self, nodes: int, *, whole: bool) -> list[tuple[bytes, int]]:
        """See `usage.Connections`."""
        least = self._connections_per_address * UNTOLD / nodes
        changed, self._changed = self._changed, set()
        if whole:
            self._told.clear()
        counts = []
        for network in self._busy if whole else changed:
            counted = self._busy.get(network)
            count = 0 if counted is None or counted.connections <= least else counted.connections
            if count != self._told.get(network, 0):
                counts.append((network, count))
                self._told[network] = count
                if not count:
                    del self._told[network]
        return counts

    def heard_counts(self, node: str, counts: OpenCounts) -> None:
        """See `usage.Connections`."""
        if counts.whole:
            self.lost_node(node)
        known = self._at_nodes.setdefault(node, {})
        for network, count in counts.counts:
            self._elsewhere[network] += count - known.pop(network, 0)
            if not self._elsewhere[network]:
                del self._elsewhere[network]
            if count:
                known[network] = count

    def lost_node(self, node: str) -> None:
        """See `usage.Connections`."""
        for network, count in self._at_nodes.pop(node, {}).items():
            self._elsewhere[network] -= count
            if not self._elsewhere[network]:
                del self._elsewhere[network]

    # --- internal ---------------------------------------------------------------------------------------------------

    def _keep(self, network: bytes, counted: _Counted) -> None:
        if self._usage is not None:
            self._changed.add(network)
        if counted.connections:
            self._busy[network] = counted
            return
        self._idle[network] = counted
        if len(self._idle) > MAX_IDLE:
            self._idle.popitem(last=False)


def _spend(counted: _Counted, rate: float, now: float, most: float, kept: float = 0.0) -> bool:
    """Take one from a token bucket; False when no more than is to be kept is left."""
    left = min(counted.left + (now - counted.left_at) * rate, most)
    counted.left_at = now
    enough = left >= 1 + kept
    counted.left = left - 1 if enough else left
    return enough
