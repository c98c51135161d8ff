"""What the leases of nodes promise (aldis.cluster.lease): on one Redis, behind a Sentinel, and in a Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from aldis.backends.redis_client import Command, RedisServers
from aldis.cluster import lease as leases
from aldis.cluster.lease import NodeLease, new_node_id
from support.patience import PATIENCE
from support.presence import KINDS, LeaseWords, Place, World, redis_place


class Nodes:
    """Nodes whose leases are renewed by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.opened: list[RedisServers] = []

    def node(self, name: str) -> tuple[NodeLease, LeaseWords]:
        numbers = count(1)
        servers = self.world.servers()
        self.opened.append(servers)
        heard = LeaseWords()
        lease = NodeLease(servers, heard, prefix=self.world.prefix, new_id=lambda: f"{name}{next(numbers)}")
        return lease, heard

    async def end(self, node_id: str) -> None:
        """Let a lease have ended long ago."""
        command = Command("ZADD", f"{self.world.prefix}nodes", ("XX", "CH", 1, node_id))
        assert await self.opened[0].run([command]) == [1]

    async def lose_all(self) -> None:
        await self.opened[0].run([Command("DEL", f"{self.world.prefix}nodes")])


def steady(lease: NodeLease) -> None:
    """Let its answers have come without a gap for a whole lease."""
    lease._since = lease._last - leases._LEASE_MS


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with redis_place(request.param, tmp_path_factory.mktemp(request.param), "--save", "", steady=True) as place:
        yield place


@pytest.fixture
async def nodes(place: Place, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nodes]:
    # A machine that has much to do is no gap.
    monkeypatch.setattr(leases, "_GAP_MS", 1000 * PATIENCE)
    nodes = Nodes(World(place))
    yield nodes
    for servers in nodes.opened:
        await servers.close()


async def test_nodes_hear_of_each_other(nodes: Nodes) -> None:
    (one, ones), (two, twos) = nodes.node("one"), nodes.node("two")
    await one.renew()
    assert ones.take() == []
    await two.renew()
    assert twos.take() == ["joined one1"]
    await one.renew()
    await two.renew()
    assert (ones.take(), twos.take()) == (["joined two1"], [])
    assert one.healthy


async def test_a_node_whose_lease_has_ended_is_lost_for_all(nodes: Nodes) -> None:
    (one, ones), (two, twos), (three, threes) = nodes.node("one"), nodes.node("two"), nodes.node("three")
    for lease in (one, two, three, one, two, three):
        await lease.renew()
    for heard in (ones, twos, threes):
        heard.take()
    await nodes.end("two1")
    steady(one)
    await one.renew()
    await three.renew()
    assert ones.take() == threes.take() == ["lost two1"]
    await one.renew()
    assert ones.take() == []
    # It comes back, and hears that it is another one now.
    await two.renew()
    assert twos.take() == ["moved two1 two2", "lost two1"]
    assert two.node_id == "two2"
    await one.renew()
    assert ones.take() == ["joined two2"]


async def test_no_lease_is_longer_than_a_lease_after_the_clock_was_set_back(nodes: Nodes) -> None:
    (one, _), (two, _) = nodes.node("one"), nodes.node("two")
    await two.renew()
    key = f"{nodes.world.prefix}nodes"
    in_an_hour = two._last + 3_600_000
    assert await nodes.opened[0].run([Command("ZADD", key, ("XX", "CH", in_an_hour, "two1"))]) == [1]
    await one.renew()
    assert one.others == {"two1"}
    (end,) = await nodes.opened[0].run([Command("ZSCORE", key, ("two1",))])
    assert float(end) == one._last + leases._LEASE_MS


async def test_a_lost_node_is_told_until_its_devices_are_removed(nodes: Nodes) -> None:
    (one, ones), (two, _), (three, threes) = nodes.node("one"), nodes.node("two"), nodes.node("three")
    for lease in (one, two, three):
        await lease.renew()
    await nodes.end("two1")
    steady(one)
    await one.renew()
    assert ones.take() == ["lost two1", "joined three1"]
    four, fours = nodes.node("four")
    await four.renew()
    assert "lost two1" in fours.take()
    await one.forget("three1")  # it is not lost
    await one.forget("two1")
    await one.forget("two1")
    threes.take()
    await three.renew()
    assert threes.take() == ["removed two1", "joined four1"]
    five, fives = nodes.node("five")
    await five.renew()
    assert fives.take() == ["joined four1", "joined one1", "joined three1"]
    await one.renew()
    assert ones.take() == ["joined five1", "joined four1"]


