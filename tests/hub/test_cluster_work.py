"""What a user of one node can make the other nodes do is bounded (aldis.hub.cluster_router), without Redis."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from aldis.backends.base import Claim
from aldis.hub import awaited, remote_users, unanswered, verified_names
from aldis.hub.cluster import Forward, RemoteDevice, UserState
from aldis.hub.lifecycle import HURRIED_SECONDS
from aldis.hub.new_names import NewNames
from aldis.hub.remote_users import USER_BYTES, RemoteUsers
from aldis.hub.sessions import RelayResult
from aldis.hub.settings import HubSettings
from aldis.hub.verified_names import VerifiedNames
from aldis.hub.watchers import Watchers
from aldis.identity import proofs
from aldis.protocol.codec import to_base64
from aldis.protocol.codes import CloseCode
from aldis.protocol.messages import Bye
from aldis.protocol.privacy import Privacy
from support.hub_cluster import ClusterWorld, HubCluster
from support.hub_world import Client

NAMES = frozenset(f"somebody{number}" for number in range(1000))
KNOWN = Privacy("contacts", "contacts", NAMES)


def copied(privacy: Privacy) -> Privacy:
    """An equal privacy that shares no list."""
    return Privacy(privacy.presence, privacy.offers, frozenset(list(privacy.contacts)))


def publish(client: Client, name: str, key: bytes) -> None:
    """Publish another sealing key."""
    signature = client.identity.sign(proofs.seal(name, "main", key))
    client.send(type="seal-key", sealKey={"publicKey": to_base64(key), "signature": to_base64(signature)}, id=1)


def with_contacts(cluster: HubCluster, number: int, name: str) -> Client:
    """A user of a node with a thousand contacts."""
    cluster.privacies[name] = KNOWN
    client = cluster.worlds[number].client(name)
    cluster.settle()
    client.take()
    return client


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[Any]:
    """The arguments of each call of a method from now on."""
    calls: list[Any] = []
    method: Callable[..., Any] = getattr(owner, name)

    def noted(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, noted)
    return calls


def test_another_seal_key_of_a_user_with_contacts_costs_what_all_nodes_are_told() -> None:
    cluster = HubCluster(2)
    alice, bob = cluster.worlds[0].client("alice"), with_contacts(cluster, 0, "bob")
    for client, name in ((alice, "alice"), (bob, "bob")):
        client.session.charged = 0
        publish(client, name, b"another key")
        assert client.take() == [{"type": "ack", "re": 1}]
    assert alice.session.charged < 30
    assert bob.session.charged > 100


def test_contacts_are_looked_through_once_when_a_device_of_their_user_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = HubCluster(2)
    alice, bob = cluster.worlds[1].client("alice"), with_contacts(cluster, 0, "bob")
    alice.send(type="watch", userIds=["bob"])
    cluster.settle()
    audiences = counted(monkeypatch, Watchers, "audience")
    publish(bob, "bob", b"another key")
    cluster.settle()
    assert len(audiences) == 1, "for those who are told"
    cluster.worlds[0].hub.cluster.link.change_privacy("bob", Privacy(), 0)  # type: ignore[union-attr]
    cluster.settle()
    assert alice.take()[-1]["online"]


def test_equal_lists_are_kept_once() -> None:
    cluster = HubCluster(2)
    with_contacts(cluster, 0, "bob")
    router = cluster.worlds[0].hub.cluster
    assert router is not None
    state = cluster.table.state("bob")
    later = state._replace(version=state.version + 1, privacy=copied(KNOWN))
    kept = router.verified.bytes
    router.learn(later)
    assert cluster.worlds[0].hub.privacy("bob") is later.privacy
    assert router.verified.recall("bob", cluster.keys["bob"]).privacy is later.privacy  # type: ignore[union-attr]
    assert router.verified.bytes == kept


def crowd(cluster: HubCluster, names: int, address: str) -> list[Client]:
    """Users of the first node, of one network."""
    clients = []
    for number in range(names):
        client = cluster.worlds[0].connect()
        client.address = address
        client.register(f"user{number}-{address}", settle=cluster.settle)
        client.take()
        clients.append(client)
    return clients


def lost(cluster: HubCluster, names: int) -> list[str]:
    """Users of the second node whose connections are lost, and who may come back."""
    for number in range(names):
        client = cluster.worlds[1].client(f"lost{number}")
        cluster.settle()
        client.lose()
    return [f"lost{number}" for number in range(names)]


def refused(cluster: HubCluster, client: Client, to: str) -> bool:
    """Send somebody a message; whether it is refused at once for want of room."""
    client.take()
    client.send(type="bye", to=to, id=1)
    cluster.settle()
    return any(each.get("code") == "over-capacity" for each in client.take())


def test_messages_that_one_network_has_waiting_leave_room_for_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its users send to clients of theirs at another node that have lost their connections."""
    monkeypatch.setattr(unanswered, "MAX_UNANSWERED", 100)
    cluster = HubCluster(2)
    recipients = lost(cluster, 10)
    attackers = crowd(cluster, 10, "198.51.100.7")
    waiting = [not refused(cluster, attacker, to) for to in recipients for attacker in attackers for _ in range(2)]
    assert sum(waiting) == 50
    (alice,) = crowd(cluster, 1, "192.0.2.1")
    cluster.worlds[1].client("bob")
    assert not any(refused(cluster, alice, to) for to in ("bob", *recipients))
    assert refused(cluster, attackers[0], "bob")
    cluster.pass_time(60.0)
    assert not refused(cluster, attackers[0], "bob")


