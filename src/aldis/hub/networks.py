"""IP addresses, and what a limit counts as one client.

An IPv6 client may choose among the addresses of its /64, so these count as one (RFC 4291 section 2.5.4). An IPv4-mapped
address counts as IPv4.

Where networks share a room, those of one customer of a provider share as one: a customer may have 65,536 of them (a
/48, RFC 6177), and would leave nothing to others.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

IPV6_PREFIX: Final = 8  # bytes: a /64
# Bytes of a network that are the same for one customer; an IPv4 address has fewer in all.
CUSTOMER_PREFIX: Final = 6
# A provider may also give each of its subscribers a network of one /48: so many of them may use all that one may have.
NETWORKS: Final = 16
# Before the name of a user that stands for a network: longer than any network.
_ALONE: Final = b"only the user "
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address without its scope; IPv4 where it is IPv4-mapped (RFC 4291 section 2.5.5.2). None when it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def read_network(text: str, *, strict: bool) -> IPv4Network | IPv6Network:
    """A network, or an address as the network of it alone; IPv4 where it is IPv4-mapped, as addresses are read.

    Raises `ValueError`, with `strict` also for bits beyond the prefix. `::/0` is all of IPv6. A narrower network that
    holds all mapped addresses is refused: it reads as if it held all of IPv4, and no address would ever be in it so.
    """
    network = ip_network(text, strict=strict)
    if isinstance(network, IPv4Network):
        return network
    if network.subnet_of(_MAPPED):
        mapped = network.network_address.packed[-4:]
        return IPv4Network((mapped, network.prefixlen - _MAPPED.prefixlen))
    if network.prefixlen and network.supernet_of(_MAPPED):
        raise ValueError(f"{network} holds all IPv4 addresses as IPv6 writes them; write 0.0.0.0/0 for these")
    return network


@lru_cache(maxsize=1024)
def network_of(text: str, *, loopback: bool) -> bytes | None:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 address. None for what is no address.

    `loopback`: whether a loopback address counts. A limit that would keep clients out must not count it: a proxy on
    this machine connects from there for all of its clients.
    """
    address = read_address(text)
    if address is None or (address.is_loopback and not loopback):
        return None
    return address.packed if isinstance(address, IPv4Address) else address.packed[:IPV6_PREFIX]


def customer_of(text: str) -> bytes | None:
    """An IPv4 address, or the /48 of an IPv6 address. None for what is no address, and for a loopback address."""
    network = network_of(text, loopback=False)
    return None if network is None else network[:CUSTOMER_PREFIX]


def group_of(address: str, user_id: str) -> bytes:
    """Who shares a limit that many clients share by their networks: the customer that a client is.

    Where that is not known, because the client is at another node, or a proxy on this machine tells no address, its
    user alone.
    """
    customer = customer_of(address)
    return _ALONE + user_id.encode() if customer is None else customer
