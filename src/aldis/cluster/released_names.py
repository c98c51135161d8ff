"""The names that an operator has released lately, in Redis: so that a node can tell them from names that were lost.

A node that was cut off looks up the names of its users afterwards, and one of them may be free. Either an operator has
released it meanwhile: then the session with its former key ends. Or the directory has lost its last data, or all: then
the node binds the name to the key of the session again (`hub.bindings`).

A release is noted here before the name is free. A note is kept for `KEPT_SECONDS`, and `MOST` of them: a node that was
cut off for longer, with a client that stayed, takes the name for lost.
"""

from __future__ import annotations

from typing import Final

from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX
from aldis.backends.redis_client import Command, RedisServers, Script
from aldis.backends.redis_lane import Lane
from aldis.cluster.buckets import Names
from aldis.cluster.faults import ClusterUnavailable

KEPT_SECONDS: Final = 86_400
MOST: Final = 10_000

_RELEASED: Final = Script("released", "aldis.cluster")


class ReleasedNames:
    """The list. Its calls but `close` raise `ClusterUnavailable`. The servers are the caller's."""

    def __init__(self, servers: RedisServers, *, prefix: str = DEFAULT_REDIS_PREFIX) -> None:
        self._key = Names(prefix).released
        self._lane = Lane(servers, away=ClusterUnavailable, full=ClusterUnavailable)

    async def note(self, user_id: str) -> None:
        """Note a release that is about to be made. It does no harm where nothing comes of it."""
        await self._lane.send(Command(_RELEASED, self._key, (user_id, KEPT_SECONDS, MOST)))

    async def read(self) -> frozenset[str]:
        """All names that were released lately."""
        found = await self._lane.send(Command("ZRANGE", self._key, (0, -1)))
        return frozenset(name.decode() for name in found)

    async def close(self) -> None:
        """Wait for the calls that are on their way."""
        await self._lane.idle()
