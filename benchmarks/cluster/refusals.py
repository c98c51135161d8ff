"""What an operator or a machine does to a Redis that goes on: it loses its data, or refuses what it is asked.

Each event looks at the counters of Redis: one that refused nothing has shown nothing.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from benchmarks.cluster.world import LOGIN, World

if TYPE_CHECKING:
    from support.redis_server import RedisServer

REFUSING_SECONDS: Final = 10.0
_SAVED_SECONDS: Final = 10.0
_FILE: Final = "dump.rdb"


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
    await asyncio.sleep(REFUSING_SECONDS)
    await _say(redis, "config", "set", "maxmemory", "0")
    refused = await _refusals(redis, "OOM") - before
    assert refused, "Redis has refused nothing"
    return f"Redis was out of memory for {REFUSING_SECONDS:.0f} s, and refused {refused} commands"


async def broken_disk(world: World, chance: random.Random) -> str:
    """It cannot write its snapshot, and so takes no changes (MISCONF). In a Cluster, one master.

    Such a Redis answers no PING either: a Sentinel replaces it.
    """
    redis = chance.choice(await asyncio.to_thread(world.masters))
    before = await _refusals(redis, "MISCONF")
    obstacle = redis.folder / "obstacle"
    obstacle.mkdir()  # a file cannot have the name of a folder
    await _say(redis, "config", "set", "save", "3600 1", "dbfilename", obstacle.name)
    await _save(redis, "err")
    await asyncio.sleep(REFUSING_SECONDS)
    await _say(redis, "config", "set", "dbfilename", _FILE)
    await _save(redis, "ok")
    obstacle.rmdir()
    refused = await _refusals(redis, "MISCONF") - before
    assert refused, "Redis has refused nothing"
    return f"the disk of Redis was broken for {REFUSING_SECONDS:.0f} s, and it refused {refused} commands"


async def no_rights(world: World, chance: random.Random) -> str:
    """The user of the servers may not write, by a mistake in the ACL of all."""
    servers = world.redis_servers
    before = sum([await _refusals(redis, "NOPERM") for redis in servers])
    for redis in servers:
        await _say(redis, "acl", "setuser", LOGIN.user, "-@write")
    await asyncio.sleep(REFUSING_SECONDS)
    for redis in servers:
        await _allow(redis)
    refused = sum([await _refusals(redis, "NOPERM") for redis in servers]) - before
    assert refused, "Redis has refused nothing"
    return f"the servers were not allowed to write for {REFUSING_SECONDS:.0f} s, and {refused} commands were refused"


async def no_login(world: World, chance: random.Random) -> str:
    """The user of the servers is deleted, which ends their connections, and comes back."""
    servers = world.redis_servers
    before = sum([await _refusals(redis, "WRONGPASS") for redis in servers])
    for redis in servers:
        await _say(redis, "acl", "deluser", LOGIN.user)
    await asyncio.sleep(REFUSING_SECONDS)
    for redis in servers:
        await _allow(redis)
    refused = sum([await _refusals(redis, "WRONGPASS") for redis in servers]) - before
    assert refused, "Redis has refused nobody"
    return f"the servers had no login for {REFUSING_SECONDS:.0f} s; {refused} attempts"


async def _allow(redis: RedisServer) -> None:
    await _say(redis, "acl", "setuser", LOGIN.user, "reset", *LOGIN.rules)


async def _say(redis: RedisServer, *words: str) -> str:
    return await asyncio.to_thread(redis.say, *words)


async def _refusals(redis: RedisServer, code: str) -> int:
    lines = (await _say(redis, "info", "errorstats")).splitlines()
    return sum(int(line.rpartition("=")[2]) for line in lines if line.startswith(f"errorstat_{code}:"))


async def _save(redis: RedisServer, outcome: str) -> None:
    """Have a snapshot written, with this outcome."""
    async with asyncio.timeout(_SAVED_SECONDS):
        while True:
            await _say(redis, "bgsave")
            told = await _say(redis, "info", "persistence")
            if "rdb_bgsave_in_progress:0" in told and f"rdb_last_bgsave_status:{outcome}" in told:
                return
            await asyncio.sleep(0.1)
