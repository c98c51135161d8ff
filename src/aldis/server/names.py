"""The host names of this server, so that a proof made for another server is worthless here.

A client signs the host that it has dialled, and names that host in `Host`. If another server passes our challenge on to
one of its clients, that client signs the name of the other server. So this server accepts a host only if it knows by
itself that the name is its own. It never trusts `X-Forwarded-Host` or `Forwarded`.

* If the settings have names: these, and no others.
* Otherwise: the literal address at which the connection arrived; if that is a loopback address, also `localhost`, names
  under it and the unspecified addresses (0.0.0.0, ::), because clients use them for "this machine"; and the names and
  addresses in the server's certificate. The port is part of the name. It has to be the port at which the connection
  arrived, because another port of the machine may belong to another program.

If the settings have names, a `Host` with the literal address of arrival stands for the first of them: a proxy that does
not pass `Host` on writes the address there that it dials. `localhost` does not: people write it into a browser, which
would show them a page at which no login works. This admits no other name, because the proof has to fit the first
name.

Pure: it knows no socket and no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from aldis.protocol import hosts

# RFC 1035 section 2.3.4: a host name has at most 255 octets; here with brackets and a port.
MAX_HOST: Final = 263
# The part of RFC 3986 section 3.2.2 that DNS names and addresses need: no user name, no empty port.
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_-][a-z0-9._-]*)(?::([1-9][0-9]{0,4}))?")
_MAX_PORT: Final = 65535
_PORT_DIGITS: Final = 5
# Also the origins of browser extensions and apps, which have their own schemes. No path, no user name.
_ORIGIN: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?#@]+)")
_SCHEME_PORTS: Final = {"http": 80, "https": 443}
_HTTP: Final = 80
_HTTPS: Final = 443


@dataclass(frozen=True, slots=True)
class Arrival:
    """The server's end of a connection, from `getsockname`."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Host:
    """A host that can be dialled. `text` is the whole in lower case, `name` is without the port and a final dot."""

    text: str
    name: str
    port: int | None


def read_host(text: str) -> Host | None:
    """Read the value of a `Host` header; None when it is not valid. The name has to be ASCII (A-labels)."""
    lower = text.lower()
    found = _HOST.fullmatch(lower) if len(text) <= MAX_HOST and text.isascii() else None
    if found is None:
        return None
    port = int(found[2]) if found[2] else None
    if port is not None and port > _MAX_PORT:
        return None
    if found[1].startswith("[") and (":" not in found[1] or _address(found[1]) is None):
        return None
    return Host(lower, found[1].removesuffix("."), port)


def read_name(text: str) -> str | None:
    """Read a name from the settings: `host` or `host:port`, as a client sends it; None when it is not valid.

    A name beyond ASCII becomes A-labels. Default ports of both schemes are removed, because clients leave them out.
    """
    name, colon, port = text.rpartition(":") if re.search(r":\d+$", text) else (text, "", "")
    try:
        ascii_name = hosts.read_host(name)
    except ValueError:
        return None
    host = read_host(f"{ascii_name}{colon}{port}")
    return None if host is None else _without_default_port(host)


def read_origin(text: str) -> str | None:
    """Read an origin from the settings, as browsers write it (RFC 6454 section 6.2): lower case, A-labels, without the
    scheme's default port. `null` stays. None when it is not valid."""
    if text.lower() == "null":
        return "null"
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, rest = found[1].lower(), found[2]
    name, colon, port = rest.rpartition(":") if re.search(r":\d+$", rest) else (rest, "", "")
    try:
        host = hosts.read_host(name)
    except ValueError:
        return None
    if colon and not (1 <= int(port) <= _MAX_PORT and len(port) <= _PORT_DIGITS):
        return None
    return (
        f"{scheme}://{host}" if int(port or 0) in (0, _SCHEME_PORTS.get(scheme)) else f"{scheme}://{host}:{int(port)}"
    )


def _without_default_port(host: Host) -> str:
    return host.name if host.port in (None, _HTTP, _HTTPS) else f"{host.name}:{host.port}"


class ServerNames:
    """The names of one server: `configured` come from `read_name`; `secure` says whether its port speaks TLS."""

    def __init__(self, configured: tuple[str, ...] = (), *, secure: bool = False) -> None:
        self._configured = configured
        self._certified: frozenset[str] = frozenset()
        self._addresses: frozenset[IPv4Address | IPv6Address] = frozenset()
        self._default_port = _HTTPS if secure else _HTTP

    def configure(self, names: tuple[str, ...]) -> None:
        """Use these names from the settings, in place of the earlier ones."""
        self._configured = names

    def certify(self, names: Iterable[str]) -> None:
        """Use the names and addresses of a new certificate, in place of the earlier ones."""
        names = tuple(names)
        self._certified = frozenset(name.lower().removesuffix(".") for name in names)
        self._addresses = frozenset(address for name in names if (address := _address(name)) is not None)

    def own(self, host: Host, arrival: Arrival) -> str | None:
        """The host that a proof has to name when a client has dialled `host`; None when that is another server."""
        if self._configured:
            plain = _without_default_port(host)
            if plain in self._configured:
                # As the client has written it, without a port that only a proxy adds.
                return host.text if host.port not in (_HTTP, _HTTPS) else plain
            return self._configured[0] if self._is_address(host, arrival) else None
        if self._is_arrival(host, arrival) or (self._port_fits(host, arrival) and self._is_certified(host.name)):
            # Clients leave the scheme's default port out, even if a proxy adds it.
            return host.text if host.port != self._default_port else host.text.rpartition(":")[0]
        return None

    def _port_fits(self, host: Host, arrival: Arrival) -> bool:
        return (host.port or self._default_port) == arrival.port

    def _is_address(self, host: Host, arrival: Arrival) -> bool:
        arrived = _address(arrival.address)
        return self._port_fits(host, arrival) and arrived is not None and _address(host.name) == arrived

    def _is_arrival(self, host: Host, arrival: Arrival) -> bool:
        if self._is_address(host, arrival):
            return True
        arrived, dialled = _address(arrival.address), _address(host.name)
        if arrived is None or not self._port_fits(host, arrival):
            return False
        if host.name == "localhost" or host.name.endswith(".localhost"):  # RFC 6761 section 6.3
            return arrived.is_loopback
        # A system that dials 0.0.0.0 or :: reaches itself. People do that after `--host 0.0.0.0`.
        return dialled is not None and dialled.is_unspecified and arrived.is_loopback

    def _is_certified(self, name: str) -> bool:
        address = _address(name)
        if address is not None:
            return address in self._addresses
        # RFC 9525 section 6.3: a wildcard is the whole first label, and matches exactly one label.
        return name in self._certified or f"*.{name.partition('.')[2]}" in self._certified


@lru_cache(maxsize=1024)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address without brackets and scope. An IPv4-mapped IPv6 address counts as IPv4 (RFC 4291 section 2.5.5.2)."""
    try:
        address = ip_address(text.removeprefix("[").removesuffix("]").partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
