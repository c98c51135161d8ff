"""Signs our offers and answers, and checks those of others: the server that carries them is not trusted.

Rules:

* The signed text is exactly the text for the engine. It carries the fingerprint of the DTLS certificate, so an open
  channel leads to the owner of the identity key.
* A key is pinned at its first use, and only after a correct signature. Another key is refused until a person accepts it
  (`identity.pins`).
* An offer's nonce is accepted once. A nonce is remembered only if the peer itself has signed it, so only the peer can
  push its own nonces out of the memory. The number of peers is bounded: the peer whose last offer is oldest goes first.

A proof has no time. So an offer from before this program started, or one whose nonce was pushed out, would pass a
second time. An attacker gains nothing by such a replay: the answer is signed for that one offer, the DTLS handshake
fails without the private key of the offer's old certificate, and `negotiation` lets no attempt touch a working
connection before its own channel is open. Only a failed attempt with a time-out is left, which a server can have more
simply.

It does not know whether an offer or answer is wanted now; `negotiation` decides that.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from aldis.errors import FingerprintMismatch, IdentityError, PeerError, PeerKeyChanged, ProofInvalid
from aldis.identity import proofs
from aldis.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Identity, verify
from aldis.identity.pins import Pins
from aldis.protocol.codec import from_base64, to_base64
from aldis.protocol.codes import RefusalCode
from aldis.protocol.messages import Proof

MAX_NONCES: Final = 256  # for each peer; with an attempt every half minute, two hours
MAX_PEERS: Final = 1024  # 32 MiB with every memory full

# Seconds until a refused offer may be made again. A person may have to accept a key first.
KEY_PAUSE: Final = 30.0
PROOF_PAUSE: Final = 60.0
INTERNAL_PAUSE: Final = 10.0


class Trust:
    """The signatures and checks of one user of one server."""

    def __init__(
        self, identity: Identity, user_id: str, server: str, pins: Pins, *, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        """`server` is the host and port for the pins; `user_id` is our own, without device."""
        self._identity = identity
        self._user_id = user_id
        self._server = server
        self._pins = pins
        self._random = random
        self._nonces: OrderedDict[str, OrderedDict[bytes, None]] = OrderedDict()

    def sign_offer(self, remote: str, connection: str, sdp: str) -> Proof:
        """The proof of an offer to the user `remote`, with a new nonce."""
        nonce = self._random(proofs.NONCE_BYTES)
        return self._proof(nonce, proofs.offer(self._user_id, remote, connection, nonce, sdp))

    def sign_answer(self, remote: str, connection: str, sdp: str, *, offer_sdp: str, nonce: str) -> Proof:
        """The proof of an answer to a checked offer; `nonce` is the nonce of the offer's proof."""
        raw = from_base64(nonce, proofs.NONCE_BYTES)
        return self._proof(raw, proofs.answer(self._user_id, remote, connection, raw, sdp, offer_sdp))

    def _proof(self, nonce: bytes, message: bytes) -> Proof:
        return Proof(
            public_key=to_base64(self._identity.public_key),
            nonce=to_base64(nonce),
            signature=to_base64(self._identity.sign(message)),
        )

    def check_offer(self, remote: str, connection: str | None, sdp: str, proof: Proof | None) -> None:
        """Return if the user `remote` has made this offer to us, and the offer is new.

        Raises `ProofInvalid`, or `PeerKeyChanged` or `FingerprintMismatch` when only the key is wrong.
        """
        name = self._named(remote, connection)
        key, nonce, signature = self._read(remote, proof)
        if not verify(key, signature, proofs.offer(remote, self._user_id, name, nonce, sdp)):
            raise ProofInvalid(remote, "the signature of the offer is wrong")
        self.check_key(remote, key)
        self._take(remote, nonce)

    def check_answer(
        self, remote: str, connection: str | None, sdp: str, proof: Proof | None, *, offer_sdp: str, nonce: str
    ) -> None:
        """Return if the user `remote` has made this answer to the offer that we have signed with `nonce`.

        Raises `ProofInvalid`, or `PeerKeyChanged` or `FingerprintMismatch` when only the key is wrong.
        """
        name = self._named(remote, connection)
        key, answered, signature = self._read(remote, proof)
        if to_base64(answered) != nonce:
            raise ProofInvalid(remote, "the answer belongs to another offer")
        if not verify(key, signature, proofs.answer(remote, self._user_id, name, answered, sdp, offer_sdp)):
            raise ProofInvalid(remote, "the signature of the answer is wrong")
        self.check_key(remote, key)

    def _named(self, remote: str, connection: str | None) -> str:
        if connection is None or not proofs.valid_connection_name(connection):
            raise ProofInvalid(remote, "it names no connection")
        return connection

    def _read(self, remote: str, proof: Proof | None) -> tuple[bytes, bytes, bytes]:
        if proof is None:
            raise ProofInvalid(remote, "it carries no proof")
        try:
            return (
                from_base64(proof.public_key, PUBLIC_KEY_BYTES),
                from_base64(proof.nonce, proofs.NONCE_BYTES),
                from_base64(proof.signature, SIGNATURE_BYTES),
            )
        except ValueError as error:
            raise ProofInvalid(remote, f"its proof cannot be read ({error})") from None

    def check_key(self, remote: str, key: bytes) -> None:
        """Return if the key that the user `remote` has proved is the pinned one; the first one is pinned. Raises
        `PeerKeyChanged`, `FingerprintMismatch`, `IdentityError`."""
        pinned = self._pins.pin(self._server, remote, key)
        if pinned != key:
            raise PeerKeyChanged(remote, pinned, key)

    def _take(self, remote: str, nonce: bytes) -> None:
        taken = self._nonces.setdefault(remote, OrderedDict())
        self._nonces.move_to_end(remote)
        if nonce in taken:
            raise ProofInvalid(remote, "the offer has been used before")
        taken[nonce] = None
        if len(taken) > MAX_NONCES:
            taken.popitem(last=False)
        if len(self._nonces) > MAX_PEERS:
            self._nonces.popitem(last=False)


def refusal_of(error: PeerError | IdentityError) -> tuple[str, str, float]:
    """The refusal for an offer that failed the check: reason, code, seconds. It reveals nothing about our pins."""
    if isinstance(error, PeerKeyChanged | FingerprintMismatch):
        return "another key is expected of you", RefusalCode.KEY_REFUSED, KEY_PAUSE
    if isinstance(error, IdentityError):
        return "keys cannot be checked now", RefusalCode.INTERNAL, INTERNAL_PAUSE
    return "the proof is not valid", RefusalCode.BAD_PROOF, PROOF_PAUSE
