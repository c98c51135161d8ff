"""What a client may do wrong, how often, and what it costs the server."""

from __future__ import annotations

from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
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
