"""Users of two nodes of a cluster see each other as users of one server do (aldis.hub.cluster_router).

The routing itself is in tests/contract/test_router.py, which runs on two nodes, too.
"""

from __future__ import annotations

from typing import Any

import pytest

from aldis.backends.base import ClaimBinding
from aldis.hub import awaited, cluster_router, remote_users, unanswered, verified_names
from aldis.hub.cluster import Forward, RemoteDevice, UserState
from aldis.hub.sessions import RelayResult
from aldis.identity import proofs
from aldis.protocol.codec import to_base64
from aldis.protocol.codes import CloseCode
from aldis.protocol.privacy import Privacy
from support.hub_cluster import HubCluster
from support.hub_world import Client, World, identity_of

WINDOW = 30.0


@pytest.fixture
def cluster() -> HubCluster:
    return HubCluster(2, resume_window=WINDOW)


@pytest.fixture
def here(cluster: HubCluster) -> World:
    return cluster.worlds[0]


@pytest.fixture
def there(cluster: HubCluster) -> World:
    return cluster.worlds[1]


def offer(client: Client, to: str, number: int) -> None:
    client.send(type="offer", to=to, offer={"type": "offer", "sdp": "v=0"}, id=number)


def ask(cluster: HubCluster, client: Client, **message: Any) -> list[dict[str, Any]]:
    """Send a message, and return all that comes of it."""
    client.send(**message)
    cluster.settle()
    return client.take()


def discover(cluster: HubCluster, client: Client, user_id: str) -> dict[str, Any]:
    (found,) = ask(cluster, client, type="discover", userId=user_id)
    return found


def rotate(cluster: HubCluster, client: Client, user_id: str, seed: str) -> None:
    """Give a name the key of this seed."""
    new = identity_of(seed).public_key
    signature = client.identity.sign(proofs.rotation(user_id, new))
    client.send(type="rotate", newPublicKey=to_base64(new), signature=to_base64(signature))
    cluster.settle()


# --- presence -------------------------------------------------------------------------------------------------------


