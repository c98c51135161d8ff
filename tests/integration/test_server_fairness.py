"""A client that says much waits for its turn, loses nothing by it, and keeps nobody else waiting."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from aldis.hub.watchers import MOST_AT_ONCE
from aldis.server.app import SignalingServer
from aldis.server.scheduler import TURN
from support.patience import PATIENCE
from support.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawClient, encode_frame
from support.settings import UNLIMITED, config


def frames(message: dict[str, object], count: int) -> bytes:
    """The same message so many times."""
    return encode_frame(TEXT, json.dumps(message).encode()) * count


FLOODS = {
    "pings": ({"type": "ping", "id": 1}, 5_000, "ping"),
    "watches": ({"type": "watch", "userIds": [f"user-{number}" for number in range(1000)], "id": 1}, 30, "watch"),
    "relays to nobody": ({"type": "bye", "to": "nobody", "id": 1}, 5_000, "bye"),
    # Only the first hundred of them get a reply.
    "unknown types": ({"type": "of another version", "padding": "x" * 3_000, "id": 1}, 500, "unreadable"),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_whatever_a_client_has_sent_at_once_another_one_is_answered_in_the_midst_of_it(flood: str) -> None:
    message, count, kind = FLOODS[flood]
    async with (
        SignalingServer(config(**UNLIMITED)) as server,
        await RawClient.connect(server.port) as mallory,
        await RawClient.connect(server.port) as alice,
    ):
        await mallory.register("mallory")
        await alice.register("alice")
        answered = asyncio.create_task(answers(mallory, 100 if kind == "unreadable" else count))
        mallory.send_bytes(frames(message, count))

        def handled() -> int:
            return sum(number for (of, _), number in server.hub.stats.messages.items() if of == kind)

        async with asyncio.timeout(PATIENCE):
            while not handled():  # noqa: ASYNC110 - the hub tells nobody what it counts
                await asyncio.sleep(0)
        for _ in range(3):
            await alice.request({"type": "ping", "id": "mine"})
        assert handled() < count, "the flood was handled first"
        await answered


async def answers(client: RawClient, count: int) -> None:
    """Read until so many replies to the request 1 have come."""
    async with asyncio.timeout(PATIENCE):
        while count:
            count -= (await client.receive()).get("re") == 1


async def test_what_comes_faster_than_the_rate_waits_and_nothing_is_lost() -> None:
    count = 260
    async with (
        SignalingServer(config(messages_per_second=100)) as server,
        await RawClient.connect(server.port) as client,
    ):
        await client.register("alice")
        for number in range(count):
            client.send({"type": "ping", "id": number})
        for number in range(count):
            assert (await client.receive())["re"] == number
        assert server.connections.scheduler.throttled


async def test_a_lower_rate_counts_at_once_for_connections_that_are_open() -> None:
    async with (
        SignalingServer(config(messages_per_second=1000)) as server,
        await RawClient.connect(server.port) as client,
    ):
        await client.register("alice")
        assert server.reload(replace(server.config, messages_per_second=50))
        for _ in range(120):
            client.send({"type": "ping", "id": 1})
        await answers(client, 120)
        assert server.connections.scheduler.throttled


async def test_bytes_count_as_well_as_messages() -> None:
    async with (
        SignalingServer(config(messages_per_second=1000, bytes_per_second=50_000)) as server,
        await RawClient.connect(server.port) as client,
    ):
        await client.register("alice")
        for _ in range(4):
            client.send({"type": "ping", "id": 1, "padding": "x" * 30_000})
        await answers(client, 4)
        assert server.connections.scheduler.throttled


async def test_a_message_without_room_counts_as_many() -> None:
    async with (
        SignalingServer(config(messages_per_second=1000)) as server,
        await RawClient.connect(server.port) as alice,
        await RawClient.connect(server.port) as bob,
    ):
        await alice.register("alice")
        await bob.register("bob")
        alice.vanish()
        bob.send_bytes(frames({"type": "bye", "to": "alice"}, 200))
        await bob.request({"type": "ping", "id": "behind them"})
        assert server.hub.stats.limited["share-of-recipient"] > 50
        assert server.connections.scheduler.throttled


async def test_a_signature_counts_as_many_messages() -> None:
    async with (
        SignalingServer(config(messages_per_second=15)) as server,
        await RawClient.connect(server.port) as client,
    ):
        await client.register("alice")  # two of 30 units, and a signature
        for _ in range(12):
            client.send({"type": "ping", "id": 1})
        await answers(client, 12)
        assert server.connections.scheduler.throttled


async def test_what_a_client_says_before_it_closes_is_handled_before_the_close() -> None:
    count = 10 * TURN
    async with (
        SignalingServer(config(**UNLIMITED)) as server,
        await RawClient.connect(server.port) as alice,
        await RawClient.connect(server.port) as bob,
    ):
        await alice.register("alice")
        await bob.register("bob")
        await bob.request({"type": "watch", "userIds": ["alice"]})
        alice.send_bytes(frames({"type": "bye", "to": "bob", "reason": "x"}, count) + encode_frame(CLOSE, b"\x03\xe8"))
        for _ in range(count):
            assert (await bob.receive())["type"] == "bye"
        assert (await bob.receive())["online"] is False
        assert (await alice.wait_closed())[0] == 1000


async def test_of_pings_that_come_at_once_the_last_one_is_answered() -> None:
    async with SignalingServer(config(**UNLIMITED)) as server, await RawClient.connect(server.port) as client:
        await client.register("alice")
        client.send_bytes(b"".join(encode_frame(PING, str(number).encode()) for number in range(500)))
        payloads = []
        async with asyncio.timeout(PATIENCE):
            while not payloads or payloads[-1] != b"499":
                frame = await client.receive_frame()
                assert frame.opcode == PONG
                payloads.append(frame.payload)
        assert TURN <= len(payloads) < 500
        await client.request({"type": "ping", "id": 1})


async def test_a_message_in_fragments_keeps_its_place_among_those_that_wait() -> None:
    async with SignalingServer(config(**UNLIMITED)) as server, await RawClient.connect(server.port) as client:
        await client.register("alice")
        data = b""
        for number in range(200):
            text = json.dumps({"type": "ping", "id": number}).encode()
            if number % 50 == 49:
                data += encode_frame(TEXT, text[:5], fin=False) + encode_frame(CONTINUATION, text[5:])
            else:
                data += encode_frame(TEXT, text)
        client.send_bytes(data)
        for number in range(200):
            assert (await client.receive())["re"] == number


async def test_a_client_that_is_cut_off_for_a_fault_in_its_backlog_hears_why() -> None:
    async with SignalingServer(config(**UNLIMITED)) as server, await RawClient.connect(server.port) as client:
        await client.register("alice")
        client.send_bytes(frames({"type": "ping"}, 300) + encode_frame(TEXT, b"no JSON") * 300)
        code, _ = await client.wait_closed()
        assert code == 4500
        assert len(server.connections.scheduler) == 0


async def test_what_comes_behind_a_close_is_read_no_faster_than_before_it() -> None:
    async with (
        SignalingServer(config(messages_per_second=100)) as server,
        await RawClient.connect(server.port) as client,
    ):
        client.send_frame(BINARY, b"x")
        frame = await client.receive_frame()
        assert frame.close_code == 1003
        client.send_bytes(encode_frame(PING) * 1000)
        async with asyncio.timeout(PATIENCE):
            while not server.connections.scheduler.throttled:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0)
        client.send_frame(CLOSE, frame.payload[:2])
        await client.wait_over()


@pytest.mark.parametrize("kind", ["pings", "fragments"])
async def test_of_many_tiny_frames_only_some_are_read_at_a_time(kind: str) -> None:
    count = 60_000
    async with (
        SignalingServer(config(**UNLIMITED)) as server,
        await RawClient.connect(server.port) as mallory,
        await RawClient.connect(server.port) as alice,
    ):
        await mallory.register("mallory")
        await alice.register("alice")
        tiny = encode_frame(PING) if kind == "pings" else encode_frame(CONTINUATION, fin=False)
        before = b"" if kind == "pings" else encode_frame(TEXT, b"{", fin=False)
        mallory.send_bytes(before + tiny * count + encode_frame(CONTINUATION if before else TEXT, b"}"))
        last = asyncio.create_task(until_text(mallory))
        async with asyncio.timeout(PATIENCE):
            while not server.connections.scheduler:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
        await alice.request({"type": "ping"})
        assert not last.done(), "all of it was read first"
        await last


async def until_text(mallory: RawClient) -> None:
    """Read until the error about the last message."""
    while (await mallory.receive_frame()).opcode != TEXT:
        pass


async def test_all_watchers_of_a_user_are_told_though_not_in_one_go() -> None:
    count = 2 * MOST_AT_ONCE + 10
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        alice = await stack.enter_async_context(await RawClient.connect(server.port))
        await alice.register("alice")
        watchers = []
        for number in range(count):
            watcher = await stack.enter_async_context(await RawClient.connect(server.port))
            await watcher.register(f"watcher{number}")
            assert (await watcher.request({"type": "watch", "userIds": ["alice"]}))["online"] is True
            watchers.append(watcher)
        await alice.leave()
        async with asyncio.timeout(PATIENCE):
            assert [(await watcher.receive())["online"] for watcher in watchers] == [False] * count


@pytest.mark.parametrize("sockets", [False, True], ids=["new", "open"])
async def test_a_crowd_from_one_address_keeps_no_other_address_waiting(sockets: bool) -> None:
    """All have sent the rest of their requests before the server reads any of it; the other one is the last."""
    count = 300
    request = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"
    async with SignalingServer(config(names="h")) as server, AsyncExitStack() as stack:
        requests = server.listener.requests
        crowd = [dial(stack, server.port, "127.0.0.1") for _ in range(count)]
        other = dial(stack, server.port, "127.0.0.2")
        if sockets:  # the server waits for the rest of their requests
            for client in [*crowd, other]:
                client.send(request[:5])
            async with asyncio.timeout(PATIENCE):
                while server.listener.admission.speaking < count + 1:  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0)
        for client in [*crowd, other]:
            client.send(request[5:] if sockets else request)
        async with asyncio.timeout(PATIENCE):
            assert (await asyncio.get_running_loop().sock_recv(other, 100)).startswith(b"HTTP/1.1 200 ")
            assert requests.total() < count, "the crowd was served first"
            while requests.total() < count + 1:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)


def dial(stack: AsyncExitStack, port: int, source: str) -> socket.socket:
    """A connection that has sent nothing."""
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port), source_address=(source, 0)))
    client.setblocking(False)
    return client


async def test_nothing_is_parsed_behind_a_frame_that_breaks_the_protocol() -> None:
    async with SignalingServer(config(**UNLIMITED)) as server, await RawClient.connect(server.port) as client:
        client.send_bytes(encode_frame(TEXT, b"{}", masked=False))
        assert (await client.receive_frame()).close_code == 1002
        for _ in range(20):
            client.send_bytes(encode_frame(PING) * 100)
            await asyncio.sleep(0)  # the server reads them one by one
        await client.wait_over()
        assert server.connections.closes[1002] == 1
