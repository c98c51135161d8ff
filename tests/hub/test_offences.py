"""What a client may do wrong, how often, and what it costs the server."""

from __future__ import annotations

from typing import Any

import pytest

from aldis.hub import failed_proofs
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import from_base64, to_base64
from support.hub_world import Client, World, identity_of

NOTHING = to_base64(bytes(64))
NEW_KEY = to_base64(Identity.from_seed(b"n" * 32).public_key)


def rotate_badly(client: Client) -> None:
    client.send(type="rotate", newPublicKey=NEW_KEY, signature=NOTHING)


def register_with_bad_seal_key(client: Client) -> None:
    key = to_base64(identity_of("alice").public_key)
    seal_key = {"publicKey": to_base64(bytes(32)), "signature": NOTHING}
    client.send(type="register", userId="alice", publicKey=key, sealKey=seal_key)


def prove_badly(client: Client) -> None:
    client.identity = identity_of("alice")
    client.ask_challenge("alice")
    client.send(type="prove", signature=NOTHING)


def test_the_third_bad_rotation_ends_the_connection() -> None:
    alice = World().client("alice")
    for _ in range(2):
        rotate_badly(alice)
        assert alice.take_one()["code"] == "bad-signature"
    assert alice.closed is None
    rotate_badly(alice)
    assert alice.closed == (4501, "too many bad signatures")


def test_bad_signatures_of_all_kinds_count_together() -> None:
    world = World()
    client = world.connect()
    register_with_bad_seal_key(client)
    assert client.take_one()["code"] == "invalid-field"
    prove_badly(client)
    assert client.take_one()["code"] == "bad-signature"
    assert client.closed is None
    register_with_bad_seal_key(client)
    assert client.closed == (4501, "too many bad signatures")
    assert world.hub.stats.registrations["invalid-field"] == 2


def test_unknown_types_get_no_reply_once_there_are_too_many_and_never_end_a_connection() -> None:
    world = World(invalid_burst=20, invalid_per_second=1.0)
    alice = world.client("alice")
    for _ in range(1000):
        alice.send(type="from-the-future", id=1)
    assert [m["code"] for m in alice.take()] == ["unknown-type"] * 20
    assert world.hub.stats.refused["unreadable", "rate-limited"] == 980
    assert alice.closed is None
    alice.send(type="ping")
    assert alice.take_one()["type"] == "pong"
    world.now += 2
    for _ in range(5):
        alice.send(type="from-the-future")
    assert len(alice.take()) == 2


def test_unknown_types_do_not_use_up_what_a_client_may_say_wrongly() -> None:
    world = World(invalid_burst=3, invalid_per_second=0.0)
    alice = world.client("alice")
    for _ in range(10):
        alice.send(type="from-the-future")
    for _ in range(3):
        alice.send_text("not JSON")
    assert alice.closed is None
    alice.send_text("not JSON")
    assert alice.closed == (4500, "too many invalid messages")


# --- failed proofs of a network, and for a name -----------------------------------------------------------------------


