"""Servers that act as one over a Redis Cluster, in processes of their own, and a master of it that dies."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from aldis.identity.keys import Identity
from support.cluster_servers import OFFER, person, until
from support.raw_websocket import RawClient
from support.redis_server import Cluster
from support.registrations import register
from support.server_process import ServerProcess

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
# So many that each master has some of them.
NAMES = [f"user{number}" for number in range(24)]
FAILS = "the Redis of the cluster fails"


def events(server: ServerProcess) -> list[str]:
    return [line["event"] for line in server.lines()]


async def test_users_of_two_servers_stay_connected_when_a_master_dies_and_its_replica_takes_over(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path / "redis", *DURABLE, replicas=True) as redis:
        await asyncio.to_thread(redis.until_whole)
        one, other = (ServerProcess(tmp_path / name, redis=redis.url, admin_port=0) for name in ("one", "other"))
        async with one, other, AsyncExitStack() as stack:

            async def there(server: ServerProcess, name: str) -> RawClient:
                return await stack.enter_async_context(await person(server, name))

            callers = [await there(one, f"caller-{name}") for name in NAMES]
            called = [await there(other, name) for name in NAMES]
            watcher = await there(one, "watcher")
            watcher.send({"type": "watch", "userIds": NAMES, "id": 1})
            told = [await watcher.receive() for _ in NAMES]
            assert {each["userId"] for each in told if each["online"]} == set(NAMES)
            assert (await watcher.receive())["type"] == "ack"

            async def all_are_called() -> None:
                for number, (caller, callee, name) in enumerate(zip(callers, called, NAMES, strict=True)):
                    assert (await caller.request({**OFFER, "to": name, "id": number}))["type"] == "ack"
                    assert (await callee.receive())["from"] == f"caller-{name}"

            await all_are_called()
            outages = {server: events(server).count(FAILS) for server in (one, other)}
            await asyncio.to_thread(redis.lose_a_master)
            # As the log has it: the outage itself may be over before anybody looks.
            for server, before in outages.items():
                await server.wait_for_line(FAILS, number=before + 1)
            for server in (one, other):
                await until(server, "aldis_cluster_up", 1)
            await all_are_called()
            for number in range(12):
                assert await register(one, f"new-{number}", Identity.generate()) == "registered"
            await called[0].leave()
            gone = await watcher.receive()
            assert (gone["type"], gone["userId"], gone["online"]) == ("presence", NAMES[0], False)
            await stack.aclose()
            for server in (one, other):
                assert await server.stop() == 0
                assert "Traceback" not in server.log_text()
