"""The budgets of a real server: what a user may send, what is kept for all, and what a reload changes."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from aldis.server.app import SignalingServer
from support.patience import PATIENCE
from support.raw_websocket import CLOSE, PING, PONG, TEXT, HandshakeRefused, RawClient, encode_frame
from support.settings import UNLIMITED, config

MEGABYTE = 1024 * 1024


def kept(server: SignalingServer, kind: str) -> int:
    return server.hub.memory.bytes()[kind]


async def until(server: SignalingServer, kind: str, lowest: int, highest: int) -> None:
    """Return when so much is kept."""
    async with asyncio.timeout(PATIENCE):
        while not lowest <= kept(server, kind) <= highest:  # noqa: ASYNC110 - a counter tells nobody
            await asyncio.sleep(0)


# --- rates ------------------------------------------------------------------------------------------------------------


async def test_a_client_that_goes_on_after_it_was_told_to_wait_is_closed() -> None:
    """It answers pings, so the server knows what it has read."""
    discover = encode_frame(TEXT, json.dumps({"type": "discover", "userId": "nobody", "id": 1}).encode())
    async with (
        SignalingServer(config(**{**UNLIMITED, "user_discovers_per_second": 5})) as server,
        await RawClient.connect(server.port) as mallory,
        await RawClient.connect(server.port) as alice,
    ):
        await mallory.register("mallory")
        await alice.register("alice")
        told = 0
        async with asyncio.timeout(PATIENCE):
            mallory.send_bytes(discover * 20)
            while True:
                frame = await mallory.receive_frame()
                if frame.opcode == PING:
                    mallory.send_bytes(encode_frame(PONG, frame.payload))
                elif frame.opcode == CLOSE:
                    break
                elif json.loads(frame.payload).get("code") == "rate-limited":
                    told += 1
                    mallory.send_bytes(discover)
        assert frame.close_code == 4504
        assert told > 100
        assert (await alice.request({"type": "discover", "userId": "mallory", "id": 2}))["online"] is False


async def test_a_pong_counts_also_behind_messages_that_wait_for_their_turn() -> None:
    discover = encode_frame(TEXT, json.dumps({"type": "discover", "userId": "nobody", "id": 1}).encode())
    async with (
        SignalingServer(config(**{**UNLIMITED, "user_discovers_per_second": 5})) as server,
        await RawClient.connect(server.port) as mallory,
    ):
        await mallory.register("mallory")
        mallory.send_bytes(discover * 20)
        while (frame := await mallory.receive_frame()).opcode != PING:
            pass
        # So many that they are not handled in one go. None of those before the pong is an offence.
        mallory.send_bytes(discover * 500 + encode_frame(PONG, frame.payload) + discover * 99)
        mallory.send({"type": "ping", "id": "still"})
        while '"still"' not in await mallory.receive_text():
            pass
        mallory.send_bytes(discover * 200)
        while (frame := await mallory.receive_frame()).opcode != CLOSE:
            pass
        assert frame.close_code == 4504


async def test_what_was_sent_before_the_refusal_could_be_read_closes_nothing() -> None:
    async with (
        SignalingServer(config(**{**UNLIMITED, "user_discovers_per_second": 5})) as server,
        await RawClient.connect(server.port) as alice,
    ):
        await alice.register("alice")
        for number in range(1000):
            alice.send({"type": "discover", "userId": "nobody", "id": number})
        refused = 0
        for _ in range(1000):
            refused += "code" in await alice.receive()
        assert refused >= 980
        assert (await alice.request({"type": "ping", "id": "still"}))["re"] == "still"


# --- memory -----------------------------------------------------------------------------------------------------------


async def test_a_message_that_never_ends_is_counted_and_so_is_the_buffer_that_it_needed() -> None:
    async with SignalingServer(config(**UNLIMITED)) as server:
        async with await RawClient.connect(server.port) as mallory:
            mallory.send_bytes(encode_frame(TEXT, b"x" * 60_000)[:-1])
            await until(server, "transport", 60_000, 4 * 65_536)
        await until(server, "transport", 0, 0)
        async with await RawClient.connect(server.port) as mallory:
            mallory.send_bytes(encode_frame(TEXT, b"x" * 30_000, fin=False))
            await until(server, "transport", 60_000, 200_000)  # the fragment, and the buffer
        await until(server, "transport", 0, 0)


async def test_what_a_client_does_not_read_is_counted_until_it_has_read_it() -> None:
    async with (
        SignalingServer(config(**UNLIMITED, resume_window=0)) as server,
        await RawClient.connect(server.port) as alice,
    ):
        await alice.register("alice")
        watched = [f"somebody{number}{'x' * 40}" for number in range(1000)]
        count = 200  # 20 MB of answers: more than the kernel takes
        for number in range(count):
            alice.send({"type": "watch", "userIds": watched, "id": number})
        await until(server, "transport", 256 * 1024, 4 * MEGABYTE)
        async with asyncio.timeout(PATIENCE):
            while count:
                count -= (await alice.receive())["type"] == "ack"
        await until(server, "transport", 0, 256 * 1024)


async def test_without_memory_new_clients_are_refused_and_the_newest_and_idlest_go() -> None:
    async with (
        SignalingServer(config(**UNLIMITED, memory_budget=4 * MEGABYTE)) as server,
        AsyncExitStack() as stack,
    ):
        alice = await stack.enter_async_context(await RawClient.connect(server.port))
        await alice.register("alice")
        hogs = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(50)]
        for hog in hogs:
            hog.send_bytes(encode_frame(TEXT, b"x" * 60_000)[:-1])
        await until(server, "transport", 4 * MEGABYTE, 100 * MEGABYTE)
        await alice.request({"type": "ping", "id": 1})
        with pytest.raises(HandshakeRefused, match="503"):
            await RawClient.connect(server.port)
        async with asyncio.timeout(PATIENCE):
            while server.hub.memory.is_full:  # noqa: ASYNC110 - the next tick ends some
                await asyncio.sleep(0)
        assert server.hub.stats.memory_ended
        assert server.listener.admission.refusals["memory"] == 1
        assert (await hogs[-1].wait_closed())[0] == 4007
        assert (await alice.request({"type": "ping", "id": 2}))["re"] == 2
        async with await RawClient.connect(server.port) as bob:
            assert (await bob.register("bob"))["success"] is True


async def test_a_single_connection_is_slowed_down_and_never_refused() -> None:
    """Messages of nearly the bytes that make two of one: the most that a connection may pass on."""
    async with (
        SignalingServer(config()) as server,
        await RawClient.connect(server.port) as alice,
        await RawClient.connect(server.port) as bob,
    ):
        await alice.register("alice")
        await bob.register("bob")
        message = {"type": "bye", "to": "bob", "reason": "x" * 1200}
        for _ in range(700):
            alice.send(message)
        for number in range(700):
            assert (await bob.receive())["type"] == "bye"
            if not number % 20:
                bob.send({"type": "received", "count": number})
        assert server.hub.stats.limited.total() == 0
        assert server.connections.scheduler.throttled
