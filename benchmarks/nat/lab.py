"""Two users behind routers with address translation (NAT), and a server on the open network between them.

    alice 192.168.1.2 ── router 10.1.0.2 ── internet ── router 10.2.0.2 ── bob 192.168.2.2
                                              │
                                        server 10.3.0.2

Every box is a network namespace; `internet` only forwards. What a router does is one of `KINDS`, named by RFC 4787: how
it maps (one port for each port inside, or another one for each target) and what it lets in.

Rules: it needs root and nftables on Linux, and changes nothing outside of its namespaces. All of them go when the block
ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from types import TracebackType
from typing import Final

SERVER: Final = "10.3.0.2"
SIDES: Final = {"alice": 1, "bob": 2}
_NUMBERS: Final = count(1)

# What each kind of router does; `{inside}` is the user. Linux maps a port to the same port where it can, which is
# endpoint-independent mapping for a single user, and lets in only what answers: address- and port-dependent filtering.
_MASQUERADE: Final = """
    table ip nat {{
        chain out {{ type nat hook postrouting priority srcnat; oifname "wan" masquerade{how}; }}
        {inwards}
    }}
"""
# What comes uninvited must not leave a trace in the router: Linux would map the user's port to another one then.
_FIREWALL: Final = """
    table ip filter {{
        chain own {{ type filter hook input priority filter; iifname "wan" ct state new drop; }}
        chain pass {{
            type filter hook forward priority filter; policy drop;
            ct state established,related accept
            iifname "lan" {blocked} accept
        }}
    }}
"""
_TO_USER: Final = """
        chain in {{
            type nat hook prerouting priority dstnat;
            iifname "wan" udp dport 1024-65535 {who} dnat to {inside};
        }}
"""
_CONTACTED: Final = """
        set contacted { type ipv4_addr; flags dynamic, timeout; timeout 5m; size 1024; }
        chain note { type filter hook forward priority filter - 1; iifname "lan" update @contacted { ip daddr }; }
"""

KINDS: Final = {
    "open": "no translation, a public address",
    "full-cone": "endpoint-independent mapping and filtering",
    "restricted": "endpoint-independent mapping, address-dependent filtering",
    "port-restricted": "endpoint-independent mapping, address- and port-dependent filtering",
    "symmetric": "address- and port-dependent mapping and filtering",
    "no-udp": "only TCP goes out",
}


def rules(kind: str, inside: str) -> str:
    """What a router of this kind is told, for `nft`."""
    how, inwards, blocked = "", "", ""
    match kind:
        case "full-cone":
            inwards = _TO_USER.format(who="", inside=inside)
        case "restricted":
            inwards = _CONTACTED + _TO_USER.format(who="ip saddr @contacted", inside=inside)
        case "symmetric":
            how = " random,fully-random"
        case "no-udp":
            blocked = "meta l4proto tcp"
    firewall = _FIREWALL.format(blocked=blocked)
    if inwards:
        firewall = firewall.replace("established,related accept", "established,related,new accept")
    return "" if kind == "open" else _MASQUERADE.format(how=how, inwards=inwards) + firewall


def _run(*words: str, text: str | None = None) -> None:
    subprocess.run(words, check=True, input=None if text is None else text.encode())


class NatLab:
    """`with NatLab("symmetric", "open") as lab:`; see the module."""

    def __init__(self, alice: str, bob: str) -> None:
        self._kinds = {"alice": alice, "bob": bob}
        self._prefix = f"aldis-nat-{os.getpid()}-{next(_NUMBERS)}"
        self._stack = ExitStack()

    def name(self, box: str) -> str:
        """The name of a namespace: `alice`, `bob`, `server`, `router-alice`, `router-bob`, `internet`."""
        return f"{self._prefix}-{box}"

    def inside(self, box: str, command: Sequence[str]) -> list[str]:
        """A command in a namespace."""
        return ["ip", "netns", "exec", self.name(box), *command]

    def ip(self, box: str, *words: str) -> None:
        """Run `ip` in a namespace."""
        _run("ip", "-n", self.name(box), *words)

    def nft(self, box: str, text: str) -> None:
        """Give `nft` a script in a namespace."""
        _run(*self.inside(box, ["nft", "-f", "-"]), text=text)

    def __enter__(self) -> NatLab:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _build(self) -> None:
        for box in ("internet", "server", *SIDES, *(f"router-{side}" for side in SIDES)):
            _run("ip", "netns", "add", self.name(box))
            self._stack.callback(subprocess.run, ["ip", "netns", "del", self.name(box)], check=False)
            self.ip(box, "link", "set", "lo", "up")
            _run(*self.inside(box, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]))
        self._link("internet", "to-server", "10.3.0.1/24", "server", "eth0", "10.3.0.2/24")
        self.ip("server", "route", "add", "default", "via", "10.3.0.1")
        for side, number in SIDES.items():
            router, kind = f"router-{side}", self._kinds[side]
            self._link("internet", f"to-{side}", f"10.{number}.0.1/24", router, "wan", f"10.{number}.0.2/24")
            self.ip(router, "route", "add", "default", "via", f"10.{number}.0.1")
            network = f"10.{number}.1" if kind == "open" else f"192.168.{number}"
            self._link(router, "lan", f"{network}.1/24", side, "eth0", f"{network}.2/24")
            self.ip(side, "route", "add", "default", "via", f"{network}.1")
            if kind == "open":
                self.ip("internet", "route", "add", f"{network}.0/24", "via", f"10.{number}.0.2")
            else:
                self.nft(router, rules(kind, f"{network}.2"))

    def _link(self, one: str, one_device: str, one_address: str, other: str, device: str, address: str) -> None:
        self.ip(one, "link", "add", one_device, "type", "veth", "peer", "name", device, "netns", self.name(other))
        for box, name, own in ((one, one_device, one_address), (other, device, address)):
            self.ip(box, "link", "set", name, "addrgenmode", "none")
            self.ip(box, "address", "add", own, "dev", name)
            self.ip(box, "link", "set", name, "up")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
