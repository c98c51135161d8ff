"""Packets that are lost between a server of a cluster and Redis: by rules of nftables for the ports of its gates.

It needs `nft` and the right to change rules: run the command in a network namespace (`tools/netns.sh`). The rules are
for those ports of `lo` alone, in a table of their own, which goes when the event ends.
"""

from __future__ import annotations

import asyncio
import random
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from shutil import which
from typing import Final

from benchmarks.cluster.world import Node, World

LOSS_PERCENT: Final = 20
LOSS_SECONDS: Final = 15.0
_TABLE: Final = "aldis_chaos"
# Of packets as they come in: one that is not sent at all is an error for its sender, and TCP knows of it.
_RULES: Final = f"""
table inet {_TABLE} {{
    chain lost {{
        type filter hook input priority 0;
        %s
    }}
}}"""


async def can_be_lost() -> bool:
    """Whether rules can be made; `chaos` leaves these events out otherwise, where none is named."""
    if which("nft") is None:
        return False
    try:
        await _nft(f"add table inet {_TABLE}\ndelete table inet {_TABLE}")
    except AssertionError:
        return False
    return True


async def no_answers(world: World, chance: random.Random) -> str:
    """The server is heard by Redis, and hears nothing."""
    node = chance.choice(world.nodes)
    await _lose(node, ["tcp sport {ports} drop"])
    return f"all packets from Redis to {node.name} were lost for {LOSS_SECONDS:.0f} s"


async def no_questions(world: World, chance: random.Random) -> str:
    """The server hears what others say, and is not heard."""
    node = chance.choice(world.nodes)
    await _lose(node, ["tcp dport {ports} drop"])
    return f"all packets from {node.name} to Redis were lost for {LOSS_SECONDS:.0f} s"


async def some_lost(world: World, chance: random.Random) -> str:
    """Some, both ways."""
    node = chance.choice(world.nodes)
    some = f"numgen random mod 100 < {LOSS_PERCENT} drop"
    await _lose(node, ["tcp sport {ports} " + some, "tcp dport {ports} " + some])
    return f"{LOSS_PERCENT} % of the packets between {node.name} and Redis were lost for {LOSS_SECONDS:.0f} s"


async def _lose(node: Node, rules: Sequence[str]) -> None:
    ports = "{" + ", ".join(str(gate.port) for gate in node.gates) + "}"
    await _nft(_RULES % "\n        ".join(f'iif "lo" {rule.replace("{ports}", ports)}' for rule in rules))
    try:
        await asyncio.sleep(LOSS_SECONDS)
    finally:
        await _nft(f"delete table inet {_TABLE}")


async def _nft(text: str) -> None:
    process = await asyncio.create_subprocess_exec("nft", "-f", "-", stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate(text.encode())
    assert process.returncode == 0, f"nft loses no packets (run this in tools/netns.sh): {said.decode()}"
