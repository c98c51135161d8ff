"""Bans of a cluster over a real Redis: given at one node, they count at all (aldis.cluster.operator_link)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aldis.cluster import node as nodes
from aldis.cluster import operator_link, questions
from aldis.cluster.faults import ClusterProtocolError, ClusterUnavailable
from aldis.cluster.questions import NodeAnswers
from aldis.errors import UsageError
from aldis.hub.bans import Ban, BanKind
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from aldis.protocol.codes import CloseCode
from support.hub_redis import RedisCluster
from support.hub_world import Client
from support.redis_server import RedisServer

BANS = "aldis:{all}:bans"
VERSIONS = "aldis:{all}:ban-versions"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, "--save", "") as server:
        yield server


@pytest.fixture
def cluster(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisCluster]:
    monkeypatch.setattr(nodes, "RECONCILE_SECONDS", 0.05)
    monkeypatch.setattr(operator_link, "RETRY_SECONDS", 0.05)
    cluster = RedisCluster(redis.url(), 3)
    yield cluster
    cluster.close()


def ban(cluster: RedisCluster, number: int, value: str, kind: BanKind = "user", **more: Any) -> NodeAnswers:
    answers = cluster.run(cluster.nodes[number].operator.ban(Ban(kind, value, **more)))
    cluster.settle()
    return answers


def unban(cluster: RedisCluster, number: int, value: str, kind: BanKind = "user") -> NodeAnswers | None:
    answers = cluster.run(cluster.nodes[number].operator.unban(Ban(kind, value)))
    cluster.settle()
    return answers


def register(cluster: RedisCluster, number: int, name: str, device: str = "main", **more: Any) -> Client:
    client = cluster.worlds[number].connect()
    client.register(name, device=device, settle=cluster.settle, **more)
    client.take()
    return client


def known(cluster: RedisCluster) -> list[list[str]]:
    """The values that each node knows as banned."""
    return [sorted(ban.value for ban in world.hub.bans) for world in cluster.worlds]


def test_a_ban_at_one_node_ends_the_sessions_at_all_and_lets_nobody_in_again(cluster: RedisCluster) -> None:
    sessions = [register(cluster, number, "mallory", f"device-{number}") for number in range(3)]
    bob = register(cluster, 1, "bob")
    answers = ban(cluster, 0, "mallory", reason="spam")
    assert answers.silent == ()
    assert [answers.answers[node.node] for node in cluster.nodes] == [{"sessions": 1}] * 3
    assert [session.closed for session in sessions] == [(CloseCode.BANNED, "banned: spam")] * 3
    assert bob.closed is None
    assert [register(cluster, number, "mallory").registered for number in range(3)] == [None] * 3


def test_a_lifted_ban_is_lifted_at_all_nodes(cluster: RedisCluster) -> None:
    ban(cluster, 0, "mallory")
    assert known(cluster) == [["mallory"]] * 3
    answers = unban(cluster, 2, "mallory")
    assert answers is not None
    assert answers.silent == ()
    assert known(cluster) == [[]] * 3
    assert [register(cluster, number, "mallory", f"d{number}").registered is None for number in range(3)] == [False] * 3
    assert unban(cluster, 2, "mallory") is None


def test_keys_and_networks_are_banned_at_all_nodes(cluster: RedisCluster) -> None:
    identity = Identity.generate()
    session = register(cluster, 2, "carol", identity=identity)
    ban(cluster, 0, to_base64(identity.public_key), "key")
    assert session.closed is not None
    ban(cluster, 1, "203.0.113.0/24", "network", reason="a scan")
    assert sorted(number for number, _ in cluster.ended) == [0, 1, 2]
    assert all(world.hub.ban_of("203.0.113.9") for world in cluster.worlds)


def test_a_node_that_starts_later_knows_the_bans(cluster: RedisCluster) -> None:
    ban(cluster, 0, "mallory", reason="spam", until=1_800_000_000.5)
    ban(cluster, 1, "10.0.0.0/8", "network")
    number = cluster.start_another()
    assert set(cluster.worlds[number].hub.bans) == {
        Ban("user", "mallory", "spam", 1_800_000_000.5),
        Ban("network", "10.0.0.0/8"),
    }
    assert ban(cluster, number, "trudy").silent == ()
    assert known(cluster)[0] == ["10.0.0.0/8", "mallory", "trudy"]


def test_a_ban_for_some_time_ends_at_the_same_moment_everywhere(cluster: RedisCluster) -> None:
    wall = 1_700_000_000.0 + cluster.worlds[0].now
    ban(cluster, 0, "mallory", until=wall + 60)
    for world in cluster.worlds:
        world.pass_time(59.9)
    assert register(cluster, 1, "mallory").registered is None
    for world in cluster.worlds:
        world.pass_time(0.2)
    assert [register(cluster, number, "mallory", f"d{number}").registered is None for number in range(3)] == [False] * 3


def test_a_changed_ban_replaces_the_earlier_one(cluster: RedisCluster) -> None:
    ban(cluster, 0, "mallory", reason="spam", until=1_800_000_000.0)
    ban(cluster, 1, "mallory", reason="worse")
    assert [list(world.hub.bans) for world in cluster.worlds] == [[Ban("user", "mallory", "worse")]] * 3


def test_bans_at_several_nodes_at_once_are_applied_in_one_order(cluster: RedisCluster) -> None:
    async def at_once() -> None:
        await asyncio.gather(
            *[
                node.operator.ban(Ban("user", "mallory", f"reason {number} {turn}"))
                for turn in range(20)
                for number, node in enumerate(cluster.nodes)
            ]
        )

    cluster.run(at_once())
    cluster.settle()
    first, *others = [list(world.hub.bans) for world in cluster.worlds]
    assert others == [first, first]


def test_a_node_that_does_not_answer_is_named(cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 1.0)
    dead = cluster.nodes[2].node
    cluster.kill(2)
    answers = ban(cluster, 0, "mallory")
    assert answers.silent == (dead,)
    assert set(answers.answers) == {cluster.nodes[0].node, cluster.nodes[1].node}


def test_changes_that_a_node_has_missed_are_read(cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = cluster.nodes[2]
    heard = deaf.operator.message
    monkeypatch.setattr(questions, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(deaf.operator, "message", lambda node_id, message: None)
    ban(cluster, 0, "mallory")
    ban(cluster, 0, "trudy")
    unban(cluster, 1, "mallory")
    assert known(cluster) == [["trudy"], ["trudy"], []]
    monkeypatch.setattr(deaf.operator, "message", heard)
    ban(cluster, 0, "eve")
    assert known(cluster) == [["eve", "trudy"]] * 3


def test_a_redis_that_has_lost_its_data_gets_the_bans_back(cluster: RedisCluster, redis: RedisServer) -> None:
    ban(cluster, 0, "mallory", until=1_900_000_000.0)
    ban(cluster, 1, "trudy")
    redis.say("flushall")
    for node in cluster.nodes:
        cluster.call(node.restarted)
    cluster.settle()
    assert "aldis:{all}:bans" in redis.say("keys", "*")
    assert "mallory" in redis.say("zrange", "aldis:{all}:ban-ends", "0", "-1")
    assert known(cluster) == [["mallory", "trudy"]] * 3
    cluster.start_another()
    assert known(cluster) == [["mallory", "trudy"]] * 4


def test_a_ban_in_an_emptied_redis_keeps_the_earlier_ones(cluster: RedisCluster, redis: RedisServer) -> None:
    ban(cluster, 0, "mallory")
    redis.say("flushall")
    ban(cluster, 1, "trudy")
    assert known(cluster) == [["mallory", "trudy"]] * 3
    cluster.start_another()
    assert known(cluster) == [["mallory", "trudy"]] * 4


@pytest.mark.parametrize("lost", ["all", "the last change"])
def test_a_ban_that_is_unheard_where_the_list_was_lost_keeps_the_earlier_ones(
    cluster: RedisCluster, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    ban(cluster, 0, "mallory")
    for key in (BANS, VERSIONS):
        redis.say("copy", key, f"old {key}")
    ban(cluster, 1, "oscar")
    redis.say("del", BANS, VERSIONS)
    if lost != "all":
        for key in (BANS, VERSIONS):
            redis.say("copy", f"old {key}", key)
    with monkeypatch.context() as deaf:
        deaf.setattr(questions, "ANSWER_SECONDS", 0.05)
        for node in cluster.nodes:
            deaf.setattr(node.operator, "message", lambda *_: None)
            deaf.setattr(node.operator, "catch_up", lambda: None)
        ban(cluster, 2, "trudy")
    read_again(cluster)
    assert known(cluster) == [["mallory", "oscar", "trudy"]] * 3
    unban(cluster, 0, "oscar")
    read_again(cluster)
    assert known(cluster) == [["mallory", "trudy"]] * 3


def test_a_ban_is_lifted_also_where_the_list_was_lost_and_nobody_has_noticed(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    ban(cluster, 0, "mallory")
    ban(cluster, 0, "trudy")
    redis.say("flushall")
    assert unban(cluster, 1, "mallory") is not None
    assert unban(cluster, 1, "mallory") is None
    assert known(cluster) == [["trudy"]] * 3
    read_again(cluster)
    assert known(cluster) == [["trudy"]] * 3


def read_again(cluster: RedisCluster) -> None:
    for node in cluster.nodes:
        cluster.call(node.restarted)
    cluster.settle()


def test_while_redis_is_away_a_ban_is_refused_and_the_known_ones_hold(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    ban(cluster, 0, "mallory")
    redis.kill()
    with pytest.raises(ClusterUnavailable):
        cluster.run(cluster.nodes[0].operator.ban(Ban("user", "trudy")))
    assert cluster.worlds[1].hub.bans.of_user("mallory", "", 0.0) is not None
    redis.start()
    cluster.until_healthy()
    assert known(cluster) == [["mallory"]] * 3
    ban(cluster, 2, "trudy")
    assert known(cluster) == [["mallory", "trudy"]] * 3


def test_there_are_at_most_so_many_bans(cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aldis.cluster.ban_table.MAX_BANS", 2)
    ban(cluster, 0, "mallory", until=5.0)  # over long ago: the next change drops it
    ban(cluster, 0, "trudy")
    ban(cluster, 1, "eve")
    with pytest.raises(UsageError, match="there are 2 bans"):
        ban(cluster, 0, "oscar")
    ban(cluster, 0, "eve", reason="again")


def test_a_damaged_list_keeps_a_node_from_starting(cluster: RedisCluster, redis: RedisServer) -> None:
    ban(cluster, 0, "mallory")
    redis.say("hset", "aldis:{all}:bans", "user:eve", "no msgpack")
    with pytest.raises(ClusterProtocolError):
        cluster.start_another()


def test_a_ban_counts_at_all_nodes_where_the_list_was_lost_and_the_clock_of_redis_is_behind_it(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    ban(cluster, 0, "first")
    redis.say("hset", BANS, "v", "5000000000000000")
    ban(cluster, 0, "second")
    assert known(cluster) == [["first", "second"]] * 3
    redis.say("del", BANS)
    mallory = register(cluster, 2, "mallory")
    answers = ban(cluster, 1, "mallory")
    assert answers.silent == ()
    assert known(cluster) == [["first", "mallory", "second"]] * 3
    assert mallory.closed is not None
    assert set(redis.say("hkeys", BANS).split()) == {"v", "user:first", "user:second", "user:mallory"}
