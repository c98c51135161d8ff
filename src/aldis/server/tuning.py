"""Constants of the server that are no settings: no operator has needed to change one, but tests do.

Times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The constants of `SignalingServer` and its ports, with the reason for each value."""

    # How often the hub gets the time. Pings and time-outs need no finer clock.
    tick: float = 1.0
    # What may be kept for clients that do not answer a close. Beyond it, the oldest of them is not waited for any more.
    closing_bytes: int = 16 * 1024 * 1024
    # How long a client may take to answer a close, before its connection is aborted.
    close_timeout: float = 5.0
    # How long a client may take to answer the end of TLS (close_notify, RFC 8446 section 6.1), before its connection is
    # aborted. The event loop's default is 30 s, in which a silent client holds a file descriptor.
    tls_shutdown_timeout: float = 2.0
    # The kernel ends a connection whose client does not acknowledge our data for so long (TCP_USER_TIMEOUT, on Linux).
    # This is for HTTP replies: the hub's pings find a dead WebSocket earlier.
    unacknowledged: float = 60.0
    # Replies that wait for their clients to read them. Each holds a file descriptor and the bytes that the kernel has
    # not taken. The kernel nearly always takes all bytes at once, so only an attack reaches this limit.
    max_untaken: int = 512
    # How often the files of the certificate are looked at. certbot renews weeks before the old one expires.
    certificate_look: float = 60.0
    # Connections beyond the limits that are told so; others are closed at once. Each holds a file descriptor.
    max_refusals: int = 64
