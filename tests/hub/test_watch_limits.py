"""What watches cost: counted in bytes, and bounded for each user and in all."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import pairwise

import pytest

from aldis.hub.watch_table import CROWD_FROM
from aldis.hub.watches import CROWDS_AT_ONCE, ENTERED_AT_ONCE
from support.hub_watches import watch_table
from support.hub_world import Client, World, identity_of


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}@example.com" for number in range(count)]


@pytest.mark.parametrize("shared", [False, True], ids=["of different names", "of the same names"])
def test_the_bytes_of_watches_are_those_of_the_memory(shared: bool) -> None:
    world = World()
    watchers = [world.client(f"watcher{number}") for number in range(20)]
    for watcher in watchers:
        watcher.send_frame = lambda frame: None  # type: ignore[method-assign]
        watcher.send(type="received", count=0)
    gc.collect()
    tracemalloc.start()
    for number, watcher in enumerate(watchers):
        for part in range(4):
            watcher.send(type="watch", userIds=names(f"{0 if shared else number}-{part}", 500))
            watcher.send(type="received", count=500 * (part + 1))
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted = world.hub.memory.bytes()["watches"]
    assert 0.5 * counted < size < 1.1 * counted
    for watcher in watchers:
        watcher.lose(clean=True)
    assert world.hub.memory.bytes()["watches"] == 0
    assert not world.hub._watchers.watches._of_user


def test_all_devices_of_a_user_watch_so_many_names_together() -> None:
    world = World(max_watches=10, max_user_watches=15)
    phone, laptop = (world.client("alice", device=device, identity=identity_of("a")) for device in ("phone", "laptop"))
    phone.send(type="watch", userIds=names("one", 10))
    laptop.send(type="watch", userIds=names("two", 5))
    assert (len(phone.take()), len(laptop.take())) == (10, 5)
    laptop.send(type="watch", userIds=["more"], id=1)
    assert laptop.take_one()["code"] == "too-large"
    laptop.send(type="watch", userIds=names("two", 5), id=2)
    assert laptop.take()[-1] == {"type": "ack", "re": 2}, "nothing new"
    phone.send(type="unwatch", userIds=["one-0@example.com", "never-watched"])
    laptop.send(type="watch", userIds=["more"])
    assert laptop.take_one()["userId"] == "more"
    phone.lose()
    laptop.send(type="watch", userIds=["another"], id=3)
    assert laptop.take_one()["code"] == "too-large", "a lost device may come back"
    back = world.connect()
    back.register("alice", device="phone", identity=identity_of("a"), resume=phone.ticket(10))
    back.lose(clean=True)
    laptop.send(type="watch", userIds=["another"], id=4)
    assert laptop.take()[-1] == {"type": "ack", "re": 4}


def test_beyond_the_room_for_all_watches_there_is_none_for_now() -> None:
    world = World(watches_bytes=10_000)
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="watch", userIds=names("one", 30))
    assert len(alice.take()) == 30
    bob.send(type="watch", userIds=names("two", 30), id=1)
    refused = bob.take_one()
    assert (refused["code"], refused["temporary"], refused["retryAfter"]) == ("over-capacity", True, 60.0)
    alice.lose(clean=True)
    bob.send(type="watch", userIds=names("two", 30), id=1)
    assert len(bob.take()) == 31


def test_a_user_has_so_many_watchers_and_the_next_one_may_try_again() -> None:
    world = World(max_watchers=2)
    watchers = [world.client(f"watcher{number}") for number in range(3)]
    for watcher in watchers[:2]:
        watcher.send(type="watch", userIds=["alice"], id=1)
        assert watcher.take()[-1] == {"type": "ack", "re": 1}
    watchers[2].send(type="watch", userIds=["bob", "alice"], id=1)
    refused = watchers[2].take_one()
    assert (refused["code"], refused["temporary"]) == ("over-capacity", True)
    assert world.hub.stats.limited["watchers-per-user"] == 1
    watchers[0].send(type="unwatch", userIds=["alice"])
    watchers[2].send(type="watch", userIds=["bob", "alice"], id=2)
    assert watchers[2].take()[-1] == {"type": "ack", "re": 2}


def networked(world: World, name: str, address: str) -> Client:
    """A client that comes from an address."""
    client = world.connect()
    client.address = address
    client.register(name)
    client.take()
    return client


def watches(client: Client, *user_ids: str) -> bool:
    """Whether a client may watch some users."""
    client.send(type="watch", userIds=list(user_ids), id="watch")
    return client.take()[-1] == {"type": "ack", "re": "watch"}


@pytest.mark.parametrize("most", [10, 200], ids=["few", "many"])
def test_a_network_with_many_watchers_of_a_user_gives_way_to_one_with_fewer(most: int) -> None:
    world = World(max_watchers=most)
    attackers = [networked(world, f"attacker-{number}", f"203.0.113.{number % 2}") for number in range(most)]
    assert {watches(attacker, "alice") for attacker in attackers} == {True}
    bob = networked(world, "bob", "192.0.2.1")
    assert watches(bob, "alice")
    (loser,) = (attacker for attacker in attackers if attacker.inbox)
    ended = loser.take_one()
    assert ended.pop("ended") == {
        "message": "alice has too many watchers, and most of them are of the network that you are in",
        "code": "over-capacity",
        "temporary": True,
        "retryAfter": 60.0,
    }
    assert ended == {"type": "presence", "userId": "alice", "online": False}
    assert world.hub.stats.limited["watchers-per-user"] == 1
    assert not watches(loser, "alice"), "its network still has most"
    world.client("alice")
    assert [bob.take_one()["online"], loser.take()] == [True, []]
    assert len(watch_table(world)["alice"]) == most


def test_a_customer_of_a_provider_with_many_networks_gives_way_like_one_network() -> None:
    world = World(max_watchers=5)
    attackers = [networked(world, f"attacker-{number}", f"2001:db8:0:{number}::1") for number in range(5)]
    assert all(watches(attacker, "alice") for attacker in attackers)
    assert watches(networked(world, "bob", "192.0.2.1"), "alice")
    assert watches(networked(world, "carol", "2001:db8:1::1"), "alice")


def test_networks_with_about_the_same_number_of_watchers_do_not_drive_each_other_out() -> None:
    world = World(max_watchers=4)
    clients = [networked(world, f"user-{number}", f"203.0.113.{number % 3}") for number in range(5)]
    assert [watches(client, "alice") for client in clients] == [True] * 4 + [False]
    other = networked(world, "other", "192.0.2.1")
    assert [watches(other, "alice"), watches(other, "alice")] == [True, True]
    more = networked(world, "more", "192.0.2.1")
    assert not watches(more, "alice"), "each network has one"


def test_a_client_that_is_lost_or_does_not_read_is_told_later_that_its_watch_has_ended() -> None:
    world = World(max_watchers=2)
    lost, slow = (networked(world, name, "203.0.113.1") for name in ("lost", "slow"))
    assert [watches(one, "alice") for one in (lost, slow)] == [True, True]
    lost.lose()
    slow.full = True
    assert watches(networked(world, "bob", "192.0.2.1"), "alice")
    assert watches(lost_or_slow := networked(world, "carol", "192.0.2.2"), "alice") is False
    assert lost_or_slow.take() == []
    back = world.connect()
    back.register("lost", resume=lost.ticket(1))
    ended = back.take()[1:]
    slow.full = False
    world.hub.writable(slow.session)
    told = [*ended, *slow.take()]
    assert [message["ended"]["code"] for message in told] == ["over-capacity"]


def test_a_watch_that_is_asked_for_again_before_its_end_is_told_goes_on() -> None:
    world = World(max_watchers=2)
    slow, other = (networked(world, name, "203.0.113.1") for name in ("slow", "other"))
    assert [watches(one, "alice") for one in (slow, other)] == [True, True]
    slow.full = True
    bob = networked(world, "bob", "192.0.2.1")
    assert watches(bob, "alice")
    bob.lose(clean=True)
    slow.send(type="watch", userIds=["alice"])
    slow.full = False
    world.hub.writable(slow.session)
    assert ["ended" in message for message in slow.take()] == [False]


def test_the_next_process_gives_the_watch_back_to_a_client_that_was_not_told_of_its_end() -> None:
    world = World(max_watchers=2)
    for name in ("one", "two"):
        client = networked(world, name, "203.0.113.1")
        assert watches(client, "alice")
        client.lose()
    assert watches(networked(world, "bob", "192.0.2.1"), "alice")
    saved = {one.user_id: one.watches for one in world.hub.save().sessions}
    assert saved == {"one": ["alice"], "two": ["alice"], "bob": ["alice"]}


def test_who_gives_way_loses_nothing_else_and_all_of_it_counts() -> None:
    world = World(max_watchers=200)
    attackers = [networked(world, f"attacker-{number}", "203.0.113.1") for number in range(200)]
    for number, attacker in enumerate(attackers):
        assert watches(attacker, "alice", f"friend-{number}")
    friends = [networked(world, f"bob-{number}", f"192.0.2.{number}") for number in range(100)]
    assert {watches(friend, "alice") for friend in friends} == {True}
    lost = [attacker for attacker in attackers if attacker.inbox]
    assert len(lost) == 100
    number = attackers.index(lost[0])
    lost[0].take()
    world.client(f"friend-{number}")
    assert lost[0].take_one()["online"] is True
    assert world.hub._watchers.watches._of_user[f"attacker-{number}"] == 1
    for client in (*attackers, *friends):
        client.lose(clean=True)
    assert world.hub.memory.bytes()["watches"] == 0
    assert not world.hub._watchers.watches._of_user


@pytest.mark.parametrize("others", [150, 500])
def test_a_watch_that_is_over_and_still_counts_gives_way_and_nobody_is_told(others: int) -> None:
    world = World(max_watchers=2)
    leaving, staying = (networked(world, name, "203.0.113.1") for name in ("leaving", "staying"))
    leaving.send(type="watch", userIds=["alice", *names("other", others)])
    assert watches(staying, "alice")
    world.hub_waits = True  # what is over leaves the table in later turns
    leaving.lose(clean=True)
    assert world.hub._watchers.watches.table.count("alice") == 2
    assert watches(networked(world, "bob", "192.0.2.1"), "alice")
    world.hub_waits = False
    world.work()
    assert staying.take() == []
    assert len(watch_table(world)["alice"]) == 2
    assert len(watch_table(world)) == 1


def test_few_names_get_their_watchers_by_networks_in_one_go() -> None:
    world, many = World(), names("watched", 20)
    for number in range(CROWD_FROM - 1):
        assert watches(networked(world, f"user-{number}", f"203.0.113.{number}"), *many)
    last = networked(world, "last", "192.0.2.1")
    table = world.hub._watchers.watches.table
    world.hub_waits = True
    crowded = []
    last.send(type="watch", userIds=many, id=1)
    for _ in range(10):
        crowded.append(table.crowded // CROWD_FROM)
        world.hub.work(world.now)
    assert [crowded[0], max(crowded)] == [CROWDS_AT_ONCE, len(many)]
    assert all(after - before <= CROWDS_AT_ONCE for before, after in pairwise(crowded))
    world.hub_waits = False
    world.work()
    assert last.take()[-1] == {"type": "ack", "re": 1}


def test_those_whose_watch_is_still_being_admitted_do_not_give_way() -> None:
    world = World(max_watchers=2)
    slow = [networked(world, name, "203.0.113.1") for name in ("one", "two")]
    bob = networked(world, "bob", "192.0.2.1")
    world.hub_waits = True
    for client in slow:
        client.send(type="watch", userIds=["alice", *names("other", 500)], id=1)
    for _ in range(10):
        world.hub.work(world.now)
        if world.hub._watchers.watches.table.count("alice") == 2:
            break
    bob.send(type="watch", userIds=["alice"], id=1)
    assert bob.take_one()["code"] == "over-capacity"
    world.hub_waits = False
    world.work()
    assert [client.take()[-1] for client in slow] == [{"type": "ack", "re": 1}] * 2


def watch_by_few(client: Client, user_ids: list[str]) -> None:
    """Watch names without the help of later turns."""
    for first in range(0, len(user_ids), ENTERED_AT_ONCE):
        client.send(type="watch", userIds=user_ids[first : first + ENTERED_AT_ONCE])


@pytest.mark.parametrize("end", ["unwatch", "unregister", "resume", "replace", "lose"])
def test_names_that_are_watched_again_before_the_watches_of_an_earlier_name_are_removed(end: str) -> None:
    world = World()
    watched, other = names("watched", 1000), world.client("other")
    client = world.client("alice")
    client.send(type="watch", userIds=watched)
    world.hub_waits = True  # the watches are removed in later turns
    client.send(type="unregister")
    client.register("alice")
    client.take()
    watch_by_few(client, watched)
    told = sum(message["type"] == "presence" for message in client.take())
    match end:
        case "unwatch":
            client.send(type="unwatch", userIds=watched)
        case "unregister":
            client.send(type="unregister")
        case "resume":
            client.lose()
            # This connection has had watches, too.
            client, ticket = other, client.ticket(told)
            watch_by_few(client, watched)
            client.send(type="unregister")
            client.register("alice", resume=ticket)
            assert client.registered is not None
            assert client.registered["resumed"]
        case "replace":
            world.client("alice")
        case "lose":
            client.lose(clean=True)
    world.hub_waits = False
    world.work()
    client.take()
    world.client(watched[-1])
    told_now = [message["userId"] for message in client.take() if message["type"] == "presence"]
    assert told_now == ([watched[-1]] if end == "resume" else [])
    if end == "resume":
        client.lose(clean=True)
    assert world.hub.memory.bytes()["watches"] == 0
    assert not watch_table(world)
    assert not world.hub._watchers.watches._of_user
