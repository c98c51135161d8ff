"""What the bus of a cluster promises (aldis.cluster.bus): on one Redis, behind a Sentinel, and in a Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from aldis.cluster import bus as buses_module
from aldis.cluster.buckets import BUCKETS
from aldis.cluster.faults import ClusterUnavailable
from aldis.cluster.messages import Missed, Rebound, encode_message
from aldis.cluster.states import encode_state
from aldis.hub.cluster import Forward, Forwarded, UserState
from aldis.hub.sessions import RelayResult
from support.buses import Buses
from support.patience import PATIENCE
from support.presence import KINDS, Place, redis_place


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with redis_place(request.param, tmp_path_factory.mktemp(request.param), "--save", "", steady=True) as place:
        yield place


@pytest.fixture
async def buses(place: Place) -> AsyncIterator[Buses]:
    buses = Buses(place)
    yield buses
    await buses.close()


def forward(number: int, frame: bytes = b"{}") -> Forward:
    return Forward(number, "alice", True, frame)


async def test_nodes_send_messages_to_each_other_in_order(buses: Buses) -> None:
    (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
    for number in range(3000):
        assert one.send("two", forward(number))
        assert two.send("one", Forwarded(number, RelayResult.SENT))
        if number % 100 == 0:
            await asyncio.sleep(0)
    await twos.until(lambda: len(twos.messages) == 3000)
    await ones.until(lambda: len(ones.messages) == 3000)
    assert twos.messages == [("one", forward(number)) for number in range(3000)]
    assert ones.messages == [("two", Forwarded(number, RelayResult.SENT)) for number in range(3000)]
    assert ones.not_sent == twos.not_sent == []
    assert one.healthy


async def test_a_bus_is_healthy_while_it_asks_for_another_bucket(buses: Buses) -> None:
    one, _ = await buses.node("one")
    asking = asyncio.create_task(one.want(range(50)))
    seen = set()
    while not asking.done():
        seen.add(one.healthy)
        await asyncio.sleep(0)
    assert seen == {True}


async def test_a_node_can_send_to_itself(buses: Buses) -> None:
    one, ones = await buses.node("one")
    assert one.send("one", forward(1))
    await ones.until(lambda: ones.messages == [("one", forward(1))])


async def test_a_large_frame_arrives_whole(buses: Buses) -> None:
    (one, _), (_, twos) = await buses.node("one"), await buses.node("two")
    frame = bytes(range(256)) * 4096
    assert one.send("two", forward(1, frame))
    await twos.until(lambda: twos.messages == [("one", forward(1, frame))])


async def test_all_nodes_but_the_sender_hear_what_is_sent_to_all(buses: Buses) -> None:
    (one, ones), (_, twos), (_, threes) = [await buses.node(name) for name in ("one", "two", "three")]
    assert one.send_all(Rebound("bob"))
    await twos.until(lambda: twos.messages == [("one", Rebound("bob"))])
    await threes.until(lambda: threes.messages == [("one", Rebound("bob"))])
    assert one.send("one", forward(1))
    await ones.until(lambda: bool(ones.messages))
    assert ones.messages == [("one", forward(1))]


async def test_a_message_to_a_node_that_does_not_listen_is_unsent(buses: Buses) -> None:
    one, ones = await buses.node("one")
    for number in range(3):
        assert one.send("nobody", forward(number))
    assert one.send_all(Rebound("bob"))
    await ones.until(lambda: len(ones.not_sent) == 3)
    assert ones.not_sent == [("nobody", forward(number)) for number in range(3)]


async def test_a_node_hears_the_states_of_the_buckets_that_it_wants(buses: Buses) -> None:
    one, ones = await buses.node("one")
    await one.want(range(BUCKETS))
    for bucket in range(0, BUCKETS, 64):
        assert await buses.tell(bucket, UserState("alice", bucket)) == 1
    await ones.until(lambda: len(ones.states) == 16)
    assert sorted(state.version for state in ones.states) == list(range(0, BUCKETS, 64))
    await one.want([5, 6])  # at once
    one.drop(range(0, BUCKETS, 2))
    await one.want([64])
    assert await buses.tell(2, UserState("alice", 2)) == 0
    for bucket in (64, 3):
        assert await buses.tell(bucket, UserState("alice", bucket)) == 1


async def test_calls_of_one_turn_are_confirmed_together(buses: Buses) -> None:
    one, _ = await buses.node("one")
    await asyncio.gather(*[one.want([bucket, bucket + 1]) for bucket in range(200)])
    assert await buses.tell(200, UserState("alice", 1)) == 1


async def test_a_bucket_can_be_dropped_and_wanted_in_any_order(buses: Buses) -> None:
    one, ones = await buses.node("one")
    for round_ in range(20):
        wanted = asyncio.ensure_future(one.want([7]))
        await asyncio.sleep(0)
        one.drop([7, 8])
        await one.want([7])
        await wanted
        assert await buses.tell(7, UserState("alice", round_)) == 1
        # It comes on another connection than the word that somebody gets it.
        await ones.until(lambda: len(ones.states) > round_)  # noqa: B023 - called in this round
        one.drop([7])
        one.drop([7])
    assert len(ones.states) == 20
    assert ones.words == []


async def test_what_cannot_be_read_is_counted_and_skipped(buses: Buses) -> None:
    one, ones = await buses.node("one")
    await one.want([7])
    inbox, everyone, bucket = buses.names.inbox("one"), buses.names.everyone, buses.names.channel(7)
    for data in (b"", b"\xff" * 50, b"\x93\x02\x01\xa1a", b"\x91" * 5000):
        for channel in (inbox, everyone, bucket):
            await buses.publish(channel, data)
    await buses.publish(inbox, b"\x93\x01\x63\xa1a")  # a kind of a newer release
    await buses.publish(inbox, encode_message("two", Rebound("bob")))
    await buses.tell(7, UserState("alice", 1))
    await ones.until(lambda: bool(ones.messages and ones.states))
    await ones.until(lambda: one.unreadable == 12)
    assert (one.unreadable, one.unknown) == (12, 1)
    assert ones.messages == [("two", Rebound("bob"))]


async def test_the_states_of_users_that_the_node_does_not_want_are_not_read(buses: Buses) -> None:
    one, ones = await buses.node("one")
    await one.want([7])
    ones.unwanted.add("bob")
    channel, state = buses.names.channel(7), encode_state(UserState("bob", 1))
    for data in (state, state[:-1] + b"\xff"):
        await buses.publish(channel, data)
    await buses.tell(7, UserState("alice", 2))
    await ones.until(lambda: bool(ones.states))
    assert (ones.states, one.unreadable) == ([UserState("alice", 2)], 0)


async def test_a_node_that_has_moved_listens_under_its_new_id(buses: Buses) -> None:
    (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
    await two.moved("three")
    assert one.send("two", forward(1))
    assert one.send("three", forward(2))
    await twos.until(lambda: bool(twos.messages))
    await ones.until(lambda: bool(ones.not_sent))
    assert (ones.not_sent, twos.messages) == ([("two", forward(1))], [("one", forward(2))])
    assert two.send("one", forward(3))
    await ones.until(lambda: ones.messages == [("three", forward(3))])
    assert twos.words == []


async def test_a_node_that_has_moved_does_not_take_itself_for_another(buses: Buses) -> None:
    (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
    assert two.send_all(Missed())
    await two.moved("three")
    await buses.publish(buses.names.everyone, encode_message("two", Missed()))  # what has come late
    assert one.send_all(Missed())
    await twos.until(lambda: bool(twos.messages))
    assert twos.messages == [("one", Missed())]
    await ones.until(lambda: ones.messages == [("two", Missed())] * 2)


async def test_the_queue_has_a_bound(buses: Buses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buses_module, "MAX_QUEUED", 5)
    (one, ones), (_, twos) = await buses.node("one"), await buses.node("two")
    assert [one.send("two", forward(number)) for number in range(7)] == [True] * 5 + [False] * 2
    await twos.until(lambda: len(twos.messages) == 5)
    assert one.send("nobody", forward(7))
    await ones.until(lambda: bool(ones.not_sent))
    assert (one.queued, one.queued_bytes) == (0, 0)
    frame = bytes(1024 * 1024)
    monkeypatch.setattr(buses_module, "MAX_QUEUED_BYTES", 5 * 1024 * 1024)
    assert [one.send("two", forward(number, frame)) for number in range(3)] == [True, True, False]
    assert 4 * len(frame) < one.queued_bytes <= 5 * 1024 * 1024
    await twos.until(lambda: len(twos.messages) == 7)


async def test_a_bus_that_is_closed_sends_nothing_and_loses_nothing(buses: Buses) -> None:
    (one, ones), (_, twos) = await buses.node("one"), await buses.node("two")
    for number in range(500):
        assert one.send("two", forward(number))
    await one.close()
    assert not one.send("two", forward(500))
    await twos.until(lambda: len(twos.messages) == 500)
    assert (ones.not_sent, ones.words, one.queued, one.healthy) == ([], [], 0, False)
    await one.close()  # again
    await one.open("one")
    assert one.send("two", forward(501))
    await twos.until(lambda: len(twos.messages) == 501)


async def test_who_waits_when_the_bus_closes_is_told(buses: Buses) -> None:
    one, _ = await buses.node("one")
    wanted = asyncio.ensure_future(one.want([7]))
    await asyncio.sleep(0)
    await one.close()
    ended = (await asyncio.gather(wanted, return_exceptions=True))[0]
    assert ended is None or isinstance(ended, ClusterUnavailable)


async def test_a_bus_closes_whatever_it_is_doing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buses_module, "_CHECK_SECONDS", 0.0)  # behind a Sentinel it always asks for the master
    for turns in range(40):
        buses = Buses(place)
        await buses.node("one")
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await buses.close()
