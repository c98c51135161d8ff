"""Who may have a name."""

from __future__ import annotations

import pytest

from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from support.hub_world import HOST, World, identity_of


def key_of(name: str) -> str:
    return to_base64(identity_of(name).public_key)


def test_a_client_that_proves_its_key_is_registered() -> None:
    world = World()
    alice = world.connect()
    nonce = alice.ask_challenge("alice", id="r")
    alice.identity = identity_of("alice")
    nonce = alice.ask_challenge("alice", id="r")
    signature = alice.identity.sign(proofs.registration(HOST, nonce, "alice", "main"))
    alice.send(type="prove", signature=to_base64(signature))
    reply = alice.take_one()
    assert len(reply.pop("session")) == 22
    assert len(reply.pop("secret")) == 43
    assert reply == {
        "type": "registered",
        "success": True,
        "userId": "alice",
        "device": "main",
        "resumed": False,
        "serverTime": 1_700_001_000.0,
        "limits": {
            "maxMessageBytes": 65536,
            "maxWatches": 10000,
            "resumeWindow": 30.0,
            "relay": True,
            "maxRelayFileBytes": 1048576,
        },
        "re": "r",
    }
    assert world.keys == {"alice": alice.identity.public_key}
    assert world.hub.online("alice")


def test_the_challenge_carries_the_id_of_the_register_and_the_reply_that_of_the_prove() -> None:
    world = World()
    client = world.connect()
    client.identity = identity_of("alice")
    client.send(type="register", userId="alice", publicKey=key_of("alice"), id=7)
    challenge = client.take_one()
    assert challenge["re"] == 7
    client.send(type="prove", signature="AA==", id=8)
    assert client.take_one()["re"] == 8


@pytest.mark.parametrize(
    "fields",
    [
        {"userId": "a b"},
        {"userId": "a/b"},
        {"userId": "a\x07"},
        {"userId": "x" * 129},
        {"publicKey": "not base64!"},
        {"publicKey": "AAAA"},
        {"publicKey": "A" * 42 + "B="},  # bits after the last byte are set
        {"device": ""},
        {"device": "a b"},
        {"device": "x" * 65},
        {"sealKey": {"publicKey": "!", "signature": "AAAA"}},
        {"sealKey": {"publicKey": "AAAA", "signature": to_base64(bytes(64))}},
    ],
)
def test_a_registration_with_a_bad_field_is_refused_by_name_of_the_field(fields: dict[str, object]) -> None:
    client = World().connect()
    client.send(**{"type": "register", "userId": "alice", "publicKey": key_of("alice"), "id": 1, **fields})
    error = client.take_one()
    assert (error["code"], error["re"], error["temporary"]) == ("invalid-field", 1, False)
    assert next(iter(fields)) in error["message"]


def test_requests_behind_a_registration_that_the_directory_cannot_answer_get_a_temporary_error_too() -> None:
    world = World()
    bob = world.client("bob")
    world.directory_waits = world.directory_fails = True
    alice = world.connect()
    alice.register("alice")
    alice.send(type="discover", userId="bob", id=1)
    alice.send(type="relay", to="bob", sealed="x", id=2)
    world.answer()
    alice.send(type="watch", userIds=["bob"], id=3)  # it has not read the reply yet
    replies = alice.take()
    assert [(r["code"], r["temporary"], r["retryAfter"]) for r in replies] == [("internal", True, 1.0)] * 4
    assert [r.get("re") for r in replies] == [None, 1, 2, 3]
    assert bob.take() == []
    world.directory_waits = world.directory_fails = False
    assert alice.register("alice")["success"] is True
    alice.take()
    alice.send(type="unregister", id=4)
    alice.send(type="discover", userId="bob", id=5)
    assert [r.get("code") for r in alice.take()] == [None, "not-registered"]


def test_a_second_key_cannot_have_a_bound_name_even_when_its_owner_is_offline() -> None:
    world = World()
    world.client("alice").lose(clean=True)
    mallory = world.connect()
    error = mallory.register("alice", identity=identity_of("mallory"))
    assert (error["type"], error["code"]) == ("error", "key-mismatch")
    assert not world.hub.online("alice")
    # and may have another name on the same connection
    assert mallory.register("mallory")["type"] == "registered"


