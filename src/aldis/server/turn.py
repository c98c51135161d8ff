"""The STUN and TURN servers that clients get, with time-limited TURN credentials.

A TURN server shares a secret with this server and needs no list of users. The user name holds its own expiry time, and
the password is the HMAC of the user name under the secret (draft-uberti-behave-turn-rest-00; coturn: `use-auth-secret`,
`static-auth-secret`). By default there are no servers, because a third party's STUN server would learn the addresses of
all users.
"""

from __future__ import annotations

import hmac
from hashlib import sha1
from typing import Final

from aldis.protocol.codec import to_base64
from aldis.protocol.messages import IceServer
from aldis.server.turn_server import TurnServer

# TURN checks the credential at every refresh, so it has to outlive a call; stores ask for a new one in time. The draft
# recommends a day, in which anybody who takes a new name could use the relay.
TTL: Final = 4 * 3600
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
        ttl: int = TTL,
        *,
        own: TurnServer | None = None,
    ) -> None:
        """`own` is a TURN server of ours, of which clients are told while it is up."""
        self._own = own
        self._ttl = ttl
        self.replace(stun, turn, secret)

    def replace(self, stun: tuple[str, ...], turn: tuple[str, ...], secret: str) -> None:
        """Tell clients of these servers from now on."""
        self._stun = list(stun)
        self._turn = list(turn)
        self._secret = secret.encode()

    def servers(self, user_id: str, wall_time: float) -> tuple[list[IceServer], int]:
        found = []
        own = self._own if self._own is not None and self._own.up else None
        stun = self._stun if own is None else [own.settings.stun_url, *self._stun]
        if stun:
            found.append(IceServer(stun))
        username = f"{int(wall_time) + self._ttl}:{user_id}"
        if own is not None:
            found.append(_with_credentials(own.settings.urls, username, own.secret.encode()))
        if self._turn:
            found.append(_with_credentials(self._turn, username, self._secret))
        if own is None and self._own is not None:
            return found, RETRY_TTL
        return found, self._ttl if own is not None or self._turn else STATIC_TTL


def _with_credentials(urls: list[str], username: str, secret: bytes) -> IceServer:
    # coturn computes SHA-1; collisions of SHA-1 do not weaken an HMAC.
    return IceServer(urls, username, to_base64(hmac.digest(secret, username.encode(), sha1)))
