"""The classic dialect, byte for byte as clients that exist today expect it."""

from __future__ import annotations

import pytest

from aldis.protocol.codec import to_base64
from support.hub_world import World, identity_of

OFFER = {"type": "offer", "to": "bob@example.com", "offer": {"type": "offer", "sdp": "mock-sdp"}}


@pytest.fixture
def world() -> World:
    return World(auth="open")


def test_replies_hold_the_classic_fields_and_nothing_else(world: World) -> None:
    alice = world.connect(classic=True)
    alice.send(type="register", userId="alice@example.com", publicKey="any string", id=1)
    assert alice.take() == [{"type": "registered", "success": True, "userId": "alice@example.com"}]
    alice.send(type="discover", userId="alice@example.com", id=2)
    assert alice.take() == [
        {"type": "discover-response", "userId": "alice@example.com", "online": True, "publicKey": "any string"}
    ]
    alice.send(type="discover", userId="ghost@example.com")
    assert alice.take() == [{"type": "discover-response", "userId": "ghost@example.com", "online": False}]
    alice.send(type="ping", id=3)
    assert alice.take() == [{"type": "pong"}]
    alice.send(type="ice-servers", id=3)
    assert alice.take() == [{"type": "ice-servers", "iceServers": [], "ttl": 86400}]
    alice.send(type="unregister", id=4)
    assert alice.take() == [{"type": "unregistered"}]


def test_relayed_messages_arrive_as_sent_with_the_true_sender_and_without_an_id(world: World) -> None:
    alice, bob = world.classic_client("alice@example.com"), world.classic_client("bob@example.com")
    alice.send(**OFFER, **{"from": "mallory", "id": 9})
    assert bob.take() == [{**OFFER, "from": "alice@example.com"}]
    assert alice.take() == [], "success is silent"
    for message in (
        {"type": "answer", "to": "alice@example.com", "answer": {"type": "answer", "sdp": "x"}},
        {"type": "ice-candidate", "to": "alice@example.com", "candidate": {"candidate": "candidate:1", "sdpMid": "0"}},
        {"type": "ice-candidate", "to": "alice@example.com", "candidate": None},
    ):
        bob.send(**message)
        assert alice.take() == [{**message, "from": "bob@example.com"}]


def test_the_four_error_texts_are_exact(world: World) -> None:
    alice = world.classic_client("alice@example.com")

    def error(text: str) -> list[dict[str, str]]:
        return [{"type": "error", "message": text}]

    for text in ("not json", "[]", "{}", '"text"', '{"type": 5}'):
        alice.send_text(text)
        assert alice.take() == error("Invalid message format")
    for kind in ("nonsense", "prove", "rotate", "received"):
        alice.send(type=kind, signature="x", newPublicKey="x", count=0)
        assert alice.take() == error("Unknown message type")
    for message in (
        {"type": "register", "userId": "x"},
        {"type": "register", "userId": "", "publicKey": "x"},
        {"type": "register", "userId": 5, "publicKey": "x"},
        {"type": "discover"},
        {"type": "offer", "to": "bob@example.com"},
        {"type": "offer", "to": "bob@example.com", "offer": {}},
        {"type": "offer", "to": "bob@example.com", "offer": "text"},
        {"type": "answer", "to": "bob@example.com", "answer": []},
        {"type": "ice-candidate", "to": "bob@example.com", "candidate": 5},
    ):
        alice.send(**message)
        assert alice.take() == error("Missing required fields"), message
    alice.send(**OFFER)
    assert alice.take() == error("User bob@example.com is not online")


def test_questions_without_a_name_slow_their_client_down(world: World) -> None:
    """A user may ask 100 a second, and an address may have 256 connections without a name."""
    stranger, alice = world.connect(classic=True), world.classic_client("alice")
    for client in (stranger, alice):
        client.session.penalty = 0
        client.send(type="discover", userId="alice")
    assert (stranger.session.penalty, alice.session.penalty) == (20, 0)


def test_discover_and_errors_work_before_registration(world: World) -> None:
    client = world.connect(classic=True)
    client.send(type="unknown")
    client.send(type="prove", signature="x")
    client.send(type="register")
    client.send(type="discover", userId="x")
    client.send(**OFFER)
    assert [m.get("message") for m in client.take()] == [
        "Unknown message type",
        "Unknown message type",
        "Missing required fields",
        None,
        "Not registered: send register first",
    ]