def test_a_signature_for_another_host_user_or_device_is_worthless() -> None:
    for host, user, device in [("evil.example", "alice", "main"), (HOST, "bob", "main"), (HOST, "alice", "phone")]:
        client = World().connect()
        client.identity = identity_of("alice")
        nonce = client.ask_challenge("alice")
        client.send(
            type="prove",
            signature=to_base64(client.identity.sign(proofs.registration(host, nonce, user, device))),
        )
        error = client.take_one()
        assert error["code"] == "bad-signature"
        assert HOST in error["message"]


def test_a_challenge_can_be_answered_once_and_only_on_its_own_connection() -> None:
    world = World()
    first, second = world.connect(), world.connect()
    first.identity = second.identity = identity_of("alice")
    nonce = first.ask_challenge("alice")
    signature = to_base64(first.identity.sign(proofs.registration(HOST, nonce, "alice", "main")))
    second.ask_challenge("alice")
    second.send(type="prove", signature=signature)
    assert second.take_one()["code"] == "bad-signature"
    first.send(type="prove", signature=to_base64(bytes(64)))
    assert first.take_one()["code"] == "bad-signature"
    first.send(type="prove", signature=signature)  # right, but the nonce is used up
    assert first.take_one()["code"] == "bad-signature"


def test_a_late_proof_is_refused_as_timed_out() -> None:
    world = World(registration_seconds=1000.0)
    client = world.connect()
    client.identity = identity_of("alice")
    nonce = client.ask_challenge("alice")
    world.now += 30.1
    client.send(
        type="prove", signature=to_base64(client.identity.sign(proofs.registration(HOST, nonce, "alice", "main")))
    )
    error = client.take_one()
    assert (error["code"], error["temporary"]) == ("timeout", True)


def test_a_signature_that_is_not_base64_is_an_invalid_field() -> None:
    client = World().connect()
    client.ask_challenge("alice")
    client.send(type="prove", signature="???")
    assert client.take_one()["code"] == "invalid-field"


def test_a_client_that_keeps_signing_wrongly_is_sent_away_for_good() -> None:
    client = World().connect()
    for _ in range(3):
        client.ask_challenge("alice")
        client.send(type="prove", signature=to_base64(bytes(64)))
    assert client.closed == (4501, "too many bad signatures")


def test_a_client_must_unregister_before_it_takes_another_name() -> None:
    world = World()
    alice = world.client("alice")
    alice.send(type="register", userId="other", publicKey=key_of("other"), id=1)
    assert alice.take_one()["code"] == "already-registered"
    alice.send(type="unregister", id=2)
    assert alice.take_one() == {"type": "unregistered", "re": 2}
    assert not world.hub.online("alice")
    assert alice.register("other")["type"] == "registered"


@pytest.mark.parametrize("kind", ["discover", "watch", "offer", "bye", "ice-servers", "received", "unregister"])
def test_nothing_but_register_prove_and_ping_is_admitted_before_registration(kind: str) -> None:
    client = World().connect()
    fields = {
        "userId": "x", "userIds": [], "to": "x", "offer": {"sdp": ""}, "count": 0,
    }  # fmt: skip
    client.send(type=kind, id=1, **fields)
    assert client.take_one()["code"] == "not-registered"
    client.send(type="ping", id=2)
    assert client.take_one() == {"type": "pong", "re": 2}


def test_the_newest_connection_of_the_same_key_wins_and_the_stale_one_takes_nothing_with_it() -> None:
    world = World()
    bob = world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    old = world.client("alice")
    bob.take()
    new = world.client("alice")
    assert old.closed == (4001, "replaced by a newer connection of the same address")
    assert bob.take_one()["online"] is True, "who watches hears that it is a new session"
    old.lose()
    assert world.hub.online("alice")
    assert bob.take() == []
    bob.send(type="bye", to="alice")
    assert new.take_one()["from"] == "bob"
    assert old.take() == []


def test_devices_of_one_user_are_online_side_by_side_and_the_newest_takes_what_is_addressed_to_the_user() -> None:
    world = World()
    laptop = world.client("alice")
    phone = world.client("alice", device="phone")
    bob = world.client("bob")
    bob.send(type="discover", userId="alice")
    assert [d["device"] for d in bob.take_one()["devices"]] == ["phone", "main"]
    bob.send(type="bye", to="alice")
    bob.send(type="bye", to="alice/main")
    bob.send(type="bye", to="alice/phone")
    assert [m["to"] for m in phone.take()] == ["alice", "alice/phone"]
    assert [m["to"] for m in laptop.take()] == ["alice/main"]
    phone.send(type="bye", to="bob")
    laptop.send(type="bye", to="bob")
    assert [m["from"] for m in bob.take()] == ["alice/phone", "alice"]
    bob.send(type="bye", to="alice/tablet", id=1)
    assert bob.take_one()["code"] == "not-online"
    phone.lose(clean=True)
    bob.send(type="bye", to="alice")
    assert laptop.take_one()["from"] == "bob"


