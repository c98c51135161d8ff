"""What happens to the workers of a server (`--workers`): one is killed, or all are replaced twice in a row."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import Final

from benchmarks.cluster.world import Node, World

_SERVES: Final = "a worker serves"
_NEW: Final = "all workers are new"
# Between two hang-ups: the second one comes while the settings are read, or the first new worker starts.
_SOON_SECONDS: Final = 0.1


async def kill_worker(world: World, chance: random.Random) -> str:
    """As for want of memory: the supervisor starts another one at once."""
    node = chance.choice(world.nodes)
    worker, pid = chance.choice(sorted(node.workers_now().items()))
    number = _count(node, _SERVES)
    os.kill(pid, signal.SIGKILL)
    await node.server.wait_for_line(_SERVES, number=number + 1)
    return f"worker {worker} of {node.name} was killed, and another one was started"


async def hang_up_twice(world: World, chance: random.Random) -> str:
    """The second one is done after the first."""
    node = chance.choice(world.nodes)
    number = _count(node, _NEW)
    node.server.signal(signal.SIGHUP)
    await asyncio.sleep(_SOON_SECONDS)
    node.server.signal(signal.SIGHUP)
    await node.server.wait_for_line(_NEW, number=number + 2)
    return f"{node.name} was told twice in {_SOON_SECONDS} s to replace its workers"


def _count(node: Node, event: str) -> int:
    return sum(line["event"] == event for line in node.server.lines())
