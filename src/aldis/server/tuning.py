"""Numbers of the server that are no settings, because no operator has had a reason to change one. Tests do.

Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What `SignalingServer` and its ports go by, with the reason for each value."""

    # How often the hub is told the time: pings and time-outs need no better.
    tick: float = 1.0
    # How long a client may take to send its whole HTTP request, and to shake hands for TLS.
    handshake_timeout: float = 10.0
    # How long a client may take to answer a close, before its connection is aborted.
    close_timeout: float = 5.0
    # The kernel ends a connection that leaves our data unacknowledged for so long (TCP_USER_TIMEOUT, in Linux). This is
    # for HTTP replies: the hub's pings find a dead WebSocket earlier.
    unacknowledged: float = 60.0
    # Replies that wait for their clients to read them. Each holds a file descriptor, and the part that the kernel did
    # not take. The kernel takes nearly all at once, so only an attack makes so many.
    max_untaken: int = 512