def test_a_seal_key_that_the_identity_signed_is_shown_to_those_who_discover() -> None:
    world = World()
    identity = identity_of("alice")
    seal = {
        "publicKey": to_base64(b"s" * 32),
        "signature": to_base64(identity.sign(proofs.seal("alice", "main", b"s" * 32))),
    }
    world.client("alice", sealKey=seal)
    bob = world.client("bob")
    bob.send(type="discover", userId="alice")
    assert bob.take_one()["devices"] == [{"device": "main", "sealKey": seal}]


def test_frames_sent_while_the_directory_is_asked_are_answered_in_order_afterwards() -> None:
    world = World()
    world.directory_waits = True
    alice = world.connect()
    alice.register("alice")
    alice.send(type="ping", id=1)
    alice.send(type="discover", userId="nobody", id=2)
    alice.send(type="ping", id=3)
    assert alice.take() == []
    assert world.hub.pending == 1
    world.answer()
    assert [m["type"] for m in alice.take()] == ["registered", "pong", "discover-response", "pong"]


def test_a_client_is_not_read_while_too_much_waits_for_a_reply_to_it() -> None:
    world = World(backlog_messages=10)
    alice = world.client("alice")
    world.directory_waits = True
    alice.send(type="discover", userId="nobody", id="first")
    for number in range(10):
        alice.send(type="ping", id=number)
    assert alice.reading
    for number in range(10, 13):  # what had been read before
        alice.send(type="ping", id=number)
    assert not alice.reading
    world.answer()
    assert alice.reading
    assert [message["re"] for message in alice.take()] == ["first", *range(13)]
    alice.send(type="ping", id=13)
    assert alice.take_one()["re"] == 13


def test_a_client_is_read_again_when_all_that_waited_has_been_handled_and_not_before() -> None:
    world = World(backlog_messages=3)
    alice = world.client("alice")
    world.directory_waits = True
    for number in range(8):
        alice.send(type="discover", userId=f"nobody{number}", id=number)
    for number in range(8):
        assert not alice.reading
        (question,) = world.questions
        world.questions.clear()
        world.hub.answered(question, None, world.now)
        world.work()
        assert alice.take_one()["re"] == number
    assert alice.reading


def test_a_client_that_is_not_read_is_not_taken_for_dead() -> None:
    world = World(backlog_messages=3)
    alice, bob = world.client("alice"), world.client("bob")
    world.directory_waits = True
    for client in (alice, bob):
        client.send(type="discover", userId="nobody")
    for _ in range(4):
        alice.send(type="ping")
    world.pass_time(100)
    assert bob.closed is not None, "it could have answered"
    assert (alice.pings, alice.closed) == (0, None)
    world.answer()
    alice.take()
    world.pass_time(21)
    assert alice.pings == 1


def test_a_client_that_is_not_read_can_be_sent_away() -> None:
    world = World(backlog_messages=3)
    alice = world.client("alice")
    world.directory_waits = True
    for _ in range(5):
        alice.send(type="discover", userId="nobody")
    world.hub.drain(world.now)
    assert alice.closed == (4000, "this server is going away")
    world.answer()
    assert not alice.reading, "to read on is the transport's business"


def test_a_client_that_leaves_while_the_directory_is_asked_is_not_admitted() -> None:
    world = World()
    world.directory_waits = True
    alice = world.connect()
    alice.register("alice")
    alice.lose()
    world.answer()
    assert not world.hub.online("alice")


def test_a_directory_that_fails_is_a_temporary_error_and_the_client_may_try_again() -> None:
    world = World()
    world.directory_fails = True
    alice = world.connect()
    error = alice.register("alice")
    assert (error["code"], error["temporary"], error["retryAfter"]) == ("internal", True, 1.0)
    alice.take()
    world.directory_fails = False
    assert alice.register("alice")["type"] == "registered"
    world.directory_fails = True
    alice.take()
    alice.send(type="discover", userId="nobody", id=5)
    assert (error := alice.take_one())["code"] == "internal"
    assert error["re"] == 5


