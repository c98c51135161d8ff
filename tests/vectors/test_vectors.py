"""The vectors in this folder: JSON that the Python and the browser implementation must both agree with.

Nothing here makes vectors; this test recomputes them. They were written once, from the text of docs/protocol.md, and a
vector that changes is a change of the wire.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aldis.errors import ProtocolViolation, UsageError
from aldis.identity import proofs
from aldis.identity.keys import Identity, check_fingerprint, fingerprint, verify
from aldis.protocol import channel
from aldis.protocol.addresses import device_problem, join, split, user_id_problem
from aldis.protocol.codec import (
    DecodeFailed,
    decode_client_message,
    decode_server_message,
    encode_text,
    from_base64,
    to_base64,
)
from aldis.protocol.frames import close_reason
from aldis.store.messages import control as controls
from aldis.store.peers.relay_listener import is_older

FOLDER = Path(__file__).parent


def vectors(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


# --- proofs and fingerprints ----------------------------------------------------------------------------------------


def signed_bytes(kind: str, inputs: dict[str, str]) -> bytes:
    match kind:
        case "registration":
            return proofs.registration(
                inputs["host"], from_base64(inputs["nonce"], 32), inputs["userId"], inputs["device"]
            )
        case "rotation":
            return proofs.rotation(inputs["userId"], from_base64(inputs["newPublicKey"], 32))
        case "seal":
            return proofs.seal(inputs["userId"], inputs["device"], from_base64(inputs["publicKey"]))
        case "offer":
            nonce = from_base64(inputs["nonce"], 32)
            return proofs.offer(inputs["from"], inputs["to"], inputs["connection"], nonce, inputs["sdp"])
        case "answer":
            nonce = from_base64(inputs["nonce"], 32)
            return proofs.answer(
                inputs["from"], inputs["to"], inputs["connection"], nonce, inputs["sdp"], inputs["offerSdp"]
            )
        case _:
            raise AssertionError(kind)


PROOFS = vectors("proofs")["vectors"]


@pytest.mark.parametrize("vector", PROOFS, ids=lambda vector: vector["name"])
def test_the_bytes_and_the_signature_of_a_proof_are_exact(vector: dict[str, Any]) -> None:
    signed = signed_bytes(vector["kind"], vector["inputs"])
    assert signed.hex() == vector["bytes"]
    identity = Identity.from_seed(bytes.fromhex(vector["seed"]))
    assert to_base64(identity.public_key) == vector["publicKey"]
    assert to_base64(identity.sign(signed)) == vector["signature"]
    assert verify(from_base64(vector["publicKey"], 32), from_base64(vector["signature"], 64), signed)


def test_every_kind_of_proof_has_a_vector() -> None:
    assert {vector["kind"] for vector in PROOFS} == {"registration", "rotation", "seal", "offer", "answer"}


@pytest.mark.parametrize("vector", vectors("fingerprints")["vectors"], ids=lambda vector: vector["fingerprint"])
def test_a_key_has_its_fingerprint(vector: dict[str, str]) -> None:
    identity = Identity.from_seed(bytes.fromhex(vector["seed"]))
    assert to_base64(identity.public_key) == vector["publicKey"]
    assert identity.fingerprint == fingerprint(identity.public_key) == vector["fingerprint"]
    assert sha256(identity.public_key).digest()[:5] == bytes_of_base32(vector["fingerprint"][:9].replace("-", ""))


SPELLINGS = vectors("fingerprints")["spellings"]


@pytest.mark.parametrize("text", SPELLINGS["read"], ids=ascii)
def test_a_fingerprint_is_read_as_people_write_it(text: str) -> None:
    assert check_fingerprint(text) == SPELLINGS["fingerprint"]


@pytest.mark.parametrize("text", SPELLINGS["refused"], ids=ascii)
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        check_fingerprint(text)


def bytes_of_base32(text: str) -> bytes:
    """Base32 by hand, so that the alphabet and the order of bits are checked too."""
    number = 0
    for character in text:
        number = number * 32 + "abcdefghijklmnopqrstuvwxyz234567".index(character)
    return number.to_bytes(len(text) * 5 // 8, "big")


# --- addresses ------------------------------------------------------------------------------------------------------

ADDRESSES = vectors("addresses")


@pytest.mark.parametrize(
    ("kind", "problem"), [("userIds", user_id_problem), ("devices", device_problem)], ids=["user ids", "devices"]
)
def test_names_are_valid_or_not(kind: str, problem: Any) -> None:
    assert [name for name in ADDRESSES[kind]["valid"] if problem(name)] == []
    assert [name for name in ADDRESSES[kind]["invalid"] if not problem(name)] == []


def test_addresses_are_taken_apart_and_put_together() -> None:
    for vector in ADDRESSES["split"]:
        assert split(vector["address"]) == (vector["userId"], vector["device"])
    for vector in ADDRESSES["join"]:
        assert join(vector["userId"], vector["device"]) == vector["address"]


def test_user_ids_are_ordered_by_their_utf_8_bytes() -> None:
    for first, second in ADDRESSES["order"]:
        assert first.encode() < second.encode()


# --- codec ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors("codec")["client"], ids=lambda vector: vector["text"][:60])
def test_a_frame_of_a_client_is_a_message_or_an_error(vector: dict[str, Any]) -> None:
    if "encoded" in vector:
        assert encode_text(decode_client_message(vector["text"])) == vector["encoded"]
        return
    with pytest.raises(DecodeFailed) as caught:
        decode_client_message(vector["text"])
    assert (caught.value.code, caught.value.re) == (vector["code"], vector.get("re", msgspec.UNSET))


@pytest.mark.parametrize("vector", vectors("codec")["server"], ids=lambda vector: vector["text"][:60])
def test_a_frame_of_a_server_is_a_message_or_unknown_or_an_error(vector: dict[str, Any]) -> None:
    if "code" in vector:
        with pytest.raises(DecodeFailed) as caught:
            decode_server_message(vector["text"])
        assert caught.value.code == vector["code"]
        return
    message = decode_server_message(vector["text"])
    if message is None:
        assert vector["unknown"]
    else:
        assert encode_text(message) == vector["encoded"]


# --- WebSocket frames -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "kept"), vectors("frames")["closeReasons"], ids=len)
def test_a_close_reason_is_cut_between_two_characters(text: str, kept: str) -> None:
    assert close_reason(text) == kept.encode()


# --- data channel ---------------------------------------------------------------------------------------------------

CHANNEL = vectors("channel")


def counted(hello: dict[str, Any]) -> dict[str, Any]:
    """A HELLO without the fields that say nothing."""
    return {name: value for name, value in hello.items() if name == "received" or value is not None}


def described(frame: channel.Frame | None) -> dict[str, Any] | None:
    match frame:
        case None:
            return None
        case channel.Hello():
            received = frame.received and {"stream": frame.received.stream, "sequence": str(frame.received.sequence)}
            told = {
                "kind": "hello",
                "version": frame.version,
                "stream": frame.stream,
                "next": str(frame.next),
                "features": frame.features,
                "received": received,
                "run": frame.run,
                "channel": frame.channel,
            }
            return counted(told)
        case channel.Chunk():
            return {
                "kind": "message",
                "content": frame.content.name.lower(),
                "sequence": str(frame.sequence),
                "size": frame.size,
                "last": frame.last,
                "data": frame.data.hex(),
            }
        case channel.Ack():
            return {"kind": "ack", "sequence": str(frame.sequence)}
        case channel.Ping():
            return {"kind": "ping", "token": str(frame.token)}
        case channel.Pong():
            return {"kind": "pong", "token": str(frame.token)}
        case channel.Goodbye():
            return {"kind": "goodbye", "reason": frame.reason}


@pytest.mark.parametrize("vector", CHANNEL["frames"], ids=lambda vector: vector["name"])
def test_the_bytes_of_a_frame_are_its_frame(vector: dict[str, Any]) -> None:
    assert described(channel.decode(bytes.fromhex(vector["bytes"]))) == counted(vector["frame"])


@pytest.mark.parametrize("vector", CHANNEL["older"], ids=lambda vector: vector["name"])
def test_a_hello_is_older_than_another_of_its_stream_with_a_higher_number(vector: dict[str, Any]) -> None:
    hello = channel.Hello(1, vector["hello"]["stream"], 1, channel=vector["hello"]["channel"])
    assert is_older(hello, vector["before"]["stream"], vector["before"]["channel"]) == vector["older"]


@pytest.mark.parametrize("vector", CHANNEL["frames"], ids=lambda vector: vector["name"])
def test_a_frame_that_is_read_can_be_written_again(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    match channel.decode(data):
        case channel.Ack(sequence):
            assert channel.encode_ack(sequence) == data
        case channel.Ping(token):
            assert channel.encode_ping(token) == data
        case channel.Pong(token):
            assert channel.encode_pong(token) == data
        case channel.Goodbye(reason):
            assert channel.encode_goodbye(reason) == data
        case channel.Hello() as hello:
            assert channel.decode(channel.encode_hello(hello)) == hello
        case frame:
            assert isinstance(frame, channel.Chunk)


@pytest.mark.parametrize("vector", CHANNEL["skipped"], ids=lambda vector: vector["name"])
def test_a_frame_of_an_unknown_kind_is_skipped(vector: dict[str, str]) -> None:
    assert channel.decode(bytes.fromhex(vector["bytes"])) is None


@pytest.mark.parametrize("vector", CHANNEL["refused"], ids=lambda vector: vector["name"])
def test_a_broken_frame_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(ProtocolViolation):
        channel.decode(bytes.fromhex(vector["bytes"]))


@pytest.mark.parametrize("vector", CHANNEL["bundles"], ids=lambda vector: vector["name"])
def test_a_bundle_is_these_frames(vector: dict[str, Any]) -> None:
    data, frames = bytes.fromhex(vector["bytes"]), [bytes.fromhex(frame) for frame in vector["frames"]]
    assert channel.unbundle(data) == frames
    assert channel.encode_bundle(frames) == data


@pytest.mark.parametrize("vector", CHANNEL["brokenBundles"], ids=lambda vector: vector["name"])
def test_a_broken_bundle_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(ProtocolViolation):
        channel.unbundle(bytes.fromhex(vector["bytes"]))


@pytest.mark.parametrize("vector", CHANNEL["messages"], ids=lambda vector: vector["content"])
def test_a_message_becomes_these_frames(vector: dict[str, Any]) -> None:
    frames = channel.encode_message(
        channel.Content[vector["content"].upper()],
        int(vector["sequence"]),
        bytes.fromhex(vector["data"]),
        vector["chunk"],
    )
    assert [frame.hex() for frame in frames] == vector["frames"]


# --- control messages -----------------------------------------------------------------------------------------------

CONTROLS = vectors("controls")


def named(vectors: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


@named(CONTROLS["words"])
def test_a_control_message_is_read_and_written(vector: dict[str, Any]) -> None:
    word = controls.decode_control(bytes.fromhex(vector["bytes"]))
    assert not isinstance(word, controls.Piece)
    assert msgspec.to_builtins(word) == vector["word"]
    assert word is not None
    assert controls.encode_control(word).hex() == vector["bytes"]


@named(CONTROLS["read_only"])
def test_a_control_message_may_be_written_otherwise(vector: dict[str, Any]) -> None:
    assert msgspec.to_builtins(controls.decode_control(bytes.fromhex(vector["bytes"]))) == vector["word"]


@named(CONTROLS["pieces"])
def test_a_piece_of_a_file_is_read_and_written(vector: dict[str, Any]) -> None:
    piece = controls.Piece(vector["id"], int(vector["offset"]), bytes.fromhex(vector["data"]))
    assert controls.decode_control(bytes.fromhex(vector["bytes"])) == piece
    assert controls.encode_piece(piece.id, piece.offset, piece.data).hex() == vector["bytes"]


@named(CONTROLS["ignored"] + CONTROLS["calls"])
def test_what_this_version_does_not_know_is_ignored(vector: dict[str, Any]) -> None:
    assert controls.decode_control(bytes.fromhex(vector["bytes"])) is None


@named(CONTROLS["refused"])
def test_a_broken_control_message_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolViolation):
        controls.decode_control(bytes.fromhex(vector["bytes"]))


@pytest.mark.parametrize(("given", "safe"), CONTROLS["names"], ids=lambda name: ascii(name)[:40])
def test_the_name_of_a_file_is_made_safe(given: str, safe: str) -> None:
    assert controls.safe_name(given) == safe


@pytest.mark.parametrize(("given", "safe"), CONTROLS["mimes"], ids=lambda name: ascii(name)[:40])
def test_a_media_type_is_one_or_unknown(given: str, safe: str) -> None:
    assert controls.safe_mime(given) == safe
