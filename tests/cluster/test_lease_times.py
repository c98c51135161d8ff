"""The leases of nodes in real time, and where Redis ends or is another one than before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aldis.backends.redis_client import RedisServers
from aldis.backends.redis_url import RedisUrl
from aldis.cluster import lease as leases
from aldis.cluster.faults import ClusterUnavailable
from aldis.cluster.lease import NodeLease
from aldis.cluster.presence_table import AnnouncedDevice, PresenceTable
from aldis.hub.cluster import Entered
from aldis.protocol.privacy import DEFAULT_PRIVACY
from support.patience import PATIENCE
from support.presence import LeaseWords, Place, World, entered, redis_place
from support.redis_server import RedisServer, Sentinels


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[NodeLease, LeaseWords, RedisServers]]:
    servers, heard = RedisServers(RedisUrl.parse(url)), LeaseWords()
    lease = NodeLease(servers, heard)
    await lease.open()
    try:
        yield lease, heard, servers
    finally:
        await lease.close()
        await servers.close()


def kill(lease: NodeLease) -> None:
    """End it as a node that is killed: it gives nothing back."""
    assert lease._task is not None
    lease._closing = True
    lease._task.cancel()


async def test_a_lease_is_given_back_also_in_the_middle_of_a_renewal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.0)
    with RedisServer(tmp_path, "--save", "") as server:
        servers = RedisServers(RedisUrl.parse(server.url()))
        for turns in range(200):
            lease = NodeLease(servers, LeaseWords())
            await lease.open()
            for _ in range(turns % 20):
                await asyncio.sleep(0)
            await lease.close()
            await lease.forget(lease.node_id)
        assert server.say("exists", "aldis:nodes") == "0"
        await servers.close()


def test_a_node_that_is_killed_is_lost_within_ten_seconds() -> None:
    # Its last renewal, its lease, and the next renewal of each other node with the time for its answer.
    assert leases.LEASE_SECONDS + 2 * leases.RENEW_SECONDS <= 10


async def test_a_node_that_is_killed_is_lost_for_the_others_when_its_lease_ends(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--save", "") as server:
        async with opened(server.url()) as (one, ones, servers), opened(server.url()) as (_, twos, _):
            async with opened(server.url()) as (three, _, theirs):
                for heard in (ones, twos):
                    await heard.until(f"joined {three.node_id}")
                world = World(Place("single", server.url(), [server]))
                await entered(PresenceTable(theirs, three.node_id), "alice", world.device())
                kill(three)
                for heard in (ones, twos):
                    await heard.until(f"lost {three.node_id}")
                table = PresenceTable(servers, one.node_id)
                assert await table.reap(three.node_id) == 1
                assert (await table.states(["alice"]))[0].devices == ()
                await one.forget(three.node_id)
                assert one.healthy
            assert not any(word.startswith("moved") for word in ones.words + twos.words)


async def test_a_node_that_was_stopped_for_too_long_goes_on_under_a_new_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(tmp_path, "--save", "") as server:
        async with opened(server.url()) as (one, ones, _), opened(server.url()) as (two, twos, _):
            await ones.until(f"joined {two.node_id}")
            old = two.node_id
            server.say("zadd", "aldis:nodes", "0", old)  # as another node that notices
            await twos.until(f"lost {old}")
            assert twos.words[-2:] == [f"moved {old} {two.node_id}", f"lost {old}"]
            await ones.until(f"joined {two.node_id}")
            await one.forget(old)
            assert server.say("zscore", "aldis:nodes", old) == ""


async def test_a_restart_of_the_server_is_heard_and_costs_no_node_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        async with opened(server.url()) as (one, ones, _), opened(server.url()) as (_, twos, _):
            ids = {one.node_id}
            server.kill()
            with pytest.raises(ClusterUnavailable, match="cannot be reached"):
                await one.renew()
            assert not one.healthy
            server.start()
            for heard in (ones, twos):
                await heard.until("restarted")
                assert not any(word.startswith(("lost", "moved")) for word in heard.words)
            assert ids == {one.node_id}


async def test_a_restart_of_one_server_of_a_cluster_is_heard(tmp_path: Path) -> None:
    with redis_place("cluster", tmp_path, "--save", "") as place:
        async with opened(place.url) as (lease, heard, _):
            for server in place.masters:
                server.kill()
                server.start()
                await heard.until("restarted")
                if heard.words != ["restarted"]:  # it was the server with the leases
                    assert heard.words[0].startswith("moved")
                heard.words.clear()
            assert lease.healthy


async def test_a_server_of_a_cluster_whose_data_is_deleted_is_heard(tmp_path: Path) -> None:
    with redis_place("cluster", tmp_path, "--save", "") as place:
        async with opened(place.url) as (_, heard, _):
            for server in place.masters:
                server.say("flushall")
                await heard.until("restarted")
                if heard.words != ["restarted"]:  # it was the server with the leases
                    assert heard.words[0].startswith("moved")
                heard.words.clear()


async def test_a_node_hears_that_the_server_has_lost_its_data(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--save", "") as server:
        async with opened(server.url()) as (one, heard, servers):
            old = one.node_id
            table = PresenceTable(servers, old)
            device = World(Place("single", server.url(), [server])).device()
            answer = await entered(table, "alice", device)
            server.kill()
            server.start()
            await heard.until("restarted")
            assert heard.words == [f"moved {old} {one.node_id}", "restarted"]
            table.node_id = one.node_id
            (again,) = await table.announce([AnnouncedDevice("alice", answer.state.devices[0], DEFAULT_PRIVACY)])
            assert isinstance(again, Entered)
            assert again.order == answer.order


async def test_a_lease_that_cannot_be_given_back_ends_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_ANSWER_SECONDS", 0.2)
    with RedisServer(tmp_path, "--save", "") as server:
        async with opened(server.url()) as (lease, _, _):
            server.pause()
            async with asyncio.timeout(PATIENCE):
                await lease.close()
            server.resume()
        server.kill()
        with pytest.raises(ClusterUnavailable):
            await lease.open()


async def test_an_error_of_the_listener_is_told_and_the_lease_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(leases, "_RETRY_SECONDS", 0.1)
    bugs: asyncio.Queue[Exception] = asyncio.Queue()
    with RedisServer(tmp_path, "--save", "") as server:
        servers, heard = RedisServers(RedisUrl.parse(server.url())), LeaseWords()
        lease = NodeLease(servers, heard, bug=bugs.put_nowait)
        monkeypatch.setattr(heard, "joined", lambda node_id: 1 / 0)
        await lease.open()
        async with opened(server.url()) as (other, _, _):
            async with asyncio.timeout(PATIENCE):
                assert isinstance(await bugs.get(), ZeroDivisionError)
                while not lease.healthy:
                    await lease.renew()
            assert lease.others == {other.node_id}
        await lease.close()
        await servers.close()


async def test_what_a_failover_has_lost_is_announced_to_the_new_master(tmp_path: Path) -> None:
    with Sentinels(tmp_path, "--save", "") as sentinels:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(sentinels.has_replica):
                pass
        async with opened(sentinels.url) as (lease, heard, servers):
            table = PresenceTable(servers, lease.node_id)
            world = World(Place("sentinel", sentinels.url, [sentinels.master]))
            answers = [await entered(table, f"user{number}", world.device()) for number in range(20)]
            sentinels.master.pause()
            async with asyncio.timeout(PATIENCE):
                while not await asyncio.to_thread(lambda: sentinels.masters_port() == sentinels.replica.port):
                    pass
            sentinels.master.kill()
            await heard.until("restarted")
            table.node_id = lease.node_id
            # As if these changes had not reached it.
            sentinels.replica.say("flushdb")
            announced = [
                AnnouncedDevice(answer.state.user_id, answer.state.devices[0], DEFAULT_PRIVACY) for answer in answers
            ]
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        again = await table.announce(announced)
                        break
                    except ClusterUnavailable:
                        continue
            orders = [one.order for one in again if isinstance(one, Entered)]
            assert orders == [answer.order for answer in answers]
            states = await table.states([answer.state.user_id for answer in answers])
            for state, answer in zip(states, answers, strict=True):
                assert state.version > answer.state.version
