"""Ports for servers, which are free now and still free when the server is started again at the same address.

Of one that the kernel has chosen (port 0) that cannot be said: while the server is down, the kernel may give it to a
server of another test process, to a client's end of a connection, or to the client that tries to reach the server and
is then connected to itself. These are below the range that the kernel chooses from, and each process has its own.
None of them is one that browsers refuse to open.
"""

from __future__ import annotations

import os
import socket
from itertools import cycle
from pathlib import Path

_SHARE = 1000  # for each process: far more than it has servers
_FIRST = 11_000  # above 10080, the last of those that browsers refuse (https://fetch.spec.whatwg.org/#port-blocking)


def ports_of(worker: str) -> range:
    """The ports of one of pytest-xdist's processes."""
    first = _FIRST + _SHARE * int(worker.removeprefix("gw"))
    return range(first, first + _SHARE)


_PORTS = cycle(ports_of(os.environ.get("PYTEST_XDIST_WORKER", "gw0")))


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, another one each time."""
    chosen_by_the_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in _PORTS:
        assert port < chosen_by_the_kernel
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # somebody else's
                continue
        return port
    raise AssertionError  # a cycle has no end