def test_messages_of_one_network_that_wait_for_redis_leave_room_for_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its users send to names that nobody has asked for, while Redis hangs."""
    monkeypatch.setattr(awaited, "MOST_BYTES", 100_000)
    cluster = HubCluster(2)
    here, there = cluster.worlds
    bob = there.client("bob")
    attackers = crowd(cluster, 10, "198.51.100.7")
    (alice,) = crowd(cluster, 1, "192.0.2.1")
    here.directory_waits = True
    for number, attacker in enumerate(attackers):
        attacker.send(type="bye", to=f"made up {number}", id=1)
        for _ in range(9):
            attacker.send(type="bye", to="bob", id=1)
    assert here.hub.cluster is not None
    assert 40_000 < here.hub.cluster.awaited.bytes <= 50_000
    alice.send(type="bye", to="bob", id=1)
    here.directory_waits = False
    cluster.settle()
    refusals = [one for each in attackers for one in each.take() if one["type"] == "error"]
    assert sum(one["code"] == "over-capacity" for one in refusals) > 10
    assert [one["type"] for one in alice.take()] == ["ack"]
    assert bob.take()[-1]["from"].startswith("user0-192.0.2.1")
    assert here.hub.cluster.awaited.bytes == 0
    assert not refused(cluster, attackers[0], "bob")


@pytest.mark.parametrize("fails", [False, True])
def test_messages_that_have_waited_for_redis_go_on_some_in_each_turn_and_in_order(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(awaited, "AT_ONCE", 4)
    cluster = HubCluster(2)
    here, there = cluster.worlds
    bob = there.client("bob")
    (alice,) = crowd(cluster, 1, "192.0.2.1")
    here.directory_waits = here.hub_waits = True
    for number in range(10):
        alice.send(type="bye", to="bob", reason=str(number), id=number)
    router = here.hub.cluster
    assert router is not None
    cluster.table_fails = fails
    assert isinstance(here, ClusterWorld)
    question = here.cluster_questions.popleft()
    if fails:
        here.hub.failed(question, here.now)
    else:
        here.hub.answered(question, [cluster.table.state("bob")], here.now)
    assert router.awaited.due
    alice.send(type="bye", to="bob", reason="10", id=10)  # behind the others
    here.directory_waits = here.hub_waits = False
    cluster.settle()
    assert not router.awaited.due
    said = sorted(alice.take(), key=lambda one: one["re"])
    assert [(one["re"], one["type"]) for one in said] == [(n, "error" if fails else "ack") for n in range(11)]
    assert [one["reason"] for one in bob.take()] == ([] if fails else [str(number) for number in range(11)])


def test_messages_of_an_unknown_outcome_are_given_up_some_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "GIVEN_UP_AT_ONCE", 4)
    cluster = HubCluster(2)
    here = cluster.worlds[0]
    recipients = lost(cluster, 2)
    (alice,) = crowd(cluster, 1, "192.0.2.1")
    for number in range(20):
        alice.send(type="bye", to=recipients[number % 2], id=number)
    cluster.settle()
    assert alice.take() == []
    router = here.hub.cluster
    assert router is not None
    router.missed("node-9")  # has none of them
    router.unheard()
    turns = 0
    while alice.take() == []:
        here.hub.work(here.now)
        turns += 1
    assert turns < 3
    assert len(router.unanswered) == 16
    here.settle()
    assert len(router.unanswered) == 0
    assert sorted(each["re"] for each in alice.take()) == list(range(4, 20))


def test_what_is_answered_while_it_is_to_be_given_up_is_told_as_it_is() -> None:
    table = unanswered.Unanswered()
    told: list[RelayResult] = []
    session = HubCluster(1).worlds[0].client("alice").session
    receipt = (session, Bye, "bob", 1)
    for number, node in enumerate(["a", "b", "a"]):
        table.add(number, unanswered.Sent(node, b"net", receipt, lambda receipt, result: told.append(result), 5.0))
    table.give_up("a")
    answered = table.pop(0)
    assert answered is not None
    assert [each.node for each in table.given_up()] == ["a"]
    assert not table.given_up()
    table.give_up_late(4.0)
    assert not table.due
    table.give_up_late(5.0)
    assert [each.node for each in table.given_up()] == ["b"]
    assert len(table) == 0
    table.give_up()
    assert not table.due


def test_messages_of_other_nodes_for_lost_clients_are_counted_with_all_that_they_take() -> None:
    cluster = HubCluster(2)
    there = cluster.worlds[1]
    recipients, detached, router = lost(cluster, 40), there.hub.detached_sessions, there.hub.cluster
    assert router is not None
    router.link.answer = lambda node, answer: refusals.append(answer.result)  # type: ignore[method-assign]
    refusals: list[RelayResult] = []
    messages = 0
    gc.collect()
    tracemalloc.start()
    before = detached.bytes
    for to in recipients:
        for number in range(100):
            messages += 1
            frame = f'{{"type":"bye","to":"{to}","from":"mallory{number % 5}/main"}}'.encode()
            router.forwarded("node-0", Forward(messages, f"mallory{number % 5}", True, frame), there.now)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refusals == []
    assert size < 1.1 * (detached.bytes - before)


class Uncounted(UserState):
    """A user that nobody may look at."""

    @property
    def devices(self) -> tuple[RemoteDevice, ...]:
        raise AssertionError("looked at")


def test_the_users_of_a_node_are_found_without_a_look_at_all_that_are_known() -> None:
    """A client may have 10,000 names watched that nobody has."""
    known = RemoteUsers(lambda user_id: False)

    def learn(user_id: str, *nodes: str) -> None:
        devices = tuple(RemoteDevice(f"d{place}", node, "entry", 1, "", "key") for place, node in enumerate(nodes))
        known.learn(UserState(user_id, 1, devices))

    learn("alice", "a", "b", "a")
    learn("bob", "b")
    learn("carol")
    assert (known.at("a"), known.at("b"), known.at("c")) == (["alice"], ["alice", "bob"], [])
    learn("alice", "c")
    assert (known.at("a"), known.at("b"), known.at("c")) == ([], ["bob"], ["alice"])
    learn("bob")
    known._known["dave"] = Uncounted("dave", 1)
    assert (known.at("b"), known.at("c")) == ([], ["alice"])
    del known._known["dave"]
    for user_id in known.all():
        known._forget(user_id)
    assert (known.at("c"), known.bytes, len(known)) == ([], 0, 0)


def test_names_with_long_lists_leave_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node admits the names that it has verified while the directory is away."""
    key = bytes(32)
    verified = VerifiedNames()
    verified.note("mallory", Claim(key, False, KNOWN))
    monkeypatch.setattr(verified_names, "MOST_BYTES", 4 * verified.bytes)
    for number in range(100):
        verified.note(f"user{number}", Claim(key, False))
        verified.note(f"mallory{number}", Claim(key, False, KNOWN))
    assert all(verified.recall(f"user{number}", key) for number in range(100))
    kept = [number for number in range(100) if verified.recall(f"mallory{number}", key)]
    assert kept in ([98, 99], [97, 98, 99])
    assert verified.bytes <= verified_names.MOST_BYTES
    verified.bound("mallory99", bytes(31))
    verified.changed("mallory98", Privacy())
    for number in range(3000):
        verified.note(f"more{number}", Claim(key, False))
    assert verified.recall("user0", key) is None
    assert verified.bytes <= verified_names.MOST_BYTES
    verified.keep(lambda user_id: False)
    assert (verified.bytes, len(verified)) == (0, 0)


