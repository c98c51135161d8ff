"""The sockets of the public port: where it listens, and what the kernel tells of an accepted connection."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from typing import Final

from aldis.errors import ConfigError

# The SYN queue; the kernel has its own limit (net.core.somaxconn).
LISTEN_BACKLOG: Final = 4096
# Where the kernel tells how many bytes have come (Linux 4.1, linux/tcp.h, tcpi_bytes_received): these are eight.
_BYTES_RECEIVED: Final = 128
_TCP_INFO_SIZE: Final = 136
# linux/net/tcp_states.h: TCP_ESTABLISHED, in the first byte (tcpi_state).
_ESTABLISHED: Final = 1


def is_silent(accepted: socket.socket) -> bool:
    """Whether nothing has come from a client yet, as far as the kernel tells: what TLS has read, nobody else sees."""
    if sys.platform != "linux":
        return True
    try:
        info = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
    except OSError:
        return True
    return not any(info[_BYTES_RECEIVED:])


def has_left(accepted: socket.socket) -> bool:
    """Whether the client has closed its side, also behind what it has sent, as far as the kernel tells (tcp(7))."""
    if sys.platform != "linux":
        return False
    try:
        return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED
    except OSError:
        return True


async def listening_sockets(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Listen on all addresses of `host`; on IPv4 as well as IPv6 when it is `::`. Raises `OSError` or `ValueError`.

    All use one port, also when `port` is 0. `shared`: other sockets of this user may listen there too (SO_REUSEPORT);
    the kernel spreads connections over them.
    """
    check_zone(host)
    dual = dual_stack(host, port, shared=shared)
    if dual is not None:
        return [dual]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            at = (address[0], port or (made[0].getsockname()[1] if made else 0), *address[2:])
            made.append(socket.create_server(at, family=family, backlog=LISTEN_BACKLOG, reuse_port=shared))
    except BaseException:
        for listening in made:
            listening.close()
        raise
    return made


def check_zone(host: str) -> None:
    """Raise `OSError` for an IPv6 address with a zone (RFC 4007 section 11) that this machine has not.

    uvloop takes a loopback address with any, and numbers are not looked at by anybody.
    """
    address, percent, zone = host.partition("%")
    if ":" not in address or not percent:
        return
    if not any(zone in (name, str(number)) for number, name in socket.if_nameindex()):
        raise OSError(errno.ENODEV, f"there is no network interface {zone!r}")


def dual_stack(host: str, port: int, *, shared: bool = False) -> socket.socket | None:
    """A socket on all addresses, IPv4 and IPv6, when `host` is `::`; None for every other host. Raises `OSError`.

    Without it `::` is IPv6 alone, which hardly anybody means.
    """
    if host != "::" or not socket.has_dualstack_ipv6():
        return None
    return socket.create_server(
        (host, port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=LISTEN_BACKLOG, reuse_port=shared
    )


def address_error(prefix: str, host: str, port: int, error: OSError | ValueError) -> ConfigError:
    """Why an address cannot be listened on, in words; `prefix` is that of the setting (`admin_`, `redirect_`)."""
    if isinstance(error, ValueError):
        return ConfigError(
            f"{prefix.removeprefix('redirect_')}host", f"{host!r} is no address and no host name: {error}"
        )
    if error.errno == errno.EADDRINUSE:
        problem = f"{host}:{port} is in use by another program; stop that one or choose another port"
        return ConfigError(f"{prefix}port", problem)
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(f"{prefix}port", f"this user may not listen on port {port}; choose one from 1024 on")
    if isinstance(error, socket.gaierror):
        return ConfigError(f"{prefix}host", f"{host!r} cannot be resolved: {error.strerror}")
    return ConfigError(f"{prefix}host", f"cannot listen on {host!r}: {error.strerror or error}")
