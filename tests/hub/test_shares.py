"""Who may use how much of the room for a client that is lost, or does not read."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from aldis.hub.costs import NO_ROOM_PENALTY, PAUSED_PENALTY
from aldis.hub.shares import Shares
from support.hub_world import Client, World, identity_of

ROOM = 256
BYE = {"type": "bye", "to": "alice"}
SEALED = {"type": "relay", "to": "alice", "sealed": "QQ=="}
BOTH = pytest.mark.parametrize("message", [BYE, SEALED], ids=["bye", "sealed"])


def crowd(world: World, networks: int, of_each: int = 1, prefix: str = "203.0.113.") -> list[Client]:
    """Users of many networks, so many of each."""
    clients = []
    for number in range(networks * of_each):
        client = world.client(f"crowd-{prefix}-{number}")
        client.address = f"{prefix}{number % networks}"
        clients.append(client)
    return clients


def is_kept(client: Client, message: dict[str, Any]) -> bool:
    """Whether the server takes a message."""
    client.send(**message, id="kept?")
    return [one for one in client.take() if one["type"] == "error"] == []


@BOTH
def test_a_friend_has_room_although_strangers_of_300_networks_send_to_a_lost_client(message: dict[str, Any]) -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="watch", userIds=["bob"])
    alice.lose()
    strangers = [*crowd(world, 250), *crowd(world, 50, prefix="198.51.100.")]
    for stranger in strangers * 2:
        stranger.send(**message)
    assert [is_kept(bob, message) for _ in range(20)] == [True] * 20


def test_a_contact_and_another_device_of_the_user_are_friends_too() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="privacy", addContacts=["bob"])
    assert "bob" in alice.take()[-1]["contacts"]
    phone = world.client("alice", device="phone", identity=identity_of("alice"))
    alice.lose()
    for stranger in crowd(world, 300):
        stranger.send(type="bye", to="alice/main")
    assert [is_kept(client, {"type": "bye", "to": "alice/main"}) for client in (bob, phone)] == [True, True]


@BOTH
def test_a_stranger_has_room_although_300_users_of_30_networks_send_to_a_lost_client(message: dict[str, Any]) -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.lose()
    for other in crowd(world, 30, of_each=10) * 20:
        other.send(**message)
    assert is_kept(bob, message)


@BOTH
def test_a_stranger_has_room_although_many_of_its_network_send_to_a_lost_client(message: dict[str, Any]) -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    bob.address = "203.0.113.0"
    alice.lose()
    for other in crowd(world, 1, of_each=20) * 50:
        other.send(**message)
    assert is_kept(bob, message)


def test_a_friend_has_room_although_strangers_send_to_a_client_that_does_not_read() -> None:
    world = World(unsent_bytes=100_000)
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="watch", userIds=["bob"])
    alice.full = True
    for stranger in crowd(world, 300) * 3:
        stranger.send(**BYE, reason="x" * 100)
    assert is_kept(bob, {**BYE, "reason": "x" * 10_000})


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "slow"])
def test_what_has_no_room_counts_as_many_messages_of_its_sender(lost: bool) -> None:
    world = World(unsent_bytes=100_000)
    alice, bob = world.client("alice"), world.client("bob")
    if lost:
        alice.lose()
    else:
        alice.full = True
    assert is_kept(bob, BYE)
    assert bob.session.penalty == 0
    while is_kept(bob, {**BYE, "reason": "x" * 1000}):
        assert bob.session.penalty == 0
    assert bob.session.penalty == NO_ROOM_PENALTY
    assert bob.session.charged, "the transport looks at it"


def test_a_sealed_message_of_a_sender_that_was_told_to_wait_counts_as_several() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.lose()
    while is_kept(bob, SEALED):
        assert bob.session.penalty == 0
    assert bob.session.penalty == NO_ROOM_PENALTY
    assert not is_kept(bob, SEALED)
    assert bob.session.penalty == NO_ROOM_PENALTY + PAUSED_PENALTY


def test_users_whose_networks_are_not_known_have_a_share_each() -> None:
    world = World()
    alice, *others = (world.client(name) for name in ("alice", "bob", "carol"))
    alice.lose()
    for other in others:
        other.address = ""
    for _ in range(300):
        others[0].send(**BYE)
    assert is_kept(others[1], BYE)


def taken(shares: Shares, sender: str, *, friend: bool = False, network: bytes = b"net") -> int:
    """How many messages somebody can send into a room for so many."""
    count = 0
    while shares.take(sender, 1, 1, friend=friend, network=network, bytes_left=inf, messages_left=ROOM - shares.size):
        count += 1
    return count


def test_what_one_sender_can_use() -> None:
    assert taken(Shares(), "friend", friend=True) == ROOM // 3
    assert taken(Shares(), "stranger") == ROOM * 2 // 3 // 2 * 2 // 3


def test_strangers_together_leave_a_third() -> None:
    shares = Shares()
    for number in range(1000):
        taken(shares, f"stranger-{number}", network=b"%d" % number)
    assert 0.65 * ROOM < shares.size <= ROOM * 2 / 3
    left = ROOM - shares.size
    assert taken(shares, "friend", friend=True) == left // 3


def test_a_network_and_a_sender_count_once_each() -> None:
    shares = Shares()
    for _ in range(3):
        shares.take("one", 1, 1, friend=False, network=b"net", bytes_left=ROOM, messages_left=ROOM)
        shares.take("other", 1, 1, friend=False, network=b"net", bytes_left=ROOM, messages_left=ROOM)
    assert len(shares) == 3
