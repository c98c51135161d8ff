"""Nodes of a cluster whose Redis goes away and comes back, and that are lost themselves (aldis.cluster.node).

The hubs are called by the test, and the nodes run while it waits (`support.hub_redis`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aldis.cluster import node as nodes
from aldis.cluster.faults import ClusterUnavailable
from aldis.protocol.codes import CloseCode
from support.hub_redis import RedisCluster
from support.hub_world import Client, World, identity_of
from support.redis_server import RedisServer

WINDOW = 30.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, "--save", "") as server:
        yield server


@pytest.fixture
def cluster(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisCluster]:
    monkeypatch.setattr(nodes, "RECONCILE_SECONDS", 0.05)
    cluster = RedisCluster(redis.url(), 2, resume_window=WINDOW)
    yield cluster
    cluster.close()


def join(cluster: RedisCluster, number: int, name: str, device: str = "main") -> Client:
    client = cluster.worlds[number].connect()
    client.register(name, device=device, settle=cluster.settle)
    assert client.registered is not None, client.inbox
    client.take()
    return client


def ask(cluster: RedisCluster, client: Client, **message: Any) -> list[dict[str, Any]]:
    client.send(**message)
    cluster.settle()
    return client.take()


def sees(cluster: RedisCluster, client: Client, user_id: str) -> list[str]:
    """The devices of a user, as a client finds them."""
    (found,) = ask(cluster, client, type="discover", userId=user_id)
    return [each["device"] for each in found["devices"]]


def count_lost(cluster: RedisCluster, redis: RedisServer, number: int) -> None:
    """Another node has noticed that the lease of this one has ended."""
    redis.say("zadd", "aldis:nodes", "0", cluster.nodes[number].node)


def online(worlds: list[World], user_id: str) -> list[bool]:
    return [world.hub.online(user_id) for world in worlds]


def pass_seconds(cluster: RedisCluster, seconds: int) -> None:
    """So many ticks, and what they bring about."""
    for _ in range(seconds):
        for world in cluster.worlds:
            world.pass_time(1)
        cluster.settle()


def test_the_users_of_a_node_that_is_killed_are_offline_and_leave_nothing(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice = join(cluster, 0, "alice")
    join(cluster, 1, "bob")
    ask(cluster, alice, type="watch", userIds=["bob"])
    dead = cluster.nodes[1].node
    cluster.kill(1)
    count_lost(cluster, redis, 1)
    cluster.renew(0)
    (news,) = alice.take()
    assert (news["userId"], news["online"]) == ("bob", False)
    assert sees(cluster, alice, "bob") == []
    assert dead not in redis.say("zrange", "aldis:nodes", "0", "-1")
    assert "bob" not in redis.say("keys", "*")


def test_a_node_that_was_believed_lost_goes_on_under_a_new_id_and_its_users_stay(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    before = cluster.nodes[1].node
    count_lost(cluster, redis, 1)
    cluster.renew(1)
    cluster.renew(0)
    assert cluster.nodes[1].node != before
    assert bob.closed is None
    assert sees(cluster, alice, "bob") == ["main"]
    ask(cluster, alice, type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    assert [each["type"] for each in bob.take()] == ["offer"]
    assert cluster.nodes[1].healthy


def test_messages_that_a_node_has_sent_under_its_old_id_are_unknown(cluster: RedisCluster, redis: RedisServer) -> None:
    """The answers go to that id."""
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    bob.lose()
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    cluster.settle()
    count_lost(cluster, redis, 0)
    cluster.renew(0)
    (error,) = alice.take()
    assert (error["re"], error["code"]) == (1, "over-capacity")


def test_whoever_registers_elsewhere_meanwhile_keeps_the_place(cluster: RedisCluster, redis: RedisServer) -> None:
    alice, old = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    count_lost(cluster, redis, 1)
    cluster.renew(0)  # it removes the devices of the lost node
    assert sees(cluster, alice, "bob") == []
    new = join(cluster, 0, "bob")
    cluster.renew(1)
    assert old.closed is not None
    assert old.closed[0] == CloseCode.REPLACED
    assert new.closed is None
    assert sees(cluster, alice, "bob") == ["main"]


def test_who_has_left_elsewhere_is_not_online_again_for_long_at_a_node_that_was_lost(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, old, carol = join(cluster, 0, "alice"), join(cluster, 1, "bob"), join(cluster, 1, "carol")
    count_lost(cluster, redis, 1)
    cluster.renew(0)
    join(cluster, 0, "bob").lose(clean=True)
    cluster.settle()
    old.lose()  # node 1 has stood still, and reads now that this connection is gone
    cluster.renew(1)
    carol.lose()  # and this one
    pass_seconds(cluster, 5)
    assert sees(cluster, alice, "bob") == []
    assert sees(cluster, alice, "carol") == []


def test_who_has_left_elsewhere_unheard_has_left_everywhere(
    cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, old = join(cluster, 1, "alice"), join(cluster, 1, "bob")
    old.lose()
    monkeypatch.setattr(cluster.nodes[1], "state", lambda state: None)
    join(cluster, 0, "bob").lose(clean=True)
    cluster.settle()
    monkeypatch.undo()
    assert sees(cluster, alice, "bob") == ["main"]
    cluster.cut_off(1)
    cluster.until_healthy()
    pass_seconds(cluster, 5)
    assert sees(cluster, alice, "bob") == []


def test_a_redis_that_has_lost_its_data_gets_it_back(cluster: RedisCluster, redis: RedisServer) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob", "phone")
    redis.say("flushall")
    for node in cluster.nodes:
        cluster.call(node.restarted)
    cluster.settle()
    assert sees(cluster, alice, "bob") == ["phone"]
    assert sees(cluster, bob, "alice") == ["main"]
    bob.lose(clean=True)
    cluster.settle()
    assert sees(cluster, alice, "bob") == []


def test_without_redis_what_is_local_goes_on_and_the_rest_is_refused_for_the_moment(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, carol, bob = join(cluster, 0, "alice"), join(cluster, 0, "carol"), join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    redis.kill()
    cluster.without_redis(alice, type="offer", to="carol", offer={"type": "offer", "sdp": "v=0"}, id=1)
    assert alice.take() == [{"type": "ack", "re": 1}]
    assert [each["type"] for each in carol.take()] == ["offer"]
    offer = {"type": "offer", "sdp": "v=0"}
    messages: list[dict[str, Any]] = [
        {"type": "offer", "to": "bob", "offer": offer},
        {"type": "discover", "userId": "x"},
    ]
    for number, message in enumerate(messages):
        cluster.without_redis(alice, **message, id=number)
        (error,) = alice.take()
        assert (error["re"], error["code"]) == (number, "over-capacity")
        assert error["retryAfter"] > 0
    assert not any(node.healthy for node in cluster.nodes)
    # While it is away, one leaves and says so; nobody can hear of it.
    bob.lose(clean=True)
    cluster.wait_a_turn()
    redis.start()
    cluster.until_healthy()
    assert online(cluster.worlds, "bob") == [False, False]
    assert sees(cluster, alice, "bob") == []


def test_an_answer_that_could_not_be_sent_is_sent_when_the_bus_is_back(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    bob.lose()
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    cluster.settle()
    assert alice.take() == [], "bob may resume"
    cluster.cut_off(1)  # and the other node does not notice it
    cluster.worlds[1].pass_time(WINDOW + 1)
    cluster.wait_a_turn()
    cluster.until_healthy()
    errors = [each for each in alice.take() if each["type"] == "error"]
    assert [(each["re"], each["code"]) for each in errors] == [(1, "not-online")]


def stop_listening(cluster: RedisCluster, number: int) -> Callable[[], None]:
    """In a Redis Cluster the inbox of each node is at another master: only that may be lost. Returns what mends it."""
    bus = cluster.nodes[number]._bus
    inbox = bus.names.inbox(cluster.nodes[number].node).encode()
    cluster.call(lambda: bus._drop([inbox]))
    return lambda: cluster.call(lambda: bus._add(inbox, None))


def test_an_answer_to_a_node_that_does_not_listen_for_a_moment_is_sent_again(
    cluster: RedisCluster, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "AGAIN_SECONDS", 0.01)
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    bob.lose()
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    cluster.settle()
    listen = stop_listening(cluster, 0)
    cluster.worlds[1].pass_time(WINDOW + 1)
    while not cluster.nodes[1]._unsent:
        cluster.wait_a_turn()
    assert alice.take() == []
    listen()
    while not alice.inbox:
        cluster.wait_a_turn()
    assert [(each["re"], each["code"]) for each in alice.take()] == [(1, "not-online")]


def test_a_node_that_does_not_listen_sends_nothing_that_needs_an_answer(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    listen = stop_listening(cluster, 0)
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    cluster.wait_a_turn()
    assert [(each["re"], each["code"]) for each in alice.take()] == [(1, "over-capacity")]
    listen()
    cluster.until_healthy()
    assert bob.take() == []
    (answer,) = ask(cluster, alice, type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=2)
    assert (answer["type"], answer["re"]) == ("ack", 2)


def test_messages_to_a_node_that_may_have_missed_them_are_unknown(cluster: RedisCluster, redis: RedisServer) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    bob.lose()
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    cluster.settle()
    cluster.cut_off(1)
    assert alice.take() == []
    cluster.until_healthy()
    (error,) = alice.take()
    assert (error["re"], error["code"]) == (1, "over-capacity")


def test_messages_that_other_nodes_have_are_unknown_when_the_bus_is_lost(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    bob.lose()
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    cluster.settle()
    cluster.cut_off(0)
    cluster.until_healthy()
    (error,) = alice.take()
    assert (error["re"], error["code"]) == (1, "over-capacity")


def test_who_registers_while_redis_is_away_is_known_here_and_everywhere_when_it_is_back(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    """The directory is elsewhere (a PostgreSQL), or has known the name (tests/integration/test_server_cluster.py)."""
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    redis.kill()
    dave, again = cluster.worlds[0].connect(), cluster.worlds[1].connect()
    dave.register("dave", settle=cluster.wait_idle)
    again.register("bob", settle=cluster.wait_idle)
    assert dave.registered is not None
    assert again.registered is not None
    assert bob.closed is not None
    cluster.without_redis(alice, type="offer", to="dave", offer={"type": "offer", "sdp": "v=0"}, id=1)
    # What is elsewhere is not known; this node has a device of it.
    assert alice.take()[-1]["code"] == "over-capacity"
    redis.start()
    cluster.until_healthy()
    dave.take(), again.take()
    assert sees(cluster, again, "dave") == ["main"]
    assert sees(cluster, dave, "bob") == ["main"]
    for client, to in ((dave, "bob"), (again, "dave"), (alice, "dave")):
        client.take()
        (acknowledged,) = ask(cluster, client, type="offer", to=to, offer={"type": "offer", "sdp": "v=0"}, id=2)
        assert acknowledged["type"] == "ack"
    # And the next registration is newer than that one.
    newest = join(cluster, 0, "bob")
    assert again.closed is not None
    assert again.closed[0] == CloseCode.REPLACED
    assert newest.closed is None


def test_the_newest_of_two_that_have_registered_on_both_sides_of_an_outage_stays(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    first = join(cluster, 0, "bob")
    redis.kill()
    for number in (0, 1):
        client = cluster.worlds[number].connect()
        client.register("bob", settle=cluster.wait_idle)
        assert client.registered is not None
        if number == 0:
            second = client
    assert first.closed is not None
    redis.start()
    cluster.until_healthy()
    assert second.closed is not None
    assert second.closed[0] == CloseCode.REPLACED
    assert client.closed is None
    client.take()
    assert sees(cluster, client, "bob") == ["main"]


def test_a_key_that_was_changed_during_an_outage_ends_its_sessions_after_it(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    redis.kill()
    cluster.wait_a_turn()
    # The directory has another key by now, and the other node has not heard of it.
    cluster.worlds[0].keys["bob"] = identity_of("the new key of bob").public_key
    redis.start()
    cluster.until_healthy()
    cluster.worlds[1].pass_time(2)
    cluster.settle()
    assert bob.closed is not None
    assert bob.closed[0] == CloseCode.UNAUTHORIZED
    assert alice.closed is None
    assert sees(cluster, alice, "bob") == []


def renew_all(cluster: RedisCluster) -> None:
    for number in range(len(cluster.nodes)):
        cluster.renew(number)
    cluster.settle()


def test_names_that_were_lost_with_the_data_are_bound_to_their_keys_again(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    phone = join(cluster, 0, "bob", "phone")
    eve = join(cluster, 0, "eve")
    ask(cluster, bob, type="privacy", presence="contacts", block=["eve"], addContacts=["alice"], id=1)
    world = cluster.worlds[0]
    before = dict(world.keys), dict(world.privacies)
    redis.say("flushall")
    world.keys.clear()
    world.privacies.clear()
    renew_all(cluster)
    pass_seconds(cluster, 4)  # the keys are looked up, what is different is put right, and looked up once more
    assert [client.closed for client in (alice, bob, phone, eve)] == [None] * 4
    assert (world.keys, world.privacies) == before
    assert sees(cluster, alice, "bob") == ["phone", "main"]
    assert sees(cluster, eve, "bob") == []


def test_a_lost_name_that_somebody_else_has_by_now_is_theirs(cluster: RedisCluster, redis: RedisServer) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    redis.say("flushall")
    cluster.worlds[0].keys.pop("bob")
    cluster.worlds[0].keys["bob"] = identity_of("somebody else").public_key
    renew_all(cluster)
    pass_seconds(cluster, 4)  # the keys are looked up, what is different is put right, and looked up once more
    assert bob.closed is not None
    assert bob.closed[0] == CloseCode.UNAUTHORIZED
    assert alice.closed is None


def test_a_name_that_was_released_during_an_outage_is_not_taken_for_lost(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    alice, bob = join(cluster, 0, "alice"), join(cluster, 1, "bob")
    cluster.run(cluster.nodes[0].operator.released.note("bob"))
    cluster.worlds[0].keys.pop("bob")  # and this word does not come
    count_lost(cluster, redis, 1)
    renew_all(cluster)
    pass_seconds(cluster, 4)  # the keys are looked up, what is different is put right, and looked up once more
    assert bob.closed == (CloseCode.UNAUTHORIZED, "the name was released")
    assert alice.closed is None
    assert "bob" not in cluster.worlds[0].keys


def test_who_is_blocked_during_an_outage_is_blocked_after_it(cluster: RedisCluster, redis: RedisServer) -> None:
    """Where the directory is a PostgreSQL, which keeps the change."""
    eve, bob = join(cluster, 0, "eve"), join(cluster, 1, "bob")
    assert sees(cluster, eve, "bob") == ["main"]
    redis.say("save")  # it still has the earlier privacy when it is back
    redis.kill()
    cluster.without_redis(bob, type="privacy", block=["eve"], id=1)
    assert bob.take()[-1]["type"] == "privacy"
    cluster.until_unsaid(1)
    redis.start()
    cluster.until_healthy()
    pass_seconds(cluster, 3)  # the keys are looked up; then the table is put right
    assert sees(cluster, eve, "bob") == []
    assert bob.closed is None


def test_a_privacy_that_redis_has_lost_is_lost_at_all_nodes_and_its_user_is_told(
    cluster: RedisCluster, redis: RedisServer
) -> None:
    """As behind Sentinels, where names and table are as they were a moment ago."""
    eve, bob = join(cluster, 0, "eve"), join(cluster, 1, "bob")
    redis.say("save")
    ask(cluster, bob, type="privacy", block=["eve"], id=1)
    assert sees(cluster, eve, "bob") == []
    world = cluster.worlds[0]
    world.privacies.clear()
    redis.kill()
    cluster.without_redis(eve, type="discover", userId="nobody", id=2)
    redis.start()
    cluster.until_healthy()
    pass_seconds(cluster, 3)  # the keys are looked up; then the table is put right
    assert [each["blocked"] for each in bob.take() if each["type"] == "privacy"] == [[]]
    eve.take()
    assert sees(cluster, eve, "bob") == ["main"]
    for world in cluster.worlds:
        world.directory_waits = True
    pass_seconds(cluster, 2)
    assert [world.questions for world in cluster.worlds] == [[], []]  # nobody asks on and on


@pytest.mark.parametrize("meanwhile", ["reconciles", "moves", "was away"])
def test_a_device_is_entered_although_the_hub_hears_of_it_late(
    cluster: RedisCluster, redis: RedisServer, meanwhile: str
) -> None:
    """After a process stood still the hub has much to hear, and each answer waits for its turn."""
    alice, node = join(cluster, 0, "alice"), cluster.nodes[1]
    waiting: list[Callable[[], None]] = []
    node._in_turn = waiting.append
    node._lease.healthy = meanwhile != "was away"
    bob = cluster.worlds[1].connect()
    assert not bob.register("bob", settle=cluster.settle)
    node._lease.healthy = True
    if meanwhile == "reconciles":
        cluster.call(node.restarted)
    elif meanwhile == "moves":
        count_lost(cluster, redis, 1)
        cluster.renew(1)
    cluster.settle()
    node._in_turn = lambda bring: bring()
    cluster.call(lambda: [bring() for bring in waiting])
    cluster.settle()
    assert bob.take()[-1]["type"] == "registered"
    assert sees(cluster, alice, "bob") == ["main"]


def test_a_node_that_leaves_is_lost_at_once(cluster: RedisCluster) -> None:
    alice = join(cluster, 0, "alice")
    join(cluster, 1, "bob")
    assert sees(cluster, alice, "bob") == ["main"]
    cluster.leave(1)
    cluster.renew(0)
    assert sees(cluster, alice, "bob") == []


def test_a_node_does_not_open_without_redis(redis: RedisServer) -> None:
    redis.kill()
    opening: Callable[[], RedisCluster] = lambda: RedisCluster(redis.url(), 1)  # noqa: E731
    with pytest.raises(ClusterUnavailable):
        opening()
    redis.start()
