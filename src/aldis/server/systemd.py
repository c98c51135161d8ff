"""What systemd and a service tell each other: readiness, a watchdog, and sockets that outlive the process.

    sd_notify(3)           one datagram for each message, to the Unix socket that NOTIFY_SOCKET names
    sd_watchdog_enabled(3) WATCHDOG_USEC: how often systemd wants to hear of the service
    sd_listen_fds(3)       LISTEN_FDS open sockets, from descriptor 3 on, with the names in LISTEN_FDNAMES

Rules: the variables are taken out of the environment, so that a child process does not speak for this one. Without
them nothing happens. That nobody reads a message is no error of the server.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic_ns
from typing import Final

from aldis.errors import ConfigError

_FIRST_DESCRIPTOR: Final = 3
# A socket with this name is the plain port that redirects; all others are the public port.
REDIRECT: Final = "redirect"


class Notifier:
    """Tells systemd how the service is; silent when systemd does not ask."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = self._address and microseconds.isdecimal() and int(microseconds) and pid in ("", str(os.getpid()))
        # Seconds between two signs of life: half of what systemd waits for, as sd_watchdog_enabled(3) advises.
        self.watchdog: float | None = int(microseconds) / 2_000_000 if ours else None

    def ready(self, status: str) -> None:
        """The service serves, at the start or after a reload."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The service reads its settings again; `ready` follows. For Type=notify-reload with the time."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self, status: str, seconds: float) -> None:
        """The service stops, and may need so many seconds."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def alive(self) -> None:
        """A sign of life for the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address  # unix(7): abstract
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)


@dataclass(frozen=True, slots=True)
class ActivatedSockets:
    """Open sockets that the server is given, in place of ports that it opens: listening ones, and for STUN bound ones.

    systemd gives `public` and `redirect` alone; a supervisor gives them all to its workers.
    """

    public: tuple[socket.socket, ...] = ()
    redirect: tuple[socket.socket, ...] = ()
    admin: tuple[socket.socket, ...] = ()
    stun: tuple[socket.socket, ...] = ()


def activated_sockets(environ: MutableMapping[str, str]) -> ActivatedSockets:
    """The sockets that systemd has passed on to this process. Raises `ConfigError` for one that cannot be used."""
    pid, count, names = (environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return ActivatedSockets()
    public: list[socket.socket] = []
    redirect: list[socket.socket] = []
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    named = names.split(":") if names else []
    for number, descriptor in enumerate(descriptors):
        given = _listening(descriptor)
        (redirect if number < len(named) and named[number] == REDIRECT else public).append(given)
    return ActivatedSockets(tuple(public), tuple(redirect))


def _listening(descriptor: int) -> socket.socket:
    try:
        given = socket.socket(fileno=descriptor)
        listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError("LISTEN_FDS", f"descriptor {descriptor} is no socket: {error.strerror}") from error
    if given.family not in (socket.AF_INET, socket.AF_INET6) or given.type != socket.SOCK_STREAM or not listens:
        raise ConfigError(
            "LISTEN_FDS", f"descriptor {descriptor} does not listen for TCP: use ListenStream= with a port"
        )
    given.set_inheritable(False)
    return given
