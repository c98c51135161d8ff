"""Servers that act as one, in processes of their own over a real Redis (`--redis`)."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aldis.cluster.lease import LEASE_SECONDS, RENEW_SECONDS
from aldis.errors import ConfigError
from aldis.hub.bans import Ban
from aldis.identity.keys import Identity
from aldis.protocol.codes import CloseCode
from aldis.server import cluster_member
from aldis.server.app import SignalingServer
from aldis.server.cluster_member import AWAY
from aldis.server.config import ServerConfig
from support.cluster_servers import OFFER, metric, operator, page, person, until
from support.patience import PATIENCE
from support.raw_websocket import RawClient
from support.redis_server import RedisServer
from support.registrations import register
from support.server_process import ServerProcess

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
# Ten seconds are promised; this machine may be busy for so long besides.
SLOW = 10.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", *DURABLE) as server:
        yield server


def node(tmp_path: Path, redis: RedisServer, name: str, **settings: Any) -> ServerProcess:
    return ServerProcess(tmp_path / name, redis=redis.url(), **settings)


async def found(client: RawClient, user_id: str) -> list[str]:
    reply = await client.request({"type": "discover", "userId": user_id, "id": 1})
    return [each["device"] for each in reply["devices"]]


async def test_users_of_two_servers_find_each_other_and_exchange_messages(tmp_path: Path, redis: RedisServer) -> None:
    one, other = node(tmp_path, redis, "one"), node(tmp_path, redis, "other", admin_port=0)
    async with one, other:
        assert (await other.wait_for_line("joined the cluster"))["others"]
        async with await person(one, "alice") as alice, await person(other, "bob") as bob:
            assert await found(alice, "bob") == ["main"]
            assert await found(bob, "alice") == ["main"]
            assert (await alice.request({**OFFER, "to": "bob", "id": 2}))["type"] == "ack"
            assert (await bob.receive())["from"] == "alice"
            for number in range(100):
                bob.send({"type": "ice-candidate", "to": "alice", "candidate": {"number": number}})
            got = [(await alice.receive())["candidate"]["number"] for _ in range(100)]
            assert got == list(range(100))
            await until(other, "aldis_cluster_servers", 2)
            assert await metric(other, "aldis_cluster_up") == 1
            assert await metric(other, "aldis_cluster_messages_queued") == 0
            for kind in ("read", "write"):
                assert await metric(other, f'aldis_cluster_redis_seconds_count{{kind="{kind}"}}') > 0
                assert await metric(other, f'aldis_cluster_redis_failures_total{{kind="{kind}"}}') == 0
                assert await metric(other, f'aldis_cluster_redis_waiting{{kind="{kind}"}}') == 0
        for server in (one, other):
            assert await server.stop() == 0
            server.assert_clean_log()


async def test_an_operator_sees_and_bans_the_users_of_all_servers_at_each(tmp_path: Path, redis: RedisServer) -> None:
    one, other = (node(tmp_path, redis, name, admin_port=0) for name in ("one", "other"))
    async with one, other:
        async with await person(one, "alice") as alice, await person(other, "bob") as bob:
            await until(one, "aldis_cluster_servers", 2)
            for server in (one, other):
                listed = await operator(server, "GET", "/api/v1/users")
                assert [user["user"] for user in listed["users"]] == ["alice", "bob"]
                assert listed["silentNodes"] == []
                figures = await operator(server, "GET", "/api/v1/statistics")
                assert (figures["users"], len(figures["nodes"])) == (2, 2)
            banned = await operator(one, "POST", "/api/v1/bans", {"kind": "user", "value": "bob", "reason": "spam"})
            assert banned["sessions"] == 1
            assert (await bob.wait_closed())[0] == CloseCode.BANNED
            assert await found(alice, "bob") == []
        for server in (one, other):
            assert await register(server, "bob", Identity.generate()) == "forbidden"
        third = node(tmp_path, redis, "third")
        async with third:
            assert await register(third, "bob", Identity.generate()) == "forbidden"
            assert await third.stop() == 0
        await operator(other, "DELETE", "/api/v1/bans?kind=user&value=bob")
        assert await register(one, "bob", Identity.generate()) == "key-mismatch"
        for server in (one, other):
            assert await server.stop() == 0
            server.assert_clean_log()


async def test_after_flushall_names_bans_and_presence_are_there_again(tmp_path: Path, redis: RedisServer) -> None:
    one, other = (node(tmp_path, redis, name, admin_port=0) for name in ("one", "other"))
    async with one, other, await person(one, "alice") as alice, await person(other, "bob"):
        await until(one, "aldis_cluster_servers", 2)
        await operator(one, "POST", "/api/v1/bans", {"kind": "user", "value": "eve", "reason": "spam"})
        redis.say("flushall")
        async with asyncio.timeout(PATIENCE):
            while redis.say("exists", "aldis:{u:alice}:binding", "aldis:{u:bob}:binding", "aldis:{all}:bans") != "3":
                pass
            while not await found(alice, "bob"):
                pass
        third = node(tmp_path, redis, "third")
        async with third:
            assert await register(third, "bob", Identity.generate()) == "key-mismatch"
            assert await register(third, "eve", Identity.generate()) == "forbidden"


async def test_a_server_with_other_settings_is_told_of_at_each(tmp_path: Path, redis: RedisServer) -> None:
    one = node(tmp_path, redis, "one", admin_port=0, relay=True)
    file = tmp_path / "aldis.toml"
    file.write_text("relay = false")
    other = node(tmp_path, redis, "other", admin_port=0, config=str(file))
    async with one, other:
        for server in (one, other):
            warned = await server.wait_for_line("the servers of this cluster need the same settings")
            assert warned["level"] == "warning"
            assert [line.split(":")[0] for line in warned["different"]] == ["relay is not the same at all servers"]
            problems = (await operator(server, "GET", "/api/v1/statistics"))["problems"]
            assert [problem.split(":")[0] for problem in problems] == ["relay is not the same at all servers"]
        file.write_text("")
        other.signal(signal.SIGHUP)
        await other.wait_for_line("all servers of this cluster have the same settings")
        assert (await operator(one, "GET", "/api/v1/statistics"))["problems"] == []
        for server in (one, other):
            assert await server.stop() == 0
            server.assert_clean_log()


async def test_a_name_belongs_to_one_key_at_all_servers(tmp_path: Path, redis: RedisServer) -> None:
    async with node(tmp_path, redis, "one") as one, node(tmp_path, redis, "other") as other:
        assert await register(one, "alice", Identity.generate()) == "registered"
        assert await register(other, "alice", Identity.generate()) == "key-mismatch"


async def test_the_newest_connection_of_a_device_replaces_that_of_another_server(
    tmp_path: Path, redis: RedisServer
) -> None:
    identity = Identity.generate()
    async with (
        node(tmp_path, redis, "one") as one,
        node(tmp_path, redis, "other") as other,
        await person(one, "alice", identity) as old,
        await person(other, "alice", identity) as new,
    ):
        assert (await old.wait_closed())[0] == CloseCode.REPLACED
        assert await found(new, "alice") == ["main"]


async def test_a_session_that_comes_back_at_another_server_is_refused_whole_and_its_client_is_there_anew(
    tmp_path: Path, redis: RedisServer
) -> None:
    identity = Identity.generate()
    async with (
        node(tmp_path, redis, "one") as one,
        node(tmp_path, redis, "other") as other,
        await person(one, "alice") as alice,
        await RawClient.connect(one.port) as lost,
    ):
        first = await lost.register("bob", identity)
        ticket = {"session": first["session"], "secret": first["secret"], "received": 0}
        lost.vanish()
        async with await RawClient.connect(other.port) as back:
            reply = await back.register("bob", identity, resume=ticket)
            assert reply["success"]
            assert not reply.get("resumed")
            assert reply["session"] != first["session"]
            assert await found(alice, "bob") == ["main"]
            assert (await alice.request({**OFFER, "to": "bob", "id": 2}))["type"] == "ack"
            assert (await back.receive())["from"] == "alice"
        # What is left of the old session ends without a word.
        async with await RawClient.connect(one.port) as again:
            reply = await again.register("bob", identity, resume=ticket)
            assert not reply.get("resumed")


async def test_the_users_of_a_killed_server_are_offline_within_ten_seconds_and_told_once(
    tmp_path: Path, redis: RedisServer
) -> None:
    async with (
        node(tmp_path, redis, "one") as one,
        node(tmp_path, redis, "other") as other,
        await person(one, "alice") as alice,
        await person(other, "bob"),
    ):
        state = await alice.request({"type": "watch", "userIds": ["bob"], "id": 1})
        assert state["online"]
        assert (await alice.receive())["type"] == "ack"
        other.signal(signal.SIGKILL)
        began = time.monotonic()
        news = await alice.receive()
        assert (news["userId"], news["online"]) == ("bob", False)
        assert time.monotonic() - began < LEASE_SECONDS + RENEW_SECONDS + SLOW
        assert await found(alice, "bob") == []  # and nothing came between


async def test_clients_of_a_server_that_stops_go_on_at_another_without_being_offline(
    tmp_path: Path, redis: RedisServer
) -> None:
    """The moment between is too short for the news, or the news says that they are online again."""
    identity = Identity.generate()
    one, other = node(tmp_path, redis, "one"), node(tmp_path, redis, "other")
    async with one, other, await person(one, "alice") as alice, await person(other, "bob", identity) as bob:
        await alice.request({"type": "watch", "userIds": ["bob"], "id": 1})
        assert (await alice.receive())["type"] == "ack"
        stopping = asyncio.create_task(other.stop())
        assert (await bob.wait_closed())[0] == CloseCode.GOING_AWAY
        async with await person(one, "bob", identity):
            assert await stopping == 0
            other.assert_clean_log()
            news = await alice.receive()
            while not news["online"]:
                news = await alice.receive()
            assert await found(alice, "bob") == ["main"]
            assert (await alice.request({**OFFER, "to": "bob", "id": 2}))["type"] == "ack"


async def test_without_redis_local_messages_go_on_and_others_are_refused_for_a_moment(
    tmp_path: Path, redis: RedisServer
) -> None:
    one, other = (node(tmp_path, redis, name, admin_port=0) for name in ("one", "other"))
    async with one, other:
        async with (
            await person(one, "alice") as alice,
            await person(one, "carol") as carol,
            await person(other, "bob") as bob,
        ):
            assert await found(alice, "bob") == ["main"]
            redis.kill()
            await until(one, "aldis_cluster_up", 0)
            status, text = await page(one, "/readyz")
            assert status == 200
            assert AWAY in text
            assert (await alice.request({**OFFER, "to": "carol", "id": 1}))["type"] == "ack"
            assert (await carol.receive())["type"] == "offer"
            refused = await alice.request({**OFFER, "to": "bob", "id": 2})
            assert refused["code"] == "over-capacity"
            assert refused["retryAfter"] > 0
            refused = await alice.request({"type": "discover", "userId": "somebody", "id": 3})
            assert refused["code"] == "over-capacity"
            failed = await one.wait_for_line("the Redis of the cluster fails")
            assert failed["level"] == "error"
            assert failed["reason"].startswith(f"Redis at 127.0.0.1:{redis.port} ")
            redis.start()
            await one.wait_for_line("the Redis of the cluster answers again")
            for server in (one, other):
                await until(server, "aldis_cluster_up", 1)
            assert await page(one, "/readyz") == (200, "ready\n")
            assert await found(alice, "bob") == ["main"]
            assert (await alice.request({**OFFER, "to": "bob", "id": 3}))["type"] == "ack"
            assert (await bob.receive())["type"] == "offer"
        assert await one.stop() == 0
        assert "Traceback" not in one.log_text()


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "hangs"])
async def test_names_that_a_server_knows_register_while_redis_is_away_and_new_ones_wait(
    tmp_path: Path, redis: RedisServer, hangs: bool
) -> None:
    bob, stranger = Identity.generate(), Identity.generate()
    one, other = (node(tmp_path, redis, name, admin_port=0) for name in ("one", "other"))
    async with one, other, await person(other, "alice") as alice, await person(one, "carol") as carol:
        assert await register(one, "bob", bob) == "registered"
        if hangs:
            redis.pause()
        else:
            redis.kill()
        await until(one, "aldis_cluster_up", 0)
        assert await register(one, "bob", stranger) == "internal", "the directory may know better"
        assert await register(one, "dave", Identity.generate()) == "internal"
        async with await person(one, "bob", bob) as bobs:
            assert (await bobs.request({**OFFER, "to": "carol", "id": 1}))["type"] == "ack"
            assert (await carol.receive())["from"] == "bob"
            # Where Redis hangs, what bob's registration writes fails only in the end.
            async with asyncio.timeout(PATIENCE):
                while not await metric(one, 'aldis_cluster_redis_failures_total{kind="write"}'):
                    pass
            if hangs:
                redis.resume()
            else:
                redis.start()
            for server in (one, other):
                await until(server, "aldis_cluster_up", 1)
            assert (await bobs.request({**OFFER, "to": "alice", "id": 2}))["type"] == "ack"
            assert (await alice.receive())["from"] == "bob"
            assert await found(alice, "bob") == ["main"]
            assert (await alice.request({**OFFER, "to": "bob", "id": 3}))["type"] == "ack"
            assert (await bobs.receive())["from"] == "alice"
        assert await register(other, "bob", stranger) == "key-mismatch"
        assert "Traceback" not in one.log_text()


async def test_a_server_does_not_start_without_the_redis_of_its_cluster(tmp_path: Path, redis: RedisServer) -> None:
    redis.kill()
    server = node(tmp_path, redis, "one")
    with pytest.raises(AssertionError, match=r"Redis at 127\.0\.0\.1:\d+ cannot be reached"):
        await server.start()
    assert await server.wait() != 0


async def test_a_ban_that_was_over_by_a_clock_that_was_ahead_is_known_again_when_it_is_right(
    tmp_path: Path, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServerConfig(port=0, admin_port=None, data=str(tmp_path), redis=redis.url())
    async with SignalingServer(config) as server:
        member, bans = server.member, server.hub.bans
        assert member is not None
        await member.node.operator.ban(Ban("user", "mallory", until=time.time() + 3600))
        member.tick()
        bans.expire(time.time() + 7200)  # an operator has looked at them meanwhile
        assert not bans
        monkeypatch.setattr(cluster_member, "time", lambda: time.time() - 7200)
        async with asyncio.timeout(PATIENCE):
            while not bans:  # noqa: ASYNC110 - Redis is another process
                await asyncio.sleep(0)
        assert [ban.value for ban in bans] == ["mallory"]


async def test_a_directory_of_one_machine_is_refused_in_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a file of one machine") as caught:
        ServerConfig(redis="redis://127.0.0.1:1", directory=str(tmp_path / "names"))
    assert caught.value.setting == "directory"


async def test_the_rights_in_the_guide_are_enough_and_the_password_is_in_no_message(
    tmp_path: Path, redis: RedisServer
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
    line = next(line for line in guide.splitlines() if line.startswith("    user aldis "))
    rights = line.replace("PASSWORD", "s3cret").replace(" +waitaof", "").split()[1:]
    redis.say("acl", "setuser", *rights)
    one, other = (
        ServerProcess(tmp_path / name, redis=redis.url("aldis:s3cret@"), admin_port=0) for name in ("one", "other")
    )
    async with one, other:
        assert (await one.wait_for_line("serving"))["redis"] == redis.url()
        async with await person(one, "alice") as alice, await person(other, "bob") as bob:
            assert await found(alice, "bob") == ["main"]
            assert (await alice.request({**OFFER, "to": "bob", "id": 2}))["type"] == "ack"
            assert (await bob.receive())["type"] == "offer"
            await until(one, "aldis_cluster_up", 1)
        for server in (one, other):
            assert await server.stop() == 0
            server.assert_clean_log()
            assert "s3cret" not in server.log_text()
    with pytest.raises(ConfigError) as caught:
        ServerConfig(redis="redis://:s3cret@127.0.0.1:0")
    assert caught.value.setting == "redis"
    assert "s3cret" not in str(caught.value)


async def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aldis.backends.redis_client", None)
    with pytest.raises(ConfigError, match=r"redis: .*pip install 'aldis\[redis\]'"):
        SignalingServer(ServerConfig(port=0, redis="redis://127.0.0.1:1"))
