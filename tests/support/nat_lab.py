"""Networks behind NATs, as network namespaces: an internet with a server, and homes whose routers rewrite addresses.

Each home has one machine and a router of its own. The routers are Linux's own (`masquerade` of nftables): the mapping
is the same for all destinations, and only those get in to whom something went out. `symmetric` takes another port for
each destination.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import Final

SERVER: Final = "203.0.113.1"


class Namespace:
    """A network namespace, which is there until `close`."""

    def __init__(self) -> None:
        ready = "ip link set lo up && ip link set lo multicast off && echo ready && exec sleep infinity"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", ready], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self.pid = self._holder.pid

    def inside(self, *words: str) -> list[str]:
        """The command that runs another one inside."""
        return ["nsenter", "--net", "-t", str(self.pid), *words]

    def sh(self, script: str) -> None:
        """Run a script inside."""
        subprocess.run(self.inside("sh", "-ec", script), check=True, capture_output=True, text=True)

    def close(self) -> None:
        """End what holds it."""
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


class NatLab:
    """The internet, at SERVER, and homes behind routers at 203.0.113.11, .12 and so on."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._homes = 0
        self.internet = self._namespace()
        self.internet.sh(
            "ip link add bridge type bridge && ip link set bridge up && "
            f"ip address add {SERVER}/24 dev bridge && echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter"
        )

    def _namespace(self) -> Namespace:
        made = Namespace()
        self._stack.callback(made.close)
        return made

    def home(self, *, symmetric: bool = False) -> Namespace:
        """The one machine of a new home, 192.168.7.2."""
        self._homes += 1
        number = self._homes
        router, machine = self._namespace(), self._namespace()
        self.internet.sh(
            f"ip link add port{number} type veth peer name wan netns {router.pid} && "
            f"ip link set port{number} master bridge && ip link set port{number} up"
        )
        router.sh(
            f"ip link add lan type veth peer name eth0 netns {machine.pid}; ip link set lan up; ip link set wan up; "
            f"ip address add 203.0.113.{10 + number}/24 dev wan; ip address add 192.168.7.1/24 dev lan; "
            "echo 1 > /proc/sys/net/ipv4/ip_forward; "
            "nft 'add table ip nat; add chain ip nat post { type nat hook postrouting priority 100 ; }; "
            f"add rule ip nat post oifname wan masquerade{' random' if symmetric else ''}; "
            # What nobody asked for is dropped before the router keeps a state for it, as every router at home does.
            "add chain ip nat in { type filter hook input priority 0 ; }; "
            "add rule ip nat in iifname wan ct state new drop'"
        )
        machine.sh("ip link set eth0 up; ip address add 192.168.7.2/24 dev eth0; ip route add default via 192.168.7.1")
        return machine

    def __enter__(self) -> NatLab:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def python(program: str, *words: str) -> list[str]:
    """The command that runs a program, with what it needs of the tests on its path."""
    return [sys.executable, "-c", program, *words]
