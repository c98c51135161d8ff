"""The connection to Redis on the event loop of the server (aldis.backends.redis_client)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError  # noqa: A004 - the library's own

from aldis.backends import redis_client
from aldis.backends.redis_client import ANSWER_SECONDS, Command, RedisServers
from aldis.backends.redis_url import RedisUrl
from support.fake_sentinel import DOWN, KNOWS, SERVICE, FakeSentinel, always
from support.patience import PATIENCE
from support.ports import free_port
from support.redis_server import Cluster, RedisServer, Sentinels

CALLS: dict[str, Callable[[RedisServers], Awaitable[Any]]] = {
    "run": lambda servers: servers.run([Command("GET", "x")]),
    "of_each": lambda servers: servers.of_each("PING"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_connection_that_ends_just_before_it_is_used_is_a_lost_one(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop raises a RuntimeError for a closed transport, which redis-py passes on."""
    ends = True

    async def ends_now(connection: Any) -> bool:
        if ends:
            connection._writer.transport.abort()
            await asyncio.sleep(0)
        return False

    monkeypatch.setattr(AbstractConnection, "can_read", ends_now)

    async def both(url: str) -> None:
        nonlocal ends
        servers = RedisServers(RedisUrl.parse(url))
        try:
            with pytest.raises(ConnectionError, match="has ended") as raised:
                await CALLS[call](servers)
            assert "cannot be reached" in (servers.in_words(raised.value) or "")
            ends = False
            await CALLS[call](servers)
        finally:
            await servers.close()

    with RedisServer(tmp_path) as redis, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both(redis.url()))


def with_sentinels(folder: Path, follow: Callable[[Sentinels], Coroutine[Any, Any, None]]) -> None:
    """Run this with a master and a replica that has its data, on the event loop of the server."""
    with Sentinels(folder) as sentinels:
        while not sentinels.has_replica():
            pass
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(follow(sentinels), PATIENCE))


