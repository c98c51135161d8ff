"""What the settings of a Redis or Valkey promise about the names in it, in words for the operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from aldis.backends.redis_client import RedisServers


@dataclass(frozen=True, slots=True)
class Durability:
    """`waits`: every server has WAITAOF and an append-only file. `loses`: why names must not be kept there."""

    waits: bool
    warnings: tuple[str, ...] = ()
    loses: str | None = None


async def look(servers: RedisServers) -> Durability:
    """Read the settings of every server that takes writes. Raises what redis-py raises."""
    where = servers.where
    try:
        persistence = await servers.of_each("INFO", "persistence")
        memory = await servers.of_each("INFO", "memory")
    except ResponseError as error:  # a NoPermissionError is one
        text = f"{where} does not say whether it keeps names when its machine fails (the command INFO: {error})"
        return Durability(waits=False, warnings=(text,))
    policies = {str(info.get("maxmemory_policy", "")) for info in memory}
    if evicting := next((policy for policy in policies if policy.startswith("allkeys-")), None):
        text = f"{where} removes names when its memory is full (maxmemory-policy {evicting}): set noeviction"
        return Durability(waits=False, loses=text)
    if not all(info.get("aof_enabled") for info in persistence):
        text = f"{where} has no append-only file: names bound since its last snapshot are lost when it ends; "
        return Durability(waits=False, warnings=(f"{text}set appendonly yes",))
    syncs = await _appendfsync(servers)
    if "no" in syncs:
        text = f"{where} leaves it to its machine when names reach the disk: set appendfsync everysec or always"
        return Durability(waits=False, warnings=(text,))
    if await _has_waitaof(servers) or syncs == {"always"}:
        return Durability(waits=syncs != {"always"})
    return Durability(
        waits=False,
        warnings=(
            f"{where} may lose the names of the last second when its machine fails: "
            "set appendfsync always, or use Redis 7.2 or Valkey, where names wait for the disk",
        ),
    )


async def _appendfsync(servers: RedisServers) -> set[str]:
    """The settings of all servers; empty if they may not be asked."""
    try:
        answers = await servers.of_each("CONFIG", "GET", "appendfsync")
    except ResponseError:
        return set()
    return {_value(answer) for answer in answers}


def _value(answer: Any) -> str:
    """The value of one setting: the library gives a dictionary or a list, and texts or bytes."""
    value = next(iter(answer.values())) if isinstance(answer, dict) else answer[1]
    return value.decode() if isinstance(value, bytes) else str(value)


async def _has_waitaof(servers: RedisServers) -> bool:
    try:
        await servers.of_each("WAITAOF", 0, 0, 0)
    except ResponseError:
        return False
    return True
