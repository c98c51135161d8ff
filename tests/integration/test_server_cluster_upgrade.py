"""A server beside a node of the next release, which adds fields and kinds of messages, over a real Redis.

The other way round, two real builds: `benchmarks.cluster.upgrade`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aldis.backends.redis_client import Command, RedisServers
from aldis.backends.redis_url import RedisUrl
from aldis.cluster.bus import Bus
from aldis.cluster.lease import NodeLease
from aldis.cluster.messages import FORMAT, Message, NodeAnswer, NodeQuestion
from aldis.hub.cluster import Forward, Forwarded
from aldis.hub.sessions import RelayResult
from support.buses import BusWords
from support.cluster_servers import OFFER, operator, person, until
from support.redis_server import RedisServer
from support.server_process import ServerProcess


class LeaseWords:
    """It hears of its lease, and does nothing."""

    def joined(self, node_id: str) -> None: ...

    def lost(self, node_id: str, removed: bool) -> None: ...

    def moved(self, old: str, new: str) -> None: ...

    def restarted(self) -> None: ...


class NextRelease(BusWords):
    """A node of the next release: it says more than the server of today knows. `answers`: what it knows of itself."""

    def __init__(self, servers: RedisServers) -> None:
        super().__init__()
        self._servers = servers
        self.lease = NodeLease(servers, LeaseWords())
        self.bus = Bus(servers, self)
        self.answers: dict[str, dict[str, Any]] = {}
        self._saying: set[asyncio.Task[object]] = set()

    async def open(self) -> None:
        await self.bus.open(self.lease.node_id)
        await self.lease.open()

    async def close(self) -> None:
        await self.lease.close()
        await self.bus.close()
        await self._servers.close()

    async def say(self, node: str | None, kind: int, *more: Any, form: int = FORMAT) -> None:
        """Say it to a node, or to all."""
        names = self.bus.names
        channel = names.everyone if node is None else names.inbox(node)
        data = msgspec.msgpack.encode([form, kind, self.lease.node_id, *more, "more", {"of": "it"}])
        (heard,) = await self._servers.run([Command("PUBLISH", channel, (data,))])
        assert heard

    async def enter(self, user_id: str, device: str) -> None:
        """Have a user: its row has more at the end, and so has the device in it (`aldis.cluster.states`)."""
        entry = [1, "entry", self.lease.node_id, "", False, device, "session", None, "more", {"of": "it"}]
        row = ("v", 1, f"d{device}", msgspec.msgpack.encode([1, entry, "more"]), "later", "a field")
        await self._servers.run([Command("HSET", self.bus.names.user(user_id), row)])

    def message(self, node_id: str, message: Message) -> None:
        if isinstance(message, NodeQuestion) and message.subject in self.answers:
            answer = self.say(node_id, 6, message.number, {**self.answers[message.subject], "later": [1]})
            self._saying.add(asyncio.ensure_future(answer))
        super().message(node_id, message)

    async def until_said(self, node_id: str, kind: type[Message]) -> Any:
        """The first message of a kind from this node."""

        def found() -> list[Message]:
            return [message for node, message in self.messages if node == node_id and type(message) is kind]

        await self.until(lambda: bool(found()))
        return found()[0]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
async def server(tmp_path: Path, redis: RedisServer) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path / "today", redis=redis.url(), admin_port=0) as server:
        yield server


@pytest.fixture
async def later(redis: RedisServer, server: ServerProcess) -> AsyncIterator[NextRelease]:
    later = NextRelease(RedisServers(RedisUrl.parse(redis.url())))
    await later.open()
    yield later
    await later.close()


async def id_of(server: ServerProcess) -> str:
    return str((await server.wait_for_line("joined the cluster"))["node"])


async def test_messages_with_more_in_them_are_delivered_and_answered(server: ServerProcess, later: NextRelease) -> None:
    today = await id_of(server)
    async with await person(server, "bob") as bob:
        frame = json.dumps({**OFFER, "from": "alice", "to": "bob", "newer": {"field": 1}}).encode()
        await later.say(today, 1, 7, "alice", True, frame, None)
        assert (await bob.receive())["from"] == "alice"
        assert await later.until_said(today, Forwarded) == Forwarded(7, RelayResult.SENT)
        later.messages.clear()
        await later.say(today, 1, 8, "alice", True, b'{"type":"wave","to":"bob"}', b"\x7f")
        assert await later.until_said(today, Forwarded) == Forwarded(8, RelayResult.ABSENT)
        assert (await bob.request({"type": "ping"})) == {"type": "pong"}
    assert await server.stop() == 0
    server.assert_clean_log()


async def test_kinds_of_messages_that_only_it_knows_are_counted_and_change_nothing(
    server: ServerProcess, later: NextRelease
) -> None:
    today = await id_of(server)
    await later.say(None, 99, "a kind of message")
    await later.say(today, 2, 1, "a result")
    await later.say(None, 4, 1, 2, later.lease.node_id, 1, "a kind of ban", "value", ["", None])
    await until(server, "aldis_cluster_unknown_total", 3)
    await later.say(None, 1, "another format", form=FORMAT + 1)
    await until(server, "aldis_cluster_unreadable_total", 1)
    async with await person(server, "alice") as alice, await person(server, "bob") as bob:
        assert (await alice.request({**OFFER, "to": "bob", "id": 1}))["type"] == "ack"
        assert (await bob.receive())["from"] == "alice"
    assert await server.stop() == 0
    server.assert_clean_log()


async def test_an_operator_sees_both_and_questions_that_only_it_knows_have_no_answer(
    server: ServerProcess, later: NextRelease
) -> None:
    today = await id_of(server)
    async with await person(server, "alice"):
        await later.say(today, 5, 1, "a subject", {"of": "the next release"})
        await later.say(today, 5, 2, "statistics", {"newer": True})
        answer = await later.until_said(today, NodeAnswer)
        assert (answer.number, answer.content["users"]) == (2, 1)
        page = {"users": [{"user": "bob", "devices": 2, "newer": 1}], "next": None}
        later.answers = {"statistics": {**answer.content, "users": 3}, "users": page}
        await until(server, "aldis_cluster_servers", 2)
        told = await operator(server, "GET", "/api/v1/statistics")
        assert (told["users"], len(told["nodes"]), told["silentNodes"]) == (4, 2, [])
        listed = await operator(server, "GET", "/api/v1/users")
        assert [(each["user"], each["devices"]) for each in listed["users"]] == [("alice", 1), ("bob", 2)]
    assert await server.stop() == 0
    server.assert_clean_log()


async def test_a_user_of_it_is_found_and_called_though_the_row_and_the_answer_have_more_in_them(
    server: ServerProcess, later: NextRelease
) -> None:
    today = await id_of(server)
    await later.enter("zed", "phone")
    async with await person(server, "alice") as alice:
        found = await alice.request({"type": "discover", "userId": "zed", "id": 1})
        assert [each["device"] for each in found["devices"]] == ["phone"]
        alice.send({**OFFER, "to": "zed", "id": 2})
        forward = await later.until_said(today, Forward)
        assert (forward.sender, json.loads(forward.frame)["to"]) == ("alice", "zed")
        await later.say(today, 2, forward.number, "sent")
        assert (await alice.receive())["type"] == "ack"
    assert await server.stop() == 0
    server.assert_clean_log()
