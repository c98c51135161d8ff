"""Tables of who is online, on one Redis, behind a Sentinel and in a Cluster; and what they publish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import hiredis

from aldis.backends.redis_client import Command, RedisServers
from aldis.backends.redis_url import RedisUrl
from aldis.cluster.buckets import bucket_of
from aldis.cluster.presence_table import PresenceTable
from aldis.cluster.states import decode_state, encode_state
from aldis.hub.cluster import EnterDevice, Entered, EntryRefusal, RemoteDevice, UserState
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy
from support.patience import PATIENCE
from support.redis_server import Cluster, RedisServer, Sentinels

KINDS = ("single", "sentinel", "cluster")
KEY_A = "a" * 43
KEY_B = "b" * 43


@dataclass(frozen=True)
class Place:
    """Running servers: those that take writes are the `masters`."""

    kind: str
    url: str
    masters: Sequence[RedisServer]


@contextmanager
def redis_place(kind: str, folder: Path, *settings: str, steady: bool = False) -> Iterator[Place]:
    """`steady`: no master is replaced because a busy machine has kept it silent."""
    if kind == "single":
        with RedisServer(folder, *settings) as server:
            yield Place(kind, server.url(), [server])
    elif kind == "sentinel":
        with Sentinels(folder, *settings, down_after=60_000 if steady else 300) as sentinels:
            _until(sentinels.has_replica)
            yield Place(kind, sentinels.url, [sentinels.master])
    else:
        with Cluster(folder, *settings) as cluster:
            _until(lambda: all("cluster_state:ok" in server.say("cluster", "info") for server in cluster.servers))
            yield Place(kind, cluster.url, cluster.servers)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


_NUMBERS = count()


class World:
    """Nodes that share a table of their own: each has its own connections."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.prefix = f"{next(_NUMBERS)}:"
        self._opened: list[tuple[PresenceTable, RedisServers]] = []
        self._entries = count()

    def servers(self) -> RedisServers:
        return RedisServers(RedisUrl.parse(self.place.url))

    def node(self, node_id: str) -> PresenceTable:
        servers = self.servers()
        table = PresenceTable(servers, node_id, prefix=self.prefix)
        self._opened.append((table, servers))
        return table

    def device(self, name: str = "laptop", key: str = KEY_A, proves: bool = True) -> RemoteDevice:
        entry = f"entry{next(self._entries)}"
        return RemoteDevice(name, "", entry, 0, f"session of {entry}", key, None, proves)

    async def run(self, *commands: Command) -> list[Any]:
        return await self._opened[0][1].run(commands)

    async def keys(self) -> set[str]:
        """The keys of this table that are there, without its prefix."""
        return {key.decode().removeprefix(self.prefix) async for key in self._opened[0][1].keys(f"{self.prefix}*")}

    async def close(self) -> None:
        for table, servers in self._opened:
            await table.close()
            await servers.close()

    @asynccontextmanager
    async def listening(self, user_id: str) -> AsyncIterator[Heard]:
        """What is published about the users of this user's bucket."""
        channel = self._opened[0][0].names.channel(bucket_of(user_id))
        for server in self.place.masters:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            heard = Heard(reader)
            writer.write(f"{'S' * (self.place.kind == 'cluster')}SUBSCRIBE {channel}\r\n".encode())
            answer = await heard.answer()
            if not isinstance(answer, hiredis.ReplyError):
                break
            writer.close()  # MOVED
        try:
            yield heard
        finally:
            writer.close()


class Heard:
    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = hiredis.Reader()

    async def answer(self) -> Any:
        async with asyncio.timeout(PATIENCE):
            while (answer := self._parser.gets()) is False:
                data = await self._reader.read(65536)
                assert data, "the server has closed"
                self._parser.feed(data)
        return answer

    async def state(self) -> UserState:
        """The next state that is published."""
        data = (await self.answer())[2]
        state = decode_state(data)
        assert encode_state(state) == data
        return state


async def enter(
    table: PresenceTable, user_id: str, device: RemoteDevice, *, privacy: Privacy = DEFAULT_PRIVACY, most: int = 32
) -> Entered | EntryRefusal:
    return await table.enter(EnterDevice(0, user_id, device, privacy, most))


async def entered(
    table: PresenceTable, user_id: str, device: RemoteDevice, *, privacy: Privacy = DEFAULT_PRIVACY
) -> Entered:
    answer = await enter(table, user_id, device, privacy=privacy)
    assert isinstance(answer, Entered), answer
    return answer


class LeaseWords:
    """What a node hears of its lease, as words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.more = asyncio.Event()

    def _add(self, text: str) -> None:
        self.words.append(text)
        self.more.set()

    def joined(self, node_id: str) -> None:
        self._add(f"joined {node_id}")

    def lost(self, node_id: str, removed: bool) -> None:
        self._add(f"removed {node_id}" if removed else f"lost {node_id}")

    def moved(self, old: str, new: str) -> None:
        self._add(f"moved {old} {new}")

    def restarted(self) -> None:
        self._add("restarted")

    def take(self) -> list[str]:
        words, self.words = self.words, []
        return words

    async def until(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in self.words:
                self.more.clear()
                await self.more.wait()