def test_users_of_one_address_at_another_node_share_the_room_of_a_lost_client() -> None:
    cluster = HubCluster(3)
    (bob,) = lost(cluster, 1)
    attackers = crowd(cluster, 30, "198.51.100.7")
    accepted = 0
    for attacker in attackers * 10:
        attacker.take()
        attacker.send(type="bye", to=bob, id=1)
        cluster.settle()
        accepted += attacker.take() == []  # it waits
    carol = cluster.worlds[2].connect()
    carol.address = "192.0.2.1"
    carol.register("carol", settle=cluster.settle)
    carol.take()
    for number in range(20):
        carol.send(type="bye", to=bob, id=number)
    cluster.settle()
    assert carol.take() == []
    assert 60 < accepted < 90


@pytest.mark.parametrize("when", ["before", "after"])
def test_lost_clients_of_a_node_that_was_counted_as_lost_are_not_waited_for_as_long_as_others(when: str) -> None:
    """They may have been at another node since, and have left."""
    cluster = HubCluster(2)
    alice, bob = cluster.worlds[1].client("alice"), cluster.worlds[0].client("bob")
    alice.send(type="watch", userIds=["bob"])
    cluster.settle()
    alice.take()
    if when == "before":
        bob.lose()
    cluster.nodes["node-0"].hears(lambda router, now: router.was_lost())
    cluster.settle()
    cluster.pass_time(1)
    if when == "after":
        bob.lose()
    cluster.pass_time(HURRIED_SECONDS + 2)
    told = [message for message in alice.take() if message["type"] == "presence"]
    assert [message["online"] for message in told] == [False]


