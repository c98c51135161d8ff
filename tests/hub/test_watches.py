"""A `watch` of many names is entered by portions, while others have their turns, and counts in whole from the start."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aldis.hub.cluster import ClusterQuestion
from aldis.hub.held_back import UNITS_AT_ONCE
from aldis.hub.stages import Stage
from aldis.hub.use import text_bytes, texts_bytes
from aldis.hub.watch_table import WatchTable
from aldis.hub.watchers import MOST_AT_ONCE
from aldis.hub.watches import ENTERED_AT_ONCE, SHARED_BYTES, WATCH_BYTES, WATCHED_BYTES, WATCHER_BYTES
from support.hub_cluster import HubCluster
from support.hub_watches import watch_table
from support.hub_world import Client, World, identity_of


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def slow_world(**limits: Any) -> World:
    """A world whose hub has a later turn only when the test gives it one."""
    world = World(**limits)
    world.hub_waits = True
    return world


def turn(world: World) -> float | None:
    return world.hub.work(world.now)


def watched(client: Client) -> int:
    return len(client.session.watches or ())


def entered(client: Client) -> int:
    """How many names are in the table for a client."""
    watch = client.world.hub._watchers.watches._new.get(client.session)
    return watched(client) + (0 if watch is None else watch.entered)


def finish(world: World) -> None:
    world.hub_waits = False
    world.work()


def accounts_are_exact(world: World, admitted: int = 0) -> None:
    """What is counted is what the sessions watch, and `admitted` names that some are about to watch."""
    watches = world.hub._watchers.watches
    assert not watches._over, "what is to be removed still counts"
    pairs = [(name, one) for one in world.hub._presence.sessions() for name in one.watches or ()]
    assert sum(len(watch.new) for watch in watches._new.values()) == admitted
    count = Counter(session.user_id for _, session in pairs)
    for session, watch in watches._new.items():
        pairs += [(name, session) for name in watch.new[: watch.entered]]
        count[session.user_id] += len(watch.new)
    table = watch_table(world)
    assert {(name, one) for name, them in table.items() for one in them} == set(pairs)
    every = [name for name, _ in pairs]
    size = WATCH_BYTES * len(every) + texts_bytes(every)
    size += WATCHED_BYTES * len(set(every)) + texts_bytes(list(set(every)))
    size += SHARED_BYTES * sum(len(them) for them in table.values() if len(them) > 1)
    size += WATCHER_BYTES * sum(one.watcher is not None for one in world.hub._presence.sessions())
    assert watches.bytes == size
    assert watches._of_user == count


def test_no_step_enters_more_names_than_a_portion_and_tells_more_than_another() -> None:
    world = slow_world()
    alice = world.client("alice")
    alice.send(type="watch", userIds=names("bob", 1000), id=1)
    assert (watched(alice), alice.take()) == (0, [])
    messages, steps = [], 0
    while True:
        before = entered(alice)
        due = turn(world)
        told = alice.take()
        assert entered(alice) - before <= (0 if told else ENTERED_AT_ONCE)
        assert len(told) <= MOST_AT_ONCE
        messages += told
        steps += 1
        if due != 0.0:
            break
    assert steps < 2 * (1000 / MOST_AT_ONCE + 1000 / ENTERED_AT_ONCE), "each step gets on"
    assert [message.get("userId") for message in messages] == [*names("bob", 1000), None]
    assert messages[-1] == {"type": "ack", "re": 1}
    accounts_are_exact(world)


def test_a_watch_of_one_portion_is_entered_at_once() -> None:
    world = slow_world()
    alice = world.client("alice")
    alice.send(type="watch", userIds=names("bob", ENTERED_AT_ONCE))
    assert watched(alice) == ENTERED_AT_ONCE
    alice.take()
    alice.send(type="watch", userIds=["carol"], id=1)
    alice.send(type="ping", id=2)
    assert alice.take()[-1] == {"type": "pong", "re": 2}
    finish(world)
    assert alice.take()[-1] == {"type": "ack", "re": 1}


def test_the_later_frames_of_the_session_wait_until_all_names_are_entered() -> None:
    world = slow_world()
    alice, bob = world.client("alice"), world.client("bob")
    alice.send(type="watch", userIds=names("one", 300), id=1)
    alice.send(type="ping", id=2)
    alice.send(type="unwatch", userIds=names("one", 299), id=3)
    alice.send(type="watch", userIds=names("two", 300), id=4)
    bob.send(type="ping", id=5)
    assert bob.take() == [{"type": "pong", "re": 5}], "others do not wait"
    for _ in range(2):
        turn(world)
        assert not [message for message in alice.take() if message["type"] != "presence"]
    finish(world)
    replies = [message["re"] for message in alice.take() if message["type"] != "presence"]
    assert sorted(replies) == [1, 2, 3, 4]
    assert replies.index(2) < replies.index(3) < replies.index(4)
    assert set(alice.session.watches or ()) == {"one-299", *names("two", 300)}
    accounts_are_exact(world)


def test_the_next_frame_of_a_session_comes_in_a_step_of_its_own() -> None:
    """With the last portion of one watch, the admission of the next one would make a long step."""
    world = slow_world()
    alice = world.client("alice")
    for part in range(3):
        alice.send(type="watch", userIds=names(str(part), ENTERED_AT_ONCE + 1))
    before = 0
    while alice.session.waiting:
        had = alice.session.backlog and len(alice.session.backlog)
        turn(world)
        now = alice.session.backlog and len(alice.session.backlog)
        assert watched(alice) == before or now == had
        before = watched(alice)
    assert before == 3 * (ENTERED_AT_ONCE + 1)


def test_sessions_take_turns() -> None:
    world = slow_world()
    clients = [world.client(f"client{number}") for number in range(3)]
    for client in clients:
        client.send(type="watch", userIds=names("bob", 5 * ENTERED_AT_ONCE))
    for _ in range(20):  # those of frames that wait are among them
        turn(world)
        progress = [entered(client) for client in clients]
        assert max(progress) - min(progress) <= ENTERED_AT_ONCE
    assert progress == [5 * ENTERED_AT_ONCE] * 3


def test_a_user_that_comes_meanwhile_is_told_once_and_as_it_is() -> None:
    world = slow_world()
    alice = world.client("alice")
    alice.send(type="watch", userIds=names("bob", 300), id=1)
    turn(world)
    early, late = world.client("bob-0"), world.client("bob-299")
    finish(world)
    messages = [message for message in alice.take() if message["type"] == "presence"]
    assert [m["online"] for m in messages if m["userId"] == "bob-299"] == [True]
    assert [m["online"] for m in messages if m["userId"] == "bob-0"] == [True]
    assert (early.take(), late.take()) == ([], [])


def resumed(world: World, client: Client) -> None:
    told = len([message for message in client.take() if message["type"] == "presence"])
    client.lose()
    back = world.connect()
    assert back.register("alice", resume=client.ticket(told))["resumed"]
    back.send(type="ping", id=7)
    assert not [message for message in back.take() if message["type"] == "pong"], "it waits as before"
    finish(world)
    assert set(back.session.watches or ()) == {*names("old", 100), *names("bob", 980)}
    messages = back.take()
    assert {"type": "pong", "re": 7} in messages
    assert {"type": "ack", "re": 1} not in messages, "the connection that asked is gone"
    assert messages[-1]["userId"] == "old-19"


def came_to_nothing(world: World, client: Client) -> None:
    finish(world)
    assert not client.session.watches
    assert world.hub.memory.bytes()["watches"] == 0


def lost_for_good(world: World, client: Client) -> None:
    client.lose(clean=True)
    came_to_nothing(world, client)


def lost_for_a_while(world: World, client: Client) -> None:
    client.lose()
    turn(world)
    accounts_are_exact(world, admitted=1080 - watched(client))
    finish(world)
    assert watched(client) == 1080, "it may come back"
    world.pass_time(100)
    came_to_nothing(world, client)


def replaced(world: World, client: Client) -> None:
    world.client("alice")
    came_to_nothing(world, client)


def disconnected(world: World, client: Client) -> None:
    assert world.hub.disconnect("alice", world.now) == 1
    came_to_nothing(world, client)


def unregistered(world: World, client: Client) -> None:
    client.send(type="unregister", id=9)
    assert client.session.stage is Stage.REGISTERED, "it waits"
    finish(world)
    assert client.take()[-1] == {"type": "unregistered", "re": 9}
    came_to_nothing(world, client)


def unwatched(world: World, client: Client) -> None:
    client.send(type="unwatch", userIds=[*names("bob", 950), "never-watched"])
    finish(world)
    assert set(client.session.watches or ()) == {*names("old", 100), *names("bob", 980)[950:]}


@pytest.mark.parametrize("turns", [0, 1, 5])
@pytest.mark.parametrize(
    "end", [lost_for_good, lost_for_a_while, replaced, disconnected, unregistered, unwatched, resumed]
)
def test_the_accounts_are_exact_after_each_end_in_the_middle(end: Callable[[World, Client], None], turns: int) -> None:
    world = slow_world(resume_window=50)
    alice = world.client("alice")
    alice.send(type="watch", userIds=names("old", 100))
    while turn(world) == 0.0:
        pass
    # Names that it watches already do not count again.
    alice.send(type="watch", userIds=[*names("bob", 980), *names("old", 20)], id=1)
    for _ in range(turns):
        turn(world)
    assert 100 <= watched(alice) < 1080
    accounts_are_exact(world, admitted=1080 - watched(alice))
    end(world, alice)
    accounts_are_exact(world)


def test_nothing_moves_when_a_client_with_thousands_of_watches_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(resume_window=50)
    alice = world.client("alice")
    for part in range(5):
        alice.send(type="watch", userIds=names(str(part), 1000))
    told = len(alice.take())
    alice.lose()
    back = world.connect()
    with monkeypatch.context() as patched:
        for step in ("add", "remove", "of", "unwatched", "count"):
            patched.delattr(WatchTable, step)
        assert back.register("alice", resume=alice.ticket(told))["resumed"]
    assert watched(back) == 5000
    back.take()
    world.client("4-999")
    assert back.take_one()["userId"] == "4-999"
    accounts_are_exact(world)


def test_names_that_several_sessions_are_about_to_watch_count_once() -> None:
    world = slow_world()
    clients = [world.client(f"client{number}") for number in range(3)]
    for client in clients:
        client.send(type="watch", userIds=names("bob", 300))
    while entered(clients[2]) < 300:
        turn(world)
    bytes_of_all = world.hub.memory.bytes()["watches"]
    size = (3 * WATCH_BYTES + 3 * SHARED_BYTES + WATCHED_BYTES) * 300 + 3 * WATCHER_BYTES
    assert bytes_of_all == size + 4 * texts_bytes(names("bob", 300))
    turn(world)
    clients[0].lose(clean=True)
    clients[1].lose(clean=True)
    turn(world)
    finish(world)
    accounts_are_exact(world)
    assert watched(clients[2]) == 300
    clients[2].send(type="unwatch", userIds=names("bob", 300))
    accounts_are_exact(world)


def refusal(client: Client) -> str:
    while client.session.waiting:
        turn(client.world)
    (error,) = [message for message in client.take() if message["type"] == "error"]
    return str(error["code"])


def test_a_user_cannot_watch_more_by_devices_that_ask_together() -> None:
    world = slow_world(max_user_watches=500)
    phone, laptop = (world.client("alice", device=device, identity=identity_of("a")) for device in ("phone", "laptop"))
    phone.send(type="watch", userIds=names("one", 300))
    laptop.send(type="watch", userIds=names("two", 201))
    assert refusal(laptop) == "too-large"
    laptop.send(type="watch", userIds=names("two", 200))
    finish(world)
    assert (watched(phone), watched(laptop)) == (300, 200)
    accounts_are_exact(world)


def test_no_name_has_more_watchers_by_sessions_that_ask_together() -> None:
    world = slow_world(max_watchers=2)
    clients = [world.client(f"client{number}") for number in range(3)]
    for number, client in enumerate(clients):
        client.send(type="watch", userIds=[*names(f"other{number}", 200), "bob"])
    assert refusal(clients[2]) == "over-capacity"
    assert watched(clients[2]) == 0, "all of its names are given up"
    clients[0].lose(clean=True)
    finish(world)
    clients[2].send(type="watch", userIds=["bob"])
    assert [watched(client) for client in clients] == [0, 201, 1]
    accounts_are_exact(world)


def test_watches_take_no_more_memory_by_sessions_that_ask_together() -> None:
    texts = texts_bytes(names("a", 200)) + texts_bytes(names("b", 200))
    room = (WATCH_BYTES + WATCHED_BYTES) * 400 + 2 * texts + 2 * WATCHER_BYTES
    world = slow_world(watches_bytes=room)
    alice, bob, carol = (world.client(name) for name in ("alice", "bob", "carol"))
    alice.send(type="watch", userIds=names("a", 200))
    bob.send(type="watch", userIds=names("b", 201))
    assert refusal(bob) == "over-capacity"
    bob.send(type="watch", userIds=names("b", 200))
    while bob.session.waiting:
        turn(world)
    assert world.hub.memory.bytes()["watches"] == room
    carol.send(type="watch", userIds=["c"])
    assert refusal(carol) == "over-capacity"
    finish(world)
    assert world.hub.memory.bytes()["watches"] == room
    accounts_are_exact(world)


def test_a_client_that_does_not_read_is_ended_when_its_names_are_entered() -> None:
    world = slow_world(max_watches=300, backlog_messages=10)
    alice = world.client("alice")
    alice.full = True
    alice.send(type="watch", userIds=names("one", 300))
    while alice.session.waiting:
        turn(world)
    for number in range(10):
        alice.send(type="watch", userIds=[], id=number)
    assert alice.closed is None
    alice.send(type="watch", userIds=names("one", 300), id=10)
    finish(world)
    assert alice.closed is not None
    assert alice.closed[0] == 4504
    assert alice.take() == []
    accounts_are_exact(world)


def test_a_handover_saves_the_watches_that_are_under_way() -> None:
    world = slow_world()
    alice = world.client("alice")
    alice.send(type="watch", userIds=names("bob", 700), id=1)
    turn(world)
    told = {message["userId"] for message in alice.take()}
    saved = world.hub.save()
    (session,) = saved.sessions
    assert session.watches == sorted(names("bob", 700))
    assert {*session.untold, *told} == set(session.watches)
    world.hub.drain(world.now, handed_over=True)
    finish(world)
    following = World()
    assert following.hub.restore(saved, following.now) == 1
    accounts_are_exact(following)
    back = following.connect()
    back.register("alice", resume=alice.ticket(len(told)))
    assert {message["userId"] for message in back.take() if message["type"] == "presence"} == set(session.untold)


def test_a_server_that_stops_sends_those_away_whose_names_are_not_entered() -> None:
    world = slow_world()
    alice = world.client("alice")
    alice.send(type="watch", userIds=names("bob", 700))
    turn(world)
    world.hub.drain(world.now)
    assert alice.closed is not None
    finish(world)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_clients_do_the_accounts_are_exact(seed: int) -> None:
    rng = random.Random(seed)
    world = slow_world(max_watches=600, max_user_watches=800, max_watchers=3, resume_window=20)
    clients: list[Client] = []
    for _ in range(40):
        match rng.randrange(8):
            case 0 | 1:
                name = rng.choice(["alice", "bob"])
                device = rng.choice(["one", "two"])
                resume: dict[str, Any] = {}
                old = [one for one in clients if one.session.device == device and one.session.user_id == name]
                if old and rng.random() < 0.7:
                    resume = {"resume": old[-1].ticket(0)}
                clients.append(world.connect())
                clients[-1].register(name, device=device, identity=identity_of(name), **resume)
            case 2 | 3 | 4 if clients:
                chosen = rng.sample(names("x", 1500), rng.randrange(400))
                rng.choice(clients).send(type=rng.choice(["watch", "watch", "unwatch"]), userIds=chosen)
            case 5 if clients:
                client = clients.pop(rng.randrange(len(clients)))
                client.lose(clean=rng.random() < 0.5)
            case 6 if clients:
                rng.choice(clients).send(type="unregister")
            case _:
                for _ in range(rng.randrange(6)):
                    turn(world)
        clients = [client for client in clients if client.closed is None]
        watches = world.hub._watchers.watches
        assert all(count <= 800 for count in watches._of_user.values())
        if not watches._over:
            accounts_are_exact(world, sum(len(watch.new) for watch in watches._new.values()))
    finish(world)
    accounts_are_exact(world)
    assert not [client for client in clients if client.session.waiting], "nobody waits for ever"
    assert all(len(them) <= 3 for them in watch_table(world).values())
    for client in clients:
        client.lose(clean=True)
    world.pass_time(40)
    assert world.hub.memory.bytes()["watches"] == 0


# --- in a cluster -----------------------------------------------------------------------------------------------------


def test_names_count_while_the_cluster_is_asked() -> None:
    cluster = HubCluster(2, max_user_watches=500)
    world = cluster.worlds[0]
    phone, laptop = (world.client("alice", device=device, identity=identity_of("a")) for device in ("phone", "laptop"))
    world.hub_waits = world.directory_waits = True
    phone.send(type="watch", userIds=names("one", 300), id=1)
    accounts_are_exact(world, admitted=300)
    while not world.cluster_questions:  # type: ignore[attr-defined]
        turn(world)
    accounts_are_exact(world, admitted=300)
    assert all(world.hub._is_needed(name) for name in names("one", 300)), "they are not forgotten meanwhile"
    laptop.send(type="watch", userIds=names("two", 201), id=2)
    assert refusal(laptop) == "too-large"
    world.directory_waits = world.hub_waits = False
    cluster.settle()
    assert len(phone.take()) == 301
    accounts_are_exact(world)


@pytest.mark.parametrize("count", [10, 300])
@pytest.mark.parametrize("how", ["fails", "ends", "resumes"])
def test_names_do_not_count_when_the_question_comes_to_nothing(count: int, how: str) -> None:
    cluster = HubCluster(2)
    world = cluster.worlds[0]
    alice = world.client("alice")
    alice.send(type="watch", userIds=["old"])
    world.directory_waits = True
    alice.send(type="watch", userIds=["old", *names("bob", count)], id=1)
    accounts_are_exact(world, admitted=count)
    match how:
        case "fails":
            cluster.table_fails = True
        case "ends":
            alice.lose(clean=True)
        case "resumes":
            # The question of the old connection, whose answer comes too late. It is asked again.
            questions: deque[ClusterQuestion] = world.cluster_questions  # type: ignore[attr-defined]
            late = questions.pop()
            alice.lose()
            world.directory_waits = False
            back = world.connect()
            back.register("alice", resume=alice.ticket(1))
            world.hub.answered(late, [], world.now)
    world.directory_waits = False
    cluster.settle()
    accounts_are_exact(world)
    assert (
        set(watch_table(world))
        == {
            "fails": {"old"},
            "ends": set(),
            "resumes": {"old", *names("bob", count)},
        }[how]
    )


def test_after_the_answer_of_the_cluster_the_next_frame_has_a_turn_of_its_own() -> None:
    cluster = HubCluster(2)
    world = cluster.worlds[0]
    alice = world.client("alice")
    world.directory_waits = world.hub_waits = True
    for part in range(2):
        alice.send(type="watch", userIds=names(str(part), 500), id=part)
    while entered(alice) < 500:
        turn(world)
    asked = list(world.cluster_questions)  # type: ignore[attr-defined]
    assert [len(question.user_ids) for question in asked] == [500], "the second one waits"
    world.answer()
    assert watched(alice) == 500
    assert alice.session.backlog is not None
    turn(world)
    turn(world)
    assert (watched(alice), entered(alice)) == (500, 500), "a turn of its own, and one for what alice is told"
    assert not world.cluster_questions  # type: ignore[attr-defined]
    world.directory_waits = world.hub_waits = False
    cluster.settle()
    assert [message["re"] for message in alice.take() if message["type"] == "ack"] == [0, 1]
    accounts_are_exact(world)


# --- frames that were held back ---------------------------------------------------------------------------------------


def test_frames_that_waited_for_the_directory_are_handled_by_some_in_turn() -> None:
    world = slow_world()
    alice, bob = world.client("alice"), world.client("bob")
    world.directory_waits = True
    for client in (alice, bob):
        client.send(type="discover", userId="nobody")
        for number in range(5 * UNITS_AT_ONCE):
            client.send(type="ping", id=number)
    world.answer()
    got: dict[str, list[int]] = {"alice": [], "bob": []}
    progress = []
    while any(client.session.waiting for client in (alice, bob)):
        for name, client in (("alice", alice), ("bob", bob)):
            pongs = [message["re"] for message in client.take() if message["type"] == "pong"]
            assert len(pongs) <= UNITS_AT_ONCE
            got[name] += pongs
        progress.append(abs(len(got["alice"]) - len(got["bob"])))
        turn(world)
    for name, client in (("alice", alice), ("bob", bob)):
        got[name] += [message["re"] for message in client.take()]
        assert got[name] == list(range(5 * UNITS_AT_ONCE))
    assert max(progress) <= UNITS_AT_ONCE


def test_names_are_entered_in_each_second_turn_while_frames_of_others_are_handled() -> None:
    world = slow_world()
    alice, bob = world.client("alice"), world.client("bob")
    world.directory_waits = True
    alice.send(type="discover", userId="nobody")
    for number in range(20 * UNITS_AT_ONCE):
        alice.send(type="ping", id=number)
    bob.send(type="watch", userIds=names("carol", 5 * ENTERED_AT_ONCE))
    world.answer()
    for _ in range(10):
        turn(world)
    assert alice.session.backlog is not None
    assert watched(bob) == 5 * ENTERED_AT_ONCE


def test_a_session_that_ends_while_its_frames_wait_for_a_turn_says_nothing_more() -> None:
    world = slow_world()
    alice, bob = world.client("alice"), world.client("bob")
    world.directory_waits = True
    alice.send(type="discover", userId="nobody")
    for _ in range(5 * UNITS_AT_ONCE):
        alice.send(type="bye", to="bob")
    world.answer()
    assert bob.take() == []
    turn(world)
    assert 0 < len(bob.take()) <= UNITS_AT_ONCE
    alice.lose(clean=True)
    finish(world)
    assert not [message for message in bob.take() if message["type"] == "bye"]
    assert world.hub.memory.bytes()["waiting"] == 0


def test_the_hub_is_woken_for_names_that_are_not_entered() -> None:
    world = slow_world()
    alice = world.client("alice")
    woken: list[float] = []
    world.hub._watchers.watches._wake = woken.append
    alice.send(type="watch", userIds=names("bob", ENTERED_AT_ONCE + 1))
    assert woken == [0.0]


@given(st.lists(st.text(max_size=5)))
def test_the_bytes_of_texts_are_those_of_each(texts: list[str]) -> None:
    assert texts_bytes(texts) == sum(map(text_bytes, texts))
