"""Seal keys: the X25519 keys to which others encrypt what goes through the server (docs/protocol.md, "Relaying").

A client publishes one with each registration, signed by its identity key. `SealKeys` keeps the one that the server
shows, the one that is about to be published, and a few earlier ones, because handshakes to an earlier one may be on
their way. `checked_seal_key` is for whoever uses the key of another device.

Rules:

* A private key leaves this module only as an object that decrypts. Keys are never written to disk: what was sealed to a
  key cannot be read any more when the key is gone. Call `purge` when `next_expiry` has come.
* At most one key waits to be published. A try that fails leaves it for the next try: the server may have taken it.
* Time is an argument, in monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aldis.identity import proofs
from aldis.identity.keys import Identity, verify

SEAL_KEY_BYTES: Final = 32  # RFC 7748 section 6.1
# Seconds for which an earlier key opens handshakes: others may have asked for the key just before it changed.
OLD_KEY_SECONDS: Final = 60.0
# Keys that are kept, the newest included. A client publishes one an hour, and one when a resume has failed. The key
# that the server shows and one that waits to be published are the last two, so they never go for want of room.
MOST_KEYS: Final = 4


@dataclass(frozen=True, slots=True)
class PublishedSealKey:
    """The seal key of a device, and its signature by the identity key, as the server shows them.

    Nobody has checked those of others: see `checked_seal_key`.
    """

    public_key: bytes
    signature: bytes


def checked_seal_key(
    published: PublishedSealKey | None, identity_key: bytes, user_id: str, device: str
) -> bytes | None:
    """The 32 bytes of a device's seal key, if `identity_key` has signed them for this user and device.

    None when there is no key, when the signature is wrong, and for a key of another kind.
    """
    if published is None or len(published.public_key) != SEAL_KEY_BYTES:
        return None
    signed = proofs.seal(user_id, device, published.public_key)
    return published.public_key if verify(identity_key, published.signature, signed) else None


@dataclass(frozen=True, slots=True, eq=False)
class SealKeyPair:
    """One seal key of ours: `private` opens what was sealed to `public_key` (32 bytes)."""

    private: X25519PrivateKey
    public_key: bytes


@dataclass(slots=True)
class _Kept:
    pair: SealKeyPair
    published: bool = False
    until: float = inf  # when it stops opening handshakes


class SealKeys:
    """The seal keys of one client, which is one device of a user."""

    def __init__(self, user_id: str, device: str) -> None:
        self._user_id = user_id
        self._device = device
        self._kept: list[_Kept] = []  # the newest last; only that one may be unpublished
        self._registering: SealKeyPair | None = None

    @property
    def current(self) -> SealKeyPair | None:
        """The key that the server shows; None before the first registration."""
        return next((kept.pair for kept in reversed(self._kept) if kept.published), None)

    @property
    def next_expiry(self) -> float | None:
        """When `purge` is due; None while no key ends."""
        return min((kept.until for kept in self._kept if kept.until < inf), default=None)

    def to_register(self, identity: Identity, *, resuming: bool) -> PublishedSealKey:
        """The key for a registration: a new one, unless it resumes a session or one was made and never published."""
        self._registering = (self.current if resuming else None) or self._unpublished()
        return self._signed(self._registering, identity)

    def registered(self, now: float) -> None:
        """The server shows the key of the last `to_register`, if there was one."""
        pair, self._registering = self._registering, None
        if pair is not None:
            self.published(pair, now)

    def to_publish(self, identity: Identity) -> tuple[SealKeyPair, PublishedSealKey]:
        """A new key, to publish while registered. Call `published` when the server shows it; until then each try gets
        the same one."""
        pair = self._unpublished()
        return pair, self._signed(pair, identity)

    def published(self, pair: SealKeyPair, now: float) -> None:
        """The server shows this key to others. Earlier ones open handshakes for `OLD_KEY_SECONDS` more."""
        for kept in self._kept:
            if kept.pair is pair:
                kept.published = True
                break
            kept.until = min(kept.until, now + OLD_KEY_SECONDS)

    def find(self, public_key: bytes, now: float) -> SealKeyPair | None:
        """The key of ours with these 32 bytes, if it still opens handshakes."""
        self.purge(now)
        return next((kept.pair for kept in self._kept if kept.pair.public_key == public_key), None)

    def purge(self, now: float) -> None:
        """Forget the keys that open handshakes no more."""
        self._kept = [kept for kept in self._kept if kept.until > now]

    def clear(self) -> None:
        """Forget all keys: nothing will come any more."""
        self._kept.clear()
        self._registering = None

    def _unpublished(self) -> SealKeyPair:
        """The key that waits to be published, or a new one."""
        if self._kept and not self._kept[-1].published:
            return self._kept[-1].pair
        private = X25519PrivateKey.generate()
        pair = SealKeyPair(private, private.public_key().public_bytes_raw())
        self._kept = [*self._kept, _Kept(pair)][-MOST_KEYS:]
        return pair

    def _signed(self, pair: SealKeyPair, identity: Identity) -> PublishedSealKey:
        signature = identity.sign(proofs.seal(self._user_id, self._device, pair.public_key))
        return PublishedSealKey(pair.public_key, signature)