def test_a_name_that_was_lost_with_the_data_is_bound_again() -> None:
    cluster = HubCluster(1)
    bob = cluster.worlds[0].client("bob")
    cluster.settle()
    key = cluster.keys.pop("bob")
    bob.take()
    bob.send(type="privacy", presence="hidden", id=1)
    cluster.settle()
    (error,) = bob.take()
    assert (error["code"], error["temporary"], error["retryAfter"]) == ("internal", True, 1.0)
    cluster.worlds[0].hub._bindings.doubt("bob", released=False)
    cluster.pass_time(5)
    assert cluster.keys["bob"] == key
    assert not bob.closed
    bob.send(type="privacy", presence="hidden", id=2)
    cluster.settle()
    assert bob.take()[-1]["presence"] == "hidden"


def test_new_names_that_were_not_bound_after_all_count_for_nobody() -> None:
    names = NewNames(HubSettings(new_names_per_address=1), None)
    network = bytes.fromhex("20010db8000000010000000000000001")[:8]
    assert names.take(network, 0.0) == 0
    assert names.take(network, 0.0) > 0
    names.give_back(network)
    assert names.take(network, 0.0) == 0
    names.give_back(network)
    assert names.take(bytes(4), 0.0) == 0
    names.give_back(bytes(4))
    assert names.take(bytes(4), 0.0) == 0


