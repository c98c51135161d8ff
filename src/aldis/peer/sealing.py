"""Seals the frames that two devices exchange through the server, and opens them: keys, counters and layout.

    handshake: 01 01 session(16) fromSealKey(32) toSealKey(32) enc(32) ciphertext
    frames:    01 02 session(16) counter(8, big-endian) ciphertext

Rules:

* The first byte is the suite, the second the kind. Suite 01 is HPKE (RFC 9180) in base mode with DHKEM(X25519,
  HKDF-SHA256), HKDF-SHA256 and AES-256-GCM. Everything else is `Unknown`, so that a later suite can be told apart.
* A handshake is encrypted to the recipient's sealing key. `info` names both users, both devices, the session and both
  sealing keys; the sender's identity signs all of it, `enc` and the suite. So a handshake opens only for the two
  devices that it was made for.
* Both directions have a key and a base nonce of their own, exported from the handshake. The nonce of a message is the
  base nonce XOR its counter (RFC 9180, section 5.2), and everything before the ciphertext is authenticated with it.
* The plaintext is frames, each with its length in 4 bytes before it.

It knows no state: which counter comes next and which session counts is up to `peer.relay`. Whether a key is the pinned
one is up to the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aldis.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Identity, verify

if TYPE_CHECKING:
    from pyhpke import CipherSuite, KEMKeyPair

SUITE: Final = 1  # 2 is kept for a hybrid with ML-KEM-768
HANDSHAKE: Final = 1
FRAMES: Final = 2

SESSION_BYTES: Final = 16
SEAL_KEY_BYTES: Final = 32
_ENC_BYTES: Final = 32
_COUNTER_BYTES: Final = 8
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_LENGTH_BYTES: Final = 4

_HANDSHAKE_HEADER: Final = 2 + SESSION_BYTES + 2 * SEAL_KEY_BYTES + _ENC_BYTES
_FRAMES_HEADER: Final = 2 + SESSION_BYTES + _COUNTER_BYTES
_SIGNED_BYTES: Final = PUBLIC_KEY_BYTES + SIGNATURE_BYTES

# What a message has beside its frames, and what each frame costs beside itself; in bytes.
HANDSHAKE_OVERHEAD: Final = _HANDSHAKE_HEADER + _SIGNED_BYTES + _TAG_BYTES
FRAMES_OVERHEAD: Final = _FRAMES_HEADER + _TAG_BYTES
FRAME_OVERHEAD: Final = _LENGTH_BYTES

_LABEL: Final = b"aldis relay v1"
_INITIATOR: Final = b"aldis relay initiator"
_RESPONDER: Final = b"aldis relay responder"


class Unopened(Exception):
    """A sealed message that this side does not take: it is forged, damaged, or not meant for it. Has no effect."""


@dataclass(frozen=True, slots=True)
class Parties:
    """Who talks to whom: user ids and names of devices."""

    from_user: str
    from_device: str
    to_user: str
    to_device: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of an unknown suite or kind. `session` are the 16 bytes where a session would be."""

    session: bytes


@dataclass(frozen=True, slots=True)
class Handshake:
    """A handshake, not opened yet."""

    session: bytes
    from_seal_key: bytes
    to_seal_key: bytes
    enc: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A frames message, not opened yet."""

    session: bytes
    counter: int
    header: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened handshake: the identity key that has signed it, its frames, and the keys of the session."""

    public_key: bytes
    frames: list[bytes]
    keys: SessionKeys


class Direction:
    """The key and the base nonce of one direction."""

    __slots__ = ("_base", "_cipher")

    def __init__(self, exported: bytes) -> None:
        self._cipher = AESGCM(exported[:_KEY_BYTES])
        self._base = int.from_bytes(exported[_KEY_BYTES:])

    def nonce(self, counter: int) -> bytes:
        return (self._base ^ counter).to_bytes(_NONCE_BYTES)

    def encrypt(self, counter: int, plaintext: bytes, header: bytes) -> bytes:
        return self._cipher.encrypt(self.nonce(counter), plaintext, header)

    def decrypt(self, counter: int, ciphertext: bytes, header: bytes) -> bytes:
        return self._cipher.decrypt(self.nonce(counter), ciphertext, header)


class SessionKeys:
    """The keys of one session: seals what this side says, opens what the other side says."""

    __slots__ = ("_receiving", "_sending", "session")

    def __init__(self, session: bytes, sending: bytes, receiving: bytes) -> None:
        """`sending` and `receiving` are 44 exported bytes each: key and base nonce."""
        self.session = session
        self._sending = Direction(sending)
        self._receiving = Direction(receiving)

    def seal(self, counter: int, frames: Sequence[bytes]) -> bytes:
        """The bytes of a frames message. Each counter, from 0, may be used once."""
        header = bytes((SUITE, FRAMES)) + self.session + counter.to_bytes(_COUNTER_BYTES)
        return header + self._sending.encrypt(counter, _join(frames), header)

    def open(self, sealed: Sealed) -> list[bytes]:
        """The frames of a message of this session. Raises `Unopened`."""
        try:
            plaintext = self._receiving.decrypt(sealed.counter, sealed.ciphertext, sealed.header)
        except InvalidTag:
            raise Unopened("it was not sealed in this session") from None
        return _split(plaintext)


