"""The STUN and TURN servers that clients are told of, with time-limited TURN credentials.

A TURN server shares a secret with this server and needs no list of users. The user name holds its own expiry time, and
the password is the HMAC of the user name under the secret (draft-uberti-behave-turn-rest-00; coturn: `use-auth-secret`,
`static-auth-secret`). By default no third party is named, because its STUN server would learn the
addresses of all users. Our own STUN port is at the host that the client has dialled.
"""

from __future__ import annotations

from typing import Final

from aldis.hub.networks import read_address
from aldis.protocol.hosts import is_this_machine
from aldis.protocol.messages import IceServer
from aldis.server.names import read_host
from aldis.server.turn_check import credentials
from aldis.server.turn_server import TurnServer

# Without credentials nothing expires; clients may ask again once a day to learn of changes.
STATIC_TTL: Final = 86_400
# Our own TURN server is down at the moment: clients ask again soon.
RETRY_TTL: Final = 60


class ConfiguredIceServers:
    """STUN and TURN servers by URL (RFC 7064, RFC 7065), as an `aldis.hub.settings.IceSource`."""

    def __init__(
        self,
        stun: tuple[str, ...],
        turn: tuple[str, ...],
        secret: str,
        lifetime: int,
        *,
        own: TurnServer | None = None,
        proxied: bool = False,
    ) -> None:
        """`lifetime` is that of the credentials, in seconds. `own` is a TURN server of ours, of which clients are told
        while it is up. `proxied`: the host that clients dial may be that of a proxy, which passes no UDP on."""
        self._own = own
        self._proxied = proxied
        # The STUN port of this server; 0 while it is closed. Where it is announced; empty: at the host dialled.
        self.stun_port = 0
        self._stun_address = ""
        self.lifetime = lifetime
        """It may change, and holds for the credentials from then on."""
        self.replace(stun, turn, secret)

    def replace(self, stun: tuple[str, ...], turn: tuple[str, ...], secret: str, stun_address: str = "") -> None:
        """Tell clients of these servers from now on. `stun_address`: the host of our own STUN port."""
        self._stun_address = stun_address
        self._stun = list(stun)
        self._turn = list(turn)
        self._secret = secret

    def servers(
        self, user_id: str, wall_time: float, *, host: str = "", address: str = ""
    ) -> tuple[list[IceServer], int]:
        found = []
        own = self._own if self._own is not None and self._own.up else None
        # With other STUN servers ours is not needed, and each costs a client time.
        stun = (self._stun or self._inside(host, address)) if own is None else [own.settings.stun_url, *self._stun]
        if stun:
            found.append(IceServer(stun))
        until = int(wall_time) + self.lifetime
        if own is not None:
            found.append(_with_credentials(own.settings.urls, user_id, until, own.secret))
        if self._turn:
            found.append(_with_credentials(self._turn, user_id, until, self._secret))
        if own is None and self._own is not None:
            return found, RETRY_TTL
        return found, self.lifetime if own is not None or self._turn else STATIC_TTL

    def _inside(self, host: str, address: str) -> list[str]:
        """Our own STUN port, if the client reaches it; a server that does not answer would cost it seconds."""
        if not self.stun_port:
            return []
        name = self._stun_address
        if not name:
            dialled = read_host(host)
            came_from = read_address(address)
            # From this machine comes a program that needs no STUN, or a proxy.
            here = came_from is not None and came_from.is_loopback
            if self._proxied or here or dialled is None or is_this_machine(dialled.name.strip("[]")):
                return []
            name = dialled.name
        name = f"[{name}]" if ":" in name and not name.startswith("[") else name
        return [f"stun:{name}:{self.stun_port}"]


def _with_credentials(urls: list[str], user_id: str, until: int, secret: str) -> IceServer:
    return IceServer(urls, *credentials(secret, user_id, until))
