"""What passes between clients, what is asked of the hub, and what happens to those who speak badly."""

from __future__ import annotations

import json

import pytest

from aldis.protocol.codec import to_base64
from aldis.protocol.messages import IceServer
from support.hub_world import World, identity_of

OFFER = {"type": "offer", "to": "bob", "offer": {"type": "offer", "sdp": "v=0"}}


def test_a_relayed_message_keeps_what_belongs_to_it_and_gets_its_true_sender() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    extra = {"connection": "c", "proof": {"nonce": "n"}, "capabilities": {"trickle": False}}
    alice.send(**OFFER, **extra, **{"from": "mallory", "id": 3, "unknown": 1})
    assert bob.take() == [{**OFFER, **extra, "from": "alice"}]
    assert alice.take() == [{"type": "ack", "re": 3}]
    alice.send(**OFFER)
    assert alice.take() == []
    assert world.hub.stats.messages["offer", "ok"] == 2


@pytest.mark.parametrize("kind", ["offer", "answer", "ice-candidate", "bye", "relay"])
def test_a_recipient_who_is_not_online_is_an_error_with_the_id_of_the_request(kind: str) -> None:
    alice = World().client("alice")
    alice.send(type=kind, to="bob", offer={"a": 1}, answer={"a": 1}, candidate=None, sealed="x", id="q")
    error = {"type": "error", "message": "User bob is not online", "code": "not-online", "temporary": False, "re": "q"}
    assert alice.take() == [error]


def test_payloads_that_are_no_objects_are_refused() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    for fields in (
        {"type": "offer", "offer": "x"},
        {"type": "answer", "answer": {}},
        {"type": "ice-candidate", "candidate": 0},
    ):
        alice.send(to="bob", id=1, **fields)
        assert alice.take_one()["code"] == "missing-fields"
    assert bob.take() == []


def test_discover_tells_the_key_and_devices_and_the_key_of_an_offline_user_too() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    key = to_base64(identity_of("bob").public_key)
    alice.send(type="discover", userId="bob", id=1)
    online = {"type": "discover-response", "userId": "bob", "publicKey": key, "re": 1}
    assert alice.take() == [{**online, "online": True, "devices": [{"device": "main"}]}]
    bob.lose(clean=True)
    alice.send(type="discover", userId="bob", id=1)
    assert alice.take() == [{**online, "online": False, "devices": []}]
    alice.send(type="discover", userId="ghost")
    assert alice.take() == [{"type": "discover-response", "userId": "ghost", "online": False, "devices": []}]
    alice.send(type="discover", userId="no/body", id=2)
    assert alice.take_one()["code"] == "invalid-field"


def test_watching_tells_how_things_stand_and_then_each_change() -> None:
    world = World()
    alice = world.client("alice")
    alice.send(type="watch", userIds=["bob", "carol", "bob"], id=1)
    assert alice.take() == [
        {"type": "presence", "userId": "bob", "online": False},
        {"type": "presence", "userId": "carol", "online": False},
        {"type": "ack", "re": 1},
    ]
    bob = world.client("bob")
    key = to_base64(identity_of("bob").public_key)
    online = {"type": "presence", "userId": "bob", "online": True, "publicKey": key}
    assert alice.take() == [{**online, "devices": [{"device": "main"}]}]
    phone = world.client("bob", device="phone")
    assert alice.take() == [{**online, "devices": [{"device": "phone"}, {"device": "main"}]}]
    phone.lose(clean=True)
    assert alice.take() == [{**online, "devices": [{"device": "main"}]}]
    bob.send(type="unregister")
    assert alice.take() == [{"type": "presence", "userId": "bob", "online": False}]
    alice.send(type="unwatch", userIds=["bob", "stranger"], id=2)
    assert alice.take() == [{"type": "ack", "re": 2}]
    world.client("bob")
    assert alice.take() == []
    world.client("carol")
    assert len(alice.take()) == 1


def test_watches_are_bounded_in_one_message_and_for_a_session() -> None:
    world = World(max_watches=1500)
    alice = world.client("alice")
    alice.send(type="watch", userIds=[f"u{i}" for i in range(1001)], id=1)
    assert alice.take_one()["code"] == "invalid-field"
    alice.send(type="watch", userIds=[f"u{i}" for i in range(1000)])
    assert len(alice.take()) == 1000
    alice.send(type="watch", userIds=[f"v{i}" for i in range(501)], id=2)
    assert alice.take_one()["code"] == "too-large"
    alice.send(type="watch", userIds=["good", "not good"], id=3)
    assert alice.take_one()["code"] == "invalid-field"
    alice.send(type="unwatch", userIds=["a/b"], id=3)
    assert alice.take_one()["code"] == "invalid-field"
    alice.lose(clean=True)
    world.client("u1")  # nobody watches any more


def test_an_unknown_type_is_an_error_and_never_a_disconnect() -> None:
    alice = World().client("alice")
    for _ in range(1000):
        alice.send(type="from-the-future", id=1)
    assert alice.closed is None
    assert alice.take()[0]["code"] == "unknown-type"


def test_invalid_messages_are_answered_and_too_many_of_them_end_the_connection() -> None:
    world = World(invalid_burst=20, invalid_per_second=1.0)
    alice = world.client("alice")
    for _ in range(20):
        alice.send_text("{")
    assert alice.closed is None
    world.now += 5
    for _ in range(5):
        alice.send_text("[[[[")
    assert alice.closed is None
    assert {m["code"] for m in alice.take()} == {"invalid-message"}
    alice.send_text("")
    assert alice.closed == (4500, "too many invalid messages")
    assert not world.hub.online("alice")


def test_an_error_carries_the_id_whatever_else_is_wrong() -> None:
    alice = World().client("alice")
    alice.send_text(json.dumps({"type": "discover", "userId": 5, "id": "x"}))
    assert alice.take_one() == {
        "type": "error", "message": "missing or wrong: userId", "code": "missing-fields", "temporary": False, "re": "x",
    }  # fmt: skip


def test_ice_servers_are_empty_where_none_are_configured() -> None:
    alice = World().client("alice")
    alice.send(type="ice-servers", id=1)
    assert alice.take() == [{"type": "ice-servers", "iceServers": [], "ttl": 86400, "re": 1}]


def test_ice_servers_come_from_their_source_for_the_user_who_asks() -> None:
    class Source:
        def servers(
            self, user_id: str, wall_time: float, *, host: str = "", address: str = ""
        ) -> tuple[list[IceServer], int]:
            return [IceServer(["turn:turn.example"], f"{wall_time:.0f}:{user_id}", "secret")], 60

    world = World(ice=Source())
    alice = world.client("alice")
    alice.send(type="ice-servers")
    server = {"urls": ["turn:turn.example"], "username": "1700001000:alice", "credential": "secret"}
    assert alice.take() == [{"type": "ice-servers", "iceServers": [server], "ttl": 60}]


def test_one_client_may_send_in_parts_what_another_receives_while_it_leaves() -> None:
    world = World()
    world.directory_waits = True
    alice, bob = world.connect(), world.connect()
    for client, name in ((alice, "alice"), (bob, "bob")):
        client.register(name)
        client.send(type="offer", to="alice", offer={"sdp": name}, id=1)
    bob.lose()
    world.answer()
    assert [m["type"] for m in alice.take()] == ["registered", "offer", "ack"]


def test_a_message_to_oneself_arrives() -> None:
    alice = World().client("alice")
    alice.send(type="bye", to="alice", id=1)
    assert [m["type"] for m in alice.take()] == ["bye", "ack"]
