"""Who comes online and goes offline in a whole cluster is told once (aldis.cluster.node, `ClusterPresence`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aldis.cluster import node as nodes
from support.hub_cluster import HubCluster
from support.hub_redis import RedisCluster
from support.hub_world import Client
from support.redis_server import RedisServer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, "--save", "") as server:
        yield server


@pytest.fixture
def cluster(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisCluster]:
    monkeypatch.setattr(nodes, "RECONCILE_SECONDS", 0.05)
    cluster = RedisCluster(redis.url(), 3)
    yield cluster
    cluster.close()


def join(cluster: RedisCluster, number: int, name: str, device: str = "main") -> Client:
    client = cluster.worlds[number].connect()
    client.register(name, device=device, settle=cluster.settle)
    assert client.registered is not None, client.inbox
    return client


def leave(cluster: RedisCluster, client: Client) -> None:
    client.lose(clean=True)
    cluster.settle()


def told(cluster: RedisCluster) -> list[tuple[str, bool]]:
    """What all nodes together have told since the last time."""
    found = [(user_id, online) for _, user_id, online, _ in cluster.presence]
    cluster.presence.clear()
    return found


def count_lost(cluster: RedisCluster, redis: RedisServer, number: int) -> None:
    redis.say("zadd", "aldis:nodes", "0", cluster.nodes[number].node)


def test_a_user_with_devices_at_several_nodes_comes_once_and_goes_once(cluster: RedisCluster) -> None:
    devices = [join(cluster, number, "alice", f"device-{number}") for number in range(3)]
    assert told(cluster) == [("alice", True)]
    for device in devices[:2]:
        leave(cluster, device)
    assert told(cluster) == []
    leave(cluster, devices[2])
    assert told(cluster) == [("alice", False)]


def test_a_device_that_comes_back_at_another_node_is_no_change(cluster: RedisCluster) -> None:
    first = join(cluster, 0, "alice")
    second = join(cluster, 1, "alice")
    assert first.closed is not None
    assert told(cluster) == [("alice", True)]
    leave(cluster, second)
    assert told(cluster) == [("alice", False)]


def test_events_of_several_nodes_about_a_user_have_growing_versions(cluster: RedisCluster) -> None:
    for number in (0, 1, 2, 0):
        leave(cluster, join(cluster, number, "alice"))
    versions = [version for _, _, _, version in cluster.presence]
    assert len(versions) == 8
    assert versions == sorted(set(versions))
    assert [number for number, *_ in cluster.presence] == [0, 0, 1, 1, 2, 2, 0, 0]


def test_the_users_of_a_lost_node_are_told_once_by_the_others(cluster: RedisCluster, redis: RedisServer) -> None:
    for name in ("alice", "bob", "carol"):
        join(cluster, 2, name)
    join(cluster, 0, "carol", "phone")
    told(cluster)
    dead = cluster.nodes[2].node
    cluster.kill(2)
    count_lost(cluster, redis, 2)
    cluster.renew(0)
    cluster.renew(1)
    assert sorted(told(cluster)) == [("alice", False), ("bob", False), (f"lost {dead}", False)]


def test_a_node_that_was_believed_lost_tells_its_users_again_only_if_they_were_told_gone(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    join(cluster, 1, "alice")
    told(cluster)
    before = cluster.nodes[1].node
    count_lost(cluster, redis, 1)
    cluster.renew(1)  # it comes back before the others have removed its devices
    cluster.renew(0)
    assert told(cluster) == []
    before = cluster.nodes[1].node
    count_lost(cluster, redis, 1)
    cluster.renew(0)
    assert told(cluster) == [("alice", False), (f"lost {before}", False)]
    cluster.renew(1)
    assert told(cluster) == [("alice", True)]


def test_who_leaves_while_redis_is_away_is_told_when_it_is_back(cluster: RedisCluster, redis: RedisServer) -> None:
    alice = join(cluster, 0, "alice")
    join(cluster, 1, "bob")
    told(cluster)
    redis.kill()
    alice.lose(clean=True)
    cluster.wait_a_turn()
    redis.start()  # without its data
    cluster.until_healthy()
    for number in range(3):
        cluster.renew(number)
    assert sorted(told(cluster)) == [("alice", False), ("bob", True)]  # bob is repeated


def test_the_first_node_knows_that_it_is_the_first(cluster: RedisCluster) -> None:
    assert [node.is_first for node in cluster.nodes] == [True, False, False]
    for number in range(3):
        cluster.leave(number)
    # Those that have ended are not removed yet: their users are told gone by this one.
    assert not cluster.nodes[cluster.start_another()].is_first


def test_hubs_of_a_cluster_tell_nobody_themselves() -> None:
    cluster = HubCluster(2)
    client = cluster.worlds[0].connect()
    client.register("alice", settle=cluster.settle)
    client.lose(clean=True)
    cluster.settle()
    assert [world.presence for world in cluster.worlds] == [[], []]
