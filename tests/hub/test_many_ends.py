"""Many sessions that end at once, each of which the others watch: nobody stays behind, and no stack is too short."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from aldis.hub.lifecycle import LOOKED_AT_ONCE
from aldis.hub.surplus import SEEN_AT_ONCE
from support.hub_watches import watch_table
from support.hub_world import Client, World


def watching_each_other(world: World, count: int, watched: int = 600) -> list[Client]:
    """So many clients, each of which watches the next ones and keeps nothing of what it is told."""
    names = [f"user{number}" for number in range(count)]
    clients = []
    for name in names:
        client = world.client(name)
        client.send_frame = lambda frame: None  # type: ignore[method-assign]
        clients.append(client)
    for number, client in enumerate(clients):
        client.send(type="watch", userIds=(names[number:] + names)[:watched])
        client.send(type="received", count=client.session.replay.count)  # type: ignore[union-attr]
    return clients


def nothing_left(world: World) -> None:
    assert world.hub.users_online == 0
    assert world.hub.pending == 0
    assert not watch_table(world), "no watch outlives its session"
    assert not world.hub._watchers._changed


@pytest.mark.parametrize(("count", "watched"), [(600, 600), (2000, 150)])
def test_all_who_lose_their_network_at_once_are_offline_after_the_resume_window(count: int, watched: int) -> None:
    world = World(resume_window=5.0)
    clients = watching_each_other(world, count, watched)
    for client in clients:
        client.lose()
    assert world.hub.users_online == count
    world.pass_time(7)
    nothing_left(world)


def test_who_loses_the_network_over_some_seconds_is_offline_too() -> None:
    world = World(resume_window=5.0)
    clients = watching_each_other(world, 600)
    for number, client in enumerate(clients):
        client.lose()
        if not number % 60:
            world.pass_time(1)
            for other in clients[number + 1 :]:
                world.hub.heard(other.session, world.now)
    world.pass_time(20)
    nothing_left(world)


def test_the_end_of_a_lost_client_ends_none_of_the_lost_clients_that_watch_it() -> None:
    """Each has as many messages as can be kept for it, and each end is news for all others."""
    world = World(resume_messages=4)
    clients = watching_each_other(world, 600)
    alice = world.client("alice")
    last = world.client("last")
    last.send(type="watch", userIds=["user0", "user1", "user599"])
    last.take()
    for client in clients:
        client.lose()
        for _ in range(4):
            alice.send(type="bye", to=client.session.user_id)
    newcomer = world.client("user0")
    newcomer.lose(clean=True)
    assert world.hub.users_online == 601
    assert {(m["userId"], m["online"]) for m in last.take()} == {("user0", True), ("user0", False)}


def test_what_ends_in_one_tick_is_told_once_for_each_user() -> None:
    world = World(resume_window=5.0)
    watcher = world.client("watcher")
    watcher.send(type="watch", userIds=["alice"])
    devices = [world.client("alice", device=f"d{number}") for number in range(4)]
    for device in devices:
        device.lose()
    watcher.take()
    world.hub.heard(watcher.session, world.now)
    world.pass_time(7)
    assert [m["online"] for m in watcher.take()] == [False]


def test_a_fault_with_one_session_leaves_the_others_their_time_outs() -> None:
    world = World(resume_window=5.0)
    clients = [world.client(f"user{number}") for number in range(3)]
    for client in clients:
        client.lose()
    clients[0].session.watcher = 7  # type: ignore[assignment]  # a fault that no client can cause
    with pytest.raises(AttributeError):
        world.pass_time(7)
    world.pass_time(3)
    assert world.hub.online("user0")
    assert not world.hub.online("user1")
    assert not world.hub.online("user2")


def test_no_step_pings_or_ends_more_sessions_than_a_few() -> None:
    """After an outage all clients come back together, so all are due together, for ever."""
    world = World(ping_interval=30, pong_timeout=10, resume_window=0.0)
    clients = [world.client(f"user{number}") for number in range(10 * LOOKED_AT_ONCE)]
    world.hub_waits = True

    def step() -> int:
        return sum(client.pings + (client.closed is not None) for client in clients)

    for done in (len(clients), 2 * len(clients)):
        world.pass_time(31)
        before = step()
        while world.hub.work(world.now) == 0.0:
            assert 0 < step() - before <= LOOKED_AT_ONCE
            before = step()
        assert before == done


def test_a_server_that_is_out_of_memory_ends_some_sessions_at_a_time() -> None:
    world = World(resume_window=0.0)
    clients = [world.client(f"user{number}") for number in range(2 * SEEN_AT_ONCE)]
    world.hub_waits = True
    world.hub.settings.memory_budget = world.hub.memory.total // 10
    world.hub.tick(world.now)
    world.hub.tick(world.now)
    ended = [0]
    while world.hub.work(world.now) == 0.0:
        ended.append(sum(client.closed is not None for client in clients))
    # It looks at all of them first, at some in each turn.
    assert ended[: len(clients) // SEEN_AT_ONCE] == [0] * (len(clients) // SEEN_AT_ONCE)
    assert max(after - before for before, after in pairwise(ended)) == LOOKED_AT_ONCE
    assert ended[-1] == world.hub.stats.memory_ended > 8 * LOOKED_AT_ONCE


def test_a_server_that_stops_sends_everybody_away_whoever_watches_whom() -> None:
    world = World()
    clients = watching_each_other(world, 600)
    for client in clients[:300]:
        client.lose()
    world.hub.drain(world.now)
    assert all(client.closed is not None and client.closed[0] == 4000 for client in clients[300:])


@pytest.mark.parametrize("fields", [{"presence": "contacts"}, {"block": ["somebody"]}], ids=["contacts", "blocked"])
def test_of_users_that_not_everybody_may_see_one_ends_in_one_go(fields: dict[str, Any]) -> None:
    """Its contacts are looked through for watchers, of which there may be thousands."""
    world = World(resume_window=5.0)
    watcher = world.client("watcher")
    users = [world.client(f"user{number}") for number in range(8)]
    for user in users:
        user.send(type="privacy", addContacts=["watcher"], **fields)
        world.work()
        user.lose()
    world.hub_waits = True
    world.hub.heard(watcher.session, world.now)
    world.pass_time(7)
    online = [world.hub.users_online]
    while world.hub.work(world.now) == 0.0:
        online.append(world.hub.users_online)
    assert online[-1] == 1
    assert max(before - after for before, after in pairwise(online)) == 1
