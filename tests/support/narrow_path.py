"""A path on which large packets are lost without a word, as namespaces: a tunnel on the way, and a firewall that drops
the ICMP messages that would tell of it.

    client 192.168.7.2 ── router ══ 1400 bytes ══ router ── server 203.0.113.1
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from support.nat_lab import SERVER, Namespace

MTU: Final = 1400  # less than PPPoE, GRE, IPsec and WireGuard leave of an Ethernet's 1500


class NarrowPath:
    """See the module."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.client, near, far, self.server = (self._namespace() for _ in range(4))
        self.client.sh(f"ip link add eth0 type veth peer name in netns {near.pid}")
        near.sh(f"ip link add out type veth peer name out netns {far.pid}")
        far.sh(f"ip link add in type veth peer name eth0 netns {self.server.pid}")
        self.client.sh(
            "ip address add 192.168.7.2/24 dev eth0; ip link set eth0 up; ip route add default via 192.168.7.1"
        )
        self.server.sh(
            f"ip address add {SERVER}/24 dev eth0; ip link set eth0 up; ip route add default via 203.0.113.254"
        )
        for router, inside, outside, way in (
            (near, "192.168.7.1/24", "10.0.0.1/24", "203.0.113.0/24 via 10.0.0.2"),
            (far, "203.0.113.254/24", "10.0.0.2/24", "192.168.7.0/24 via 10.0.0.1"),
        ):
            router.sh(
                f"ip address add {inside} dev in; ip link set in up; "
                f"ip address add {outside} dev out; ip link set out mtu {MTU} up; ip route add {way}; "
                "echo 1 > /proc/sys/net/ipv4/ip_forward; "
                "nft 'add table ip f; add chain ip f o { type filter hook output priority 0 ; }; "
                "add rule ip f o ip protocol icmp drop'"
            )

    def _namespace(self) -> Namespace:
        made = Namespace()
        self._stack.callback(made.close)
        return made

    def __enter__(self) -> NarrowPath:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
