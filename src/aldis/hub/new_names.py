"""How many new names each network may bind: a limit on names that nobody can get back.

Rules: a network may bind `per_day` names at once, and gets them back evenly over a day. A network is one IPv4 address,
or the /64 of an IPv6 address, as providers give them to one customer. Names that are bound already cost nothing. The
table is bounded: when it is full, the network that has bound nothing for longest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, ip_address
from typing import Final

DAY: Final = 86_400.0
# 200 bytes each. More networks than this bind names within a day only in an attack, or on a server with other worries.
MAX_NETWORKS: Final = 10_000


def network_of(address: str) -> str:
    """What a limit counts an address by: an IPv4 address itself, the first half of an IPv6 address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.packed[:8].hex()


class NewNames:
    """Counts new names. `per_day` of 0 switches the limit off. Times are those of the caller."""

    def __init__(self, per_day: int) -> None:
        self._per_day = per_day
        self._per_second = per_day / DAY
        # What each network may still bind, and when that was worked out. In the order of use.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def take(self, address: str, now: float) -> float:
        """Take one name of an address's network. 0 when it had one left, else the seconds until it has one."""
        if not self._per_day or not address:
            return 0.0
        network = network_of(address)
        left, since = self._left.pop(network, (self._per_day, now))
        left = min(self._per_day, left + (now - since) * self._per_second)
        taken = left >= 1
        self._left[network] = (left - taken, now)
        while len(self._left) > MAX_NETWORKS or self._refilled(now):
            self._left.popitem(last=False)
        return 0.0 if taken else (1 - left) / self._per_second

    def give_back(self, address: str) -> None:
        """A name that was taken was not new, or was not bound."""
        network = network_of(address) if self._per_day and address else ""
        if network in self._left:
            left, since = self._left[network]
            self._left[network] = (left + 1, since)

    def _refilled(self, now: float) -> bool:
        """Whether the network that has bound nothing for longest has all its names again."""
        _, since = next(iter(self._left.values()))
        return now - since >= DAY
