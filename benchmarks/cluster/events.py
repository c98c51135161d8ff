"""What happens to the servers of a cluster, to their Redis, and to the ways between them (`benchmarks.cluster.chaos`).

Each event takes as long as the trouble lasts, and says in words what it was.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from benchmarks.cluster.packets import no_answers, no_questions, some_lost
from benchmarks.cluster.refusals import broken_disk, flush, no_login, no_rights, out_of_memory
from benchmarks.cluster.workers import hang_up_twice, kill_worker
from benchmarks.cluster.world import Node, World

RESETS: Final = 5
CUTS: Final = 3
# Seconds that each piece of data is late on a slow way, and how long that lasts.
LATE: Final = 0.3
VERY_LATE: Final = 2.0
SLOW_SECONDS: Final = 15.0
NEW_MASTER_SECONDS: Final = 60.0

Event: TypeAlias = Callable[[World, random.Random], Awaitable[str]]


async def _kill(node: Node, away: float) -> str:
    node.signal(signal.SIGKILL)
    await node.server.wait()
    await asyncio.sleep(away)
    await node.start()
    return f"{node.name} was killed, and away for {away:.1f} s"


async def _stop(node: Node, seconds: float) -> str:
    node.signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    node.signal(signal.SIGCONT)
    return f"{node.name} stood still for {seconds:.1f} s"


async def _partition(node: Node, seconds: float) -> str:
    for gate in node.gates:
        gate.block()
    await asyncio.sleep(seconds)
    for gate in node.gates:
        gate.release()
    return f"{node.name} did not reach Redis for {seconds:.0f} s"


async def _reset(node: Node) -> str:
    for _ in range(RESETS):
        for gate in node.gates:
            gate.cut()
        await asyncio.sleep(1.0)
    return f"all connections of {node.name} to Redis were reset {RESETS} times"


async def kill_server(world: World, chance: random.Random) -> str:
    return await _kill(chance.choice(world.nodes), chance.uniform(0.5, 9.0))


async def stop_server(world: World, chance: random.Random) -> str:
    """As a virtual machine that is moved, or swaps: up to twice as long as a lease."""
    return await _stop(chance.choice(world.nodes), chance.uniform(2.0, 16.0))


async def freeze_server(world: World, chance: random.Random) -> str:
    """Its users are long gone to other servers when it goes on, and it does not know it."""
    return await _stop(chance.choice(world.nodes), chance.uniform(20.0, 40.0))


async def kill_master(world: World, chance: random.Random) -> str:
    """With a Sentinel or in a Cluster its replica follows it; else the same comes back with its files."""
    if world.cluster is not None:
        return await _kill_master_of_cluster(world, chance)
    if world.sentinels is None:
        world.redis.kill()
        await asyncio.sleep(5.0)
        await asyncio.to_thread(world.redis.start)
        return "Redis was killed, and away for 5 s"
    old = await asyncio.to_thread(world.new_master)
    old.kill()
    async with asyncio.timeout(NEW_MASTER_SECONDS):
        while (await asyncio.to_thread(world.new_master)).port == old.port:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.2)
    await asyncio.to_thread(old.start)
    return "the master was killed, and its replica took over"


async def _kill_master_of_cluster(world: World, chance: random.Random) -> str:
    cluster = world.cluster
    assert cluster is not None
    victim = await asyncio.to_thread(cluster.lose_a_master, chance.choice)
    struck = time.monotonic()
    await asyncio.to_thread(cluster.until_replaced)
    away = time.monotonic() - struck
    await asyncio.to_thread(cluster.bring_back, victim)
    return f"a master was killed, and its replica took over after {away:.1f} s"


async def short_partition(world: World, chance: random.Random) -> str:
    return await _partition(chance.choice(world.nodes), 5.0)


async def long_partition(world: World, chance: random.Random) -> str:
    return await _partition(chance.choice(world.nodes), 60.0)


async def reset(world: World, chance: random.Random) -> str:
    return await _reset(chance.choice(world.nodes))


async def _slow(node: Node, late: float) -> str:
    for gate in node.gates:
        gate.late = late
    await asyncio.sleep(SLOW_SECONDS)
    for gate in node.gates:
        gate.late = 0.0
    return f"all between {node.name} and Redis was {late} s late for {SLOW_SECONDS:.0f} s"


async def slow_redis(world: World, chance: random.Random) -> str:
    return await _slow(chance.choice(world.nodes), LATE)


async def very_slow_redis(world: World, chance: random.Random) -> str:
    """An answer takes 4 s: longer than the server waits for that of its lease, and not longer than a lease."""
    return await _slow(chance.choice(world.nodes), VERY_LATE)


async def pause_redis(world: World, chance: random.Random) -> str:
    """With a Sentinel or in a Cluster it is replaced meanwhile, and is a replica when it goes on."""
    if world.cluster is not None:
        redis = chance.choice(await asyncio.to_thread(world.cluster.masters))
    else:
        (redis,) = await asyncio.to_thread(world.masters)
    redis.pause()
    await asyncio.sleep(10.0)
    redis.resume()
    return "Redis stood still for 10 s" if world.cluster is None else "a master stood still for 10 s"


async def cut_clients(world: World, chance: random.Random) -> str:
    """Of each server in turn: its clients come back to the others."""
    for number in range(CUTS):
        await world.nodes[number % len(world.nodes)].cut_clients()
        await asyncio.sleep(1.0)
    return f"all connections to clients were cut, those of one server after the other, {CUTS} times"


async def rolling_restart(world: World, chance: random.Random) -> str:
    began = time.monotonic()
    for node in world.nodes:
        code = await node.server.stop()
        assert code == 0, f"{node.name} has ended with {code}"
        await node.start()
    return f"all servers were restarted, one after another, in {time.monotonic() - began:.1f} s"


async def two_at_once(world: World, chance: random.Random) -> str:
    """A server and Redis, or two servers, at overlapping times."""
    one, other = chance.sample(world.nodes, 2)
    first: Callable[[], Awaitable[str]] = chance.choice(
        [
            lambda: _kill(one, chance.uniform(0.5, 9.0)),
            lambda: _stop(one, chance.uniform(2.0, 16.0)),
            lambda: _partition(one, chance.uniform(5.0, 15.0)),
        ]
    )
    second: Callable[[], Awaitable[str]] = chance.choice(
        [
            lambda: kill_master(world, chance),
            lambda: pause_redis(world, chance),
            lambda: _reset(other),
            lambda: _kill(other, chance.uniform(0.5, 9.0)),
        ]
    )

    async def later() -> str:
        await asyncio.sleep(chance.uniform(0.0, 3.0))
        return await second()

    return " and ".join(await asyncio.gather(first(), later()))


EVENTS: Final[dict[str, Event]] = {
    "kill": kill_server,
    "stop": stop_server,
    "master": kill_master,
    "partition-5": short_partition,
    "partition-60": long_partition,
    "reset": reset,
    "slow": slow_redis,
    "pause": pause_redis,
    "clients": cut_clients,
    "rolling": rolling_restart,
    "two": two_at_once,
    "freeze": freeze_server,
    "flush": flush,
    "memory": out_of_memory,
    "disk": broken_disk,
    "rights": no_rights,
    "login": no_login,
    "slow-2": very_slow_redis,
    "no-answers": no_answers,
    "no-questions": no_questions,
    "loss": some_lost,
    "worker": kill_worker,
    "hang-up": hang_up_twice,
}
# Which need a network namespace.
OF_PACKETS: Final = frozenset({"no-answers", "no-questions", "loss"})
# Which need servers of several workers.
OF_WORKERS: Final = frozenset({"worker", "hang-up"})
