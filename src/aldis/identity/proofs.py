"""The exact bytes that are signed, each in a function; and nothing else.

Every text begins with a name of its own, so that a signature made for one purpose is worthless for another. Parts are
separated by a zero byte; no part but the last and those of fixed length can contain one (user ids, device and host
names have no control characters, a connection name is checked here).
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

NONCE_BYTES: Final = 32
# base64url, as made by `new_connection_name`; generous, since other implementations may choose another length.
_CONNECTION = re.compile(r"[A-Za-z0-9_-]{1,128}")


def _join(*parts: bytes) -> bytes:
    return b"\x00".join(parts)


def registration(host: str, nonce: bytes, user_id: str, device: str) -> bytes:
    """What a client signs to prove at registration that it owns its key. `host` is what it dialled, lower case."""
    return _join(b"aldis register v1", host.lower().encode(), nonce, user_id.encode(), device.encode())


def rotation(user_id: str, new_public_key: bytes) -> bytes:
    """What the old key signs to hand a name over to a new key (its 32 bytes)."""
    return _join(b"aldis rotate v1", user_id.encode(), new_public_key)


def seal(user_id: str, device: str, seal_key: bytes) -> bytes:
    """What the identity key signs to vouch for the HPKE key of a registration."""
    return _join(b"aldis seal v1", user_id.encode(), device.encode(), seal_key)


def offer(sender: str, recipient: str, connection: str, nonce: bytes, sdp: str) -> bytes:
    """What is signed with an offer. `sender` and `recipient` are user ids without device."""
    digest = sha256(sdp.encode()).digest()
    return _join(b"aldis offer v1", sender.encode(), recipient.encode(), connection.encode(), nonce, digest)


def answer(sender: str, recipient: str, connection: str, nonce: bytes, sdp: str, offer_sdp: str) -> bytes:
    """What is signed with an answer; `nonce` is the offer's own, and the offer's text is covered too."""
    digests = sha256(sdp.encode()).digest() + sha256(offer_sdp.encode()).digest()
    return _join(b"aldis answer v1", sender.encode(), recipient.encode(), connection.encode(), nonce, digests)


def valid_connection_name(connection: object) -> bool:
    """Tell whether a connection name can stand in a proof: 1 to 128 characters of the base64url alphabet."""
    return isinstance(connection, str) and _CONNECTION.fullmatch(connection) is not None
