"""Sealed messages: their budgets, their window, and that nothing else is lost or held up because of them."""

from __future__ import annotations

from typing import Any

import pytest

from aldis.hub.budgets import MOST_PAIRS, PAUSE
from aldis.hub.resume import Replay
from aldis.hub.use import MemoryUse
from aldis.identity import proofs
from aldis.protocol.codec import to_base64
from support.hub_world import Client, World, identity_of

LIMITS: dict[str, Any] = {"user_sealed_bytes_per_second": 4000, "pair_sealed_bytes_per_second": 2000}
OF_PAIRS: dict[str, Any] = {**LIMITS, "user_sealed_bytes_per_second": 1_000_000}


def seal(client: Client, to: str, size: int = 100, number: int = 1) -> str:
    """Send a sealed message; what came of it."""
    client.send(type="relay", to=to, sealed="A" * size, id=number)
    reply = client.inbox.pop()
    return str(reply.get("code", reply["type"]))


def sealed(client: Client) -> int:
    """How many sealed messages have come."""
    return sum(message["type"] == "relay" for message in client.take())


def key_of(name: str, device: str, key: bytes, signer: str | None = None) -> dict[str, str]:
    signature = identity_of(signer or name).sign(proofs.seal(name, device, key))
    return {"publicKey": to_base64(key), "signature": to_base64(signature)}


# --- budgets --------------------------------------------------------------------------------------------------------


def test_a_pair_has_a_budget_and_what_is_refused_is_not_overtaken_by_less() -> None:
    world = World(**OF_PAIRS)
    alice, bob, carol = world.client("alice"), world.client("bob"), world.client("carol")
    assert [seal(alice, "bob", 1700), seal(alice, "bob", 1700)] == ["ack"] * 2
    assert seal(alice, "bob", 1700) == "rate-limited"
    assert [seal(alice, "bob", 1), seal(alice, "bob/main", 1)] == ["rate-limited"] * 2
    assert seal(alice, "carol") == "ack"
    assert seal(carol, "bob") == "ack"
    assert (sealed(bob), sealed(carol)) == (3, 1)
    assert world.hub.stats.limited["pair-sealed-bytes"] == 3


def test_a_refusal_says_when_it_is_over_and_then_it_is() -> None:
    world = World(**LIMITS)
    alice, _ = world.client("alice"), world.client("bob")
    while seal(alice, "bob", 1700) == "ack":
        pass
    alice.send(type="relay", to="bob", sealed="A", id=7)
    refused = alice.take_one()
    assert (refused["code"], refused["temporary"], refused["re"]) == ("rate-limited", True, 7)
    assert PAUSE <= refused["retryAfter"] < PAUSE + 2
    world.now += refused["retryAfter"]
    assert seal(alice, "bob", 1) == "ack"


def test_all_devices_of_a_user_share_a_budget_and_the_other_kinds_go_on() -> None:
    world = World(**{**LIMITS, "pair_sealed_bytes_per_second": 1_000_000})
    alice, phone, bob = world.client("alice"), world.client("alice", device="phone"), world.client("bob")
    while seal(alice, "bob", 1700) == "ack":
        pass
    assert seal(phone, "bob") == "rate-limited"
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=2)
    assert alice.take_one() == {"type": "ack", "re": 2}
    assert bob.take()[-1]["type"] == "offer"
    assert world.hub.stats.limited["user-sealed-bytes"] == 2


def test_other_messages_use_nothing_of_what_is_for_sealed_ones() -> None:
    world = World(user_messages_per_second=10, user_bytes_per_second=10_000_000)
    alice, _ = world.client("alice"), world.client("bob")
    for number in range(30):
        alice.send(type="bye", to="bob", id=number)
    assert alice.take()[-1]["code"] == "rate-limited"
    assert seal(alice, "bob") == "ack"


def test_a_client_that_goes_on_although_it_has_read_is_closed() -> None:
    world = World(**LIMITS, offence_burst=3, offences_per_second=0.1)
    alice, _ = world.client("alice"), world.client("bob")
    for number in range(8):
        for one in range(4):  # to others, so that it is the budget of the user
            seal(alice, f"nobody{number}{one}", 1000)
        alice.pong()
    while alice.closed is None:
        alice.send(type="relay", to="nobody00", sealed="A" * 100, id=1)
        alice.pong()
    assert alice.closed[0] == 4504


def test_so_many_recipients_at_a_time_have_a_budget() -> None:
    world = World()
    alice = world.client("alice")
    for number in range(MOST_PAIRS):
        assert seal(alice, f"user{number}") == "not-online"
    assert seal(alice, "one more") in ("not-online", "rate-limited")
    world.hub.settings.pair_sealed_bytes_per_second = 1000
    world.hub.configure(world.hub.settings)
    for number in range(MOST_PAIRS + 1):
        seal(alice, f"other{number}", 500)
    assert seal(alice, "another") == "rate-limited"
    world.now += 10.0
    assert seal(alice, "another") == "not-online"


