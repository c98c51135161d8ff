"""The bytes that are signed: exact, and never the same for two meanings."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.identity import proofs
from aldis.identity.keys import Identity, verify
from aldis.protocol.addresses import user_id_problem

NONCE = bytes(range(32))


def test_a_registration_covers_server_nonce_name_and_device() -> None:
    assert proofs.registration("example.org:8080", NONCE, "älice", "main") == (
        b"aldis register v1\x00example.org:8080\x00" + NONCE + b"\x00\xc3\xa4lice\x00main"
    )


def test_a_host_is_signed_in_lower_case() -> None:
    assert proofs.registration("Example.ORG", NONCE, "a", "main") == proofs.registration(
        "example.org", NONCE, "a", "main"
    )


def test_a_rotation_covers_name_and_new_key() -> None:
    assert proofs.rotation("alice", NONCE) == b"aldis rotate v1\x00alice\x00" + NONCE


def test_a_seal_key_is_vouched_for_with_name_and_device() -> None:
    assert proofs.seal("alice", "phone", NONCE) == b"aldis seal v1\x00alice\x00phone\x00" + NONCE


def test_an_offer_covers_both_names_connection_nonce_and_text() -> None:
    assert proofs.offer("alice", "bob", "c-1", NONCE, "v=0\r\n") == (
        b"aldis offer v1\x00alice\x00bob\x00c-1\x00" + NONCE + b"\x00" + sha256(b"v=0\r\n").digest()
    )


def test_an_answer_covers_the_offer_that_it_answers() -> None:
    assert proofs.answer("bob", "alice", "c-1", NONCE, "answer", "offer") == (
        b"aldis answer v1\x00bob\x00alice\x00c-1\x00"
        + NONCE
        + b"\x00"
        + sha256(b"answer").digest()
        + sha256(b"offer").digest()
    )


NAMES = st.text(min_size=1, max_size=8).filter(lambda text: user_id_problem(text) is None)
CONNECTIONS = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
NONCES = st.binary(min_size=32, max_size=32)
OFFERS = st.tuples(NAMES, NAMES, CONNECTIONS, NONCES, st.text(max_size=8))
REGISTRATIONS = st.tuples(st.sampled_from(["a", "a:1", "[::1]:80"]), NONCES, NAMES, st.sampled_from(["main", "x"]))


@given(OFFERS, OFFERS)
def test_two_offers_have_the_same_bytes_only_when_they_are_the_same(
    one: tuple[str, str, str, bytes, str], other: tuple[str, str, str, bytes, str]
) -> None:
    assert (proofs.offer(*one) == proofs.offer(*other)) == (one == other)


@given(REGISTRATIONS, REGISTRATIONS)
def test_two_registrations_have_the_same_bytes_only_when_they_are_the_same(
    one: tuple[str, bytes, str, str], other: tuple[str, bytes, str, str]
) -> None:
    assert (proofs.registration(*one) == proofs.registration(*other)) == (one == other)


def test_a_name_cannot_reach_into_its_neighbour() -> None:
    assert proofs.offer("a", "bc", "d", NONCE, "") != proofs.offer("ab", "c", "d", NONCE, "")
    assert proofs.registration("h", NONCE, "ab", "c") != proofs.registration("h", NONCE, "a", "bc")


def test_a_signature_for_one_purpose_is_worthless_for_another() -> None:
    identity = Identity.from_seed(bytes(32))
    texts = {
        proofs.registration("a", NONCE, "a", "a"),
        proofs.rotation("a", NONCE),
        proofs.seal("a", "a", NONCE),
        proofs.offer("a", "a", "a", NONCE, "a"),
        proofs.answer("a", "a", "a", NONCE, "a", "a"),
    }
    assert len(texts) == 5
    for signed in texts:
        signature = identity.sign(signed)
        assert [verify(identity.public_key, signature, text) for text in texts].count(True) == 1
    assert not any(one != other and one.startswith(other) for one in texts for other in texts)


@pytest.mark.parametrize("connection", ["a", "A-_9", "x" * 128, "0123456789012345678901"])
def test_a_connection_name_is_base64url(connection: str) -> None:
    assert proofs.valid_connection_name(connection)


@pytest.mark.parametrize("connection", ["", "x" * 129, "a b", "a\x00b", "a\n", "é", "a=", "a/b", "a+b", None, 5, b"a"])
def test_anything_else_cannot_stand_in_a_proof(connection: object) -> None:
    assert not proofs.valid_connection_name(connection)
