"""Sessions that go on in the next process of a server."""

from __future__ import annotations

from typing import Any

import pytest

from aldis.hub import handover
from support.hub_world import Client, World


def ticket(client: Client, received: int) -> dict[str, Any]:
    assert client.registered is not None
    session, secret = client.registered["session"], client.registered["secret"]
    return {"session": session, "secret": secret, "received": received}


def next_world(world: World, *, after: float = 1.0, **settings: Any) -> tuple[World, int]:
    """Stop the server, and start another one with the same directory; how many sessions it goes on with."""
    saved = world.hub.save()
    world.hub.drain(world.now, handed_over=True)
    successor = World(**settings)
    successor.keys = world.keys
    successor.now = world.now + after
    return successor, successor.hub.restore(saved, successor.now)


def back(world: World, client: Client, name: str, received: int) -> Client:
    again = world.connect()
    again.register(name, resume=ticket(client, received))
    assert again.inbox.pop(0)["resumed"] is True
    return again


def test_a_client_resumes_and_gets_what_it_has_missed_and_nobody_is_told() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="watch", userIds=["bob"])
    alice.take()
    alice.send(type="relay", to="bob", sealed="1", id=1)
    assert alice.take() == [{"type": "ack", "re": 1}]
    world, count = next_world(world)
    assert count == 2
    assert world.hub.users_online == 2
    alice_again = back(world, alice, "alice", 1)
    assert [message["type"] for message in alice_again.take()] == []
    bob_again = back(world, bob, "bob", 0)
    assert [message["type"] for message in bob_again.take()] == ["relay"]
    assert alice_again.take() == []
    bob_again.lose()
    world.pass_time(31)
    assert alice_again.take() == [{"type": "presence", "userId": "bob", "online": False}]


def test_who_is_lost_already_is_handed_over_without_what_its_sender_was_told_is_lost() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="relay", to="bob", sealed="1", id=1)
    bob.lose()
    alice.send(type="relay", to="bob", sealed="2", id=2)
    assert alice.take() == [{"type": "ack", "re": 1}]
    world, count = next_world(world)
    assert count == 2
    assert [message["re"] for message in alice.take() if message["type"] == "error"] == [2]
    assert [message["sealed"] for message in back(world, bob, "bob", 0).take()] == ["1"]


def test_who_does_not_come_back_goes_offline_after_the_resume_window() -> None:
    world = World()
    alice = world.client("alice")
    world.client("bob")
    alice.send(type="watch", userIds=["bob"])
    world, _ = next_world(world)
    alice = back(world, alice, "alice", 1)
    alice.take()
    world.pass_time(31)
    assert [(m["userId"], m["online"]) for m in alice.take()] == [("bob", False)]


def test_a_program_that_starts_anew_replaces_its_session() -> None:
    world = World()
    world.client("alice")
    world, _ = next_world(world)
    assert world.client("alice").registered is not None
    assert world.hub.users_online == 1
    assert len(world.hub.detached_sessions) == 0


@pytest.mark.parametrize("after", [-1.0, 31.0])
def test_sessions_of_another_time_are_not_taken_over(after: float) -> None:
    world = World()
    world.client("alice")
    world, count = next_world(world, after=after)
    assert count == world.hub.users_online == 0


def test_clients_without_a_name_or_a_proof_are_not_handed_over() -> None:
    world = World(auth="open")
    world.connect()
    world.classic_client("classic")
    assert world.hub.save().sessions == []


def test_what_is_handed_over_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "MOST_BYTES", 1000)
    world = World()
    alice = world.client("alice")
    world.client("bob")
    alice.send(type="relay", to="bob", sealed="x" * 2000)
    assert "bob" not in [one.user_id for one in world.hub.save().sessions]


def test_who_watches_most_is_left_out_when_there_is_no_room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches took no room before: 256 MiB of them would have kept all clients waiting for seconds."""
    world = World()
    greedy = world.client("greedy")
    greedy.send(type="watch", userIds=[f"name{number}" for number in range(500)])
    others = [world.client(f"user{number}") for number in range(10)]
    for other in others:
        other.send(type="watch", userIds=[f"name{number}" for number in range(10)])
    assert len(world.hub.save().sessions) == 11
    monkeypatch.setattr(handover, "MOST_BYTES", 50_000)
    left = [one.user_id for one in world.hub.save().sessions]
    assert sorted(left) == [f"user{number}" for number in range(10)]
    monkeypatch.setattr(handover, "MOST_BYTES", 10_000)
    assert len(world.hub.save().sessions) == 2


def test_presence_that_a_lost_client_has_missed_is_told_by_the_next_process() -> None:
    world = World()
    alice = world.client("alice")
    alice.send(type="watch", userIds=["bob", "carol"])
    alice.lose()
    bob = world.client("bob")
    world.client("carol")
    for number in range(2):
        bob.send(type="bye", to="alice", id=number)
    world, _ = next_world(world)
    alice = back(world, alice, "alice", 2)
    told = [(m["userId"], m["online"]) for m in alice.take() if m["type"] == "presence"]
    assert sorted(told) == [("bob", True), ("carol", True)]
    alice.lose(clean=True)
    assert world.hub.memory.bytes()["watches"] == 0


def test_a_hidden_user_stays_hidden_when_there_is_no_room_for_all_of_its_sessions() -> None:
    world = World()
    phone = world.client("alice", device="phone")
    phone.send(type="privacy", presence="hidden", offers="hidden")
    bob, laptop = world.client("bob"), world.client("alice", device="laptop")
    for client in (phone, bob, laptop):
        client.lose()
    world, _ = next_world(world, max_detached=1)
    assert [session.address for session in world.hub.sessions("alice")] == ["alice/laptop"]
    stranger = world.client("stranger")
    stranger.send(type="watch", userIds=["alice"])
    assert stranger.take_one()["online"] is False


def test_watchers_learn_of_sessions_for_which_the_next_process_has_no_room() -> None:
    world = World()
    watcher = world.client("alice")
    clients = [world.client("bob"), world.client("carol"), watcher]
    watcher.send(type="watch", userIds=["bob"])
    for client in clients:
        client.lose()
    world, _ = next_world(world, max_detached=1)
    assert [(m["userId"], m["online"]) for m in back(world, watcher, "alice", 1).take()] == [("bob", False)]


def test_watchers_learn_of_sessions_that_are_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "MOST_BYTES", 1000)
    world = World(auth="open")
    watcher = world.client("alice")
    hidden, large, small = world.client("hidden"), world.client("large"), world.client("small")
    world.classic_client("classic")
    hidden.send(type="privacy", presence="hidden")
    watcher.send(type="watch", userIds=["classic", "large", "small", "hidden", "nobody"])
    told = len(watcher.take())
    watcher.send(type="received", count=told)
    watcher.send(type="relay", to="large", sealed="x" * 2000)
    for client in (watcher, small, large, hidden):
        client.lose()
    world, _ = next_world(world)
    news = back(world, watcher, "alice", told).take()
    assert [(m["userId"], m["online"]) for m in news] == [("classic", False), ("large", False)]
