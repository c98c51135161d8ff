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

# The draft recommends a day: TURN checks the credential at every refresh, so it has to outlive the call.
TTL: Final = 86_400
# Without credentials nothing expires; clients may ask again once a day to learn of changes.
STATIC_TTL: Final = 86_400


class ConfiguredIceServers:
    """STUN and TURN servers by URL (RFC 7064, RFC 7065), as an `aldis.hub.settings.IceSource`."""

    def __init__(self, stun: tuple[str, ...], turn: tuple[str, ...], secret: str, ttl: int = TTL) -> None:
        self._stun = list(stun)
        self._turn = list(turn)
        self._secret = secret.encode()
        self._ttl = ttl

    def servers(self, user_id: str, wall_time: float) -> tuple[list[IceServer], int]:
        found = []
        if self._stun:
            found.append(IceServer(self._stun))
        if self._turn:
            username = f"{int(wall_time) + self._ttl}:{user_id}"
            # coturn computes SHA-1; collisions of SHA-1 do not weaken an HMAC.
            password = to_base64(hmac.digest(self._secret, username.encode(), sha1))
            found.append(IceServer(self._turn, username, password))
        return found, self._ttl if self._turn else STATIC_TTL
