"""How much a TCP segment of ours carries, at either end.

A path may lose large packets without a word: a tunnel on the way takes smaller ones, and a firewall drops the messages
that would tell of it (RFC 2923 section 2.1). What is small gets through, a large message never does, and the connection
hangs. So neither side of a connection sends packets above the least that IPv6 needs, 1280 bytes (RFC 8200 section 5).
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import Final

MAX_SEGMENT: Final = 1280 - 40 - 20
"""Bytes: without the heads of IPv6 and TCP."""


def limit_segments(sock: socket.socket) -> None:
    """Have both sides of the connections of a socket send small segments. Before it listens, or connects."""
    if sys.platform == "linux":  # others allow no more than they would choose themselves
        with suppress(OSError):  # an odd kind of socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MAX_SEGMENT)
