"""Limits of a cluster over a real Redis: what one node allows counts at the others (aldis.hub.usage)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aldis.server.addresses import AddressLimits
from aldis.server.refusals import Refusal
from support.hub_redis import RedisCluster
from support.hub_world import Client
from support.redis_server import RedisServer

RATE = 20


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, "--save", "") as server:
        yield server


@pytest.fixture
def cluster(redis: RedisServer) -> Iterator[RedisCluster]:
    cluster = RedisCluster(redis.url(), 2, user_discovers_per_second=RATE, new_names_per_address=3)
    for number in range(2):
        cluster.renew(number)  # each hears of the other
    yield cluster
    cluster.close()


def pass_time(cluster: RedisCluster, seconds: float) -> None:
    for world in cluster.worlds:
        world.pass_time(seconds)
    cluster.settle()


def join(cluster: RedisCluster, number: int, name: str, device: str = "main") -> Client:
    client = cluster.worlds[number].connect()
    client.register(name, device=device, settle=cluster.settle)
    client.take()
    return client


def discover(client: Client) -> int:
    """Ask for oneself until it is refused; how often it was not."""
    for count in range(1000):
        client.send(type="discover", userId="alice", id=1)
        if client.take()[-1]["type"] == "error":
            return count
    raise AssertionError


def test_what_a_user_has_used_at_one_node_is_used_at_the_other(cluster: RedisCluster) -> None:
    first = join(cluster, 0, "alice")
    pass_time(cluster, 1.0)
    used = discover(first)
    assert used >= 2 * RATE
    pass_time(cluster, 1.0)
    second = join(cluster, 1, "alice", "phone")
    # The whole burst is used, and the last request more; what has come back since is one second's.
    assert discover(second) <= RATE + 1


def test_new_names_of_a_network_count_at_all_nodes(cluster: RedisCluster) -> None:
    for number, name in enumerate(["alice", "bob", "carol"]):
        assert join(cluster, number % 2, name).registered
        pass_time(cluster, 1.0)
    assert join(cluster, 0, "dave").registered is None
    assert join(cluster, 1, "dave").registered is None


def addresses(cluster: RedisCluster, **more: int) -> list[AddressLimits]:
    """The limits of addresses of each node."""
    made = []
    for world in cluster.worlds:
        limits = AddressLimits(connects_per_second=1000, now=world.now, **more)
        assert world.hub.cluster is not None
        limits.share(world.hub.cluster.usage)
        made.append(limits)
    pass_time(cluster, 1.0)
    return made


def test_connections_of_an_address_count_at_all_nodes(cluster: RedisCluster) -> None:
    one, two = addresses(cluster, connections_per_address=16, connects_per_address=100)
    now = cluster.worlds[0].now
    assert [one.enter(b"a", now) for _ in range(10)] == [None] * 10
    pass_time(cluster, 1.0)
    assert [two.enter(b"a", now) for _ in range(7)] == [None] * 6 + [Refusal.ADDRESS]
    pass_time(cluster, 1.0)
    assert one.enter(b"a", now) is Refusal.ADDRESS
    cluster.leave(1)
    cluster.renew(0)
    assert one.enter(b"a", now) is None


def test_new_connections_of_an_address_count_at_all_nodes(cluster: RedisCluster) -> None:
    one, two = addresses(cluster, connections_per_address=1000, connects_per_address=1)
    now = cluster.worlds[0].now
    assert [one.enter(b"a", now) for _ in range(11)] == [None] * 10 + [Refusal.ADDRESS_RATE]
    cluster.settle()  # it was told at once
    assert two.enter(b"a", now) is Refusal.ADDRESS_RATE
