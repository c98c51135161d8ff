"""Several requests on one connection: what is kept open, what is not, and that nothing is mixed up or left behind."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import aldis
from aldis.server.app import SignalingServer
from aldis.server.pages import Pages
from aldis.server.tuning import Tuning
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import RawClient, http_get, read_reply
from support.server_process import ServerProcess
from support.settings import config

PLAIN = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
SDK = Path(aldis.__file__).parent / "web" / "aldis.js"
SIZE = 256 * 1024  # of a page that few fit into the buffers of a socket
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: aldis.v1\r\n\r\n"
)


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config(names="h")) as server:
        yield server


class Visitor:
    """A connection that asks for things, one after the other or all at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, *requests: bytes) -> list[tuple[int, dict[str, str], bytes]]:
        """Send all, and read as many replies."""
        self.writer.write(b"".join(requests))
        async with asyncio.timeout(PATIENCE):
            return [await read_reply(self.reader) for _ in requests]

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()


@asynccontextmanager
async def visit(port: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Visitor]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield Visitor(reader, writer)
    finally:
        writer.close()


async def talk_of_websockets(visitor: Visitor, port: int) -> None:
    """What was a page's connection is a WebSocket now: it speaks, and ends when asked to."""
    async with asyncio.timeout(PATIENCE):
        assert (await visitor.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    client = RawClient(visitor.reader, visitor.writer, f"127.0.0.1:{port}")
    assert await client.request({"type": "ping"}) == {"type": "pong"}
    await client.leave()


async def test_who_comes_through_a_proxy_of_http_1_0_is_told_how_to_set_that_up(server: SignalingServer) -> None:
    """As nginx does by default: HTTP/1.0, `Connection: close`, and of an upgrade only the key is left."""
    for more in (b"", b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"):
        async with visit(server.port) as visitor:
            request = b"GET / HTTP/1.0\r\nHost: h\r\nConnection: close\r\n" + more + b"\r\n"
            ((status, headers, body),) = await visitor.ask(request)
            assert (status, headers["connection"]) == (505, "close")
            assert b"proxy_http_version 1.1" in body


# --- what is kept -----------------------------------------------------------------------------------------------------


async def test_a_connection_serves_one_request_after_the_other(server: SignalingServer) -> None:
    async with visit(server.port) as visitor:
        for path, status in ((b"/", 200), (b"/nothing", 404), (b"/aldis.js", 200), (b"/healthz", 200), (b"/ws", 426)):
            ((answered, headers, body),) = await visitor.ask(PLAIN % path)
            assert (answered, int(headers["content-length"])) == (status, len(body))
            assert (headers["keep-alive"], "connection" in headers) == ("timeout=5", False)
        ((_, headers, _),) = await visitor.ask(PLAIN % b"/")
        ((status, _, body),) = await visitor.ask(
            (PLAIN % b"/").replace(b"\r\n\r\n", b"\r\nIf-None-Match: " + headers["etag"].encode() + b"\r\n\r\n")
        )
        assert (status, body) == (304, b"")
    assert server.listener.requests == {"page": 3, "not-found": 1, "healthz": 1, "no-upgrade": 1, "not-modified": 1}


async def test_requests_in_a_row_get_an_answer_each_in_their_order(server: SignalingServer) -> None:
    paths = [b"/healthz", b"/", b"/nothing", b"/aldis.js"] * 10
    async with visit(server.port) as visitor:
        replies = await visitor.ask(*(PLAIN % path for path in paths), LAST % b"/healthz")
        assert [status for status, _, _ in replies] == [200, 200, 404, 200] * 10 + [200]
        assert replies[-1][1]["connection"] == "close"
        assert replies[3][2] == SDK.read_bytes()
        assert await visitor.rest() == b""


async def test_what_is_said_after_the_last_request_is_not_looked_at(server: SignalingServer) -> None:
    async with visit(server.port) as visitor:
        await visitor.ask(LAST % b"/healthz" + PLAIN % b"/")
        assert server.listener.requests == {"healthz": 1}


@pytest.mark.parametrize("size", [1, 7, 100])
async def test_requests_may_come_in_pieces(server: SignalingServer, size: int) -> None:
    requests = PLAIN % b"/healthz" + PLAIN % b"/nothing" + LAST % b"/healthz"
    async with visit(server.port) as visitor:
        for start in range(0, len(requests), size):
            visitor.writer.write(requests[start : start + size])
            await visitor.writer.drain()
        said = await visitor.rest()
        assert [said.count(status) for status in (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 404 Not Found\r\n")] == [2, 1]


async def test_a_connection_of_the_page_may_become_a_websocket(server: SignalingServer) -> None:
    async with visit(server.port) as visitor:
        await visitor.ask(PLAIN % b"/")
        visitor.writer.write(UPGRADE)
        await talk_of_websockets(visitor, server.port)
    async with visit(server.port) as visitor:
        await visitor.ask(PLAIN % b"/healthz" + UPGRADE)
        await talk_of_websockets(visitor, server.port)


@pytest.mark.parametrize("tls", [False, True])
async def test_all_that_on_the_event_loop_of_a_real_server(tmp_path: Path, tls: bool) -> None:
    files = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(files.ca)) if tls else None
    settings: dict[str, Any] = {"tls_cert": str(files.cert), "tls_key": str(files.key)} if tls else {}
    async with ServerProcess(tmp_path, names="h", **settings) as server:
        async with visit(server.port, context) as visitor:
            for _ in range(3):
                ((status, _, body),) = await visitor.ask(PLAIN % b"/src/page/main.js")
                assert (status, len(body) > 1000) == (200, True)
            replies = await visitor.ask(*[PLAIN % b"/src/page/main.js"] * 20)
            assert {len(body) for _, _, body in replies} == {len(body)}
            visitor.writer.write(UPGRADE)
            await talk_of_websockets(visitor, server.port)
        async with visit(server.port, context) as visitor:
            await visitor.ask(PLAIN % b"/")
            assert await server.stop() == 0
            assert await visitor.rest() == b""
        server.assert_clean_log()


# --- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "smuggler",
    [
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX: %d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: \xff\r\nY: %d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n folded: %d\r\n\r\n",
    ],
)
async def test_nothing_is_answered_after_a_request_that_could_hold_another(
    server: SignalingServer, smuggler: bytes
) -> None:
    hidden = PLAIN % b"/healthz"
    async with visit(server.port) as visitor:
        await visitor.ask(PLAIN % b"/nothing")
        visitor.writer.write(smuggler % len(hidden) + hidden)
        said = await visitor.rest()
        assert (said.count(b"HTTP/1.1 "), said.count(b"\r\nConnection: close\r\n")) == (1, 1)
    assert not server.listener.requests["healthz"]


async def test_an_idle_connection_is_closed() -> None:
    async with SignalingServer(config(names="h"), tuning=Tuning(keep_alive=0.1)) as server:
        async with visit(server.port) as visitor:
            await visitor.ask(PLAIN % b"/healthz")
            visitor.writer.write(b"GET / HTTP/1.1\r\n")  # and no more
            assert await visitor.rest() == b""
        assert not server.listener.opened


async def test_beyond_a_number_connections_are_closed_after_a_reply() -> None:
    async with (
        SignalingServer(config(names="h"), tuning=Tuning(max_kept=2)) as server,
        visit(server.port) as one,
        visit(server.port) as two,
    ):
        for visitor in (one, two):
            assert "connection" not in (await visitor.ask(PLAIN % b"/"))[0][1]
        assert (await http_get(server.port, PLAIN % b"/"))[1]["connection"] == "close"
        assert (await one.ask(PLAIN % b"/"))[0][0] == 200


async def test_a_server_that_stops_lets_its_visitors_go(server: SignalingServer) -> None:
    async with visit(server.port) as visitor, visit(server.port) as late:
        await visitor.ask(PLAIN % b"/")
        await late.ask(PLAIN % b"/")
        await server.stop()
        assert await visitor.rest() == await late.rest() == b""
    assert not server.listener.opened


async def test_who_has_asked_nothing_yet_is_told_that_the_server_goes_away(server: SignalingServer) -> None:
    async with visit(server.port) as visitor:
        await http_get(server.port, LAST % b"/healthz")  # who comes later, and is served
        server.listener.stop_accepting()
        ((status, headers, _),) = await visitor.ask(PLAIN % b"/healthz")
        assert (status, headers["connection"]) == (200, "close")
        assert await visitor.rest() == b""


async def test_who_asks_on_and_on_and_fetches_nothing_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(b"x" * SIZE)
    async with SignalingServer(config(names="h"), pages=Pages(tmp_path)) as server:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", server.port))
            requests = b"".join([PLAIN % b"/"] * 50)
            await loop.sock_sendall(client, requests)
            async with await RawClient.connect(server.port) as witness:  # who comes after it, and is served
                assert await witness.request({"type": "ping"}) == {"type": "pong"}
            assert 0 < server.listener.requests["page"] < 40
            assert len(server.listener.untaken) == 1
            # Fetched, they go on: nothing that was asked for is lost.
            reader, writer = await asyncio.open_connection(sock=client)
            visitor = Visitor(reader, writer)
            replies = await visitor.ask(*[b""] * 50)
            assert {len(body) for _, _, body in replies} == {SIZE}
            writer.close()
        assert server.listener.requests["page"] == 50
