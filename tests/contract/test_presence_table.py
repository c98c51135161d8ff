"""What the table of who is online promises (aldis.hub.cluster): on one Redis, behind a Sentinel, and in a Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

import msgspec
import pytest

from aldis.backends.redis_client import Command
from aldis.cluster import presence_table
from aldis.cluster.buckets import bucket_of
from aldis.cluster.faults import ClusterProtocolError, NodeLost
from aldis.cluster.presence_table import REPLACED, AnnouncedDevice, PresenceTable
from aldis.errors import InvalidAddress
from aldis.hub.cluster import FULL, TAKEN, Entered, UserState
from aldis.protocol.messages import SealKey
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy
from support.presence import KEY_A, KEY_B, KINDS, Place, World, enter, entered, redis_place

HIDDEN = Privacy("hidden", "contacts", frozenset({"bob", "straße"}), frozenset({"mallory"}))


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with redis_place(request.param, tmp_path_factory.mktemp(request.param), "--save", "", steady=True) as place:
        yield place


@pytest.fixture
async def world(place: Place) -> AsyncIterator[World]:
    world = World(place)
    yield world
    await world.close()


@pytest.fixture
def one(world: World) -> PresenceTable:
    return world.node("n1")


@pytest.fixture
def two(world: World) -> PresenceTable:
    return world.node("n2")


def neighbours(many: int, user_id: str = "alice") -> list[str]:
    """Users of one bucket."""
    names = (f"user{number}" for number in count())
    return [next(name for name in names if bucket_of(name) == bucket_of(user_id)) for _ in range(many)]


async def test_a_device_that_is_entered_is_found_by_all_and_heard_by_all(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    device = world.device()._replace(seal_key=SealKey("cHVi", "c2ln"))
    async with world.listening("alice") as heard:
        answer = await entered(one, "alice", device, privacy=HIDDEN)
        assert await heard.state() == answer.state
    expected = device._replace(node="n1", order=answer.order)
    assert answer.state == UserState("alice", answer.state.version, (expected,), HIDDEN)
    assert await two.states(["alice"]) == [answer.state]
    assert answer.order > 0


async def test_the_newest_device_is_the_first_and_each_change_has_a_later_version(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    answers = [await entered((one, two)[number % 2], "alice", world.device(f"device{number}")) for number in range(20)]
    orders = [answer.order for answer in answers]
    versions = [answer.state.version for answer in answers]
    assert orders == sorted(set(orders))
    assert versions == sorted(set(versions))
    (state,) = await one.states(["alice"])
    assert [device.order for device in state.devices] == orders[::-1]
    assert {device.node for device in state.devices} == {"n1", "n2"}


async def test_a_device_takes_the_place_of_one_of_the_same_name_at_another_node(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    before, after = world.device(), world.device()
    first = await entered(one, "alice", before)
    async with world.listening("alice") as heard:
        second = await entered(two, "alice", after)
        (device,) = (await heard.state()).devices
    assert device == after._replace(node="n2", order=second.order)
    assert second.order > first.order
    # The first node has nobody any more.
    assert await one.reap("n1") == 0
    assert await two.states(["alice"]) == [second.state]


async def test_a_name_is_taken_by_a_device_that_proves_more_or_less_or_nothing_with_another_key(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    answer = await entered(one, "alice", world.device())
    for name in ("laptop", "phone"):
        assert await enter(two, "alice", world.device(name, proves=False)) == TAKEN
    assert await one.states(["alice"]) == [answer.state]
    await entered(one, "bob", world.device(proves=False))
    assert await enter(two, "bob", world.device()) == TAKEN
    assert await enter(two, "bob", world.device("phone", KEY_B, proves=False)) == TAKEN
    await entered(two, "bob", world.device("phone", proves=False))


async def test_a_rotated_key_enters_while_devices_with_the_old_one_are_there(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    await entered(one, "alice", world.device())
    answer = await entered(two, "alice", world.device("phone", KEY_B))
    assert [device.key for device in answer.state.devices] == [KEY_B, KEY_A]


async def test_a_user_has_so_many_devices_and_no_more(world: World, one: PresenceTable, two: PresenceTable) -> None:
    for name in ("laptop", "phone"):
        await entered(one, "alice", world.device(name))
    assert await enter(two, "alice", world.device("tablet"), most=2) == FULL
    assert isinstance(await enter(two, "alice", world.device("phone"), most=2), Entered)
    assert isinstance(await enter(two, "alice", world.device("tablet"), most=3), Entered)


async def test_a_user_has_more_devices_than_a_small_array(world: World, one: PresenceTable) -> None:
    names = [f"device{number}" for number in range(40)]
    answers = [await enter(one, "alice", world.device(name), most=40) for name in names]
    (state,) = await one.states(["alice"])
    assert [device.device for device in state.devices] == names[::-1]
    last = answers[-1]
    assert isinstance(last, Entered)
    assert last.state == state


async def test_a_user_whose_last_device_leaves_is_offline_and_leaves_nothing(world: World, one: PresenceTable) -> None:
    device = world.device()
    answer = await entered(one, "alice", device, privacy=HIDDEN)
    async with world.listening("alice") as heard:
        state = await one.leave("alice", "laptop", device.entry)
        assert state is not None
        assert await heard.state() == state
    assert state == UserState("alice", state.version)
    assert state.version > answer.state.version
    assert await world.keys() == {f"{{b{bucket_of('alice')}}}:last"}
    (found,) = await one.states(["alice"])
    assert found == UserState("alice", found.version)
    assert found.version >= state.version
    # What the next one hears is later than what anybody has read.
    assert (await entered(one, "alice", world.device())).state.version > found.version


async def test_what_names_an_entry_that_is_gone_changes_nothing(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    late, device = world.device(), world.device()
    await entered(one, "alice", late)
    answer = await entered(two, "alice", device)
    async with world.listening("alice") as heard:
        assert await one.leave("alice", "laptop", late.entry) is None
        assert await one.leave("alice", "phone", device.entry) is None
        assert await one.leave("bob", "laptop", device.entry) is None
        assert await one.change("alice", "laptop", late.entry, session="another") is None
        assert await one.change_privacy("bob", HIDDEN) is None
        assert await one.states(["alice"]) == [answer.state]
        state = await two.leave("alice", "laptop", device.entry)
        assert await heard.state() == state  # and nothing before


async def test_a_device_is_changed(world: World, one: PresenceTable, two: PresenceTable) -> None:
    device = world.device()
    answer = await entered(one, "alice", device)
    expected = answer.state.devices[0]
    seal_key = SealKey("cHVi", "c2ln" * 22)
    for change in (
        {"seal_key": seal_key},
        {"session": "s" * 300},
        {"seal_key": None},
        {"seal_key": seal_key, "session": ""},
        {},
    ):
        async with world.listening("alice") as heard:
            state = await one.change("alice", "laptop", device.entry, **change)
            assert state is not None
            assert await heard.state() == state
        expected = expected._replace(**change)
        assert state.devices == (expected,)
        assert await two.states(["alice"]) == [state]
        assert state.version > answer.state.version


async def test_a_change_keeps_what_a_newer_release_has_added(world: World, one: PresenceTable) -> None:
    device = world.device()
    answer = await entered(one, "alice", device)
    fields = [1, device.entry, "n1", KEY_A, True, "laptop", "session", None, {"new": ["x", None, 1.5]}, "more"]
    packed = msgspec.msgpack.encode([answer.order, fields])
    assert await world.run(Command("HSET", one.names.user("alice"), ("dlaptop", packed))) == [0]
    state = await one.change("alice", "laptop", device.entry, session="another", seal_key=SealKey("a", "b"))
    assert state is not None
    assert state.devices[0].session == "another"
    (packed,) = await world.run(Command("HGET", one.names.user("alice"), ("dlaptop",)))
    fields[6:8] = ["another", ["a", "b"]]
    assert msgspec.msgpack.decode(packed) == [answer.order, fields]


async def test_a_privacy_is_changed_for_all_devices(world: World, one: PresenceTable, two: PresenceTable) -> None:
    device = world.device()
    answer = await entered(one, "alice", device)
    async with world.listening("alice") as heard:
        hidden = await two.change_privacy("alice", HIDDEN)
        assert hidden is not None
        assert hidden == answer.state._replace(version=hidden.version, privacy=HIDDEN)
        assert await heard.state() == hidden
        assert await one.change_privacy("alice", HIDDEN, hidden.version) == hidden
        shown = await one.change_privacy("alice", DEFAULT_PRIVACY)
        assert shown is not None
        assert await heard.state() == shown  # and nothing before: to change nothing is not news
    assert shown == answer.state._replace(version=shown.version)
    assert shown.version > hidden.version > answer.state.version
    assert await two.states(["alice"]) == [shown]


async def test_a_privacy_is_told_anew_where_the_server_has_lost_a_later_one(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    answer = await entered(one, "alice", world.device())
    async with world.listening("alice") as heard:
        told = await two.change_privacy("alice", DEFAULT_PRIVACY, answer.state.version + 1)
        assert told is not None
        assert await heard.state() == told
    assert told.version > answer.state.version + 1


async def test_a_device_that_comes_does_not_undo_a_change_of_the_privacy(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    await entered(one, "alice", world.device())
    await one.change_privacy("alice", HIDDEN)
    answer = await entered(two, "alice", world.device("phone"), privacy=DEFAULT_PRIVACY)
    assert answer.state.privacy == HIDDEN


async def test_the_states_of_many_users_come_in_the_order_of_the_question(world: World, one: PresenceTable) -> None:
    names = [f"user{number}" for number in range(500)] + ["straße", "😀", "a}b{c", "*", ""]
    online = set(names[::3]) | set(names[500:])
    answers = await asyncio.gather(*(entered(one, name, world.device()) for name in names if name in online))
    found = await one.states(names)
    assert [state.user_id for state in found] == names
    assert [state for state in found if state.user_id in online] == [answer.state for answer in answers]
    assert all(not state.devices for state in found if state.user_id not in online)
    assert await one.states([]) == []


async def test_a_name_that_is_no_text_is_refused(world: World, one: PresenceTable) -> None:
    with pytest.raises(InvalidAddress):
        await one.states(["alice", "a\ud800"])
    with pytest.raises(InvalidAddress):
        await one.leave("a\ud800", "laptop", "entry")


# --- announcements ----------------------------------------------------------------------------------------------------


async def lose_data(world: World) -> None:
    """As a server does that is started again without a file."""
    for key in await world.keys():
        await world.run(Command("DEL", f"{world.prefix}{key}"))


async def test_devices_are_announced_after_the_server_has_lost_its_data(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    answers = [await entered(one, "alice", world.device(name), privacy=HIDDEN) for name in ("laptop", "phone")]
    last = answers[-1].state
    announced = [AnnouncedDevice("alice", device, HIDDEN) for device in last.devices]
    await lose_data(world)
    (offline,) = await two.states(["alice"])
    assert (offline.devices, offline.version > last.version) == ((), True)
    async with world.listening("alice") as heard:
        again = await one.announce(announced)
        for answer in again:
            assert isinstance(answer, Entered)
            assert await heard.state() == answer.state
    assert [answer.order for answer in again if isinstance(answer, Entered)] == [each.order for each in last.devices]
    (state,) = await two.states(["alice"])
    assert state == last._replace(version=state.version)
    assert state.version > offline.version
    assert (await entered(two, "alice", world.device("tablet"))).order > last.devices[0].order


async def test_an_announcement_that_changes_nothing_is_not_published(world: World, one: PresenceTable) -> None:
    answer = await entered(one, "alice", world.device())
    announced = [AnnouncedDevice("alice", answer.state.devices[0], DEFAULT_PRIVACY)]
    async with world.listening("alice") as heard:
        assert await one.announce(announced) == [answer._replace(came=False)]
        later = await entered(one, "alice", world.device("phone"))
        assert await heard.state() == later.state


async def test_a_device_that_leaves_during_an_announcement_stays_away(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    names = [f"user{number}" for number in range(presence_table._ANNOUNCED + 10)]
    answers = await asyncio.gather(*(entered(one, name, world.device()) for name in names))
    here = {answer.state.user_id: answer.state.devices[0] for answer in answers}
    one.node_id = "n3"
    first, last = names[0], names[-1]

    def announced() -> Iterator[AnnouncedDevice]:
        for name in names:
            if name in here:
                yield AnnouncedDevice(name, here[name], DEFAULT_PRIVACY)

    announcing = asyncio.ensure_future(one.announce(announced()))
    await asyncio.sleep(0)  # the first portion is on its way
    await asyncio.gather(*(one.leave(name, "laptop", here.pop(name).entry) for name in (first, last)))
    assert len(await announcing) == len(names) - 1
    nodes = {state.user_id: [each.node for each in state.devices] for state in await two.states(names)}
    assert nodes == {name: ["n3"] * (name in here) for name in names}


async def test_a_late_announcement_replaces_nothing_newer(world: World, one: PresenceTable, two: PresenceTable) -> None:
    old = (await entered(one, "alice", world.device())).state.devices[0]
    kept = (await entered(one, "alice", world.device("phone"))).state.devices[0]
    newer = await entered(two, "alice", world.device())
    announced = [AnnouncedDevice("alice", device, DEFAULT_PRIVACY) for device in (old, kept)]
    assert await one.announce(announced) == [REPLACED, Entered(kept.order, newer.state)]
    assert await two.states(["alice"]) == [newer.state]
    # The same order with another entry: who came first stays.
    forged = newer.state.devices[0]._replace(entry="another")
    assert await one.announce([AnnouncedDevice("alice", forged, DEFAULT_PRIVACY)]) == [REPLACED]


async def test_what_is_announced_may_be_taken_meanwhile(world: World, one: PresenceTable, two: PresenceTable) -> None:
    mine = (await entered(one, "alice", world.device())).state.devices[0]
    await lose_data(world)
    theirs = await entered(two, "alice", world.device("phone", proves=False))
    assert await one.announce([AnnouncedDevice("alice", mine, DEFAULT_PRIVACY)]) == [TAKEN]
    assert await one.states(["alice"]) == [theirs.state]


async def test_a_node_that_was_lost_announces_its_devices_under_a_new_id(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    names = [f"user{number}" for number in range(60)]
    entries = [(await entered(one, name, world.device())).state.devices[0] for name in names]
    announced = [AnnouncedDevice(name, device, DEFAULT_PRIVACY) for name, device in zip(names, entries, strict=True)]
    assert await two.reap("n1") == 60
    with pytest.raises(NodeLost, match="n1"):
        await one.announce(announced)
    with pytest.raises(NodeLost):
        await enter(one, "user1", world.device())
    one.node_id = "n3"
    assert all(isinstance(answer, Entered) for answer in await one.announce(announced))
    expected = [device._replace(node="n3") for device in entries]
    assert [state.devices[0] for state in await two.states(names)] == expected
    assert await two.reap("n1") == 0
    assert [state.devices[0] for state in await two.states(names)] == expected


async def test_devices_that_are_announced_under_a_new_id_do_not_go_with_the_old_one(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    answer = await entered(one, "alice", world.device())
    left = await entered(one, "bob", world.device())
    one.node_id = "n3"
    await one.announce([AnnouncedDevice("alice", answer.state.devices[0], DEFAULT_PRIVACY)])
    async with world.listening("bob") as heard:
        assert await two.reap("n1") == 1
        gone = await heard.state()
        assert gone == UserState("bob", gone.version)
        assert gone.version > left.state.version
    alice, bob = await two.states(["alice", "bob"])
    assert [device.node for device in alice.devices] == ["n3"]
    assert bob.devices == ()


async def test_a_node_drops_the_devices_of_its_own_that_it_does_not_know(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    names = [f"user{number}" for number in range(100)]
    known = await asyncio.gather(*(entered(one, name, world.device()) for name in names))
    gone = await asyncio.gather(*(entered(one, name, world.device("phone")) for name in names[::2]))
    others = await asyncio.gather(*(entered(two, name, world.device("tablet")) for name in names[::3]))
    entries = {(answer.state.user_id, answer.state.devices[-1].entry) for answer in known}
    async with world.listening("user0") as heard:
        assert await one.drop_unknown(lambda user_id, entry: (user_id, entry) in entries) == 50
        assert {each.device for each in (await heard.state()).devices} == {"laptop", "tablet"}
    assert await one.drop_unknown(lambda user_id, entry: (user_id, entry) in entries) == 0
    left = [each.entry for state in await two.states(names) for each in state.devices]
    assert sorted(left) == sorted(
        [answer.state.devices[-1].entry for answer in known] + [answer.state.devices[0].entry for answer in others]
    )
    assert gone[0].state.devices[0].entry not in left


# --- nodes that are lost ----------------------------------------------------------------------------------------------


async def test_all_devices_of_a_lost_node_are_removed_and_no_others(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    both, ones = neighbours(2, "alice")
    await entered(one, both, world.device("laptop"))
    await entered(one, both, world.device("phone"))
    kept = await entered(two, both, world.device("tablet"))
    await entered(one, ones, world.device())
    async with world.listening(both) as heard:
        assert await two.reap("n1") == 2
        states = {state.user_id: state for state in (await heard.state(), await heard.state())}
        assert states[both].devices == kept.state.devices[:1]
        assert states[ones].devices == ()
        assert await two.reap("n1") == 0
        later = await entered(two, ones, world.device())
        assert await heard.state() == later.state  # and nothing before
    assert (await two.states([both]))[0] == states[both]
    assert await two.leave(both, "laptop", "entry") is None


async def test_a_bucket_with_more_users_than_a_portion_is_emptied(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    names = neighbours(3 * presence_table._REAPED_USERS + 1)
    await asyncio.gather(*(entered(one, name, world.device()) for name in names))
    assert await two.reap("n1") == len(names)
    assert not any(state.devices for state in await two.states(names))
    keys = await world.keys()
    assert not any(":u:" in key for key in keys)
    # The mark of the lost node ends by itself.
    (expires,) = await world.run(Command("TTL", two.names.node(bucket_of("alice"), "n1")))
    assert 0 < expires <= presence_table.REMEMBERED


async def test_nodes_that_remove_a_lost_one_at_once_remove_each_user_once(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    names = [f"user{number}" for number in range(300)]
    await asyncio.gather(*(entered(one, name, world.device()) for name in names))
    kept = await asyncio.gather(*(entered(two, name, world.device("phone")) for name in names[::2]))
    three = world.node("n3")
    removed = await asyncio.gather(*(table.reap("n1") for table in (two, three)))
    assert sum(removed) == 300
    states = await two.states(names)
    assert [state.devices for state in states[::2]] == [answer.state.devices[:1] for answer in kept]
    assert not any(state.devices for state in states[1::2])


async def test_devices_that_come_back_elsewhere_while_their_node_is_removed_stay(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    names = [f"user{number}" for number in range(300)]
    await asyncio.gather(*(entered(one, name, world.device()) for name in names))
    three = world.node("n3")
    reaping = asyncio.ensure_future(three.reap("n1"))
    answers = await asyncio.gather(*(entered(two, name, world.device()) for name in names))
    await reaping
    states = await two.states(names)
    assert [state.devices for state in states] == [answer.state.devices for answer in answers]


# --- races ------------------------------------------------------------------------------------------------------------


async def test_two_nodes_that_enter_a_device_at_once_agree_on_the_newer(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    for number in range(50):
        name = f"user{number}"
        async with world.listening(name) as heard:
            answers = await asyncio.gather(*(entered(table, name, world.device()) for table in (one, two)))
            first, second = sorted(answers, key=lambda answer: answer.order)
            assert [await heard.state(), await heard.state()] == [first.state, second.state]
        assert first.order < second.order
        assert len(second.state.devices) == 1
        assert await one.states([name]) == await two.states([name]) == [second.state]
        # The loser hears of it late, and its word removes nothing.
        assert await one.leave(name, "laptop", first.state.devices[0].entry) is None


async def test_of_two_keys_without_a_proof_that_come_at_once_one_gets_the_name(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    for number in range(50):
        name = f"user{number}"
        keys = {"laptop": KEY_A, "phone": KEY_B}
        both = [world.device(device, key, proves=False) for device, key in keys.items()]
        devices = zip((one, two), both, strict=True)
        answers = await asyncio.gather(*(enter(table, name, device) for table, device in devices))
        assert answers.count(TAKEN) == 1
        (state,) = await one.states([name])
        assert [answer.state for answer in answers if isinstance(answer, Entered)] == [state]


async def test_devices_that_come_at_once_are_no_more_than_allowed(
    world: World, one: PresenceTable, two: PresenceTable
) -> None:
    answers = await asyncio.gather(
        *(enter((one, two)[number % 2], "alice", world.device(f"device{number}"), most=3) for number in range(20))
    )
    assert answers.count(FULL) == 17
    (state,) = await one.states(["alice"])
    assert len(state.devices) == 3


@pytest.mark.parametrize("known", [True, False])
async def test_changes_take_effect_in_the_order_of_the_calls(world: World, one: PresenceTable, known: bool) -> None:
    device = world.device()
    if not known:
        for server in world.place.masters:
            server.say("script", "flush")
        await entered(one, "bob", world.device())  # so that a part is known
    calls = [
        asyncio.ensure_future(call)
        for call in (
            enter(one, "alice", device),
            *(one.change("alice", "laptop", device.entry, session=f"session{number}") for number in range(100)),
            one.leave("alice", "laptop", device.entry),
        )
    ]
    answers = await asyncio.gather(*calls)
    changed = [answer for answer in answers[1:-1] if isinstance(answer, UserState)]
    assert [state.devices[0].session for state in changed] == [f"session{number}" for number in range(100)]
    assert (await one.states(["alice"]))[0].devices == ()


# --- what is damaged --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"", b"garbage", b"\xc1", b"\x92\x01", b"\x92\x01\x90"])
async def test_an_entry_that_is_damaged_is_an_error_for_its_user_alone(
    world: World, one: PresenceTable, two: PresenceTable, value: bytes
) -> None:
    damaged, other = neighbours(2)
    for name in (damaged, other):
        await entered(one, name, world.device())
    await world.run(Command("HSET", one.names.user(damaged), ("dphone", value)))
    for call in (
        one.states([damaged]),
        enter(one, damaged, world.device()),
        one.leave(damaged, "laptop", "entry"),
        one.change_privacy(damaged, HIDDEN),
    ):
        with pytest.raises(ClusterProtocolError):
            await call
    assert (await one.states([other]))[0].devices
    await two.reap("n1")
    assert not (await one.states([other]))[0].devices