async def test_a_node_without_answers_for_a_while_counts_nobody_as_lost(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, ones), (two, twos) = nodes.node("one"), nodes.node("two")
    for lease in (one, two, one):
        await lease.renew()
    ones.take()
    twos.take()
    steady(one)
    monkeypatch.setattr(leases, "_GAP_MS", -1)  # any time is a gap
    await nodes.end("one1")
    await nodes.end("two1")
    await one.renew()
    await two.renew()
    assert (ones.take(), twos.take()) == ([], [])
    assert (one.node_id, two.node_id) == ("one1", "two1")


async def test_at_another_server_nobody_counts_as_lost_at_once(nodes: Nodes) -> None:
    """A master that takes over may have old leases: those of all nodes have ended there."""
    (one, ones), (two, twos) = nodes.node("one"), nodes.node("two")
    for lease in (one, two, one):
        await lease.renew()
    ones.take()
    twos.take()
    steady(one)
    one._server = b"the run id of another one"
    await nodes.end("one1")
    await nodes.end("two1")
    await one.renew()
    await two.renew()
    assert (ones.take(), twos.take()) == ([], [])
    assert (one.node_id, two.node_id) == ("one1", "two1")
    await nodes.end("two1")
    await one.renew()
    assert ones.take() == [], "not for a whole lease"
    steady(one)
    await one.renew()
    assert ones.take() == ["lost two1"]


async def test_a_new_node_counts_nobody_as_lost(nodes: Nodes) -> None:
    (one, _), (two, twos) = nodes.node("one"), nodes.node("two")
    await one.renew()
    await nodes.end("one1")
    for _ in range(3):
        await two.renew()
    assert twos.take() == ["joined one1"]
    steady(two)
    await two.renew()
    assert twos.take() == ["lost one1"]


async def test_nodes_have_new_ids_once_the_server_has_lost_its_data(nodes: Nodes) -> None:
    (one, ones), (two, twos) = nodes.node("one"), nodes.node("two")
    for lease in (one, two, one):
        await lease.renew()
    ones.take()
    twos.take()
    await nodes.lose_all()
    for lease in (one, two, one):
        await lease.renew()
    assert ones.take() == ["moved one1 one2", "removed two1", "joined two2"]
    assert twos.take() == ["moved two1 two2", "removed one1", "joined one2"]


async def test_a_node_that_stops_is_lost_at_once(nodes: Nodes) -> None:
    (one, _), (two, twos) = nodes.node("one"), nodes.node("two")
    await one.open()
    await two.renew()
    assert twos.take() == ["joined one1"]
    await one.close()
    await two.renew()
    assert twos.take() == ["lost one1"]
    await one.close()  # again


async def test_two_nodes_that_notice_at_once_agree(nodes: Nodes) -> None:
    (one, ones), (two, twos), (three, threes) = nodes.node("one"), nodes.node("two"), nodes.node("three")
    for lease in (one, two, three, one, two, three):
        await lease.renew()
    for heard in (ones, twos, threes):
        heard.take()
    for _ in range(20):
        lost = three.node_id
        await nodes.end(lost)
        steady(one)
        steady(two)
        await asyncio.gather(one.renew(), two.renew(), three.renew())
        await asyncio.gather(one.renew(), two.renew(), three.renew())
        if three.node_id == lost:  # its renewal was first: it was not lost
            assert ones.take() == twos.take() == threes.take() == []
        else:
            expected = [f"lost {lost}", f"joined {three.node_id}"]
            assert ones.take() == twos.take() == expected
            assert threes.take() == [f"moved {lost} {three.node_id}", f"lost {lost}"]


def test_the_ids_of_nodes_are_random() -> None:
    assert len({new_node_id() for _ in range(1000)}) == 1000