def test_without_an_id_nobody_is_told() -> None:
    world = World(**OF_PAIRS)
    alice, bob = world.client("alice"), world.client("bob")
    for _ in range(5):
        alice.send(type="relay", to="bob", sealed="A" * 1700)
    assert alice.take() == []
    assert sealed(bob) == 2


def test_a_server_may_relay_nothing_and_can_be_told_so_while_it_runs() -> None:
    world = World(relay=False)
    alice, bob = world.client("alice"), world.client("bob")
    assert alice.registered is not None
    assert alice.registered["limits"] == {"maxMessageBytes": 65536, "maxWatches": 10000, "resumeWindow": 30.0}
    assert seal(alice, "bob") == "relay-disabled"
    world.hub.settings.relay = True
    world.hub.configure(world.hub.settings)
    assert seal(alice, "bob") == "ack"
    assert sealed(bob) == 1
    carol = world.client("carol")
    assert carol.registered is not None
    assert carol.registered["limits"]["relay"] is True


def test_a_blocked_user_and_a_hidden_one_get_no_sealed_messages() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    bob.send(type="privacy", block=["alice"])
    assert seal(alice, "bob") == "not-online"
    bob.take()
    assert seal(bob, "alice") == "blocked"


# --- the window -----------------------------------------------------------------------------------------------------


def test_a_full_window_refuses_the_sender_and_keeps_what_others_have_sent() -> None:
    world = World(sealed_messages=10)
    alice, bob, carol = world.client("alice"), world.client("bob"), world.client("carol")
    carol.send(type="bye", to="bob", reason="before")
    assert [seal(alice, "bob") for _ in range(12)] == ["ack"] * 10 + ["rate-limited"] * 2
    for _ in range(250):
        carol.send(type="bye", to="bob", reason="after")
    assert seal(carol, "bob") == "rate-limited"
    assert len(bob.take()) == 261
    bob.lose()
    again = world.connect()
    again.register("bob", resume=bob.ticket(0))
    assert again.registered is not None
    assert again.registered["resumed"] is True
    kinds = [message["type"] for message in again.take()[-261:]]
    assert kinds == ["bye", *["relay"] * 10, *["bye"] * 250]


def test_confirmed_messages_make_room_and_order_is_kept_in_the_pause() -> None:
    world = World(sealed_messages=2)
    alice, bob = world.client("alice"), world.client("bob")
    assert [seal(alice, "bob") for _ in range(3)] == ["ack", "ack", "rate-limited"]
    bob.send(type="received", count=2)
    assert seal(alice, "bob") == "rate-limited"  # what was refused has to come first
    world.now += world.hub.settings.share_pause
    assert seal(alice, "bob") == "ack"


def test_the_largest_message_fits_an_empty_window() -> None:
    world = World(sealed_bytes=1000)
    alice, bob = world.client("alice"), world.client("bob")
    assert [seal(alice, "bob", 50_000), seal(alice, "bob")] == ["ack", "rate-limited"]
    assert sealed(bob) == 1


def test_what_waits_for_a_lost_client_comes_when_it_is_back_and_is_acknowledged_then() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    bob.lose()
    alice.send(type="relay", to="bob", sealed="QQ==", id=1)
    assert alice.take() == []
    again = world.connect()
    again.register("bob", resume=bob.ticket(0))
    assert again.take()[-1] == {"type": "relay", "to": "bob", "sealed": "QQ==", "from": "alice"}
    assert alice.take_one() == {"type": "ack", "re": 1}


def test_a_sender_uses_only_its_share_of_the_room_of_a_lost_client_and_ends_no_session() -> None:
    world = World(detached_user_bytes=20_500, detached_bytes=40_000)
    alice, bob, carol = world.client("alice"), world.client("bob"), world.client("carol")
    bob.lose()
    for number in range(400):
        alice.send(type="relay", to="bob", sealed="A" * 1000, id=number)
    assert {message["code"] for message in alice.take()} == {"rate-limited"}
    assert world.hub.online("bob")
    assert world.hub.stats.detached_ended == 0
    carol.send(type="bye", to="bob", reason="mine")
    again = world.connect()
    again.register("bob", resume=bob.ticket(0))
    assert again.take()[-1]["reason"] == "mine"


def test_nobody_loses_a_message_when_the_recipient_does_not_come_back() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    bob.lose()
    alice.send(type="relay", to="bob", sealed="QQ==", id=1)
    world.pass_time(31.0)
    assert alice.take_one()["code"] == "not-online"


def test_a_client_that_does_not_read_gets_a_share_of_each_sender() -> None:
    world = World()
    alice, bob, carol = world.client("alice"), world.client("bob"), world.client("carol")
    bob.full = True
    replies = [seal(alice, "bob", 10_000) for _ in range(20)]
    assert replies.count("ack") == 5
    assert seal(carol, "bob", 10_000) == "ack"
    bob.full = False
    world.hub.writable(bob.session)
    world.now += world.hub.settings.share_pause
    bob.send(type="received", count=6)
    assert seal(alice, "bob", 10_000) == "ack"


