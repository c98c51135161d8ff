"""A client gets its limits once, at however many nodes of a cluster it is (aldis.hub.usage), without Redis.

What a client may get beyond them is measured here, and said in docs/architecture.md.
"""

from __future__ import annotations

from typing import Any

import pytest

from aldis.hub import failed_proofs, rates
from aldis.hub.budgets import BURST_SECONDS, MOST_PAIRS
from aldis.hub.usage import UNTOLD, OpenCounts, Use
from aldis.protocol.codec import to_base64
from support.hub_cluster import HubCluster
from support.hub_world import Client, World

RATE = 100
STEP = 0.1
LIMITS: dict[str, Any] = {"offence_burst": 10**9, "user_discovers_per_second": RATE}


def join(cluster: HubCluster, number: int, name: str, device: str = "main") -> Client:
    client = cluster.worlds[number].connect()
    client.register(name, device=device, settle=cluster.settle)
    assert client.registered is not None, client.inbox
    client.take()
    return client


def discover(client: Client, most: int = 1000) -> int:
    """Ask until the server refuses, at most so often; how often it has answered."""
    answered = 0
    for _ in range(most):
        client.send(type="discover", userId="alice", id=1)
        if client.take()[-1]["type"] == "error":
            break
        answered += 1
    return answered


def allowed(seconds: float) -> float:
    """What a user of one process gets in this time."""
    return BURST_SECONDS * RATE + seconds * RATE


@pytest.mark.parametrize("paced", [True, False])
@pytest.mark.parametrize("count", [2, 4, 16])
def test_a_user_at_all_nodes_gets_at_most_a_burst_too_much_and_pays_it_back(count: int, paced: bool) -> None:
    """`paced`: it sends just so fast that no node refuses anything before they have heard of each other."""
    cluster = HubCluster(count, **LIMITS)
    clients = [join(cluster, number, "alice", f"device-{number}") for number in range(count)]
    cluster.pass_time(10.0)
    answered, excess, most = 0, 0.0, 1000
    for step in range(200):
        if paced:
            most = round(RATE * STEP) if step else round(BURST_SECONDS * RATE / count)
        answered += sum(discover(client, most) for client in clients)
        excess = max(excess, answered - allowed((step + 1) * STEP))
        cluster.pass_time(STEP)
    # At each moment of the time, so it is paid back.
    assert excess <= (0 if count <= 4 else 0.7) * BURST_SECONDS * RATE
    assert answered >= 0.6 * RATE * 20  # and an honest user is not kept out


def test_a_user_that_goes_from_node_to_node_gets_its_limit() -> None:
    count, seconds = 8, 60
    cluster = HubCluster(count, **LIMITS)
    answered = 0
    for turn in range(seconds * 2):
        client = join(cluster, turn % count, "alice")
        answered += discover(client)
        client.lose(clean=True)
        cluster.settle()
        cluster.pass_time(0.5, 0.5)
    assert answered <= allowed(seconds) + BURST_SECONDS * RATE


def test_what_is_not_told_is_a_small_part_of_the_limit() -> None:
    """One device uses all it can at one node, and those at the others just so little that they do not tell of it."""
    count, seconds = 4, 60
    cluster = HubCluster(count, **LIMITS)
    clients = [join(cluster, number, "alice", f"device-{number}") for number in range(count)]
    cluster.pass_time(10.0)
    silent = int(RATE * UNTOLD / count)
    answered = 0
    for _ in range(seconds):
        answered += sum(discover(client, silent) for client in clients[1:])
        for _ in range(round(1 / STEP)):
            answered += discover(clients[0])
            cluster.pass_time(STEP)
    assert answered <= (1 + UNTOLD) * allowed(seconds) + count


def test_a_client_with_one_device_has_its_whole_limit_and_tells_nothing_below_a_part_of_it() -> None:
    cluster = HubCluster(3, **LIMITS)
    alice = join(cluster, 0, "alice")
    cluster.pass_time(10.0)
    cluster.told = 0
    assert discover(alice, 1) == 1
    cluster.pass_time(2.0)
    assert cluster.told == 0
    answered = 1
    for _ in range(300):
        answered += discover(alice)
        cluster.pass_time(STEP)
    assert answered >= 0.95 * RATE * 30
    assert cluster.told <= 31 * 2  # discovers and messages, once a second


@pytest.mark.parametrize(
    ("limit", "message", "cost"),
    [
        ("user_messages_per_second", {"type": "bye"}, 1),
        ("user_relayed_bytes_per_second", {"type": "bye", "reason": "x" * 100}, 150),
        ("user_sealed_bytes_per_second", {"type": "relay", "sealed": "A" * 100}, 400),
        ("pair_sealed_bytes_per_second", {"type": "relay", "sealed": "A" * 100}, 400),
    ],
)
def test_each_limit_of_a_user_counts_at_all_nodes(limit: str, message: dict[str, Any], cost: int) -> None:
    rate, seconds = 20 * cost, 10
    more = {"user_messages_per_second": 10_000, "user_bytes_per_second": 10_000, limit: rate}
    cluster = HubCluster(2, offence_burst=10**9, **more)
    clients = [join(cluster, number, "alice", f"device-{number}") for number in range(2)]
    bob = join(cluster, 0, "bob")
    cluster.pass_time(10.0)

    def passes(client: Client) -> bool:
        client.send(to="bob", id=1, **message)
        cluster.settle()
        bob.take()
        return str(client.take()[-1]["type"]) == "ack"

    passed = 0
    for _ in range(round(seconds / STEP)):
        for client in clients:
            while passes(client):
                passed += 1
        cluster.pass_time(STEP)
    # Without word of each other it would be twice as much. `cost` is a little less than a message costs.
    assert passed * cost <= rate * (2 * BURST_SECONDS + seconds)
    assert passed * cost >= rate * seconds / 2


