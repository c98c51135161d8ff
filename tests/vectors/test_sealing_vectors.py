"""The vectors of the sealed relay: those of RFC 9180 for its suite, and our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aldis.identity.keys import Identity
from aldis.peer import sealing
from aldis.peer.sealing import Parties, SessionKeys, Unopened
from aldis.protocol.codec import from_base64, to_base64

FOLDER = Path(__file__).parent
RFC = json.loads((FOLDER / "hpke.json").read_text())["vector"]
OURS = json.loads((FOLDER / "sealing.json").read_text())
HANDSHAKES = OURS["handshakes"]


def parties(vector: dict[str, Any]) -> Parties:
    return Parties(vector["from"], vector["fromDevice"], vector["to"], vector["toDevice"])


def unhex(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def private(key: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(key))


def public(key: str) -> str:
    return private(key).public_key().public_bytes_raw().hex()


# --- RFC 9180 -------------------------------------------------------------------------------------------------------


def test_the_library_makes_what_rfc_9180_says() -> None:
    suite = sealing.hpke_suite()
    info = bytes.fromhex(RFC["info"])
    recipient = suite.kem.deserialize_public_key(bytes.fromhex(RFC["pkRm"]))
    enc, sender = suite.create_sender_context(recipient, info, eks=sealing.ephemeral_pair(bytes.fromhex(RFC["skEm"])))
    ours = suite.kem.deserialize_private_key(bytes.fromhex(RFC["skRm"]))
    receiver = suite.create_recipient_context(enc, ours, info)
    assert enc.hex() == RFC["enc"]
    by_number = {each["seq"]: each for each in RFC["encryptions"]}
    for number in range(max(by_number) + 1):
        each = by_number.get(number, {"pt": "", "aad": ""})
        aad, plaintext = bytes.fromhex(each["aad"]), bytes.fromhex(each["pt"])
        ciphertext = sender.seal(plaintext, aad)
        assert ciphertext.hex() == each.get("ct", ciphertext.hex())
        assert receiver.open(ciphertext, aad) == plaintext
    for each in RFC["exports"]:
        context = bytes.fromhex(each["exporter_context"])
        assert sender.export(context, each["L"]).hex() == each["exported_value"]
        assert receiver.export(context, each["L"]).hex() == each["exported_value"]


def test_our_own_messages_use_the_nonces_of_rfc_9180() -> None:
    exported = bytes.fromhex(RFC["key"] + RFC["base_nonce"])
    for each in RFC["encryptions"]:
        direction = sealing.Direction(exported)
        assert direction.nonce(each["seq"]).hex() == each["nonce"]
        sealed = direction.encrypt(each["seq"], bytes.fromhex(each["pt"]), bytes.fromhex(each["aad"]))
        assert sealed.hex() == each["ct"]


# --- ours -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", HANDSHAKES, ids=lambda vector: vector["name"])
def test_a_handshake_is_exact(vector: dict[str, Any]) -> None:
    assert public(vector["fromSealPrivate"]) == vector["fromSealKey"]
    assert public(vector["toSealPrivate"]) == vector["toSealKey"]
    session, ours, theirs = (bytes.fromhex(vector[name]) for name in ("session", "fromSealKey", "toSealKey"))
    identity = Identity.from_seed(bytes.fromhex(vector["identity"]))
    frames = unhex(vector["frames"])
    assert sealing.handshake_info(parties(vector), session, ours, theirs).hex() == vector["info"]
    sealed, keys = sealing.start(
        parties(vector),
        session,
        frames,
        identity=identity,
        seal_key=ours,
        their_seal_key=theirs,
        ephemeral=bytes.fromhex(vector["ephemeral"]),
    )
    assert to_base64(sealed) == vector["sealed"]

    handshake = sealing.read(sealed)
    assert isinstance(handshake, sealing.Handshake)
    assert (handshake.session, handshake.from_seal_key, handshake.to_seal_key) == (session, ours, theirs)
    opened = sealing.accept(parties(vector), handshake, private(vector["toSealPrivate"]))
    assert opened.public_key.hex() == vector["publicKey"]
    assert opened.frames == frames
    check_messages(vector, keys, opened.keys)

    # The keys are those that the vector names.
    initiator, responder = bytes.fromhex(vector["initiator"]), bytes.fromhex(vector["responder"])
    check_messages(vector, SessionKeys(session, initiator, responder), SessionKeys(session, responder, initiator))


def check_messages(vector: dict[str, Any], initiator: SessionKeys, responder: SessionKeys) -> None:
    for message in vector["messages"]:
        by, to = (initiator, responder) if message["by"] == "initiator" else (responder, initiator)
        assert to_base64(by.seal(message["counter"], unhex(message["frames"]))) == message["sealed"]
        sealed = sealing.read(from_base64(message["sealed"]))
        assert isinstance(sealed, sealing.Sealed)
        assert (sealed.session.hex(), sealed.counter) == (vector["session"], message["counter"])
        assert to.open(sealed) == unhex(message["frames"])


def opened(vector: dict[str, Any]) -> str:
    """What becomes of a message of `refused`."""
    base = HANDSHAKES[vector["handshake"]]
    try:
        sealed = sealing.read(from_base64(vector["sealed"]) if vector["sealed"] else b"")
        if isinstance(sealed, sealing.Unknown):
            return "unknown"
        if isinstance(sealed, sealing.Handshake):
            if sealed.to_seal_key.hex() != base["toSealKey"]:
                return "other-key"
            sealing.accept(parties({**base, **vector}), sealed, private(base["toSealPrivate"]))
            return "opened"
        initiator, responder = bytes.fromhex(base["initiator"]), bytes.fromhex(base["responder"])
        theirs, ours = (initiator, responder) if vector["by"] == "initiator" else (responder, initiator)
        SessionKeys(bytes.fromhex(base["session"]), ours, theirs).open(sealed)
    except Unopened:
        return "unopened"
    return "opened"


@pytest.mark.parametrize("vector", OURS["refused"], ids=lambda vector: vector["name"])
def test_what_was_not_sealed_for_this_device_is_not_opened(vector: dict[str, Any]) -> None:
    assert opened(vector) == vector["error"]


def test_a_vector_is_refused_for_what_was_changed_and_for_nothing_else() -> None:
    base = HANDSHAKES[0]
    assert opened({"handshake": 0, "sealed": base["sealed"]}) == "opened"
    message = next(each for each in base["messages"] if each["by"] == "initiator")
    assert opened({"handshake": 0, "by": "initiator", "sealed": message["sealed"]}) == "opened"