def test_a_name_moves_to_a_new_key_by_a_signature_of_the_old_one() -> None:
    world = World()
    bob = world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    alice, phone = world.client("alice"), world.client("alice", device="phone")
    bob.take()
    new = Identity.from_seed(b"n" * 32)
    signature = identity_of("alice").sign(proofs.rotation("alice", new.public_key))
    alice.send(type="rotate", newPublicKey=to_base64(new.public_key), signature=to_base64(signature), id=1)
    assert alice.take_one() == {"type": "rotated", "publicKey": to_base64(new.public_key), "re": 1}
    assert phone.closed == (4501, "the key of this name was rotated")
    assert bob.take()[-1]["publicKey"] == to_base64(new.public_key)
    alice.lose(clean=True)
    assert world.connect().register("alice")["code"] == "key-mismatch"
    assert world.connect().register("alice", identity=new)["type"] == "registered"


def test_a_rotation_needs_the_signature_of_the_bound_key() -> None:
    world = World()
    alice = world.client("alice")
    new = Identity.from_seed(b"n" * 32)
    for signature, code in [(bytes(64), "bad-signature"), (b"short", "invalid-field")]:
        alice.send(type="rotate", newPublicKey=to_base64(new.public_key), signature=to_base64(signature))
        assert alice.take_one()["code"] == code
    world.keys["alice"] = b"x" * 32  # the operator has released the name, and somebody else has bound it
    signature = identity_of("alice").sign(proofs.rotation("alice", new.public_key))
    alice.send(type="rotate", newPublicKey=to_base64(new.public_key), signature=to_base64(signature))
    assert alice.take_one()["code"] == "key-mismatch"


# --- new names of one network -----------------------------------------------------------------------------------------


def test_a_network_that_has_bound_its_new_names_is_told_when_it_may_bind_more() -> None:
    world = World(new_names_per_address=2)
    world.client("alice")
    world.client("bob")
    carol = world.connect()
    refused = carol.register("carol")
    assert (refused["code"], refused["temporary"]) == ("rate-limited", True)
    assert refused["retryAfter"] == pytest.approx(43_200)
    assert "carol" not in world.keys
    carol.send(type="discover", userId="bob", id=1)  # sent before the refusal was read
    assert carol.take()[-1]["code"] == "rate-limited"
    world.now += refused["retryAfter"] - 1
    assert carol.register("carol")["code"] == "rate-limited"
    world.now += 1
    assert carol.register("carol")["success"] is True
    assert world.hub.stats.registrations["rate-limited"] == 2


def test_a_customer_of_a_provider_binds_as_many_names_as_sixteen_networks() -> None:
    """Somebody with an IPv6 /48 has 65,536 networks, and could take 13 million names in a day."""
    world = World(new_names_per_address=2)

    def binds(name: str, address: str) -> bool:
        client = world.connect()
        client.address = address
        return bool(client.register(name).get("success"))

    bound = [binds(f"user{number}", f"2001:db8:0:{number}::1") for number in range(40)]
    assert bound == [True] * 32 + [False] * 8
    assert binds("alice", "2001:db8:1::1")
    assert binds("user3", "2001:db8:0:ff::1"), "it is bound"
    for number in range(40):
        assert binds(f"of-{number}", f"192.0.2.{number}")
    world.now += 86_400 / 32
    assert [binds(f"late{number}", "2001:db8:0:aa::1") for number in range(2)] == [True, False]


def test_names_that_are_bound_cost_a_network_nothing_and_are_always_welcome() -> None:
    world = World(new_names_per_address=2)
    for _ in range(5):
        world.client("alice").lose(clean=True)
    world.client("bob")
    assert world.connect().register("carol")["code"] == "rate-limited"
    assert world.client("alice").registered
    thief = world.connect()
    assert thief.register("alice", identity=identity_of("mallory"))["code"] == "key-mismatch"


def test_a_claim_that_the_directory_could_not_answer_costs_a_network_nothing() -> None:
    world = World(new_names_per_address=1)
    world.directory_fails = True
    for _ in range(3):
        assert world.connect().register("alice")["code"] == "internal"
    world.directory_fails = False
    assert world.connect().register("alice")["success"] is True


def test_claims_that_come_at_once_share_the_names_of_their_network() -> None:
    world = World(new_names_per_address=3)
    world.directory_waits = True
    clients = [world.connect() for _ in range(10)]
    for number, client in enumerate(clients):
        client.register(f"user{number}")
    world.answer()
    assert len(world.keys) == 3
    codes = [client.take()[-1].get("code") for client in clients]
    assert codes == [None] * 3 + ["rate-limited"] * 7
