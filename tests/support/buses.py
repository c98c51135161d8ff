"""Buses of a cluster, and what they hear."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

from aldis.backends.redis_client import Command, RedisServers
from aldis.backends.redis_url import RedisUrl
from aldis.cluster.buckets import Names
from aldis.cluster.bus import Bus
from aldis.cluster.messages import Message
from aldis.cluster.states import encode_state
from aldis.hub.cluster import UserState
from support.patience import PATIENCE
from support.presence import Place

_NUMBERS = count()


class BusWords:
    """What a node hears. `until` waits for more."""

    def __init__(self) -> None:
        self.unwanted: set[str] = set()
        self.states: list[UserState] = []
        self.messages: list[tuple[str, Message]] = []
        self.not_sent: list[tuple[str, Message]] = []
        self.words: list[str] = []
        self.buckets: list[frozenset[int]] = []
        self._more = asyncio.Event()

    def wants(self, user_id: str, bucket: int) -> bool:
        return user_id not in self.unwanted

    def state(self, state: UserState) -> None:
        self.states.append(state)
        self._more.set()

    def message(self, node_id: str, message: Message) -> None:
        self.messages.append((node_id, message))
        self._more.set()

    def unsent(self, node_id: str, message: Message) -> None:
        self.not_sent.append((node_id, message))
        self._more.set()

    def interrupted(self) -> None:
        self.words.append("interrupted")
        self._more.set()

    def restored(self, buckets: frozenset[int]) -> None:
        self.words.append("restored")
        self.buckets.append(buckets)
        self._more.set()

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until something that is heard makes it true."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._more.clear()
                await self._more.wait()


class Buses:
    """Nodes on channels of their own. What `publish` sends comes from another connection."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.prefix = f"bus{next(_NUMBERS)}:"
        self.names = Names(self.prefix)
        self.servers: list[RedisServers] = []
        self.buses: list[Bus] = []

    def another(self, url: str = "") -> RedisServers:
        self.servers.append(RedisServers(RedisUrl.parse(url or self.place.url)))
        return self.servers[-1]

    def made(self, url: str = "") -> tuple[Bus, BusWords]:
        heard = BusWords()
        self.buses.append(Bus(self.another(url), heard, prefix=self.prefix))
        return self.buses[-1], heard

    async def node(self, node_id: str) -> tuple[Bus, BusWords]:
        bus, heard = self.made()
        await bus.open(node_id)
        return bus, heard

    async def publish(self, channel: str, data: bytes) -> int:
        """How many have heard it."""
        name = "SPUBLISH" if self.place.kind == "cluster" else "PUBLISH"
        (answer,) = await self.servers[0].run([Command(name, channel, (data,))])
        assert isinstance(answer, int), answer
        return answer

    async def tell(self, bucket: int, state: UserState) -> int:
        return await self.publish(self.names.channel(bucket), encode_state(state))

    async def close(self) -> None:
        for bus in self.buses:
            await bus.close()
        for servers in self.servers:
            await servers.close()
