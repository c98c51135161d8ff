"""What the admin port may take: connections, and turns of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from time import monotonic

import aiohttp
import pytest

from aldis.server.admin_gate import MAX_OPEN, REST
from aldis.server.app import SignalingServer
from support.patience import PATIENCE
from support.raw_websocket import http_get
from support.settings import config

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with SignalingServer(config(admin_port=0)) as server:
        yield server.admin_port or 0


async def test_silent_connections_do_not_keep_the_operator_out(port: int) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_OPEN)]
    status, _, body = await http_get(port, REQUEST)
    assert (status, body) == (200, b"ok\n")
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionResetError):
            assert await silent[0][0].read() == b""
    _, _, page = await http_get(port, REQUEST.replace(b"/healthz", b"/metrics"))
    assert b'aldis_http_requests_total{outcome="admin-crowded"} 1.0' in page
    for _, writer in silent:
        writer.close()


async def test_requests_of_a_flood_have_their_turns_one_after_the_other(port: int) -> None:
    began = monotonic()
    async with aiohttp.ClientSession() as session:

        async def one() -> int:
            async with session.get(f"http://127.0.0.1:{port}/metrics") as reply:
                await reply.read()
                return reply.status

        assert await asyncio.gather(*(one() for _ in range(20))) == [200] * 20
    assert monotonic() - began >= 19 * REST * 0.9  # a timer may be a little early


async def test_who_has_left_takes_no_turn(port: int) -> None:
    leaving = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_OPEN - 1)]
    for _, writer in leaving:
        writer.write(REQUEST)
        writer.transport.abort()
    status, _, _ = await http_get(port, REQUEST)
    assert status == 200


async def test_a_server_ends_while_requests_wait_for_their_turns() -> None:
    async with SignalingServer(config(admin_port=0)) as server:
        waiting = [await asyncio.open_connection("127.0.0.1", server.admin_port) for _ in range(MAX_OPEN)]
        for _, writer in waiting:
            writer.write(REQUEST * 8)
            await writer.drain()
    async with asyncio.timeout(PATIENCE):
        for reader, writer in waiting:
            with suppress(ConnectionResetError):
                await reader.read()
            writer.close()
