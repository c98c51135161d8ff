"""IP addresses, and what a limit counts as one client.

An IPv6 client may choose among the addresses of its /64, so these count as one (RFC 4291 section 2.5.4). An IPv4-mapped
address counts as IPv4.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

_IPV6_PREFIX: Final = 8  # bytes: a /64


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address without its scope; IPv4 where it is IPv4-mapped (RFC 4291 section 2.5.5.2). None when it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


@lru_cache(maxsize=1024)
def network_of(text: str, *, loopback: bool) -> bytes | None:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address. None for what is no address.

    `loopback`: whether a loopback address counts. A limit that would keep clients out must not count it: a proxy on
    this machine connects from there for all of its clients.
    """
    address = read_address(text)
    if address is None or (address.is_loopback and not loopback):
        return None
    return address.packed if isinstance(address, IPv4Address) else address.packed[:_IPV6_PREFIX]