def read(sealed: bytes) -> Handshake | Sealed | Unknown:
    """Tell what kind of message this is. Raises `Unopened` for one that is too short for its kind."""
    if len(sealed) < 2 + SESSION_BYTES:
        raise Unopened("it is too short")
    session = sealed[2 : 2 + SESSION_BYTES]
    if sealed[0] != SUITE or sealed[1] not in (HANDSHAKE, FRAMES):
        return Unknown(session)
    if sealed[1] == HANDSHAKE:
        if len(sealed) < HANDSHAKE_OVERHEAD:
            raise Unopened("it is too short")
        start = 2 + SESSION_BYTES
        middle, end = start + SEAL_KEY_BYTES, start + 2 * SEAL_KEY_BYTES
        return Handshake(
            session, sealed[start:middle], sealed[middle:end], sealed[end:_HANDSHAKE_HEADER], sealed[_HANDSHAKE_HEADER:]
        )
    if len(sealed) < FRAMES_OVERHEAD:
        raise Unopened("it is too short")
    header = sealed[:_FRAMES_HEADER]
    return Sealed(session, int.from_bytes(header[2 + SESSION_BYTES :]), header, sealed[_FRAMES_HEADER:])


def start(
    parties: Parties,
    session: bytes,
    frames: Sequence[bytes],
    *,
    identity: Identity,
    seal_key: bytes,
    their_seal_key: bytes,
    ephemeral: bytes | None = None,
) -> tuple[bytes, SessionKeys]:
    """Make a handshake with the device of `their_seal_key`; return its bytes and the keys of the session.

    `seal_key` is the public sealing key of this side. `ephemeral` is the private X25519 key of the encapsulation; only
    test vectors give one. Raises `Unopened` when their key is none.
    """
    suite = hpke_suite()
    info = handshake_info(parties, session, seal_key, their_seal_key)
    try:
        recipient = suite.kem.deserialize_public_key(their_seal_key)
        enc, context = suite.create_sender_context(
            recipient, info, eks=None if ephemeral is None else ephemeral_pair(ephemeral)
        )
    except ValueError as error:
        raise Unopened(f"their sealing key is no X25519 key: {error}") from None
    signature = identity.sign(_signed(info, enc))
    header = bytes((SUITE, HANDSHAKE))
    ciphertext = context.seal(identity.public_key + signature + _join(frames), header)
    exported = (
        context.export(_INITIATOR, _KEY_BYTES + _NONCE_BYTES),
        context.export(_RESPONDER, _KEY_BYTES + _NONCE_BYTES),
    )
    return header + session + seal_key + their_seal_key + enc + ciphertext, SessionKeys(session, *exported)


def accept(parties: Parties, handshake: Handshake, private_key: X25519PrivateKey) -> Opened:
    """Open a handshake with the private key of its `to_seal_key`. Raises `Unopened`: damaged, forged, or made for other
    parties. Whether the identity key belongs to the sender is up to the caller."""
    from pyhpke import KEMKey, OpenError

    suite = hpke_suite()
    info = handshake_info(parties, handshake.session, handshake.from_seal_key, handshake.to_seal_key)
    try:
        recipient = KEMKey.from_pyca_cryptography_key(private_key)
        context = suite.create_recipient_context(handshake.enc, recipient, info)
        plaintext = context.open(handshake.ciphertext, bytes((SUITE, HANDSHAKE)))
    except (OpenError, ValueError):
        raise Unopened("it was not sealed for this device") from None
    public_key, signature = plaintext[:PUBLIC_KEY_BYTES], plaintext[PUBLIC_KEY_BYTES:_SIGNED_BYTES]
    if not verify(public_key, signature, _signed(info, handshake.enc)):
        raise Unopened("its signature is wrong")
    size = _KEY_BYTES + _NONCE_BYTES
    keys = SessionKeys(handshake.session, context.export(_RESPONDER, size), context.export(_INITIATOR, size))
    return Opened(public_key, _split(plaintext[_SIGNED_BYTES:]), keys)


def handshake_info(parties: Parties, session: bytes, from_seal_key: bytes, to_seal_key: bytes) -> bytes:
    """The `info` of HPKE: everything that the two sides must agree on."""
    names = (parties.from_user, parties.from_device, parties.to_user, parties.to_device)
    parts = [_LABEL, *(name.encode() for name in names), session + from_seal_key + to_seal_key]
    return b"\x00".join(parts)


def _signed(info: bytes, enc: bytes) -> bytes:
    """What the sender's identity signs."""
    return info + enc + bytes((SUITE,))


def _join(frames: Iterable[bytes]) -> bytes:
    return b"".join(len(frame).to_bytes(_LENGTH_BYTES) + frame for frame in frames)


def _split(plaintext: bytes) -> list[bytes]:
    frames = []
    at = 0
    while at < len(plaintext):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(plaintext[at:start])
        if start > len(plaintext) or at > len(plaintext):
            raise Unopened("a frame is longer than its message")
        frames.append(plaintext[start:at])
    return frames


@cache
def hpke_suite() -> CipherSuite:
    """Suite 01."""
    # Loaded when the first session begins, as the engines are.
    from pyhpke import AEADId, CipherSuite, KDFId, KEMId

    return CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)


def ephemeral_pair(private: bytes) -> KEMKeyPair:
    """A private X25519 key as the library takes it for an encapsulation."""
    from pyhpke import KEMKey, KEMKeyPair

    key = X25519PrivateKey.from_private_bytes(private)
    return KEMKeyPair(KEMKey.from_pyca_cryptography_key(key), KEMKey.from_pyca_cryptography_key(key.public_key()))
