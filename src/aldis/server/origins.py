"""Which web pages may connect, by the `Origin` that browsers send (RFC 6454). Programs send none, and may connect.

* `*` in the settings: all pages. That is safe, because only a key proves who somebody is, not a cookie or an address;
  but it lets any page use the server for its own visitors.
* Otherwise, on a server that others can reach: pages of the server's own host, and the origins in the settings.
* On a server for this machine alone: the same if the settings have origins, and else all pages.

A page is of the same host when the name in its origin is the host that it has dialled, or the name that stands for it
(`server.names`). Scheme and port do not count: a proxy has others than the server, and whoever serves a page at a host
can reach the server there. A page whose host has another name at the same address is from elsewhere.

Pure.
"""

from __future__ import annotations

import re
from typing import Final

from aldis.hub.networks import read_address
from aldis.server.names import read_host

ANY: Final = "*"
# Other schemes, such as those of browser extensions, have names of their own after `://`, which are no hosts.
_WEB: Final = re.compile(r"https?://([^/]+)")


def is_reachable(host: str, names: tuple[str, ...]) -> bool:
    """Whether others than this machine reach a server that listens on `host`, or has these names at a proxy."""
    return not all(map(_is_loopback, (host, *names)))


def _is_loopback(host: str) -> bool:
    known = read_host(f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host)
    name = host.lower() if known is None else known.name
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    address = read_address(name.removeprefix("[").removesuffix("]"))
    return address is not None and address.is_loopback


class OriginPolicy:
    """The pages that may connect. `listed` are origins as browsers send them; `reachable` is from `is_reachable`."""

    def __init__(self, listed: tuple[str, ...] = (), *, reachable: bool = False) -> None:
        self._listed = frozenset(origin.lower() for origin in listed)
        self._any = ANY in self._listed or not (self._listed or reachable)

    def allows(self, origins: list[str], hosts: tuple[str, ...]) -> bool:
        """Whether a request with these values of `Origin` may go on. `hosts` are the host dialled and what it means."""
        if self._any or not origins:
            return True
        own = {known.name for host in hosts if (known := read_host(host)) is not None}
        return all(origin.lower() in self._listed or _host_of(origin) in own for origin in origins)

    def __str__(self) -> str:
        """For the log."""
        return "any" if self._any else ", ".join(("same host", *sorted(self._listed)))


def _host_of(origin: str) -> str | None:
    """The host name of an origin of the web; None when it has none."""
    found = _WEB.fullmatch(origin.lower())
    host = None if found is None else read_host(found[1])
    return None if host is None else host.name
