"""How much a TCP segment of ours carries, at either end.

A path may lose large packets without a word: a tunnel on the way takes smaller ones, and a firewall drops the messages
that would tell of it (RFC 2923 section 2.1). What is small gets through, a large message never does, and the connection
hangs. So neither side of a connection sends packets of more than 1,400 bytes, which PPPoE, GRE, IPsec and WireGuard
take. Some tunnels take only the least that IPv6 needs, 1,280 bytes. But then a usual offer needs two segments, of which
the kernel acknowledges each.

On loopback nothing is lost, and relaying costs an eighth less with larger ones. They are limited too, since one can
fill half of a server's receive buffer. Then Linux may get into a state where the window that it offers, whole segments
like those that came, stays smaller than the other side's next one. From then on that one sends by its timer for a
window that stays closed (RFC 9293 section 3.8.6.1): at best 100 KB/s, for as long as it has more to send.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import Final

from aldis.protocol.hosts import is_this_machine

MAX_SEGMENT: Final = 1400 - 40 - 20
"""Bytes: without the heads of IPv6 and TCP."""
ON_LOOPBACK: Final = 2048
"""The same on loopback."""


def limit_segments(sock: socket.socket, host: str) -> None:
    """Have both sides of the connections of a socket send small segments. Before it listens, or connects.

    `host`: the IP address that it listens on, or connects to.
    """
    if sys.platform == "linux":  # others allow no more than they would choose themselves
        with suppress(OSError):  # an odd kind of socket
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_MAXSEG, ON_LOOPBACK if is_this_machine(host) else MAX_SEGMENT
            )