def test_classic_clients_get_what_they_read_and_no_more() -> None:
    world = World(auth="open")
    alice, bob = world.client("alice"), world.classic_client("bob")
    assert seal(alice, "bob") == "ack"
    bob.full = True
    assert seal(alice, "bob") == "rate-limited"


def test_a_handover_keeps_sealed_messages_in_their_window() -> None:
    world = World(sealed_messages=3)
    alice, _ = world.client("alice"), world.client("bob")
    alice.send(type="bye", to="bob", reason="one")
    assert seal(alice, "bob") == "ack"
    assert seal(alice, "bob") == "ack"
    saved = world.hub.save()
    (of_bob,) = [one for one in saved.sessions if one.user_id == "bob"]
    assert (len(of_bob.frames), of_bob.sealed) == (3, [1, 2])
    other = World(sealed_messages=3)
    other.keys = world.keys
    assert other.hub.restore(saved, other.now) == 2
    (session,) = other.hub.sessions("bob")
    assert session.replay is not None
    assert (session.replay.sealed, session.replay.sealed_left, session.replay.messages_left) == ([1, 2], 1, 255)


def test_a_window_counts_what_it_keeps_in_any_order_of_confirmations() -> None:
    use = MemoryUse()
    replay = Replay(3, 1000, sealed_messages=3, sealed_bytes=1000)
    replay.count_in(use)
    for size, kind in ((10, "a"), (20, "s"), (30, "a"), (40, "s")):
        (replay.add if kind == "a" else replay.add_sealed)(bytearray(size))
    assert (replay.size, replay.waiting, replay.sealed) == (100, 4, [1, 3])
    assert (replay.bytes_left, replay.messages_left) == (960, 1)
    assert (replay.sealed_bytes_left, replay.sealed_left) == (940, 1)
    assert replay.confirm(2)
    assert (replay.size, replay.sealed, replay.sealed_left, replay.messages_left) == (70, [1], 2, 2)
    assert replay.add(bytearray(5))
    assert replay.add(bytearray(5))
    assert not replay.add(bytearray(5))  # one too many of this kind drops all
    assert (replay.size, replay.waiting, replay.sealed, replay.count) == (0, 0, [], 7)
    assert (replay.messages_left, replay.sealed_left, replay.sealed_bytes_left) == (3, 3, 1000)
    assert use.replays == 0


# --- seal keys ------------------------------------------------------------------------------------------------------


def test_another_seal_key_is_told_to_watchers_and_shown_to_who_asks() -> None:
    world = World()
    first, second = bytes(32), bytes(range(32))
    alice, bob = world.client("alice", sealKey=key_of("alice", "main", first)), world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    assert bob.take_one()["devices"] == [{"device": "main", "sealKey": key_of("alice", "main", first)}]
    alice.send(type="seal-key", sealKey=key_of("alice", "main", second), id=1)
    assert alice.take_one() == {"type": "ack", "re": 1}
    shown = [{"device": "main", "sealKey": key_of("alice", "main", second)}]
    assert bob.take_one()["devices"] == shown
    alice.send(type="seal-key", sealKey=key_of("alice", "main", second), id=2)
    assert (alice.take_one(), bob.take()) == ({"type": "ack", "re": 2}, [])
    bob.send(type="discover", userId="alice")
    assert bob.take_one()["devices"] == shown


@pytest.mark.parametrize(
    ("seal_key", "text"),
    [
        (key_of("alice", "main", bytes(32), signer="mallory"), "not signed"),
        (key_of("alice", "phone", bytes(32)), "not signed"),
        ({"publicKey": "no", "signature": "no"}, "base64"),
        (key_of("alice", "main", bytes(2049)), "2048 bytes"),
    ],
)
def test_a_seal_key_that_is_not_the_owners_is_refused(seal_key: dict[str, str], text: str) -> None:
    world = World()
    alice = world.client("alice")
    alice.send(type="seal-key", sealKey=seal_key, id=1)
    refused = alice.take_one()
    assert refused["code"] == "invalid-field"
    assert text in refused["message"]
    assert alice.session.seal_key is None


def test_wrong_signatures_of_seal_keys_count_as_failed_proofs() -> None:
    alice = World().client("alice")
    for _ in range(3):
        alice.send(type="seal-key", sealKey=key_of("alice", "main", bytes(32), signer="mallory"))
    assert alice.closed is not None
    assert alice.closed[0] == 4501


def test_a_seal_key_needs_a_registration_and_stays_while_a_session_is_resumed() -> None:
    world = World()
    nobody = world.connect()
    nobody.send(type="seal-key", sealKey=key_of("alice", "main", bytes(32)), id=1)
    assert nobody.take_one()["code"] == "not-registered"
    alice, bob = world.client("alice"), world.client("bob")
    key = key_of("alice", "main", bytes(32))
    alice.send(type="seal-key", sealKey=key)
    bob.send(type="watch", userIds=["alice"])
    bob.take()
    alice.lose()
    again = world.connect()
    again.register("alice", resume=alice.ticket(0), sealKey=key)
    assert bob.take() == []
    assert world.hub.sessions("alice")[0].seal_key is not None