def test_a_master_that_was_replaced_and_answers_on_gets_no_more_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Sentinel lets it be for ten seconds."""
    monkeypatch.setattr(redis_client, "FOLLOW_SECONDS", 0.0)

    async def follow(sentinels: Sentinels) -> None:
        servers = RedisServers(RedisUrl.parse(sentinels.url))
        try:
            await servers.run([Command("SET", "x", ("old",))])
            while sentinels.masters_port() == sentinels.master.port:
                sentinels.fail_over()
            while sentinels.replica.say("get", "x") != "new":
                await servers.run([Command("SET", "x", ("new",))])
            assert "role:master" in sentinels.master.say("info", "replication")
        finally:
            await servers.close()

    with_sentinels(tmp_path, follow)


def test_no_call_gets_a_connection_to_a_former_master_that_is_being_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closes = AbstractConnection.disconnect
    calls: list[asyncio.Task[Any]] = []

    async def follow(sentinels: Sentinels) -> None:
        servers = RedisServers(RedisUrl.parse(sentinels.url))

        async def call_first(connection: Any, *words: Any, **more: Any) -> None:
            if not calls:
                calls.append(asyncio.create_task(servers.run([Command("SET", "x", ("new",))])))
                await calls[0]
            await closes(connection, *words, **more)

        try:
            await servers.run([Command("SET", "x", ("old",))])
            while sentinels.masters_port() == sentinels.master.port:
                sentinels.fail_over()
            monkeypatch.setattr(AbstractConnection, "disconnect", call_first)
            # A Sentinel says it here some moments later.
            while await servers.masters() == [("127.0.0.1", sentinels.master.port)]:
                pass
            assert await calls[0] == [True]
            assert sentinels.replica.say("get", "x") == "new"
        finally:
            await servers.close()

    with_sentinels(tmp_path, follow)


@asynccontextmanager
async def behind(*sentinels: FakeSentinel) -> AsyncIterator[RedisServers]:
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    servers = RedisServers(RedisUrl.parse(f"redis+sentinel://{hosts}/{SERVICE}"))
    try:
        async with asyncio.timeout(PATIENCE):
            yield servers
    finally:
        await servers.close()


async def test_sentinels_that_cannot_be_asked_are_told_in_words_and_not_as_objects_of_a_library() -> None:
    """redis-py shows each client with its pool, its connection and all of its settings."""
    gone = free_port()
    url = f"redis+sentinel://user:pass-word@127.0.0.1:{gone},127.0.0.1:{gone}/{SERVICE}"
    servers = RedisServers(RedisUrl.parse(url))
    try:
        with pytest.raises(ConnectionError) as raised:
            await servers.masters()
    finally:
        await servers.close()
    told = servers.in_words(raised.value)
    assert told is not None
    assert "cannot be reached (No master found for 'names' : a Sentinel - " in told
    assert str(gone) in told
    assert not any(part in told for part in ("<", ">", "pass-word"))


async def test_every_sentinel_is_asked_for_the_master_also_when_another_call_has_found_one_that_knows_it() -> None:
    """After a failover the first of them knows it a moment before the others."""
    found, questions = asyncio.Event(), 0

    async def late_to_the_second() -> str:
        nonlocal questions
        questions += 1
        if questions == 2:
            await found.wait()
        return DOWN

    async with (
        FakeSentinel(1, late_to_the_second) as late,
        FakeSentinel(2, always(KNOWS)) as knows,
        FakeSentinel(1, always(DOWN)) as other,
        behind(late, knows, other) as servers,
    ):
        first, second = (asyncio.create_task(servers.masters()) for _ in range(2))
        assert await first == [("127.0.0.1", 2)]
        found.set()
        assert await second == [("127.0.0.1", 2)]


async def test_no_sentinel_is_forgotten_when_several_calls_ask_for_the_master_at_once() -> None:
    both, questions = asyncio.Event(), 0

    async def to_both_at_once() -> str:
        nonlocal questions
        questions += 1
        if questions == 2:
            both.set()
        await both.wait()
        return KNOWS

    async with (
        FakeSentinel(3, always(DOWN)) as down,
        FakeSentinel(2, to_both_at_once) as knows,
        FakeSentinel(3, always(DOWN)) as other,
        behind(down, knows, other) as servers,
    ):
        assert await asyncio.gather(servers.masters(), servers.masters()) == [[("127.0.0.1", 2)]] * 2
        down.says, knows.says = always(KNOWS), always(DOWN)
        assert await servers.masters() == [("127.0.0.1", 3)]


def idle(client: Any) -> list[Any]:
    """Its connections that nobody uses."""
    return list(client.connection_pool._available_connections)


async def reset(server: RedisServer, *connections: Any) -> None:
    """Kill a server that has not read all that has come, and return when its connections have noticed: the system
    resets them, and closes them only if all was read."""
    server.pause()
    for connection in connections:
        connection._writer.write(b"PING\r\n")
        await connection._writer.drain()
    server.kill()
    for connection in connections:
        with pytest.raises(ConnectionResetError):
            await connection._reader.read()


def test_a_connection_that_was_reset_while_nobody_used_it_is_not_used_any_more(tmp_path: Path) -> None:
    """redis-py sees only one that was closed."""

    async def again(redis: RedisServer) -> None:
        servers = RedisServers(RedisUrl.parse(redis.url()))
        try:
            for call in CALLS.values():
                await call(servers)
                await reset(redis, *idle(servers._client))
                redis.start()
                await call(servers)
            await reset(redis, *idle(servers._client))
            redis.start()
            assert [key async for key in servers.keys("*")] == []
        finally:
            await servers.close()

    with RedisServer(tmp_path) as redis, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(again(redis), PATIENCE))


def test_a_connection_to_a_sentinel_that_was_reset_is_not_used_any_more() -> None:
    async def again() -> None:
        async with FakeSentinel(1, always(KNOWS)) as sentinel, behind(sentinel) as servers:
            await servers.masters()
            assert servers._sentinel is not None
            (connection,) = idle(servers._sentinel.sentinels[0])
            sentinel.reset()
            with pytest.raises(ConnectionResetError):
                await connection._reader.read()
            assert await servers.masters() == [("127.0.0.1", 1)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(again())


@pytest.mark.parametrize("ends", ["closed", "reset"])
def test_a_master_of_a_cluster_that_has_died_is_not_asked_any_more_once_it_is_replaced(
    tmp_path: Path, ends: str
) -> None:
    """Nobody has used the connection to it since: no call has to fail for that to be found out."""
    commands = [Command("GET", f"name{number}") for number in range(30)]

    async def through_a_failover(cluster: Cluster) -> None:
        servers = RedisServers(RedisUrl.parse(cluster.url))
        try:
            assert await servers.run(commands) == [None] * 30
            if ends == "reset":
                victim = cluster.masters()[0]
                client: Any = servers._client
                (node,) = [each for each in client.get_primaries() if each.port == victim.port]
                await reset(victim, *node._free)
                cluster.servers.remove(victim)
            else:
                cluster.lose_a_master()
            await asyncio.to_thread(cluster.until_replaced)
            assert await servers.run(commands) == [None] * 30
        finally:
            await servers.close()

    with (
        Cluster(tmp_path, "--save", "", replicas=True) as cluster,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        cluster.until_whole()
        runner.run(through_a_failover(cluster))


async def test_a_server_of_a_cluster_that_hangs_is_not_waited_for_when_others_know_the_masters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(tmp_path) as cluster:
        servers = RedisServers(RedisUrl.parse(cluster.url))
        await until_known(servers, 3)
        hung = cluster.servers[0]
        hung.pause()

        def hung_first(nodes: list[Any]) -> None:
            nodes.sort(key=lambda node: node.port != hung.port)

        monkeypatch.setattr("redis.asyncio.cluster.random.shuffle", hung_first)
        async with asyncio.timeout(ANSWER_SECONDS):
            with pytest.raises(TimeoutError):
                await servers.masters()
        monkeypatch.setattr("redis.asyncio.cluster.random.shuffle", list.reverse)
        assert len(await servers.masters()) == 3, "the next one is asked"
        hung.resume()
        await servers.close()


async def until_known(servers: RedisServers, count: int) -> None:
    """Wait until all masters of a new Cluster know each other."""
    async with asyncio.timeout(PATIENCE):
        while len(await servers.masters()) < count:
            pass


@pytest.mark.parametrize("moved", [True, False], ids=["has moved", "is being moved"])
async def test_a_command_whose_slot_moves_waits_for_the_disk_of_the_server_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    # As WAITAOF answers, which not every server here has; counted as EVAL.
    monkeypatch.setattr(redis_client, "_WAIT_FOR_DISK", ("EVAL", "return {1, 0}", 0), raising=False)
    with Cluster(tmp_path, "--save", "") as cluster:
        cluster.until_replaced()
        servers = RedisServers(RedisUrl.parse(cluster.url))
        command = Command("INCR", "{moved}")
        assert await servers.run([command], sync_ms=1000) == [1]
        slot = key_slot(b"moved")
        address = servers.master_of(b"{moved}")
        assert address is not None
        (source,) = [server for server in cluster.servers if server.port == address[1]]
        target = next(server for server in cluster.servers if server is not source)
        source.say("del", "{moved}")
        identity = target.say("cluster", "myid").strip()
        if moved:
            for server in (target, *cluster.servers):  # any may be asked where it is
                server.say("cluster", "setslot", str(slot), "node", identity)
        else:
            target.say("cluster", "setslot", str(slot), "importing", source.say("cluster", "myid").strip())
            source.say("cluster", "setslot", str(slot), "migrating", identity)
        assert await servers.run([command], sync_ms=1000) == [1]
        assert "cmdstat_eval:calls=1," in target.say("info", "commandstats")
        monkeypatch.setattr(redis_client, "_WAIT_FOR_DISK", ("EVAL", "return {0, 0}", 0))
        (late,) = await servers.run([command], sync_ms=1000)
        assert "not synced in time" in str(late)
        assert target.say("info", "commandstats").count("cmdstat_eval:calls=2,") == 1
        if not moved:
            target.kill()
            (failed,) = await servers.run([command], sync_ms=1000)
            assert "cannot be reached" in (servers.in_words(failed) or "")
        await servers.close()
