"""What an operator or a machine does to a Redis that goes on: it loses its data, or refuses what it is asked.

While it refuses, a server is killed, whose clients go to others. Each event looks at the counters of Redis: one that
refused nothing has shown nothing.
"""

from __future__ import annotations

import asyncio
import random
import signal
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.world import LOGIN, Node, World

if TYPE_CHECKING:
    from support.redis_server import RedisServer

REFUSING_SECONDS: Final = 10.0
_SAVED_SECONDS: Final = 30.0
_FILE: Final = "dump.rdb"
# Redis 7.0 says ERR of a command in a script.
_NO_RIGHT: Final = ("NOPERM", "ERR")


async def flush(world: World, chance: random.Random) -> str:
    """Names, keys, bans and places are gone at once. In a Cluster those of one master, as `redis-cli` does it."""
    redis = chance.choice(await asyncio.to_thread(world.masters))
    await _say(redis, "flushall")
    return "all data of Redis was deleted" if world.cluster is None else "all data of a master was deleted"


async def out_of_memory(world: World, chance: random.Random) -> str:
    """With a limit, and nothing that may be thrown away. In a Cluster, of one master."""
    redis = chance.choice(await asyncio.to_thread(world.masters))
    before = await _refusals(redis, "OOM")
    await _say(redis, "config", "set", "maxmemory-policy", "noeviction", "maxmemory", "1")
    node = await _last(world, chance)
    await _say(redis, "config", "set", "maxmemory", "0")
    await node.start()
    refused = await _refusals(redis, "OOM") - before
    assert refused, "Redis has refused nothing"
    return f"Redis was out of memory for {REFUSING_SECONDS:.0f} s, and refused {refused} commands"


async def broken_disk(world: World, chance: random.Random) -> str:
    """It cannot write its snapshot, and so takes no changes (MISCONF). In a Cluster, one master.

    Such a Redis answers no PING either: a Sentinel replaces it.
    """
    redis = chance.choice(await asyncio.to_thread(world.masters))
    before = await _refusals(redis, "MISCONF")
    obstacle = redis.folder / _FILE
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()  # a file cannot take the place of a folder
    await _say(redis, "config", "set", "save", "3600 1")
    await _save(redis, "err")
    node = await _last(world, chance)
    obstacle.rmdir()
    await _save(redis, "ok")
    await node.start()
    refused = await _refusals(redis, "MISCONF") - before
    assert refused, "Redis has refused nothing"
    return f"the disk of Redis was broken for {REFUSING_SECONDS:.0f} s, and it refused {refused} commands"


async def no_rights(world: World, chance: random.Random) -> str:
    """The user of the servers may not write, by a mistake in the ACL of all."""
    servers = world.redis_servers
    before = sum([await _refusals(redis, *_NO_RIGHT) for redis in servers])
    for redis in servers:
        await _say(redis, "acl", "setuser", LOGIN.user, "-@write")
    node = await _last(world, chance)
    for redis in servers:
        await _allow(redis)
    await node.start()
    refused = sum([await _refusals(redis, *_NO_RIGHT) for redis in servers]) - before
    assert refused, "Redis has refused nothing"
    return f"the servers were not allowed to write for {REFUSING_SECONDS:.0f} s, and {refused} commands were refused"


async def no_login(world: World, chance: random.Random) -> str:
    """The user of the servers is deleted, which ends their connections, and comes back."""
    servers = world.redis_servers
    before = sum([await _refusals(redis, "WRONGPASS") for redis in servers])
    for redis in servers:
        await _say(redis, "acl", "deluser", LOGIN.user)
    node = await _last(world, chance)
    for redis in servers:
        await _allow(redis)
    await node.start()
    refused = sum([await _refusals(redis, "WRONGPASS") for redis in servers]) - before
    assert refused, "Redis has refused nobody"
    return f"the servers had no login for {REFUSING_SECONDS:.0f} s; {refused} attempts"


async def _last(world: World, chance: random.Random) -> Node:
    """So long it lasts. In the middle a server is killed, so that its clients register at others; start it again."""
    await asyncio.sleep(REFUSING_SECONDS / 2)
    node = chance.choice(world.nodes)
    node.signal(signal.SIGKILL)
    await node.server.wait()
    await asyncio.sleep(REFUSING_SECONDS / 2)
    return node


async def _allow(redis: RedisServer) -> None:
    await _say(redis, "acl", "setuser", LOGIN.user, "reset", *LOGIN.rules)


async def _say(redis: RedisServer, *words: str) -> str:
    return await asyncio.to_thread(redis.say, *words)


async def _refusals(redis: RedisServer, *codes: str) -> int:
    lines = (await _say(redis, "info", "errorstats")).splitlines()
    counts = {line.partition(":")[0]: int(line.rpartition("=")[2]) for line in lines if "=" in line}
    return sum(counts.get(f"errorstat_{code}", 0) for code in codes)


async def _save(redis: RedisServer, outcome: str) -> None:
    """Have a snapshot written, with this outcome."""
    async with asyncio.timeout(_SAVED_SECONDS):
        while True:
            await _say(redis, "bgsave")
            while "rdb_bgsave_in_progress:1" in (told := await _say(redis, "info", "persistence")):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            if f"rdb_last_bgsave_status:{outcome}" in told:
                return
