"""No connection leaves anything to Python's collector of garbage, which seldom looks at old objects."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aldis.server.app import SignalingServer
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import BINARY, TEXT, RawClient, encode_frame, http_get
from support.settings import UNLIMITED, config

Client = Callable[[SignalingServer], Awaitable[None]]


async def leaves(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register("alice")
        await client.request({"type": "watch", "userIds": ["bob", "carol"], "id": 1})
        await client.leave()


async def vanishes(server: SignalingServer) -> None:
    client = await RawClient.connect(server.port)
    await client.register("alice")
    client.vanish()


async def breaks_the_protocol(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as client:
        client.send_bytes(encode_frame(TEXT, b"{}", masked=False))
        await client.wait_over()


async def is_refused(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port) as client:
        client.send_frame(BINARY, b"x")
        assert (await client.wait_closed())[0] == 1003


async def fetches_a_page(server: SignalingServer) -> None:
    await http_get(server.port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")


async def says_nothing(server: SignalingServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.close()


async def breaks_off(server: SignalingServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTT")
    await writer.drain()
    writer.transport.abort()


async def speaks_no_tls(server: SignalingServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    await reader.read()
    writer.close()


PLAIN: list[Client] = [leaves, vanishes, breaks_the_protocol, is_refused, fetches_a_page, says_nothing, breaks_off]


async def garbage_of(client: Client, **settings: object) -> set[str]:
    """What some such clients leave behind: the types of ours and of picows."""
    async with SignalingServer(config(**UNLIMITED, **settings)) as server:
        await client(server)  # what is made once
        while gc.collect():  # what finalizers hold is found the next time
            pass
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(5):
                await client(server)
            async with asyncio.timeout(PATIENCE):
                while len(server.listener.admission):  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0)
            gc.collect()
            kinds = {f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
    # What other parts of aldis leave behind is of an earlier test.
    ours = ("aldis.hub.", "aldis.server.", "aldis.backends.", "aldis.protocol.", "picows", "ssl.")
    return {kind for kind in kinds if kind.startswith(ours)}


@pytest.mark.parametrize("client", PLAIN, ids=lambda client: client.__name__)
async def test_a_client_leaves_no_garbage(client: Client) -> None:
    assert await garbage_of(client) == set()


async def test_a_client_without_tls_leaves_no_garbage_where_there_is_tls(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    assert await garbage_of(speaks_no_tls, tls_cert=files.cert, tls_key=files.key) == set()
