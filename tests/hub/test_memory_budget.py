"""What is kept for clients is counted as it changes, and who goes when it is too much."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.hub.settings import HubSettings
from aldis.hub.surplus import GOAL
from aldis.hub.use import FRAME_BYTES
from aldis.protocol.codec import to_base64
from support.hub_world import Client, World, identity_of

IDLE = HubSettings().connection_bytes


def kept(world: World, kind: str) -> int:
    return world.hub.memory.bytes()[kind]


def codes(client: Client) -> list[str]:
    return [message.get("code", message["type"]) for message in client.take()]


# --- counting ---------------------------------------------------------------------------------------------------------


def test_each_connection_counts_and_its_end_gives_all_back() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    bob.send(type="watch", userIds=["alice"])
    for _ in range(3):
        alice.send(type="bye", to="bob", reason="x" * 1000)
    assert kept(world, "connections") == 2 * IDLE
    assert kept(world, "unconfirmed") > 3 * (1000 + FRAME_BYTES)
    assert kept(world, "watches") > 0
    bob.send(type="received", count=len(bob.take()))
    assert kept(world, "unconfirmed") == 0
    alice.lose(clean=True)
    bob.lose(clean=True)
    assert world.hub.memory.total == 0


def test_a_lost_session_is_counted_once() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="bye", to="bob", reason="x" * 10_000)
    bob.lose()
    assert kept(world, "unconfirmed") == 0
    assert kept(world, "detached") > 10_000
    back = world.connect()
    back.register("bob", resume=bob.ticket(0))
    assert kept(world, "unconfirmed") > 10_000
    assert kept(world, "detached") == 0


def test_what_waits_for_the_directory_is_counted() -> None:
    world = World()
    alice = world.client("alice")
    world.directory_waits = True
    alice.send(type="discover", userId="bob")
    for _ in range(5):
        alice.send(type="ping", padding="x" * 1000)
    assert 5_000 < kept(world, "waiting") < 6_000
    world.answer()
    assert kept(world, "waiting") == 0
    alice.send(type="discover", userId="carol")
    alice.send(type="ping", padding="x" * 1000)
    alice.lose()
    assert kept(world, "waiting") == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["relay", "confirm", "lose", "leave", "resume", "unregister", "ask", "answer", "replace"]),
        st.integers(0, 2),
        st.integers(0, 2),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_counters_are_what_a_count_of_all_sessions_gives(steps: list[tuple[str, int, int]]) -> None:
    world = World(resume_messages=8, resume_bytes=4000)
    clients: list[Client | None] = [world.client(f"user{number}") for number in range(3)]
    lost: dict[int, Client] = {}
    for what, one, other in steps:
        client = clients[one]
        match what:
            case "relay" if client is not None:
                client.send(type="bye", to=f"user{other}", reason="x" * 700)
            case "confirm" if client is not None and client.session.replay is not None:
                client.send(type="received", count=client.session.replay.count)
            case "ask" if client is not None:
                world.directory_waits = True
                client.send(type="discover", userId="nobody")
            case "answer":
                world.directory_waits = False
                world.settle()
            case "lose" | "leave" if client is not None:
                client.lose(clean=what == "leave")
                clients[one] = None
                lost[one] = client
            case "resume" | "replace" if not world.directory_waits and (client is not None or one in lost):
                old = client or lost[one]
                clients[one] = back = world.connect()
                assert old.session is not None
                more: dict[str, Any] = {"resume": old.ticket(0)} if what == "resume" and old.registered else {}
                back.register(f"user{one}", **more)
            case "unregister" if client is not None:
                client.send(type="unregister")
                clients[one] = None
            case _:
                pass
        sessions = [s for s in world.hub._lifecycle.sessions() if s not in world.hub.detached_sessions]
        replays = [s.replay for s in sessions if s.replay is not None]
        assert kept(world, "unconfirmed") == sum(r.size + FRAME_BYTES * r.waiting for r in replays)
        assert kept(world, "waiting") == sum(s.backlog.size for s in sessions if s.backlog is not None)
        assert kept(world, "connections") == IDLE * sum(s.connection is not None for s in sessions)


# --- above the budget -------------------------------------------------------------------------------------------------


def test_nothing_new_is_taken_on_without_memory_and_those_that_come_back_are() -> None:
    world = World(memory_budget=4 * IDLE)
    alice = world.client("alice")
    alice.take()
    strangers = [world.connect() for _ in range(4)]
    refused = strangers[0]
    message = refused.register("bob")
    refused.take()
    assert (message["code"], message["temporary"], message["retryAfter"]) == ("over-capacity", True, 30.0)
    alice.send(type="watch", userIds=["bob"], id=1)
    assert codes(alice) == ["over-capacity"]
    again = world.connect()
    assert again.register("alice")["success"] is True
    assert world.hub.stats.limited["memory"] == 2
    assert world.connect().register("bob")["code"] == "over-capacity"
    classic = world.connect(classic=True)
    classic.send(type="register", userId="dave", publicKey="a key")
    assert codes(classic) == ["error"]


@pytest.mark.parametrize("name", ["alice", "nobody"])
def test_without_memory_a_stranger_does_not_learn_who_is_online(name: str) -> None:
    world = World(memory_budget=2 * IDLE)
    world.client("alice").send(type="privacy", presence="hidden", offers="hidden")
    stranger, _ = world.connect(), world.connect()
    stranger.identity = identity_of("alice")  # everybody knows her public key
    stranger.ask_challenge(name)
    stranger.send(type="prove", signature=to_base64(bytes(64)))
    assert codes(stranger) == ["bad-signature"]


def test_the_newest_and_the_idlest_go_first_until_enough_is_free() -> None:
    world = World(memory_budget=6 * IDLE, resume_window=0.0)
    old_and_active = world.client("active")
    old_and_idle = world.client("idle")
    world.now += 15
    for client in (old_and_active, old_and_idle):
        world.hub.heard(client.session, world.now)  # a pong is no activity
    world.now += 15
    recent = world.client("recent")
    world.now += 1
    for client in (old_and_active, recent):
        client.send(type="ping")
    newest = [world.connect() for _ in range(4)]
    assert world.hub.memory.total == 7 * IDLE
    world.hub.tick(world.now)
    world.work()
    closed = [client for client in (*newest, recent, old_and_idle, old_and_active) if client.closed]
    # The four, and the one that has said nothing for half a minute, were active for no time; the last one came last.
    assert len(closed) == 2
    assert set(closed) <= set(newest)
    assert all(client.closed == (4007, "no memory is left") for client in closed)
    for client in closed:
        client.lose()
    assert world.hub.memory.total <= world.hub.settings.memory_budget
    world.hub.settings.memory_budget = 2 * IDLE
    world.hub.tick(world.now)
    world.work()
    assert old_and_active.closed is None
    assert recent.closed is not None
    assert old_and_idle.closed is not None
    assert world.hub.stats.memory_ended == 6


def test_those_that_keep_more_than_their_share_go_before_all_others() -> None:
    world = World(memory_budget=10 * IDLE, resume_window=0.0)
    hog, friend = world.client("hog"), world.client("friend")
    world.now += 100
    for client in (hog, friend):
        client.send(type="ping")
    small = [world.client(f"small{number}") for number in range(3)]
    hog.kept = 8 * IDLE
    world.hub._lifecycle._use.transports += hog.kept
    world.hub.tick(world.now)
    world.work()
    assert hog.closed is not None
    assert [client.closed for client in (friend, *small)] == [None] * 4


CLIENTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=40)


@given(CLIENTS, st.integers(1, 40))
def test_whoever_goes_is_first_in_rank_and_no_more_go_than_have_to(
    given_clients: list[tuple[int, int, int]], share_of_all: int
) -> None:
    """Of each client: when it came, how long it was active, and what its transport keeps (in idle connections)."""
    world = World(resume_window=0.0)
    clients = []
    for since, active, kept_by_it in given_clients:
        client = world.connect()
        clients.append(client)
        client.session.connected_at = float(since)
        client.session.heard = float(since + active)
        client.kept = kept_by_it * IDLE
        world.hub._lifecycle._use.transports += client.kept
    total = world.hub.memory.total
    budget = world.hub.settings.memory_budget = max(1, total * share_of_all // 41)
    world.hub.tick(world.now)
    world.work()
    share = budget / len(clients)

    def rank(client: Client) -> tuple[bool, float, float]:
        session = client.session
        return (client.kept + IDLE <= share, session.spoke_at - session.connected_at, -session.connected_at)

    goers = [client for client in clients if client.closed]
    sizes = {client: client.kept + IDLE for client in clients}
    needed = total - GOAL * budget
    assert sum(sizes[client] for client in goers) >= needed
    last = max(goers, key=rank)
    assert all(rank(client) >= rank(last) for client in clients if not client.closed)
    # Without the last one it would not be enough: of those with the same rank, any may be it.
    spared = max(sizes[client] for client in goers if rank(client) == rank(last))
    assert sum(sizes[client] for client in goers) - spared < max(needed, 1)
