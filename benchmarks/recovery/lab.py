"""Four network namespaces for faults: two users, each behind a router, and a server that both reach.

    alice 10.1.0.2 ── router ── 10.2.0.2 bob
                        │
                     10.3.0.2 server

The router is a namespace of its own. A fault between two networks is a blackhole rule there: packets vanish, and no
program is told. A change of an address happens in alice's namespace, so her kernel tells her programs.

Rules: it needs root on Linux, and changes nothing outside its namespaces. All of them go when the block ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from types import TracebackType
from typing import Final

NETWORKS: Final = {"alice": "10.1.0.0/16", "bob": "10.2.0.0/16", "server": "10.3.0.0/16"}
SERVER: Final = "10.3.0.2"
_ROUTER: Final = "router"
_NUMBERS: Final = count(1)


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


class Lab:
    """`with Lab() as lab:`; see the module."""

    def __init__(self) -> None:
        self._prefix = f"aldis-{os.getpid()}-{next(_NUMBERS)}"
        self._stack = ExitStack()
        self._rules: dict[int, list[str]] = {}

    def name(self, who: str) -> str:
        """The name of a namespace."""
        return f"{self._prefix}-{who}"

    def inside(self, who: str, command: Sequence[str]) -> list[str]:
        """A command in a namespace."""
        return ["ip", "netns", "exec", self.name(who), *command]

    def ip(self, who: str, *words: str) -> None:
        """Run `ip` in a namespace."""
        _run("ip", "-n", self.name(who), *words)

    def processes(self, who: str) -> list[int]:
        """The processes in a namespace; the lab has started all of them."""
        listed = subprocess.run(["ip", "netns", "pids", self.name(who)], check=True, capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def __enter__(self) -> Lab:
        try:
            for who in (_ROUTER, *NETWORKS):
                _run("ip", "netns", "add", self.name(who))
                self._stack.callback(subprocess.run, ["ip", "netns", "del", self.name(who)], check=False)
                self.ip(who, "link", "set", "lo", "up")
            _run(*self.inside(_ROUTER, ["sysctl", "-qw", "net.ipv4.ip_forward=1"]))
            for who, network in NETWORKS.items():
                near, far = network.replace("0.0/16", "0.1/16"), network.replace("0.0/16", "0.2/16")
                self.ip(_ROUTER, "link", "add", who, "type", "veth", "peer", "name", "eth0", "netns", self.name(who))
                for namespace, device, address in ((_ROUTER, who, near), (who, "eth0", far)):
                    self.ip(namespace, "link", "set", device, "addrgenmode", "none")
                    self.ip(namespace, "address", "add", address, "dev", device)
                    self.ip(namespace, "link", "set", device, "up")
                self.ip(who, "route", "add", "default", "via", near.partition("/")[0])
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- faults -----------------------------------------------------------------------------------------------------

    def cut(self, one: str, other: str) -> int:
        """Let no packet through between two networks; returns what `mend` takes."""
        number = max(self._rules, default=100) + 2
        self._rules[number] = []
        for preference, (source, target) in enumerate(((one, other), (other, one)), number):
            rule = ["pref", str(preference), "from", NETWORKS[source], "to", NETWORKS[target], "blackhole"]
            self.ip(_ROUTER, "rule", "add", *rule)
            self._rules[number].append(str(preference))
        return number

    def mend(self, number: int) -> None:
        """End a cut."""
        for preference in self._rules.pop(number):
            self.ip(_ROUTER, "rule", "del", "pref", preference)

    def change_address(self, who: str) -> None:
        """Give a user another address in the same network, as another Wi-Fi does. The one before is gone."""
        network = NETWORKS[who]
        self.ip(who, "address", "flush", "dev", "eth0")
        self.ip(who, "address", "add", network.replace("0.0/16", "0.3/16"), "dev", "eth0")
        self.ip(who, "route", "add", "default", "via", network.replace("0.0/16", "0.1"))
