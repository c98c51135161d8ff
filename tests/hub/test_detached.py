"""What is kept for clients that have lost their connection: counted in bytes, and bounded for each user and in all."""

from __future__ import annotations

import gc
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from aldis.hub.detached import SESSION_BYTES, DetachedSessions
from aldis.hub.settings import HubSettings
from aldis.hub.use import FRAME_BYTES
from support.hub_world import Client, World, identity_of

KILOBYTE = "x" * 1000


def lost(world: World, name: str, kilobytes: int, device: str = "main") -> Client:
    """A client that is lost with so many kilobytes for it, from a sender of its own."""
    client = world.client(name, device=device, identity=identity_of(name))
    client.lose()
    sender = world.client(f"{name}-{device}-sender")
    for number in range(kilobytes):
        sender.send(type="bye", to=f"{name}/{device}", reason=KILOBYTE, id=number)
    return client


def test_the_bytes_that_are_kept_are_those_of_the_memory() -> None:
    world = World()
    alice = world.client("alice")
    clients = [world.client(f"user{number}") for number in range(40)]
    for client in clients:
        client.send_frame = lambda frame: None  # type: ignore[method-assign]
        client.lose()
    before = world.hub.detached_sessions.bytes
    assert before == len(clients) * SESSION_BYTES
    gc.collect()
    tracemalloc.start()
    for number in range(20):
        for client in clients:
            alice.send(type="bye", to=client.session.user_id, reason="x" * 500, id=f"{number}-{client.session.user_id}")
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted = world.hub.detached_sessions.bytes - before
    assert 0.7 * counted < size < 1.05 * counted


def test_what_was_unconfirmed_when_the_connection_was_lost_counts_too() -> None:
    world = World()
    alice, bob = world.client("alice"), world.client("bob")
    bob.send(type="bye", to="alice", reason=KILOBYTE)
    alice.lose()
    kept = world.hub.detached_sessions.bytes - SESSION_BYTES - FRAME_BYTES
    assert 1000 < kept < 1100
    back = world.connect()
    back.register("alice", resume=alice.ticket(0))
    assert world.hub.detached_sessions.bytes == 0


def test_beyond_the_bytes_in_all_the_oldest_session_of_the_largest_user_ends() -> None:
    world = World(detached_bytes=150_000, detached_user_bytes=100_000)
    small = lost(world, "small", 1)
    lost(world, "large", 30, "older")
    lost(world, "large", 30, "newer")
    lost(world, "middle", 55)
    assert world.hub.online("small")
    assert [s.device for s in world.hub.sessions("large")] == ["newer"]
    assert world.hub.detached_sessions.bytes <= 150_000
    assert world.hub.stats.detached_ended == 1
    back = world.connect()
    assert back.register("small", resume=small.ticket(0))["resumed"] is True


def test_the_senders_of_what_a_session_took_with_it_are_told() -> None:
    world = World(detached_bytes=20_000)
    alice = world.client("alice")
    bob = world.client("bob")
    alice.lose()
    for number in range(20):
        bob.send(type="bye", to="alice", reason=KILOBYTE, id=number)
    told = bob.take()
    assert [m["re"] for m in told] == list(range(20))
    assert {m["code"] for m in told} == {"not-online"}
    assert not world.hub.online("alice")
    back = world.connect()
    assert back.register("alice", resume=alice.ticket(0))["resumed"] is False


def test_one_user_has_a_share_of_its_own() -> None:
    world = World(detached_user_bytes=40_000)
    lost(world, "alice", 10, "first")
    lost(world, "alice", 6, "second")
    assert len(world.hub.detached_sessions) == 2
    lost(world, "alice", 10, "third")
    assert [s.device for s in world.hub.sessions("alice")] == ["third", "second"]
    assert world.hub.detached_sessions.bytes <= 40_000


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "grow", "discard"]), st.integers(0, 7), st.integers(0, 5000)), max_size=60
    )
)
def test_the_count_is_exact_and_the_surplus_comes_from_a_large_user(steps: list[tuple[str, int, int]]) -> None:
    world = World()
    sessions = [world.client(f"user{number % 3}", device=f"d{number}").session for number in range(8)]
    settings = HubSettings(detached_bytes=30_000, detached_user_bytes=20_000)
    detached = DetachedSessions(settings)
    kept: dict[int, int] = {}

    def of_user(number: int) -> int:
        return sum(size for other, size in kept.items() if other % 3 == number % 3)

    for step, number, size in steps:
        if step == "add" and number not in kept:
            detached.add(sessions[number])
            kept[number] = SESSION_BYTES
        elif step == "grow" and number in kept:
            detached.grow(sessions[number], size)
            kept[number] += size
        elif step == "discard":
            detached.discard(sessions[number])
            kept.pop(number, None)
        while (surplus := detached.surplus(sessions[number])) is not None:
            chosen = sessions.index(surplus)
            if of_user(number) > 20_000:
                assert chosen % 3 == number % 3
            else:
                assert sum(kept.values()) > 30_000
                assert 2 * of_user(chosen) > max(map(of_user, kept))
            assert chosen == next(other for other in kept if other % 3 == chosen % 3), "its oldest"
            detached.discard(surplus)
            del kept[chosen]
        assert detached.bytes == sum(kept.values())
        assert detached.all() == [sessions[other] for other in kept]


def test_of_too_many_lost_clients_one_of_the_network_with_most_is_given_up() -> None:
    world = World()
    sessions = [world.client(f"user{number}").session for number in range(9)]
    detached = DetachedSessions(HubSettings(max_detached=5))
    traveller, crowd, others = sessions[0], sessions[1:5], sessions[5:]
    detached.add(traveller, "198.51.100.1")
    for number, session in enumerate(crowd):
        detached.add(session, f"2001:db8:0:{number}::1")  # one customer of a provider
    assert detached.surplus() is None
    for session, given_up in zip(others, crowd, strict=True):
        detached.add(session, "203.0.113.7")
        surplus = detached.surplus()
        assert surplus is not None
        assert surplus in crowd or surplus in others
        if session is others[0]:
            assert surplus is given_up
        detached.discard(surplus)
    assert traveller in detached
    for session in sessions:
        detached.discard(session)
    assert len(detached) == 0
    detached.add(traveller)
    assert detached.surplus() is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60))
def test_the_network_with_most_lost_clients_is_known_after_all_that_comes_and_goes(
    steps: list[tuple[bool, int]],
) -> None:
    world = World()
    sessions = [world.client(f"user{number}").session for number in range(8)]
    detached = DetachedSessions(HubSettings(max_detached=1))
    kept: list[int] = []
    for comes, number in steps:
        if comes and number not in kept:
            detached.add(sessions[number], f"203.0.113.{number % 3}")
            kept.append(number)
        elif not comes and number in kept:
            detached.discard(sessions[number])
            kept.remove(number)
        sizes = [sum(other % 3 == network for other in kept) for network in range(3)]
        surplus = detached.surplus()
        assert (surplus is None) == (len(kept) < 2)
        if surplus is not None:
            chosen = sessions.index(surplus)
            assert sizes[chosen % 3] == max(sizes)
            assert chosen == next(other for other in kept if other % 3 == chosen % 3)