def test_messages_of_other_nodes_stay_when_those_of_one_are_given_up() -> None:
    waiting = unanswered.Unanswered()
    receipt: Any = None
    for number, node in enumerate(("one", "other", "one")):
        waiting.add(number, unanswered.Sent(node, b"", receipt, lambda *_: None, 1.0))
    waiting.give_up("one")
    waiting.pop(0)
    assert [sent.node for sent in waiting.given_up()] == ["one"]
    assert len(waiting) == 1
    assert not waiting.given_up()
    assert not waiting.due


def test_a_device_whose_place_in_the_table_is_taken_is_replaced_and_no_other() -> None:
    cluster = HubCluster(1)
    (world,) = cluster.worlds
    phone, desk = world.client("alice", device="phone"), world.client("alice", device="desk")
    router = world.hub.cluster
    assert router is not None
    assert router.has_entry("alice", phone.session.entry)
    assert not router.has_entry("alice", "another")
    router.lost_place("alice", "another")
    assert (phone.closed, desk.closed) == (None, None)
    router.lost_place("alice", phone.session.entry)
    assert phone.closed is not None
    assert desk.closed is None


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("privacy", [Privacy(), Privacy("contacts", "contacts", frozenset({"bob"}))])
def test_a_device_that_moves_to_another_node_is_never_shown_as_offline(lost: bool, privacy: Privacy) -> None:
    cluster = HubCluster(2)
    cluster.privacies["alice"] = privacy
    watchers = [world.client("bob", device=f"device-{number}") for number, world in enumerate(cluster.worlds)]
    alice = cluster.worlds[0].client("alice")
    cluster.settle()
    for watcher in watchers:
        watcher.send(type="watch", userIds=["alice"])
    cluster.settle()
    assert [watcher.take()[-1]["online"] for watcher in watchers] == [True, True]
    if lost:
        alice.lose()
    cluster.worlds[1].client("alice")
    cluster.settle()
    assert lost or (alice.closed is not None and alice.closed[0] == CloseCode.REPLACED)
    cluster.pass_time(3)
    for watcher in watchers:
        told = [message["online"] for message in watcher.take() if message["type"] == "presence"]
        assert told == [True]


def test_users_elsewhere_with_long_lists_are_forgotten_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    users = RemoteUsers(lambda user_id: user_id == "user0")
    phone = RemoteDevice("phone", "node-1", "entry", 1, "session", "key")
    for number in range(20):
        users.learn(UserState(f"user{number}", number, (phone,), copied(KNOWN)))
    assert not users.too_many
    cost = users.bytes // 20
    assert 150_000 < cost < 300_000
    monkeypatch.setattr(remote_users, "MOST_BYTES", 5 * cost + 1000)
    assert users.forget_some(64) == [f"user{number}" for number in range(1, 16)]
    assert users.unknown(["user0", "user19"]) == []


def test_the_lists_of_a_user_here_are_kept_and_counted_once() -> None:
    cluster = HubCluster(2)
    bob = with_contacts(cluster, 0, "bob")
    router = cluster.worlds[0].hub.cluster
    assert router is not None
    now = cluster.table.state("bob")
    state = now._replace(version=now.version + 1, privacy=copied(KNOWN))
    cluster.nodes["node-0"].hears(lambda router, now: router.learn(state))
    cluster.settle()
    kept, known = bob.session.privacy, router.known.find("bob")
    assert kept is not None
    assert known is not None
    assert kept.settings is known.privacy
    assert router.known.bytes == USER_BYTES