def test_a_user_of_another_node_is_found_with_its_key_and_devices(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice = here.client("alice")
    assert not discover(cluster, alice, "bob")["online"]
    bob = there.client("bob", device="phone")
    cluster.settle()
    found = discover(cluster, alice, "bob")
    assert (found["online"], [each["device"] for each in found["devices"]]) == (True, ["phone"])
    here.client("bob", device="laptop", identity=identity_of("bob"))
    cluster.settle()
    for client in (alice, bob):
        found = discover(cluster, client, "bob")
        assert [each["device"] for each in found["devices"]] == ["laptop", "phone"], "the newest first, on each node"


def test_watchers_are_told_once_of_each_change_at_another_node(cluster: HubCluster, here: World, there: World) -> None:
    alice = here.client("alice")
    presence, ack = ask(cluster, alice, type="watch", userIds=["bob"], id=1)
    assert (presence["online"], ack["re"]) == (False, 1)
    bob = there.client("bob")
    cluster.settle()
    (news,) = alice.take()
    assert (news["type"], news["online"]) == ("presence", True)
    bob.lose()
    cluster.settle()
    assert alice.take() == []
    cluster.pass_time(WINDOW + 2)
    (news,) = alice.take()
    assert news["online"] is False


def test_a_session_that_resumes_at_its_node_is_no_news_elsewhere(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice, bob = here.client("alice"), there.client("bob")
    ask(cluster, alice, type="watch", userIds=["bob"])
    bob.lose()
    again = there.client("bob", resume=bob.ticket(0))
    cluster.settle()
    assert again.registered is not None
    assert again.registered["resumed"]
    assert alice.take() == []
    there.client("bob")
    cluster.settle()
    assert len(alice.take()) == 1, "a new session is a program that was restarted"


def test_the_newest_connection_of_a_device_wins_wherever_it_is(cluster: HubCluster, here: World, there: World) -> None:
    alice, old = here.client("alice"), here.client("bob")
    new = there.client("bob", resume=old.ticket(0))
    cluster.settle()
    assert old.closed is not None
    assert old.closed[0] == CloseCode.REPLACED
    assert new.registered is not None
    assert not new.registered["resumed"], "a session goes on at its own node, or not at all"
    offer(alice, "bob", 1)
    cluster.settle()
    assert [each["type"] for each in new.take()] == ["offer"]
    assert alice.take() == [{"type": "ack", "re": 1}]
    old.lose()
    cluster.settle()
    assert discover(cluster, alice, "bob")["online"], "the late end of the old one changes nothing"


def test_all_nodes_together_admit_so_many_devices_of_a_user() -> None:
    cluster = HubCluster(2, max_devices=2)
    here, there = cluster.worlds
    here.client("bob", device="a")
    there.client("bob", device="b")
    cluster.settle()
    third = there.connect()
    third.register("bob", device="c")
    (error,) = third.take()
    assert (error["code"], "retryAfter" in error) == ("over-capacity", True)


def test_a_name_that_a_classic_client_holds_at_another_node_is_taken() -> None:
    cluster = HubCluster(2, auth="open")
    here, there = cluster.worlds
    here.classic_client("bob")
    cluster.settle()
    classic = there.connect(classic=True)
    classic.send(type="register", userId="bob", publicKey="another key")
    assert classic.take() == [{"type": "registered", "success": False, "userId": "bob"}]
    proven = there.connect()
    proven.register("bob")
    (error,) = proven.take()
    assert error["code"] == "key-mismatch"
    again = there.connect(classic=True)
    again.send(type="register", userId="bob", publicKey="a key")
    assert again.take() == [{"type": "registered", "success": True, "userId": "bob"}]


def test_a_classic_client_that_takes_another_name_gives_the_first_one_up() -> None:
    cluster = HubCluster(2, auth="open")
    here, there = cluster.worlds
    watcher, bob = there.classic_client("alice"), here.classic_client("bob")
    bob.send(type="register", userId="rob", publicKey="a key")
    cluster.settle()
    assert bob.take()[-1] == {"type": "registered", "success": True, "userId": "rob"}
    assert [discover(cluster, watcher, name)["online"] for name in ("bob", "rob")] == [False, True]


def test_a_rotation_ends_the_sessions_with_the_old_key_at_every_node(
    cluster: HubCluster, here: World, there: World
) -> None:
    phone, laptop = here.client("bob", device="phone"), there.client("bob", device="laptop")
    rotate(cluster, phone, "bob", "a new key")
    cluster.pass_time(2)
    assert phone.closed is None
    assert laptop.closed is not None
    assert laptop.closed[0] == CloseCode.UNAUTHORIZED


# --- privacy --------------------------------------------------------------------------------------------------------


def test_a_hidden_user_is_hidden_from_users_of_other_nodes(cluster: HubCluster, here: World, there: World) -> None:
    alice, friend, bob = here.client("alice"), here.client("friend"), there.client("bob")
    for client in (alice, friend):
        ask(cluster, client, type="watch", userIds=["bob"])
    ask(cluster, bob, type="privacy", presence="contacts", addContacts=["friend"])
    (news,) = alice.take()
    assert news == {"type": "presence", "userId": "bob", "online": False}
    assert friend.take() == []
    assert not discover(cluster, alice, "bob")["online"]
    assert discover(cluster, friend, "bob")["online"]
    ask(cluster, bob, type="privacy", presence="public")
    (news,) = alice.take()
    assert news["online"] is True


def test_all_devices_of_a_user_have_its_privacy_and_are_told_of_it(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice, phone, laptop = here.client("alice"), here.client("bob", device="phone"), there.client("bob", device="b")
    cluster.settle()
    ask(cluster, laptop, type="privacy", block=["alice"])
    (told,) = phone.take()
    assert (told["type"], told["blocked"]) == ("privacy", ["alice"])
    offer(alice, "bob/phone", 1)
    cluster.settle()
    assert alice.take()[0]["code"] == "not-online"


# --- messages -------------------------------------------------------------------------------------------------------


def test_messages_to_a_user_that_is_not_known_wait_for_the_table_and_keep_their_order(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice, bob = here.client("alice"), there.client("bob")
    here.directory_waits = True
    offer(alice, "bob", 1)
    alice.send(type="relay", to="bob", sealed="c2VhbGVk", id=2)
    alice.send(type="offer", to="nobody", offer={"type": "offer", "sdp": "v=0"}, id=3)
    assert alice.take() == []
    here.directory_waits = False
    cluster.settle()
    assert [each["type"] for each in bob.take()] == ["offer", "relay"]
    replies = {each["re"]: each.get("code", "ack") for each in alice.take()}
    assert replies == {1: "ack", 2: "ack", 3: "not-online"}


def test_messages_between_users_of_one_node_stay_there(cluster: HubCluster, here: World) -> None:
    alice, bob = here.client("alice"), here.client("bob")
    cluster.nodes["node-0"].link.forward = lambda node, message: False  # type: ignore[method-assign]
    offer(alice, "bob", 1)
    alice.send(type="relay", to="bob", sealed="c2VhbGVk", id=2)
    assert [each["type"] for each in bob.take()] == ["offer", "relay"]
    assert [each["re"] for each in alice.take()] == [1, 2]


def test_a_message_to_a_node_that_cannot_be_reached_is_refused_for_the_moment(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice = here.client("alice")
    there.client("bob")
    cluster.away.add("node-1")
    offer(alice, "bob", 1)
    cluster.settle()
    (error,) = alice.take()
    assert (error["code"], error["retryAfter"]) == ("over-capacity", 1.0)


# --- faults ---------------------------------------------------------------------------------------------------------


def test_the_users_of_a_node_that_dies_are_offline_and_its_messages_unknown(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice, bob = here.client("alice"), there.client("bob")
    ask(cluster, alice, type="watch", userIds=["bob"])
    bob.lose()
    offer(alice, "bob", 1)
    cluster.settle()
    assert alice.take() == []
    router = here.hub.cluster
    assert router is not None
    router.lost_node("node-1")  # whoever notices it tells all
    here.work()
    kinds = [(each["type"], each.get("online"), each.get("code")) for each in alice.take()]
    assert kinds == [("presence", False, None), ("error", None, "over-capacity")]
    cluster.kill("node-1")
    cluster.settle()
    assert alice.take() == []
    offer(alice, "bob", 2)
    cluster.settle()
    assert alice.take()[0]["code"] == "not-online"


def test_the_users_of_a_node_that_dies_go_offline_some_at_a_time(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice = here.client("alice")
    users = [there.client(f"user{number}") for number in range(100)]
    ask(cluster, alice, type="watch", userIds=[user.session.user_id for user in users])
    alice.take()
    router = here.hub.cluster
    assert router is not None
    here.hub_waits = True
    router.lost_node("node-1")
    offline: list[str] = []
    while here.hub.work(here.now) == 0.0:
        told = [message["userId"] for message in alice.take() if message["type"] == "presence"]
        assert len(told) <= 32
        offline += told
    assert sorted(offline) == sorted(f"user{number}" for number in range(100))
    assert not router.known.at("node-1")


def test_what_needs_the_table_is_refused_for_the_moment_while_it_does_not_answer(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice = here.client("alice")
    cluster.table_fails = True
    messages: list[dict[str, Any]] = [
        {"type": "discover", "userId": "bob"},
        {"type": "watch", "userIds": ["bob"]},
        {"type": "bye", "to": "bob"},
        {"type": "relay", "to": "bob", "sealed": "c2VhbGVk"},
    ]
    for number, message in enumerate(messages):
        (error,) = ask(cluster, alice, id=number, **message)
        assert (error["re"], error["code"], error["retryAfter"]) == (number, "over-capacity", 1.0)
    dave = here.connect()
    dave.register("dave")
    (error,) = dave.take()
    assert error["code"] == "over-capacity"
    cluster.table_fails = False
    dave.register("dave")
    assert dave.registered is not None
    assert not discover(cluster, alice, "bob")["online"]


def test_a_registration_that_ends_before_the_table_answers_leaves_nothing(cluster: HubCluster, here: World) -> None:
    bob = here.connect()
    here.directory_waits = True
    bob.register("bob")
    here.hub.answered(here.questions[0], here.look_up(here.questions.pop()), here.now)  # the directory, not the table
    bob.lose()
    here.directory_waits = False
    cluster.settle()
    assert cluster.table.state("bob").devices == ()


def test_a_message_that_no_node_answers_is_given_up(cluster: HubCluster, here: World, there: World) -> None:
    alice = here.client("alice")
    there.client("bob")
    discover(cluster, alice, "bob")
    cluster.nodes["node-1"].hears = lambda call: None  # type: ignore[method-assign]
    offer(alice, "bob", 1)
    here.pass_time(WINDOW)
    assert alice.take() == []
    alice.pong()
    here.pass_time(cluster_router.ANSWER_SECONDS + 2)
    errors = [each for each in alice.take() if each["type"] == "error"]
    assert [each["code"] for each in errors] == ["over-capacity"]


def test_messages_whose_answers_may_be_missed_are_given_up_at_once(
    cluster: HubCluster, here: World, there: World
) -> None:
    alice, bob = here.client("alice"), there.client("bob")
    discover(cluster, alice, "bob")
    cluster.nodes["node-0"].hears = lambda call: None  # type: ignore[method-assign]
    offer(alice, "bob", 1)
    cluster.settle()
    assert [each["type"] for each in bob.take()] == ["offer"]
    assert alice.take() == []
    router = here.hub.cluster
    assert router is not None
    router.unheard()
    here.settle()
    (error,) = alice.take()
    assert (error["re"], error["code"], error["retryAfter"]) == (1, "over-capacity", 1.0)


def test_a_message_that_comes_behind_a_later_one_or_from_a_lost_node_is_too_late(
    cluster: HubCluster, here: World, there: World
) -> None:
    """A server of Redis that hung may bring it. Its sender was told that nobody knows what has become of it."""
    bob = there.client("bob")
    router = there.hub.cluster
    assert router is not None

    def bye(number: int) -> list[str]:
        frame = f'{{"type":"bye","to":"bob","reason":"{number}"}}'.encode()
        router.forwarded("node-0", Forward(number, "alice", True, frame), there.now)
        there.settle()
        return [each["reason"] for each in bob.take()]

    assert [bye(2), bye(1), bye(2), bye(5), bye(4), bye(6)] == [["2"], [], [], ["5"], [], ["6"]]
    router.lost_node("node-0")
    assert bye(7) == []


def test_what_waits_for_other_nodes_is_bounded(
    cluster: HubCluster, here: World, there: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = here.client("alice")
    there.client("bob")
    monkeypatch.setattr(awaited, "MOST_BYTES", 10)
    (error,) = ask(cluster, alice, type="bye", to="bob", id=1)
    assert error["code"] == "over-capacity"
    discover(cluster, alice, "bob")
    monkeypatch.setattr(unanswered, "MAX_UNANSWERED", 0)
    (error,) = ask(cluster, alice, type="bye", to="bob", id=2)
    assert error["code"] == "over-capacity"


def test_what_a_node_cannot_read_is_answered(cluster: HubCluster, here: World) -> None:
    answers: list[object] = []
    link, router = cluster.nodes["node-0"].link, here.hub.cluster
    assert router is not None
    link.answer = lambda node, answer: answers.append((node, answer.number, answer.result))  # type: ignore[method-assign]
    for number, frame in enumerate([b"\xff", b"{", b'{"type":"ping"}', b'{"type":"bye","to":"nobody"}']):
        router.forwarded("node-9", Forward(number, "bob", True, frame), here.now)
    assert answers == [("node-9", number, RelayResult.ABSENT) for number in range(4)]
    router.lost_node("node-9")  # of whom nothing is known


# --- what is known --------------------------------------------------------------------------------------------------


def test_a_late_state_changes_nothing(cluster: HubCluster, here: World, there: World) -> None:
    alice = here.client("alice")
    there.client("bob")
    discover(cluster, alice, "bob")
    router = here.hub.cluster
    assert router is not None
    router.learn(UserState("bob", 0))
    assert discover(cluster, alice, "bob")["online"]


def test_users_that_nobody_needs_are_forgotten_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    users = remote_users.RemoteUsers(lambda user_id: user_id == "watched")
    privacy = Privacy("contacts", contacts=frozenset({"alice", "é"}))
    phone = RemoteDevice("phone", "node-1", "entry", 1, "session", "key")
    for number, name in enumerate(["watched", "a", "b", "c"]):
        users.learn(UserState(name, number, (phone,), privacy))
    assert users.unknown(["a", "z"]) == ["z"]
    assert users.privacy("b") is not None
    monkeypatch.setattr(remote_users, "MOST_KNOWN", 3)
    assert users.forget_some(1) == [], "it is needed"
    assert users.forget_some(9) == ["b"]
    assert users.forget_some(9) == []
    assert ("b" in users, users.privacy("b"), len(users), users.all()) == (False, None, 3, ["c", "a", "watched"])
    users.learn(UserState("c", 9))
    users.learn(UserState("a", 9))
    assert users.at("node-1") == ["watched"]
    monkeypatch.setattr(remote_users, "MOST_KNOWN", 0)
    assert users.forget_some(9) == ["c", "a"]
    assert users.all() == ["watched"]
    users.learn(UserState("watched", 10))
    assert users.bytes == remote_users.USER_BYTES


def test_many_users_are_forgotten_by_some_in_each_turn(
    cluster: HubCluster, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_users, "MOST_KNOWN", 10)
    router, forgotten = here.hub.cluster, []
    assert router is not None
    for number in range(1000):
        router.learn(UserState(f"user-{number}", number))
    monkeypatch.setattr(router.link, "forget", lambda users: forgotten.append(len(users)))
    here.hub.tick(here.now)
    assert (forgotten, len(router.known)) == ([], 1000)
    here.work()
    assert (sum(forgotten), len(router.known)) == (990, 10)
    assert max(forgotten) <= 64
    assert here.hub.work(here.now) is None


def test_users_that_somebody_needs_are_looked_at_once_in_a_tick(
    cluster: HubCluster, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_users, "MOST_KNOWN", 0)
    alice = here.client("alice")
    ask(cluster, alice, type="watch", userIds=["bob", "carol"])
    router = here.hub.cluster
    assert router is not None
    known = len(router.known)
    here.hub.tick(here.now)
    here.work()  # it ends
    assert len(router.known) == known >= 2


# --- names that are known while the directory is away -----------------------------------------------------------------


def recalled(world: World, user_id: str, key: str = "") -> Privacy | None:
    """The privacy with which a node goes on when the directory is away; None: not."""
    claim = world.hub.recall(ClaimBinding(1, user_id, identity_of(key or user_id).public_key))
    return None if claim is None else claim.privacy


def test_a_name_that_has_registered_here_is_known_without_the_directory(cluster: HubCluster, here: World) -> None:
    bob = here.client("bob")
    assert recalled(here, "bob") == Privacy()
    assert recalled(here, "bob", key="eve") is None, "the directory may know better"
    assert recalled(here, "carol") is None
    bob.lose(clean=True)
    cluster.settle()
    assert recalled(here, "bob") == Privacy()


def test_a_single_server_knows_no_name_without_its_directory() -> None:
    world = World()
    world.client("bob")
    assert recalled(world, "bob") is None


def test_a_rotation_elsewhere_changes_the_key_that_is_known(cluster: HubCluster, here: World, there: World) -> None:
    here.client("bob").lose(clean=True)
    cluster.settle()
    bob = there.client("bob")
    rotate(cluster, bob, "bob", "a new one")
    cluster.pass_time(2)
    assert recalled(here, "bob") is None
    assert recalled(here, "bob", key="a new one") == Privacy()


def test_a_privacy_that_changes_elsewhere_is_known(cluster: HubCluster, here: World, there: World) -> None:
    here.client("bob").lose(clean=True)
    cluster.settle()
    bob = there.client("bob")
    ask(cluster, bob, type="privacy", presence="contacts", block=["eve"])
    bob.lose(clean=True)
    cluster.settle()
    found = recalled(here, "bob")
    assert found is not None
    assert found.blocked == frozenset({"eve"})


def test_a_privacy_of_an_earlier_moment_is_put_right_when_another_device_registers(
    cluster: HubCluster, here: World, there: World
) -> None:
    """A change that met an outage is in the directory, and not in the table."""
    phone, eve = here.client("bob", device="phone"), there.client("eve")
    cluster.settle()
    assert discover(cluster, eve, "bob")["online"]
    cluster.privacies["bob"] = Privacy(blocked=frozenset({"eve"}))
    there.client("bob", device="laptop")
    cluster.settle()
    phone.take()
    cluster.pass_time(1)
    assert [each["blocked"] for each in phone.take() if each["type"] == "privacy"] == [["eve"]]
    assert not discover(cluster, eve, "bob")["online"]
    cluster.pass_time(1)
    assert phone.take() == []


def test_after_an_outage_names_that_nobody_has_here_are_forgotten(cluster: HubCluster, here: World) -> None:
    here.client("alice")
    here.client("bob").lose(clean=True)
    cluster.settle()
    router = here.hub.cluster
    assert router is not None
    router.restored(frozenset())
    assert recalled(here, "bob") is None
    assert recalled(here, "alice") == Privacy()


def test_names_are_forgotten_with_their_users(
    cluster: HubCluster, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.client("bob").lose(clean=True)
    cluster.settle()
    monkeypatch.setattr(remote_users, "MOST_KNOWN", 0)
    cluster.pass_time(1)
    assert recalled(here, "bob") is None
    router = here.hub.cluster
    assert router is not None
    assert router.verified.bytes == 0


def test_what_is_kept_of_names_is_bounded(cluster: HubCluster, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified_names, "MOST_BYTES", 3 * verified_names.NAME_BYTES)
    for name in ("ann", "bob", "cid"):
        here.client(name)
    assert [recalled(here, name) for name in ("ann", "bob", "cid")] == [None, Privacy(), Privacy()]


def test_forgotten_users_are_asked_for_again(
    cluster: HubCluster, here: World, there: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = here.client("alice")
    there.client("bob")
    discover(cluster, alice, "bob")
    router = here.hub.cluster
    assert router is not None
    monkeypatch.setattr(remote_users, "MOST_KNOWN", 0)
    cluster.pass_time(1)
    assert cluster.nodes["node-0"].link.forgotten == ["bob"]
    assert discover(cluster, alice, "bob")["online"]
    assert here.hub.memory.bytes()["elsewhere"] == router.known.bytes + router.verified.bytes