def test_failed_proofs_and_new_names_of_a_network_count_at_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed_proofs, "FURTHER_TRIES", 0)
    cluster = HubCluster(3, new_names_per_address=2, failed_proofs_per_address=2)
    assert join(cluster, 0, "alice").registered
    cluster.pass_time(1.0)
    assert join(cluster, 1, "bob").registered
    cluster.pass_time(1.0)
    client = cluster.worlds[2].connect()
    client.register("carol", settle=cluster.settle)
    assert client.take()[-1]["code"] == "rate-limited"
    # A name that is bound is welcome.
    assert join(cluster, 2, "alice", "phone").registered
    for number in (0, 1):
        wrong = cluster.worlds[number].connect()
        wrong.ask_challenge("alice")
        wrong.send(type="prove", signature=to_base64(bytes(64)))
        cluster.settle()
        assert wrong.take()[-1]["code"] == "bad-signature"
        cluster.pass_time(1.0)
    last = cluster.worlds[2].connect()
    last.send(type="register", userId="alice", publicKey=to_base64(bytes(32)))
    cluster.settle()
    assert last.take()[-1]["code"] == "rate-limited"


def test_what_is_known_of_users_elsewhere_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_ELSEWHERE", 2)
    cluster = HubCluster(2, **LIMITS)
    hub = cluster.worlds[0].hub
    assert hub.cluster is not None
    hub.cluster.used([Use("user-discovers", f"user{number}", 500) for number in range(3)], cluster.worlds[0].now)
    assert len(hub._rates) == 2
    cluster.pass_time(2 * rates.FORGOTTEN_AFTER_CLUSTER + 1)
    assert len(hub._rates) == 0


def test_too_many_recipients_of_sealed_messages_elsewhere_are_left_out() -> None:
    cluster = HubCluster(2)
    hub, now = cluster.worlds[0].hub, cluster.worlds[0].now
    assert hub.cluster is not None
    hub.cluster.used([Use("pair-sealed-bytes", f"alice bob{number}", 1e12) for number in range(MOST_PAIRS + 1)], now)
    assert len(hub._rates) == 1


def test_a_user_of_another_node_that_goes_on_there_pays_here() -> None:
    """A user that has left is known for as long as it may owe something."""
    cluster = HubCluster(2, **LIMITS)
    alice = join(cluster, 0, "alice")
    discover(alice)
    alice.lose(clean=True)
    cluster.pass_time(1.0)
    hub = cluster.worlds[0].hub
    assert hub.cluster is not None
    hub.cluster.used([Use("user-discovers", "alice", 20 * RATE)], cluster.worlds[0].now)
    cluster.pass_time(10.0)
    assert discover(join(cluster, 0, "alice")) == 0


def test_users_of_several_nodes_count_once_in_all() -> None:
    cluster = HubCluster(3)
    for number in range(3):
        join(cluster, number, "alice", f"device-{number}")
    join(cluster, 0, "bob")
    join(cluster, 1, "bob", "phone")
    join(cluster, 2, "carol")
    assert [world.hub.users_online for world in cluster.worlds] == [2, 2, 2]
    assert [world.hub.shared_users() for world in cluster.worlds] == [
        {("node-1", "node-2"): 1, ("node-1",): 1},
        {("node-0", "node-2"): 1, ("node-0",): 1},
        {("node-0", "node-1"): 1},
    ]
    assert World().hub.shared_users() == {}
    cluster.kill("node-2")
    cluster.settle()
    assert cluster.worlds[0].hub.shared_users() == {("node-1",): 2}


class Addresses:
    """Notes what the hub is told of connections elsewhere."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def changed_counts(self, nodes: int, *, whole: bool) -> list[tuple[bytes, int]]:
        return [(b"net", nodes)] if whole else []

    def heard_counts(self, node: str, counts: OpenCounts) -> None:
        self.told.append((node, counts))

    def lost_node(self, node: str) -> None:
        self.told.append(node)


def test_connections_are_told_to_all_and_again_to_a_new_node() -> None:
    cluster = HubCluster(2)
    (one, two) = hubs = [world.hub for world in cluster.worlds]
    heard = Addresses()
    for hub in hubs:
        assert hub.cluster is not None
        hub.cluster.usage.connections = heard if hub is two else Addresses()
    cluster.pass_time(1.0)
    assert heard.told == [("node-0", OpenCounts(True, ((b"net", 2),)))]
    cluster.pass_time(1.0)
    assert len(heard.told) == 1
    assert one.cluster is not None
    one.cluster.joined_node()
    cluster.pass_time(1.0)
    assert len(heard.told) == 2
    cluster.kill("node-0")
    cluster.settle()
    assert heard.told[-1] == "node-0"
