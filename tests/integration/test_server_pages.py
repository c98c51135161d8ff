"""The page over real sockets: for browsers, for the impatient, and for clients that mean no good."""

from __future__ import annotations

import asyncio
import gzip
import select
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from weakref import finalize

import pytest

from aldis.server import listener
from aldis.server.app import SignalingServer
from aldis.server.pages import Pages
from aldis.server.tuning import Tuning
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import HandshakeRefused, RawClient, http_get
from support.server_process import ServerProcess
from support.settings import config

PLAIN = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"
PACKED = b"GET %b HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip, br\r\n\r\n"

OLD = b"GET / HTTP/1.0\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config(names="h")) as server:
        yield server


async def is_served(server: SignalingServer) -> None:
    """Others are served on: a page, and a WebSocket."""
    assert (await http_get(server.port, PLAIN % b"/"))[0] == 200
    async with await RawClient.connect(server.port) as client:
        assert await client.request({"type": "ping"}) == {"type": "pong"}


# --- a browser --------------------------------------------------------------------------------------------------------


async def test_a_browser_gets_the_page_and_asks_again_for_next_to_nothing(server: SignalingServer) -> None:
    status, headers, body = await http_get(server.port, PACKED % b"/?from=a-link")
    assert (status, headers["content-type"], headers["content-encoding"]) == (200, "text/html; charset=utf-8", "gzip")
    assert int(headers["content-length"]) == len(body)
    assert b"<title>" in gzip.decompress(body)
    again = (PACKED % b"/").replace(b"Host", b"If-None-Match: " + headers["etag"].encode() + b"\r\nHost", 1)
    status, again_headers, body = await http_get(server.port, again)
    assert (status, body, again_headers["etag"]) == (304, b"", headers["etag"])
    assert "content-length" not in again_headers
    assert server.listener.requests == {"page": 1, "not-modified": 1}


async def test_every_file_is_served_as_it_is_in_the_package(server: SignalingServer) -> None:
    pages = Pages.of_package()
    for path in sorted(pages.paths):
        (status, headers, plain), (_, _, packed) = await asyncio.gather(
            http_get(server.port, PLAIN % path), http_get(server.port, PACKED % path)
        )
        assert (status, int(headers["content-length"])) == (200, len(plain))
        assert plain == (gzip.decompress(packed) if packed.startswith(b"\x1f\x8b") else packed)


async def test_page_and_websocket_share_an_address(server: SignalingServer) -> None:
    assert server.page_url == "https://h/"  # and not localhost, which is no name of this server
    assert server.url == f"ws://127.0.0.1:{server.port}"
    await is_served(server)
    with pytest.raises(HandshakeRefused) as refused:
        await RawClient.connect(server.port, headers={"Sec-WebSocket-Version": "8"})
    assert refused.value.status == 426
    with pytest.raises(HandshakeRefused) as refused:
        await RawClient.connect(server.port, path="/index.html")
    assert refused.value.status == 200


async def test_the_page_is_at_localhost_only_if_the_server_goes_by_that_name() -> None:
    async with SignalingServer(config()) as server:
        assert server.page_url == f"http://localhost:{server.port}/"
    async with SignalingServer(config(names="signal.test")) as server:
        assert server.page_url == "https://signal.test/"
        for name, status in (("localhost", 421), ("foo.localhost", 421), ("127.0.0.1", 200)):
            request = f"GET / HTTP/1.1\r\nHost: {name}:{server.port}\r\n\r\n".encode()
            assert (await http_get(server.port, request))[0] == status


async def test_the_page_is_there_also_when_there_is_no_place_for_another_connection() -> None:
    async with SignalingServer(config(names="h", max_connections=1)) as server, await RawClient.connect(server.port):
        assert (await http_get(server.port, PLAIN % b"/"))[0] == 200


async def test_over_tls_all_is_the_same_and_browsers_are_told_to_stay_with_it(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(files.ca))
    async with SignalingServer(config(names="h", tls_cert=files.cert, tls_key=files.key)) as server:
        assert server.page_url == "https://h/"
        status, headers, body = await http_get(server.port, PACKED % b"/", context)
        assert (status, headers["content-encoding"]) == (200, "gzip")
        assert b"<title>" in gzip.decompress(body)
        assert headers["strict-transport-security"] == "max-age=31536000"


# --- no page ----------------------------------------------------------------------------------------------------------


