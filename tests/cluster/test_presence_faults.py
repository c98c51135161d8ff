"""The table of who is online, where Redis ends, stops answering, is full, or is another one than before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from aldis.backends import redis_lane
from aldis.backends.redis_client import RedisServers
from aldis.backends.redis_url import RedisUrl
from aldis.cluster import presence_table
from aldis.cluster.ban_table import BanTable
from aldis.cluster.faults import ClusterUnavailable
from aldis.cluster.lease import NodeLease
from aldis.cluster.presence_table import AnnouncedDevice, PresenceTable
from aldis.cluster.states import decode_row
from aldis.hub.bans import Ban
from aldis.hub.cluster import Entered, UserState
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy
from support.loop_turns import Turns
from support.patience import PATIENCE
from support.presence import KINDS, LeaseWords, Place, World, enter, entered, redis_place


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with redis_place(request.param, tmp_path, "--save", "") as place:
        yield place


single = pytest.mark.parametrize("place", ["single"], indirect=True)


@pytest.fixture
async def world(place: Place) -> AsyncIterator[World]:
    world = World(place)
    yield world
    await world.close()


async def test_each_call_fails_in_time_when_all_servers_are_killed(place: Place, world: World) -> None:
    table = world.node("n1")
    device = world.device()
    answer = await entered(table, "alice", device)
    names = [f"user{number}" for number in range(200)]
    calls = [asyncio.ensure_future(enter(table, name, world.device())) for name in names]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    for server in place.masters:
        server.kill()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, Entered | ClusterUnavailable) for one in ended)
    announced = [AnnouncedDevice("alice", answer.state.devices[0], DEFAULT_PRIVACY)] * 3
    async with asyncio.timeout(redis_lane.PATIENCE + PATIENCE / 2):
        failed = await asyncio.gather(
            enter(table, "bob", world.device()),
            table.announce(announced),
            table.leave("alice", "laptop", device.entry),
            table.change("alice", "laptop", device.entry, session="another"),
            table.change_privacy("alice", Privacy("hidden")),
            table.states(["alice", "bob"]),
            table.reap("n2"),
            return_exceptions=True,
        )
    assert all(isinstance(one, ClusterUnavailable) for one in failed), failed
    assert "cannot be reached" in str(failed[0]) or place.kind != "single"
    assert not table.healthy


@pytest.mark.parametrize("place", ["single", "cluster"], indirect=True)
async def test_devices_are_there_again_once_they_are_announced_to_a_server_without_data(
    place: Place, world: World
) -> None:
    table = world.node("n1")
    names = [f"user{number}" for number in range(50)]
    answers = [await entered(table, name, world.device()) for name in names]
    for server in place.masters:
        server.kill()
    for server in place.masters:
        server.start()
    announced = [
        AnnouncedDevice(name, answer.state.devices[0], DEFAULT_PRIVACY)
        for name, answer in zip(names, answers, strict=True)
    ]
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                again = await table.announce(announced)
                break
            except ClusterUnavailable:
                continue
    assert [one.order for one in again if isinstance(one, Entered)] == [answer.order for answer in answers]
    for state, answer in zip(await table.states(names), answers, strict=True):
        assert state.devices == answer.state.devices
        assert state.version > answer.state.version
    assert table.healthy


@single
async def test_a_server_that_does_not_answer_is_an_error_and_blocks_nobody(
    place: Place, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_lane, "PATIENCE", 0.2)
    (server,) = place.masters
    table = world.node("n1")
    device = world.device()
    await entered(table, "alice", device)
    server.pause()
    # More than one batch: those that wait fail with the first.
    names = [f"user{number}" for number in range(2 * redis_lane.MAX_KEYS)]
    failed = await asyncio.gather(
        table.states(names),
        table.change_privacy("alice", Privacy("hidden")),
        table.leave("alice", "laptop", device.entry),
        return_exceptions=True,
    )
    assert all(isinstance(one, ClusterUnavailable) for one in failed)
    assert "does not answer in time" in str(failed[0])
    assert not table.healthy
    server.resume()
    # Whether the call that failed took effect is not known; to repeat it does no harm.
    await table.leave("alice", "laptop", device.entry)
    assert (await table.states(["alice"]))[0].devices == ()
    assert table.healthy


@single
async def test_calls_beyond_the_limit_are_refused_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_lane, "MAX_WAITING", 2)
    monkeypatch.setattr(presence_table, "_LOOKED_UP", 1)
    table = world.node("n1")
    with pytest.raises(ClusterUnavailable, match="too slow"):
        await table.states(["alice", "bob", "carol"])
    calls = [table.change_privacy(name, Privacy("hidden")) for name in ("alice", "bob", "carol")]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert answers[:2] == [None, None]
    assert isinstance(answers[2], ClusterUnavailable)


@single
async def test_devices_leave_a_server_whose_memory_is_full(place: Place, world: World) -> None:
    (server,) = place.masters
    table, other = world.node("n1"), world.node("n2")
    device = world.device()
    await entered(table, "alice", device)
    await entered(table, "bob", world.device())
    server.say("config", "set", "maxmemory", "1")
    with pytest.raises(ClusterUnavailable, match="has no memory left"):
        await enter(table, "carol", world.device())
    assert (await table.states(["carol"]))[0].devices == ()
    assert await table.leave("alice", "laptop", device.entry) is not None
    assert await other.reap("n1") == 1
    assert not any(state.devices for state in await table.states(["alice", "bob"]))


@single
async def test_a_cancelled_call_leaves_the_others_alone(world: World) -> None:
    table: PresenceTable = world.node("n1")
    calls = [asyncio.ensure_future(enter(table, f"user{number}", world.device())) for number in range(10)]
    await asyncio.sleep(0)
    calls[3].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers.pop(3), asyncio.CancelledError)
    assert all(isinstance(answer, Entered) for answer in answers)


@single
async def test_a_user_of_redis_needs_no_more_than_what_is_said(place: Place, world: World) -> None:
    (server,) = place.masters
    rights = "~aldis:* &aldis:* +@read +@write +@scripting +@connection +info +time +publish +spublish"
    server.say("acl", "setuser", "aldis", "on", ">secret", *rights.split())
    servers = RedisServers(RedisUrl.parse(server.url("aldis:secret@")))
    heard = LeaseWords()
    lease = NodeLease(servers, heard)
    await lease.renew()
    table = PresenceTable(servers, lease.node_id)
    device = world.device()
    answer = await entered(table, "alice", device, privacy=Privacy("hidden"))
    assert await table.announce([AnnouncedDevice("alice", answer.state.devices[0], DEFAULT_PRIVACY)]) == [
        answer._replace(came=False)
    ]
    assert await table.states(["alice"]) == [answer.state]
    assert await table.change("alice", "laptop", device.entry, session="another")
    assert await table.change_privacy("alice", DEFAULT_PRIVACY)
    assert await table.drop_unknown(lambda user_id, entry: True) == 0
    assert await table.leave("alice", "laptop", device.entry)
    assert await table.reap(lease.node_id) == 0
    bans = BanTable(servers)
    assert await bans.change(Ban("user", "mallory", "", 5e9), lift=False, origin="n1", number=1)
    found = await bans.read()
    assert await bans.restore(found._replace(version=found.version + 1), found.version)
    await lease.close()
    await lease.forget(lease.node_id)
    assert lease._runs is not None
    assert server.say("acl", "log") == ""
    await servers.close()


@single
async def test_a_turn_of_the_loop_reads_few_users_with_long_lists(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, turns = world.node("n1"), Turns()
    names = [f"user{number}" for number in range(50)]
    for name in names:
        long = Privacy(contacts=frozenset(f"{name} {number}".ljust(44, "x") for number in range(1000)))
        await entered(table, name, world.device(), privacy=long)

    def reading(user_id: str, row: Sequence[bytes]) -> UserState:
        turns.happens()
        return decode_row(user_id, row)

    monkeypatch.setattr(presence_table, "decode_row", reading)
    async with turns:
        assert [state.user_id for state in await world.node("n2").states(names)] == names
    assert turns.busiest <= 3
