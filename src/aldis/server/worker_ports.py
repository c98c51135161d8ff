"""The ports of a server with several workers: the supervisor opens them, and its workers inherit them.

    public     one listening socket for each slot, at the same port (SO_REUSEPORT): the kernel spreads connections over
               them. Where it does not, and for sockets of systemd, all workers accept from the same ones
    admin      one port for each slot: `admin_port` and the next ones; or a free one each
    redirect   the same sockets for all workers; so is the UDP port of STUN

The supervisor keeps all of them open. So a client that has connected waits in the queue of its socket while the worker
is replaced or started again. Without that, Linux resets what is in the queue of a listening socket that is closed, also
when others listen at the same port (`net.ipv4.tcp_migrate_req`).
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from typing import Final

from aldis.errors import ConfigError
from aldis.server.config import STUN_PORT, ServerConfig
from aldis.server.logs import Log
from aldis.server.sockets import address_error, listening_sockets
from aldis.server.stun_port import stun_host, stun_sockets
from aldis.server.systemd import ActivatedSockets

# Linux spreads connections over the sockets of one port (socket(7), SO_REUSEPORT). On macOS the last one gets them all.
BALANCES: Final = sys.platform == "linux"


class WorkerPorts:
    """`await open()`, then `await of(slot)` for each worker; `close()` at the end."""

    def __init__(self, config: ServerConfig, given: ActivatedSockets, log: Log) -> None:
        self._config = config
        self._given = given
        self._log = log
        # Sockets that every worker accepts from.
        self._common: list[socket.socket] = list(given.public)
        self._redirect: list[socket.socket] = list(given.redirect)
        self._stun: list[socket.socket] = []
        # Bound, not listening: it keeps the port while no worker serves.
        self._held: list[socket.socket] = []
        self._public: dict[int, list[socket.socket]] = {}
        self._admin: dict[int, list[socket.socket]] = {}

    @property
    def stun(self) -> bool:
        """Whether there is a port for STUN."""
        return bool(self._stun)

    async def open(self) -> None:
        """Open what all workers share, and take the public port. Raises `ConfigError`."""
        config = self._config
        if not self._common:
            try:
                await self._take_port()
            except (OSError, ValueError) as error:
                raise address_error("", config.host, config.port, error) from error
        if not self._redirect and config.redirect_port is not None:
            try:
                self._redirect = await listening_sockets(config.host, config.redirect_port)
            except (OSError, ValueError) as error:
                raise address_error("redirect_", config.host, config.redirect_port, error) from error
        await self._open_stun()

    async def of(self, slot: int) -> ActivatedSockets:
        """The sockets of a slot; those that are not open are opened. Raises `ConfigError`."""
        config = self._config
        if not self._common and slot not in self._public:
            try:
                self._public[slot] = await self._listen_there()
            except OSError as error:
                raise address_error("", config.host, config.port, error) from error
        if config.admin_port is not None and slot not in self._admin:
            port = config.admin_port and config.admin_port + slot
            try:
                self._admin[slot] = await listening_sockets(config.admin_host, port)
            except (OSError, ValueError) as error:
                raise address_error("admin_", config.admin_host, port, error) from error
        return ActivatedSockets(
            tuple(self._common or self._public[slot]),
            tuple(self._redirect),
            tuple(self._admin.get(slot, ())),
            tuple(self._stun),
        )

    def pause(self, slot: int) -> None:
        """Nobody accepts from this slot for a while: its clients go to the others, and those in its queue try again."""
        _close(self._public.pop(slot, ()))

    def close_slot(self, slot: int) -> None:
        """This slot is gone."""
        self.pause(slot)
        _close(self._admin.pop(slot, ()))

    def close(self) -> None:
        """Close all of them."""
        for slot in {*self._public, *self._admin}:
            self.close_slot(slot)
        for opened in (self._common, self._redirect, self._stun, self._held):
            _close(opened)
            opened.clear()

    async def _take_port(self) -> None:
        config = self._config
        # Without SO_REUSEPORT first: with it, a second server of this user would get half of the clients unnoticed.
        alone = await listening_sockets(config.host, config.port)
        if not BALANCES:
            self._common = alone
            self._log.warning(
                "this system does not spread connections over workers; each takes what it can, some more than others"
            )
            return
        places = [(one.family, one.getsockname(), _is_dual(one)) for one in alone]
        _close(alone)
        for family, address, dual in places:
            held = socket.socket(family, socket.SOCK_STREAM)
            self._held.append(held)
            if family == socket.AF_INET6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                held.setsockopt(socket.SOL_SOCKET, option, 1)
            held.bind(address)

    async def _listen_there(self) -> list[socket.socket]:
        """Listening sockets at the addresses that are taken."""
        made: list[socket.socket] = []
        try:
            for held in self._held:
                host, port = held.getsockname()[:2]
                made += await listening_sockets(host, port, shared=True)
        except BaseException:
            _close(made)
            raise
        return made

    async def _open_stun(self) -> None:
        """Open the STUN port, if it is wanted. Only the default port may be taken by another program."""
        config = self._config
        first = (self._common or self._held)[0]
        host = stun_host(config, first.getsockname()[0] if self._given.public else config.host)
        if host is None:
            return
        try:
            self._stun = await stun_sockets(host, config.stun_port)
        except (OSError, ValueError) as error:
            wrong = address_error("stun_", host, config.stun_port, error)
            if config.stun_port != STUN_PORT:
                raise wrong from error
            text = "no STUN: clients are told of none, unless another server is in `stun`"
            self._log.warning(text, reason=wrong.problem)


def check_sockets(given: ActivatedSockets, config: ServerConfig) -> None:
    """See that systemd's sockets go with the settings. Raises `ConfigError`."""
    if given.redirect and not config.secure:
        raise ConfigError("tls_cert", "is needed: there is a socket to redirect from plain HTTP")


def _is_dual(one: socket.socket) -> bool:
    return one.family == socket.AF_INET6 and not one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