async def test_without_the_page_the_address_says_what_it_is_and_serves_nothing() -> None:
    async with SignalingServer(config(names="h", web=False)) as server:
        assert server.page_url is None
        status, headers, body = await http_get(server.port, PLAIN % b"/")
        assert (status, headers["upgrade"]) == (426, "websocket")
        assert b"Aldis signaling server" in body
        for path in Pages.of_package().paths - {b"/"}:
            assert (await http_get(server.port, PLAIN % path))[0] == 404
        async with await RawClient.connect(server.port) as client:
            assert await client.request({"type": "ping"}) == {"type": "pong"}


async def test_a_broken_installation_still_serves_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with SignalingServer(config(names="h"), pages=Pages(tmp_path / "nowhere")) as server:
        assert server.page_url is None
        status, _, body = await http_get(server.port, PLAIN % b"/")
        assert (status, b"missing" in body) == (503, True)
        async with await RawClient.connect(server.port) as client:
            assert await client.request({"type": "ping"}) == {"type": "pong"}
    assert "the page is missing" in caplog.text


# --- clients that are in no browser -----------------------------------------------------------------------------------


async def answer(server: SignalingServer, *parts: bytes) -> bytes:
    """All that the server says to these bytes, until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(PATIENCE):
            for part in parts:
                writer.write(part)
                await writer.drain()
            return await reader.read()
    finally:
        writer.close()


async def test_a_thousand_requests_leave_nothing_behind(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, admin_port=0) as server:
        descriptors = Path(f"/proc/{server.pid}/fd")
        before = len(list(descriptors.iterdir()))

        async def ask(count: int) -> None:
            for _ in range(count):
                assert (await http_get(server.port, PLAIN % b"/aldis.js"))[0] == 200

        await asyncio.gather(*(ask(125) for _ in range(8)))
        # The last connection is over for us when it is for the server, or a moment later.
        assert len(list(descriptors.iterdir())) < before + 8
        _, _, page = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert b'aldis_http_requests_total{outcome="page"} 1000.0' in page
        async with await RawClient.connect(server.port) as client:
            assert await client.request({"type": "ping"}) == {"type": "pong"}
        assert await server.stop() == 0
        server.assert_clean_log()


@pytest.mark.parametrize("size", [1, 7, 30])
@pytest.mark.parametrize(("request_", "status"), [(PLAIN % b"/", b"200 OK"), (OLD, b"505 HTTP Version Not Supported")])
async def test_a_request_may_come_in_pieces(server: SignalingServer, request_: bytes, status: bytes, size: int) -> None:
    pieces = [request_[start : start + size] for start in range(0, len(request_), size)]
    assert (await answer(server, *pieces)).startswith(b"HTTP/1.1 " + status + b"\r\n")


@pytest.mark.parametrize(
    "more",
    [
        b"",
        b"Connection: close\r\n",
        # Of an upgrade nginx leaves this, by default.
        b"Connection: close\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        b"Cookie: " + b"x" * 1500 + b"\r\n",
    ],
    ids=lambda more: repr(more[:40]),
)
async def test_who_comes_through_a_proxy_of_http_1_0_is_told_how_to_set_that_up(
    server: SignalingServer, more: bytes
) -> None:
    status, headers, body = await http_get(server.port, b"GET / HTTP/1.0\r\nHost: h\r\n" + more + b"\r\n")
    assert (status, headers["connection"], int(headers["content-length"])) == (505, "close", len(body))
    assert b"proxy_http_version 1.1" in body


@pytest.mark.parametrize("request_", [b"GET /?%b HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nCookie: %b\r\n"])
async def test_a_request_may_be_longer_than_what_is_read_at_first(server: SignalingServer, request_: bytes) -> None:
    request = request_ % (b"x" * 3000) + b"Host: h\r\n\r\n"
    assert (await answer(server, request)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("request_", [b"GET /?%b HTTP/1.0\r\n", b"GET / HTTP/1.0\r\nCookie: %b\r\n"])
async def test_a_long_request_of_http_1_0_is_refused(server: SignalingServer, request_: bytes) -> None:
    with suppress(ConnectionError):  # what the server had not read when it closed makes a reset of it
        said = await answer(server, request_ % (b"x" * 3000) + b"Host: h\r\n\r\n")
        assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 "))
    await is_served(server)


@pytest.mark.parametrize(
    "smuggler",
    [
        b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
        b"GET /nothing HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nX: %d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: \xff\r\nY: %d\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n folded: %d\r\n\r\n",
    ],
)
async def test_a_connection_gets_one_reply(server: SignalingServer, smuggler: bytes) -> None:
    """So no request can hide in another one."""
    hidden = PLAIN % b"/healthz"
    said = await answer(server, smuggler.replace(b"%d", b"%d" % len(hidden)) + hidden)
    assert (said.count(b"HTTP/1.1 "), said.count(b"\r\nConnection: close\r\n")) == (1, 1)
    assert not server.listener.requests["healthz"]


async def test_who_asks_after_the_port_is_closed_still_gets_a_reply(server: SignalingServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await is_served(server)  # who comes later: so the server has accepted the first one
    server.listener.stop_accepting()
    writer.write(PLAIN % b"/healthz")
    async with asyncio.timeout(PATIENCE):
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PUT /index.html HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx",
        b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nbroken\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n",
    ],
    ids=lambda request: repr(request[:40]),
)
async def test_anything_but_a_get_without_a_body_is_refused(server: SignalingServer, request_: bytes) -> None:
    assert (await answer(server, request_)).startswith(b"HTTP/1.1 400 ")
    assert not server.listener.requests
    await is_served(server)


@pytest.mark.parametrize("accepted", [b"gzip" * 3000, b"gzip;" * 2500, b"," * 12_000, b"*;q=" + b"0" * 12_000])
async def test_headers_of_any_size_that_is_read_do_no_harm(server: SignalingServer, accepted: bytes) -> None:
    request = b"GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: " + accepted + b"\r\nIf-None-Match: " + b'"' * 3000
    assert (await answer(server, request + b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    await is_served(server)


async def test_headers_that_never_end_are_cut_off(server: SignalingServer) -> None:
    with suppress(ConnectionError):  # what the server had not read when it closed makes a reset of it
        assert await answer(server, b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000) == b""
    await is_served(server)


# --- clients that do not fetch what they asked for --------------------------------------------------------------------


@pytest.fixture
def large(tmp_path: Path) -> Pages:
    """A page that no socket's buffer holds, so that it waits for the client."""
    (tmp_path / "index.html").write_bytes(b"x" * 16 * 1024 * 1024)
    (tmp_path / "small.txt").write_bytes(b"x" * listener.AT_ONCE)
    return Pages(tmp_path)


