"""A user with thousands of watchers keeps nobody waiting, and each watcher is told the last state once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from aldis.hub.lifecycle import LOOKED_AT_ONCE
from aldis.hub.settings import MAX_PRESENCE
from aldis.hub.watchers import BYTES_AT_ONCE, DEVICES_PER_UNIT, MOST_AT_ONCE
from aldis.identity import proofs
from aldis.protocol.codec import to_base64
from support.hub_world import Client, World, identity_of

WATCHERS = 3 * MOST_AT_ONCE


def watched(world: World, count: int = WATCHERS, users: Sequence[str] = ("alice",)) -> list[Client]:
    """So many watchers of users that are offline."""
    watchers = [world.client(f"watcher{number}") for number in range(count)]
    for watcher in watchers:
        watcher.send(type="watch", userIds=list(users))
        watcher.take()
    return watchers


def told(watchers: list[Client]) -> int:
    """How many have something in their inbox; each has one presence at most."""
    assert all(len(watcher.inbox) <= 1 for watcher in watchers)
    return sum(len(watcher.inbox) for watcher in watchers)


def test_a_user_with_many_watchers_is_told_of_in_parts() -> None:
    world = World(presence_interval=0.25)
    watchers = watched(world)
    world.hub_waits = True
    world.client("alice")
    for turn in range(1, 4):
        assert told(watchers) == turn * MOST_AT_ONCE
        assert (world.hub.work(world.now) == 0.0) is (turn < 3), "the last one finds nothing"
    assert all(watcher.inbox[0]["online"] for watcher in watchers)


def test_many_users_that_end_together_are_told_of_in_parts_too() -> None:
    world = World(resume_window=5.0)
    watcher = world.client("watcher")
    users = [world.client(f"user{number}") for number in range(WATCHERS)]
    watcher.send(type="watch", userIds=[user.session.user_id for user in users])
    watcher.take()
    for user in users:
        user.lose()
    world.hub_waits = True
    world.hub.heard(watcher.session, world.now)
    world.pass_time(7)
    told, ended, before = 0, 0, world.hub.users_online
    while world.hub.work(world.now) == 0.0:
        now, more = before - world.hub.users_online, len(watcher.take())
        assert now - ended <= LOOKED_AT_ONCE, "they end in parts, too"
        assert more <= MOST_AT_ONCE
        told, ended = told + more, now
    assert told == ended == WATCHERS


def test_who_watches_many_that_come_at_once_is_told_of_several_together() -> None:
    """An outage is over, and all who come back have each other as contacts."""
    world = World()
    names = [f"user{number}" for number in range(20)]
    watchers = watched(world, WATCHERS, names)
    world.hub_waits = True
    for name in names:
        world.client(name)
    told_before, before = told(watchers), sum(watcher.pieces for watcher in watchers)
    while world.hub.work(world.now) == 0.0:
        pass
    for watcher in watchers:
        news = watcher.take()
        assert sorted(message["userId"] for message in news) == sorted(names)
        assert all(message["online"] for message in news)
    pieces = sum(watcher.pieces for watcher in watchers) - before
    assert pieces < (20 * WATCHERS - told_before) / 4


def test_those_not_told_yet_are_told_the_last_state_once() -> None:
    world = World()
    watchers = watched(world)
    world.hub_waits = True
    alice = world.client("alice")
    first = [watcher for watcher in watchers if watcher.take()]
    alice.lose(clean=True)
    world.hub_waits = False
    world.work()
    assert {watcher.take_one()["online"] for watcher in watchers} == {False}
    assert len(first) == MOST_AT_ONCE
    world.pass_time(1)
    assert told(watchers) == 0


def test_a_message_of_a_user_never_comes_before_its_presence() -> None:
    world = World()
    watchers = watched(world)
    world.hub_waits = True
    alice = world.client("alice")
    for number, watcher in enumerate(watchers):
        alice.send(type="bye", to=watcher.session.user_id, id=number)
    world.hub_waits = False
    world.work()
    assert all([m["type"] for m in watcher.take()] == ["presence", "bye"] for watcher in watchers)


def test_who_asks_meanwhile_or_leaves_is_not_told_twice() -> None:
    world = World()
    watchers = watched(world)
    world.hub_waits = True
    world.client("alice")
    waiting = [watcher for watcher in watchers if not watcher.inbox]
    asking, leaving, ending, lost, resuming = waiting[:5]
    asking.send(type="watch", userIds=["alice"])
    leaving.send(type="unwatch", userIds=["alice"])
    ending.lose(clean=True)
    lost.lose()
    resuming.lose()
    back = world.connect()
    back.register(resuming.session.user_id, resume=resuming.ticket(1))
    assert back.registered is not None
    assert back.registered["resumed"]
    world.hub_waits = False
    world.work()
    assert len(asking.take()) == 1
    assert leaving.take() == ending.take() == lost.take() == []
    assert [m["type"] for m in back.take()] == ["registered", "presence"]
    again = world.connect()
    again.register(lost.session.user_id, resume=lost.ticket(1))
    assert [m["type"] for m in again.take()] == ["registered", "presence"]


@pytest.mark.parametrize("lost", [False, True], ids=["that does not read", "that is lost"])
def test_a_watcher_hears_first_that_a_sender_was_restarted(lost: bool) -> None:
    world = World()
    watcher, alice = world.client("watcher"), world.client("alice")
    watcher.send(type="watch", userIds=["alice"])
    watcher.take()
    watcher.full = True
    if lost:
        watcher.lose()
    alice.lose(clean=True)
    again = world.client("alice")
    again.send(type="bye", to="watcher", id=1)
    if lost:
        back = world.connect()
        back.register("watcher", resume=watcher.ticket(1))
        assert back.registered is not None
        assert back.registered["resumed"]
        assert [m["type"] for m in back.take()] == ["registered", "presence", "bye"]
    else:
        watcher.full = False
        world.hub.writable(watcher.session)
        assert [m["type"] for m in watcher.take()] == ["presence", "bye"]
    assert again.take() == [{"type": "ack", "re": 1}]


def large_device(world: World, name: str, device: str) -> Client:
    """A device with a sealing key of nearly the largest size."""
    key = bytes(2000)
    signature = to_base64(identity_of(name).sign(proofs.seal(name, device, key)))
    return world.client(name, device=device, sealKey={"publicKey": to_base64(key), "signature": signature})


def size_of(clients: list[Client]) -> int:
    """Bytes in their inboxes, or a little more."""
    return sum(len(json.dumps(one)) for client in clients for one in client.inbox)


def test_a_large_presence_goes_to_fewer_watchers_in_one_go() -> None:
    world = World()
    watchers = watched(world)
    for number in range(14):
        large_device(world, "alice", f"device{number}")
    world.pass_time(1)
    for watcher in watchers:
        watcher.take()
    world.hub_waits = True
    large_device(world, "alice", "another")
    sizes = [size_of(watchers)]
    while told(watchers) < WATCHERS:
        world.hub.work(world.now)
        sizes.append(size_of(watchers) - sum(sizes))
    assert max(sizes) < MOST_AT_ONCE * BYTES_AT_ONCE + MAX_PRESENCE


def test_who_reads_again_is_sent_some_of_what_waits_in_one_go() -> None:
    world = World()
    watcher = world.client("watcher")
    names = [f"user{number}" for number in range(12)]
    watcher.send(type="watch", userIds=names)
    watcher.take()
    watcher.full = True
    for name in names:
        for number in range(15):
            large_device(world, name, f"device{number}")
    world.pass_time(1)
    world.hub_waits = True
    watcher.full = False
    world.hub.writable(watcher.session)
    assert size_of([watcher]) < MOST_AT_ONCE * BYTES_AT_ONCE + MAX_PRESENCE
    world.hub_waits = False
    world.work()
    assert {one["userId"] for one in watcher.take()} == set(names)


def test_a_user_with_few_watchers_does_not_wait_for_those_of_many_others() -> None:
    """Names and sessions are cheap: an attacker may have hundreds of users with thousands of watchers."""
    world = World()
    friend = world.client("friend")
    friend.send(type="watch", userIds=["bob"])
    friend.take()
    crowd = [f"flapping{number}" for number in range(20)]
    watched(world, users=crowd)
    world.hub_waits = True
    for name in crowd:
        world.client(name)
    world.client("bob")
    turns = 0
    while not friend.inbox:
        assert world.hub.work(world.now) == 0.0
        turns += 1
    assert turns <= len(crowd), "and not as many as all watchers of all others need"


def test_users_that_change_in_the_same_turn_tell_no_more_watchers_than_one() -> None:
    world = World()
    users = [f"user{number}" for number in range(5)]
    watchers = watched(world, users=users)
    world.hub_waits = True
    for name in users:
        world.client(name)
    assert sum(len(watcher.inbox) for watcher in watchers) == MOST_AT_ONCE
    world.hub_waits = False
    world.work()
    assert all({one["userId"] for one in watcher.take()} == set(users) for watcher in watchers)


def test_leaving_is_charged_for_the_devices_that_are_looked_through_for_watchers() -> None:
    world = World(max_devices=16)
    for device in range(16):
        contact = world.client("bob", device=f"device{device}")
        contact.send(type="watch", userIds=["alice", "carol"])
        for number in range(20):
            world.client(f"contact{number}", device=f"device{device}")
    alice, carol = world.client("alice"), world.client("carol")
    names = ["bob", *(f"contact{number}" for number in range(20))]
    alice.send(type="privacy", presence="contacts", addContacts=names)
    for client in (alice, carol):
        client.session.charged = 0
        client.send(type="unregister")
    assert alice.session.charged == 21 * 16 // DEVICES_PER_UNIT > 0
    assert carol.session.charged == 0, "everybody may see carol, so nobody is looked up"
