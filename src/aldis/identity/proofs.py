"""The exact bytes to sign, one function for each purpose.

Every text starts with the name of its purpose, so that a signature for one purpose is worthless for another. A zero
byte separates the parts. Only the last part and parts of fixed length can contain a zero byte: user ids, device and
host names have no control characters, and a connection name is checked here.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

NONCE_BYTES: Final = 32
# base64url, as `new_connection_name` makes it. Up to 128 characters, because other programs may choose another length.
_CONNECTION = re.compile(r"[A-Za-z0-9_-]{1,128}")


def _join(*parts: bytes) -> bytes:
    return b"\x00".join(parts)


def registration(host: str, nonce: bytes, user_id: str, device: str) -> bytes:
    """The bytes for a registration, which prove that a client owns its key. `host` is what it dialled, lower case."""
    return _join(b"aldis register v1", host.lower().encode(), nonce, user_id.encode(), device.encode())


def rotation(user_id: str, new_public_key: bytes) -> bytes:
    """The bytes that the old key signs to hand a name over to a new key (32 bytes)."""
    return _join(b"aldis rotate v1", user_id.encode(), new_public_key)


def seal(user_id: str, device: str, seal_key: bytes) -> bytes:
    """The bytes that the identity key signs for the sealing key of a registration."""
    return _join(b"aldis seal v1", user_id.encode(), device.encode(), seal_key)


def offer(sender: str, recipient: str, connection: str, nonce: bytes, sdp: str) -> bytes:
    """The bytes for an offer. `sender` and `recipient` are user ids without device."""
    digest = sha256(sdp.encode()).digest()
    return _join(b"aldis offer v1", sender.encode(), recipient.encode(), connection.encode(), nonce, digest)


def answer(sender: str, recipient: str, connection: str, nonce: bytes, sdp: str, offer_sdp: str) -> bytes:
    """The bytes for an answer. `nonce` is the offer's own, and the text of the offer is signed too."""
    digests = sha256(sdp.encode()).digest() + sha256(offer_sdp.encode()).digest()
    return _join(b"aldis answer v1", sender.encode(), recipient.encode(), connection.encode(), nonce, digests)


def valid_connection_name(connection: object) -> bool:
    """Whether a connection name is valid in a proof: 1 to 128 characters of the base64url alphabet."""
    return isinstance(connection, str) and _CONNECTION.fullmatch(connection) is not None