def test_a_client_may_register_again_with_another_key_or_another_name(world: World) -> None:
    alice = world.classic_client("alice", key="one")
    alice.send(type="register", userId="alice", publicKey="two")
    assert alice.take_one()["success"] is True
    bob = world.classic_client("bob")
    bob.send(type="discover", userId="alice")
    assert bob.take_one()["publicKey"] == "two"
    alice.send(type="register", userId="carol", publicKey="two")
    assert alice.take_one() == {"type": "registered", "success": True, "userId": "carol"}
    assert not world.hub.online("alice")
    assert world.hub.online("carol")


def test_a_name_held_by_another_connection_with_another_key_is_refused(world: World) -> None:
    alice = world.classic_client("alice", key="one")
    other = world.classic_client("other")
    other.send(type="register", userId="alice", publicKey="two")
    assert other.take() == [{"type": "registered", "success": False, "userId": "alice"}]
    assert alice.closed is None
    # The refused client keeps the name that it had.
    alice.send(type="bye", to="other")
    assert other.take_one()["from"] == "alice"


def test_a_newer_connection_with_the_same_key_takes_the_name_over(world: World) -> None:
    old = world.classic_client("alice", key="one")
    new = world.classic_client("alice", key="one")
    assert old.closed is not None
    assert old.closed[0] == 4001
    old.lose()
    bob = world.classic_client("bob")
    bob.send(**{**OFFER, "to": "alice"})
    assert new.take_one()["from"] == "bob"


def test_a_user_is_offline_as_soon_as_the_connection_is_gone(world: World) -> None:
    alice = world.classic_client("alice")
    alice.lose()
    assert not world.hub.online("alice")


def test_a_name_bound_to_a_proven_key_cannot_be_taken_even_when_its_owner_is_offline(world: World) -> None:
    alice = world.client("alice")
    thief = world.connect(classic=True)
    for _ in range(2):
        thief.send(type="register", userId="alice", publicKey=to_base64(alice.identity.public_key))
        assert thief.take() == [{"type": "registered", "success": False, "userId": "alice"}]
        alice.lose(clean=True)


def test_an_unproven_name_belongs_to_its_connection_while_that_lasts_and_is_free_afterwards(world: World) -> None:
    squatter = world.classic_client("alice")
    alice = world.connect()
    assert alice.register("alice")["code"] == "key-mismatch"
    squatter.lose()
    assert alice.register("alice")["type"] == "registered"


def test_an_unproven_name_gives_way_to_a_proven_claim_that_was_under_way(world: World) -> None:
    world.directory_waits = True
    alice, squatter = world.connect(), world.connect(classic=True)
    squatter.send(type="register", userId="alice", publicKey="x")
    alice.register("alice")  # its turn comes when the directory has said to the other that the name is free
    world.answer()
    assert squatter.closed is not None
    assert squatter.closed[0] == 4001
    assert alice.inbox[-1]["type"] == "registered"


def test_a_directory_that_fails_leaves_the_client_the_name_it_had(world: World) -> None:
    alice = world.classic_client("alice")
    world.directory_fails = True
    alice.send(type="register", userId="other", publicKey="x")
    assert alice.take_one()["type"] == "error"
    bob_online = world.hub.online("alice")
    assert bob_online
    alice.send(type="bye", to="alice")
    assert alice.take_one()["from"] == "alice"


def test_a_watcher_of_the_classic_dialect_gets_what_it_asked_for(world: World) -> None:
    alice = world.classic_client("alice")
    alice.send(type="watch", userIds=["bob"], id=1)
    assert alice.take() == [{"type": "presence", "userId": "bob", "online": False}]
    bob = world.client("bob")
    key = to_base64(identity_of("bob").public_key)
    assert alice.take() == [{"type": "presence", "userId": "bob", "online": True, "publicKey": key}]
    bob.lose(clean=True)
    assert alice.take() == [{"type": "presence", "userId": "bob", "online": False}]


def test_classic_and_v1_clients_reach_each_other(world: World) -> None:
    alice, bob = world.classic_client("alice@example.com"), world.client("bob@example.com")
    alice.send(**OFFER)
    assert bob.take_one()["from"] == "alice@example.com"
    bob.send(type="bye", to="alice@example.com", id=1)
    assert bob.take_one() == {"type": "ack", "re": 1}
    assert alice.take_one() == {"type": "bye", "to": "alice@example.com", "from": "bob@example.com"}


def test_where_keys_are_verified_a_classic_client_is_told_and_sent_away() -> None:
    client = World().connect(classic=True)
    client.send(type="register", userId="alice", publicKey="x")
    assert "aldis.v1" in client.take_one()["message"]
    assert client.closed == (4501, "the sub-protocol aldis.v1 is required")
    client.send(type="ping")
    assert client.take() == []
