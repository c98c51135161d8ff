"""How many connections each address has, and how fast it makes new ones.

Rules:

* An IPv6 client may choose among the addresses of its /64, so these count as one (RFC 4291 section 2.5.4). An
  IPv4-mapped address counts as IPv4.
* Loopback addresses have no limits of their own: a proxy on this machine connects from there for all of its clients.
* A client may make as many new connections at once as in `BURST_SECONDS` seconds.
* Addresses without a connection are remembered while there is room, the latest first: `MAX_IDLE`. One that is
  forgotten has its whole burst again, but new connections are limited in all as well.

Pure: the caller passes the time.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from aldis.server.refusals import Refusal

# After a restart of the server all clients behind one address come back at once, and a page takes ten connections.
BURST_SECONDS: Final = 10.0
# Each costs 400 bytes, so 13 MB in all. Those with connections are limited by `max_connections`.
MAX_IDLE: Final = 32_768
_IPV6_PREFIX: Final = 8  # bytes: a /64


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address without its scope; IPv4 where it is IPv4-mapped (RFC 4291 section 2.5.5.2). None when it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=1024)
def network_of(text: str) -> bytes | None:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address. None when it has no limits."""
    address = read_address(text)
    if address is None or address.is_loopback:
        return None
    return address.packed if isinstance(address, IPv4Address) else address.packed[:_IPV6_PREFIX]


class _Counted:
    """One network: its open connections, and how many new ones it may make."""

    __slots__ = ("connections", "left", "left_at")

    def __init__(self, left: float, now: float) -> None:
        self.connections = 0
        self.left = left
        self.left_at = now


class AddressLimits:
    """The limits of new connections, by network and in all. Numbers are connections, or connections a second."""

    def __init__(
        self, *, connections_per_address: int, connects_per_address: int, connects_per_second: int, now: float
    ) -> None:
        self._connections_per_address = connections_per_address
        self._rate = float(connects_per_address)
        self._burst = max(connects_per_address * BURST_SECONDS, 1.0)
        self._total_rate = float(connects_per_second)
        self._total = _Counted(connects_per_second * BURST_SECONDS, now)
        self._busy: dict[bytes, _Counted] = {}
        self._idle: OrderedDict[bytes, _Counted] = OrderedDict()

    def __len__(self) -> int:
        """How many networks are known."""
        return len(self._busy) + len(self._idle)

    def accept(self, now: float) -> Refusal | None:
        """Count a new connection of whatever address; return why it is refused, if it is."""
        return None if _spend(self._total, self._total_rate, now) else Refusal.RATE

    def enter(self, network: bytes, now: float) -> Refusal | None:
        """Count a connection of a network; return why it is refused, if it is. Otherwise call `leave` at its end."""
        counted = self._busy.get(network)
        if counted is None:
            counted = self._idle.pop(network, None) or _Counted(self._burst, now)
        if not _spend(counted, self._rate, now, self._burst):
            refusal: Refusal | None = Refusal.ADDRESS_RATE
        elif counted.connections >= self._connections_per_address:
            refusal = Refusal.ADDRESS
        else:
            refusal = None
            counted.connections += 1
        self._keep(network, counted)
        return refusal

    def leave(self, network: bytes) -> None:
        """A connection that has entered is over."""
        counted = self._busy.pop(network)
        counted.connections -= 1
        self._keep(network, counted)

    def _keep(self, network: bytes, counted: _Counted) -> None:
        if counted.connections:
            self._busy[network] = counted
            return
        self._idle[network] = counted
        if len(self._idle) > MAX_IDLE:
            self._idle.popitem(last=False)


def _spend(counted: _Counted, rate: float, now: float, burst: float | None = None) -> bool:
    """Take one from a token bucket; False when it is empty."""
    most = rate * BURST_SECONDS if burst is None else burst
    left = min(counted.left + (now - counted.left_at) * rate, most)
    counted.left_at = now
    counted.left = left - 1 if left >= 1 else left
    return left >= 1
