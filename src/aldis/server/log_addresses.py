"""Addresses of clients in the log: shortened, so that the log tells where trouble comes from, and not who somebody is.

    short    the network: 203.0.113.0/24, 2001:db8:1::/48
    full     as they are
    none     the word `address` in their place

Rules: the whole finished line goes through `in_text`: our own fields, the texts of libraries and of coturn, tracebacks.
Loopback and unspecified addresses stay, and so do those of the server itself: they tell of nobody.
A network that is no smaller than a shortened one stays, too.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Literal, TypeAlias

Mode: TypeAlias = Literal["full", "short", "none"]
MODES: Final = ("short", "full", "none")
# A /24 and a /48 are what one household or company gets at least, so several people are behind each.
IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 48
_HIDDEN: Final = "address"
# What may be an address, with the length of a prefix. `ip_address` decides.
_CANDIDATE: Final = re.compile(
    r"(?<![0-9.])\d{1,3}(?:\.\d{1,3}){3}(?![0-9]|\.[0-9])(?:/\d{1,2}(?!\d))?"
    r"|(?<![0-9A-Fa-f:.])(?=[0-9A-Fa-f]*:)[0-9A-Fa-f:.]++(?![G-Zg-z_])(?:/\d{1,3}(?!\d))?",
    re.ASCII,
)


class ShownAddresses:
    """How addresses look in the log. `own` are addresses of the server, which stay as they are, or other texts."""

    def __init__(self, mode: Mode, own: Iterable[str] = ()) -> None:
        self._mode = mode
        self._own = {address for address in map(_address, own) if address is not None}

    def in_text(self, text: str) -> str:
        """The text with all addresses in it as they may be shown."""
        return text if self._mode == "full" else _CANDIDATE.sub(self._replace, text)

    def _replace(self, found: re.Match[str]) -> str:
        whole, slash, prefix = found[0].partition("/")
        # A text may end or go on right after an address: `2001:db8::1: refused`. Without brackets, a port behind an
        # IPv6 address that is whole is no part of it.
        words = (whole, whole.removesuffix(":"), whole.removeprefix(":"), whole.rstrip("."), whole.rstrip(":."))
        for word in (*words, whole.strip(":."), whole.rpartition(":")[0]):
            address = _address(word)
            if address is None:
                continue
            before, _, after = whole.partition(word)
            shown = self._shown(address, int(prefix) if slash else None)
            return found[0] if shown is None else f"{before}{shown}{after}"
        return found[0]

    def _shown(self, address: IPv4Address | IPv6Address, prefix: int | None) -> str | None:
        """What is shown in place of an address; None if it stays."""
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is not None:
                address, prefix = address.ipv4_mapped, None if prefix is None else max(prefix - 96, 0)
            elif int(address) >> 112 == 0:  # ::1 and ::, and `::2` of a program's text: nobody's address
                return None
        if address.is_loopback or address.is_unspecified or address in self._own:
            return None
        if self._mode == "none":
            return _HIDDEN
        shortest = IPV4_PREFIX if isinstance(address, IPv4Address) else IPV6_PREFIX
        if prefix is not None and prefix <= shortest:
            return None
        return str(ip_network((address, shortest), strict=False))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
