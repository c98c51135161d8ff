"""What is shared by the networks of clients, on a real server that a proxy tells their addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio

from aldis.server.app import SignalingServer
from support.proxied import arrive_by_proxy
from support.raw_websocket import RawClient
from support.settings import config


class Town:
    """Clients of one server, each at an address of its own choice."""

    def __init__(self, server: SignalingServer, stack: AsyncExitStack) -> None:
        self._server = server
        self._stack = stack

    async def client(self, name: str, address: str) -> RawClient:
        client = await self._stack.enter_async_context(await arrive_by_proxy(self._server.port, address, None))
        reply = await client.register(name)
        assert reply["type"] == "registered", reply
        return client


@pytest_asyncio.fixture
async def town() -> AsyncIterator[Town]:
    settings = {"trusted_proxies": "127.0.0.1", "proxy_protocol": True, "watchers_per_user": 2}
    async with SignalingServer(config(**settings)) as server, AsyncExitStack() as stack:
        yield Town(server, stack)


async def replies(client: RawClient, message: dict[str, object]) -> list[dict[str, object]]:
    """What the server says to a message at once."""
    client.send(message)
    client.send({"type": "ping"})
    said = [await client.receive()]
    while said[-1]["type"] != "pong":
        said.append(await client.receive())
    return said[:-1]


async def test_the_network_with_most_watchers_of_a_user_gives_way(town: Town) -> None:
    watch: dict[str, object] = {"type": "watch", "userIds": ["alice"], "id": 1}
    crowd = [await town.client(name, "192.0.2.1") for name in ("first", "second")]
    for client in (*crowd, await town.client("other", "198.51.100.1")):
        assert [message["type"] for message in await replies(client, watch)] == ["presence", "ack"]
    told = [message for client in crowd for message in await replies(client, {"type": "received", "count": 1})]
    (ended,) = told
    assert isinstance(ended["ended"], dict)
    assert ended["ended"]["code"] == "over-capacity"
    (refused,) = await replies(await town.client("third", "192.0.2.1"), watch)
    assert refused["code"] == "over-capacity"


async def test_a_network_of_strangers_leaves_room_for_others_at_a_lost_client(town: Town) -> None:
    (await town.client("alice", "198.51.100.1")).vanish()
    message: dict[str, object] = {"type": "bye", "to": "alice", "id": 1}
    crowd = [await town.client(f"crowd-{number}", "192.0.2.1") for number in range(3)]
    while await replies(crowd[0], message):
        pass  # an `ack`: the server has not seen yet that the connection is lost
    codes = [reply.get("code") for client in crowd * 60 for reply in await replies(client, message)]
    assert set(codes) == {"rate-limited"}
    assert [reply["code"] for reply in await replies(crowd[0], message)] == ["rate-limited"]
    other = await town.client("other", "198.51.100.2")
    assert [await replies(other, message) for _ in range(20)] == [[]] * 20
