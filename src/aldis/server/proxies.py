"""The address of a client behind proxies that the operator trusts: by `X-Forwarded-For`, and by the PROXY protocol.

Rules:

* Only `--trusted-proxies` are believed. What any other client says about addresses is ignored.
* Each proxy appends to `X-Forwarded-For` the address from which it was dialled. So it is read from the right, and the
  first address that is no trusted proxy is the client's. What stands left of it, the client may have written itself.
* An entry that is no address ends the search: the last proxy that is known then counts as the client.
* The PROXY protocol, version 2 (haproxy.org, proxy-protocol.txt), comes before TLS and HTTP. A proxy's own connection,
  such as a health check (LOCAL), and one whose address is no IP address, count as the proxy's.

Pure.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from aldis.hub.networks import read_address, read_network

# Proxies in a row. Three are many.
_MAX_HOPS: Final = 16
# `[2001:db8::1]:4711`, `192.0.2.1:4711`: some proxies add the port.
_WITH_PORT: Final = re.compile(r"\[([^\]]+)\](?::\d+)?|([0-9.]+):\d+")

HEAD: Final = 16
"""The bytes of a PROXY header before its addresses."""
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
# Addresses take 216 bytes at most; the rest are extensions, which are skipped.
_MAX_BODY: Final = 4096
_LOCAL: Final = 0x20
_PROXY: Final = 0x21
# By address family (the high half of byte 14): the class, and the bytes of an address.
_FAMILIES: Final[dict[int, tuple[type[IPv4Address | IPv6Address], int]]] = {1: (IPv4Address, 4), 2: (IPv6Address, 16)}


class BadProxyHeader(Exception):
    """A trusted proxy sent no valid PROXY header."""


class TrustedProxies:
    """The proxies in some networks, such as `10.0.0.0/8`."""

    def __init__(self, networks: tuple[str, ...] = ()) -> None:
        self._networks = tuple(read_network(network, strict=True) for network in networks)

    def trusts(self, address: str) -> bool:
        """Whether this is the address of a proxy."""
        if not self._networks:
            return False
        known = read_address(address)
        return known is not None and any(known in network for network in self._networks)

    def inside(self, network: str) -> str | None:
        """One of the trusted networks that lies in this one, or is this one; None without one."""
        wide = read_network(network, strict=True)
        return next((str(each) for each in self._networks if _is_part(each, wide)), None)

    def around(self, network: str) -> str | None:
        """The trusted network that this one lies in; None without one."""
        narrow = read_network(network, strict=True)
        return next((str(each) for each in self._networks if _is_part(narrow, each)), None)

    def client(self, peer: str, forwarded: list[str]) -> str:
        """The address of the client. `forwarded` are the lines of `X-Forwarded-For`, and `peer` who has dialled."""
        entries = ",".join(forwarded).split(",")[-_MAX_HOPS:]
        while entries and self.trusts(peer):
            text = entries.pop().strip()
            found = _WITH_PORT.fullmatch(text)
            known = read_address(text if found is None else found[1] or found[2])
            if known is None:
                break
            peer = str(known)
        return peer


def _is_part(one: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.subnet_of(other)
    return isinstance(one, IPv6Network) and isinstance(other, IPv6Network) and one.subnet_of(other)


def body_size(head: bytes) -> int:
    """How many bytes follow the first `HEAD` bytes of a PROXY header; raises `BadProxyHeader`."""
    size = int.from_bytes(head[14:16], "big")
    if head[:12] != _SIGNATURE or head[12] not in (_LOCAL, _PROXY) or size > _MAX_BODY:
        raise BadProxyHeader("no header of the PROXY protocol, version 2")
    return size


def source(head: bytes, body: bytes) -> str | None:
    """The address of the client; None when the connection is the proxy's own. Raises `BadProxyHeader`."""
    kind, size = _FAMILIES.get(head[13] >> 4, (None, 0))
    if head[12] == _LOCAL or kind is None:
        return None
    if len(body) < 2 * size + 4:  # two addresses and two ports
        raise BadProxyHeader("a PROXY header without its addresses")
    return str(kind(body[:size]))
