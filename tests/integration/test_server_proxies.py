"""Clients behind proxies: whom the server believes about their addresses, and what follows for limits."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from aldis.server.app import SignalingServer
from support.certificates import make_certificates
from support.nginx import HOST, PASS, nginx
from support.patience import PATIENCE
from support.ports import free_port
from support.proxied import arrive_by_proxy, proxy_header
from support.raw_websocket import HandshakeRefused, RawClient
from support.settings import config

# An address of this machine that is not a loopback address (tools/netns.sh).
OUTSIDE = "10.77.0.1"
FORWARDED = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"


async def pings(client: RawClient) -> bool:
    return await client.request({"type": "ping"}) == {"type": "pong"}


# --- X-Forwarded-For --------------------------------------------------------------------------------------------------


async def test_limits_count_the_client_behind_a_trusted_proxy_whatever_it_says_itself(tmp_path: Path) -> None:
    port = free_port()
    settings = {"names": "signal.example", "trusted_proxies": "127.0.0.1", "connections_per_address": 1}
    async with SignalingServer(config(**settings)) as server:
        places = PASS + HOST + FORWARDED + f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}"
        async with nginx(tmp_path / "nginx", port, places, address=OUTSIDE):

            async def arrive(said: str) -> RawClient:
                headers = {"X-Forwarded-For": said}
                return await RawClient.connect(port, address=OUTSIDE, host="signal.example", headers=headers)

            async with await arrive("192.0.2.1") as first:
                assert await pings(first)
                request = (
                    b"GET / HTTP/1.1\r\nHost: signal.example\r\nX-Forwarded-For: 192.0.2.2\r\nConnection: close\r\n\r\n"
                )
                assert (await said_to(OUTSIDE, port, request)).startswith(b"HTTP/1.1 429 ")
                # The proxy itself, and clients that it says are elsewhere.
                for said in ("127.0.0.1", "192.0.2.3", "192.0.2.4"):
                    headers = {"X-Forwarded-For": said}
                    async with await RawClient.connect(server.port, host="signal.example", headers=headers) as other:
                        assert await pings(other)
                await first.leave()
            async with await arrive("192.0.2.1") as again:
                assert await pings(again)


async def test_nobody_else_is_believed() -> None:
    for trusted in ("", "192.0.2.0/24"):
        settings = {"host": "0.0.0.0", "trusted_proxies": trusted, "connections_per_address": 1}
        async with SignalingServer(config(**settings)) as server:
            headers = {"X-Forwarded-For": "198.51.100.1"}
            async with await RawClient.connect(server.port, address=OUTSIDE, headers=headers) as client:
                assert await pings(client)
                with pytest.raises(HandshakeRefused, match="429"):
                    await RawClient.connect(server.port, address=OUTSIDE, headers={"X-Forwarded-For": "127.0.0.1"})


# --- the PROXY protocol -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True])
async def test_a_proxy_header_tells_where_the_client_is(tmp_path: Path, secure: bool) -> None:
    files = make_certificates(tmp_path)
    tls = {"tls_cert": files.cert, "tls_key": files.key} if secure else {}
    context = ssl.create_default_context(cafile=str(files.ca)) if secure else None
    settings = {"trusted_proxies": "127.0.0.1", "proxy_protocol": True, "connections_per_address": 1}
    async with (
        SignalingServer(config(**settings, **tls)) as server,
        await arrive_by_proxy(server.port, "192.0.2.1", context) as first,
    ):
        assert await pings(first)
        with pytest.raises(HandshakeRefused, match="429"):
            await arrive_by_proxy(server.port, "192.0.2.1", context)
        async with await arrive_by_proxy(server.port, "192.0.2.2", context) as other:
            assert await pings(other)


async def said_to(address: str, port: int, data: bytes) -> bytes:
    """Send bytes and read all that comes back."""
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(data)
    try:
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                return await reader.read()
        return b""
    finally:
        writer.close()


GET = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"


async def test_a_trusted_proxy_has_to_send_the_header_and_others_cannot() -> None:
    settings = {"host": "0.0.0.0", "trusted_proxies": "127.0.0.1", "proxy_protocol": True}
    async with SignalingServer(config(**settings)) as server:
        assert await said_to("127.0.0.1", server.port, GET) == b""
        for broken in (b"", b"\r\n\r\n", proxy_header("192.0.2.1")[:20]):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(broken)
            writer.close()
        for command in (0, 1):  # its own health check, and a client
            answer = await said_to("127.0.0.1", server.port, proxy_header("192.0.2.1", command=command) + GET)
            assert answer.startswith(b"HTTP/1.1 200 ")
        assert (await said_to(OUTSIDE, server.port, GET)).startswith(b"HTTP/1.1 200 ")
        assert (await said_to(OUTSIDE, server.port, proxy_header("192.0.2.1") + GET)).startswith(b"HTTP/1.1 400 ")
        assert server.faults.count == 0


async def test_a_proxy_without_the_header_is_counted_and_told_to_the_operator(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = {"trusted_proxies": "127.0.0.1", "proxy_protocol": True}
    async with SignalingServer(config(**settings)) as server:
        for _ in range(3):
            assert await said_to("127.0.0.1", server.port, GET) == b""
        assert server.listener.admission.refusals["no-proxy-header"] == 3
        assert {"limit": "proxy_protocol", "effect": "connections refused", "count": 3} in server.health.limits()
    (record,) = [each for each in caplog.records if "PROXY protocol" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert "turn proxy_protocol off" in record.getMessage()


async def test_a_header_that_comes_byte_by_byte_is_read_when_it_is_whole_and_no_further() -> None:
    settings = {"trusted_proxies": "127.0.0.1", "proxy_protocol": True}
    async with SignalingServer(config(**settings)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for byte in proxy_header("192.0.2.1"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(GET)
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_headers_that_are_not_whole_cost_no_task_and_end_in_time() -> None:
    """Tasks that end together keep everybody waiting: 400 of them took 14 ms in one turn of the loop."""
    settings = {"trusted_proxies": "127.0.0.1", "proxy_protocol": True, "handshake_timeout": 1}
    async with SignalingServer(config(**settings)) as server, asyncio.timeout(PATIENCE):
        admission = server.listener.admission
        tasks = asyncio.all_tasks()
        halves = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(40)]
        for number, (_, writer) in enumerate(halves):
            writer.write(proxy_header("192.0.2.1")[: 1 + number % 27])
        while admission.speaking < len(halves):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks
        for reader, writer in halves:
            assert await reader.read() == b""
            writer.close()
        assert admission.refusals["late"] == len(halves)
        assert admission.pending == len(admission) == 0