@pytest.fixture
def no_further_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others use up all that may fail beyond the allowances."""
    monkeypatch.setattr(failed_proofs, "FURTHER_TRIES", 0)


def fail(world: World, name: str, address: str) -> str:
    """Register with the signature of another key, and return the code of the refusal."""
    client = world.connect()
    client.address = address
    client.identity = identity_of("the owner of nothing")
    client.send(type="register", userId=name, publicKey=to_base64(client.identity.public_key))
    first = client.take_one()
    if first["type"] == "error":
        assert first["retryAfter"] > 0
        return str(first["code"])
    client.send(type="prove", signature=to_base64(bytes(64)))
    return str(client.take_one()["code"])


# The same for both, so that it does not tell which of the two holds.
TOO_MANY = "too many wrong proofs have come from your network or for this name; try again later"


def refusal_text(world: World, name: str, address: str) -> str:
    client = world.connect()
    client.address = address
    client.send(type="register", userId=name, publicKey=to_base64(client.identity.public_key))
    return str(client.take_one()["message"])


@pytest.mark.usefixtures("no_further_tries")
def test_a_network_with_too_many_failed_proofs_may_not_register_for_a_while() -> None:
    world = World(failed_proofs_per_address=4)
    codes = [fail(world, f"user{number}", "192.0.2.7") for number in range(6)]
    assert codes == ["bad-signature"] * 4 + ["rate-limited"] * 2
    assert fail(world, "alice", "192.0.2.8") == "bad-signature"
    assert fail(world, "alice", "127.0.0.1") == "bad-signature"
    assert refusal_text(world, "alice", "192.0.2.7") == TOO_MANY
    world.now += 3600 / 4
    assert fail(world, "alice", "192.0.2.7") == "bad-signature"
    assert world.hub.stats.limited["failed-proofs-per-address"] == 3


def at(world: World, name: str, address: str, **more: Any) -> Any:
    """What somebody gets who registers from an address: the code of the refusal, or True."""
    client = world.connect()
    client.address = address
    client.identity = identity_of(name)
    key = to_base64(client.identity.public_key)
    client.send(type="register", userId=name, publicKey=key, **more)
    first = client.take_one()
    if first["type"] == "error":
        return first["code"]
    signed = proofs.registration(client.host, from_base64(first["nonce"]), name, "main")
    client.send(type="prove", signature=to_base64(client.identity.sign(signed)))
    return client.take()[0].get("success")


@pytest.mark.usefixtures("no_further_tries")
def test_nobody_keeps_those_out_who_have_registered_from_the_same_address() -> None:
    """One bad proof a minute was enough, for all people behind the address of a provider."""
    world = World(failed_proofs_per_address=4, failed_proofs_per_name=3)
    assert at(world, "alice", "192.0.2.7") is True
    for number in range(6):
        fail(world, f"user{number}", "192.0.2.7")
    for number in range(6):
        fail(world, "alice", f"198.51.100.{number}")
    assert at(world, "alice", "192.0.2.7") is True
    assert at(world, "bob", "192.0.2.7") == "rate-limited", "nobody knows him there"
    assert fail(world, "alice", "192.0.2.7") == "rate-limited", "with another key"


@pytest.mark.usefixtures("no_further_tries")
def test_a_client_that_resumes_its_session_may_come_from_an_address_with_failed_proofs() -> None:
    world = World(failed_proofs_per_address=4)
    alice = world.client("alice")
    for number in range(6):
        fail(world, f"user{number}", "192.0.2.7")
    assert at(world, "alice", "192.0.2.7") == "rate-limited"
    ticket = alice.ticket(0)
    assert at(world, "alice", "192.0.2.7", resume={**ticket, "secret": "guessed"}) == "rate-limited"
    assert at(world, "alice", "192.0.2.7", resume=ticket) is True


@pytest.mark.usefixtures("no_further_tries")
def test_who_has_registered_may_not_fail_for_ever_either() -> None:
    world = World(failed_proofs_per_address=4, failed_proofs_per_name=3)
    assert at(world, "alice", "192.0.2.7") is True
    for number in range(6):
        fail(world, f"user{number}", "192.0.2.7")
    codes = []
    for _ in range(5):
        client = world.connect()
        client.address = "192.0.2.7"
        client.send(type="register", userId="alice", publicKey=to_base64(identity_of("alice").public_key))
        if client.take_one()["type"] == "challenge":
            client.send(type="prove", signature=to_base64(bytes(64)))
            codes.append(client.take_one()["code"])
    assert codes == ["bad-signature"] * 3


@pytest.mark.usefixtures("no_further_tries")
def test_of_those_who_have_registered_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_proofs, "MOST_OWNERS", 2)
    world = World(failed_proofs_per_address=1)
    names = ("alice", "bob", "carol", "dave", "eve")
    for name in names:
        assert at(world, name, "192.0.2.7") is True
    fail(world, "user", "192.0.2.7")
    assert at(world, "alice", "192.0.2.7") == at(world, "bob", "192.0.2.7") == "rate-limited"
    assert [at(world, name, "192.0.2.7") for name in ("dave", "eve")] == [True, True]


@pytest.mark.usefixtures("no_further_tries")
def test_nobody_keeps_the_owner_of_a_name_out_by_failing_for_it() -> None:
    world = World(failed_proofs_per_address=4, failed_proofs_per_name=3)
    codes = [fail(world, "alice", f"192.0.2.{number % 5}") for number in range(10)]
    assert codes == ["bad-signature"] * 5 + ["rate-limited"] * 5  # each network gets in once
    assert refusal_text(world, "alice", "192.0.2.1") == TOO_MANY
    assert fail(world, "bob", "192.0.2.1") == "bad-signature"
    alice = world.connect()
    alice.address = "198.51.100.1"
    assert alice.register("alice")["success"] is True
    assert world.hub.stats.limited["failed-proofs-per-name"] == 6


@pytest.mark.usefixtures("no_further_tries")
def test_the_right_signature_of_a_wrong_key_counts_as_well() -> None:
    world = World(failed_proofs_per_address=2)
    world.client("alice")
    codes = [world.connect().register("alice", identity=identity_of("mallory"))["code"] for _ in range(2)]
    assert codes == ["key-mismatch"] * 2
    client = world.connect()
    client.send(type="register", userId="alice", publicKey=to_base64(identity_of("mallory").public_key))
    assert client.take_one()["code"] == "rate-limited"


def test_an_attacker_keeps_out_nobody_who_comes_to_its_address_for_the_first_time() -> None:
    """Sixty bad proofs an hour were enough, for all new people behind the address of a provider."""
    world = World(failed_proofs_per_address=4, failed_proofs_per_name=3)
    for _ in range(50):
        assert fail(world, "bob", "192.0.2.7") == "bad-signature"
    assert at(world, "bob", "192.0.2.7") is True
    assert world.hub.stats.limited["failed-proofs-per-address"] == 46


@pytest.mark.parametrize("right", [False, True])
def test_where_the_allowance_is_used_up_a_connection_may_fail_once(right: bool) -> None:
    world = World(failed_proofs_per_address=1)
    world.client("alice")
    fail(world, "bob", "192.0.2.7")
    client = world.connect()
    client.address = "192.0.2.7"
    client.identity = identity_of("mallory")
    nonce = client.ask_challenge("alice")
    signed = proofs.registration(client.host, nonce, "alice", "main")
    client.send(type="prove", signature=to_base64(client.identity.sign(signed)) if right else NOTHING)
    assert client.take_one()["code"] == ("key-mismatch" if right else "bad-signature")
    assert client.closed == (4501, "too many bad signatures")


def test_what_may_fail_beyond_the_allowances_is_bounded_and_shared_by_networks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failed_proofs, "FURTHER_TRIES", 20)
    world = World(failed_proofs_per_address=1)
    codes = [fail(world, "alice", f"2001:db8:0:{number % 4}::1") for number in range(24)]
    assert codes.count("bad-signature") == 4 + 10
    for address, left in (("192.0.2.7", 5), ("192.0.2.8", 3), ("192.0.2.9", 1)):
        codes = [fail(world, "alice", address) for _ in range(10)]
        assert codes.count("bad-signature") == 1 + left
    assert at(world, "bob", "192.0.2.10") is True
    assert at(world, "carol", "192.0.2.7") == "rate-limited"
    world.now += 1
    assert at(world, "carol", "192.0.2.7") is True


def test_a_proof_is_not_looked_at_when_others_have_failed_since_its_challenge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_proofs, "FURTHER_TRIES", 4)
    world = World(failed_proofs_per_address=1)
    fail(world, "alice", "192.0.2.7")
    clients = [world.connect() for _ in range(10)]
    for client in clients:
        client.address = "192.0.2.7"
        client.ask_challenge("alice")
    for client in clients:
        client.send(type="prove", signature=NOTHING)
    codes = [client.take_one()["code"] for client in clients]
    assert codes == ["bad-signature"] * 2 + ["rate-limited"] * 8