async def ask_and_read_nothing(server: SignalingServer) -> socket.socket:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", server.port))
    await loop.sock_sendall(client, PLAIN % b"/")
    await loop.run_in_executor(None, select.select, [client], [], [], PATIENCE)
    return client


async def nothing_waits(server: SignalingServer) -> None:
    """Return when the server has let go of all replies."""
    async with asyncio.timeout(PATIENCE):
        while server.listener.untaken:
            gone = asyncio.Event()
            finalize(next(iter(server.listener.untaken)), gone.set)
            await gone.wait()


async def test_replies_that_nobody_fetches_are_limited(large: Pages) -> None:
    async with SignalingServer(config(names="h"), tuning=Tuning(max_untaken=3), pages=large) as server:
        greedy = [await ask_and_read_nothing(server) for _ in range(3)]
        for _ in range(10):
            status, headers, _ = await http_get(server.port, PLAIN % b"/")
            assert (status, int(headers["retry-after"]) > 0) == (503, True)
        assert (server.listener.requests["page"], server.listener.requests["busy"]) == (3, 10)
        # What fits into the kernel's hands never waits, and what keeps a load balancer content is among it.
        for path in (b"/small.txt", b"/healthz"):
            assert (await http_get(server.port, PLAIN % path))[0] == 200
        async with await RawClient.connect(server.port) as client:
            assert await client.request({"type": "ping"}) == {"type": "pong"}
        for one in greedy:
            one.close()
        await nothing_waits(server)
        assert (await http_get(server.port, PLAIN % b"/"))[0] == 200


async def test_who_does_not_fetch_a_reply_is_cut_off(large: Pages) -> None:
    async with SignalingServer(config(names="h"), tuning=Tuning(unacknowledged=2.0), pages=large) as server:
        client = await ask_and_read_nothing(server)
        assert len(server.listener.untaken) == 1
        await nothing_waits(server)
        client.close()


async def test_a_stop_does_not_wait_for_who_does_not_fetch_a_reply(large: Pages) -> None:
    async with SignalingServer(config(names="h"), pages=large) as server:
        client = await ask_and_read_nothing(server)
        async with asyncio.timeout(PATIENCE):
            await server.stop()
        client.close()
