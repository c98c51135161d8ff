"""Who gets a place at the public port while others hold connections, silent or not, with and without TLS."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

from aldis.server.app import SignalingServer
from aldis.server.tuning import Tuning
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import HandshakeRefused, RawClient, http_get
from support.server_process import ServerProcess
from support.settings import config

SILENT = 300
# An address of this machine that is not a loopback address (tools/netns.sh).
OUTSIDE = "10.77.0.1"


@asynccontextmanager
async def silent_clients(port: int, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Clients that connect and say nothing."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def come_and_go(port: int, address: str) -> None:
    """Connect again and again, at most a thousand times."""
    for _ in range(1000):
        async with await RawClient.connect(port, address=address) as client:
            await client.leave()


@pytest.mark.parametrize("secure", [False, True])
async def test_silent_connections_count_and_keep_nobody_out(tmp_path: Path, secure: bool) -> None:
    files = make_certificates(tmp_path)
    tls = {"tls_cert": files.cert, "tls_key": files.key} if secure else {}
    context = ssl.create_default_context(cafile=str(files.ca)) if secure else None
    async with SignalingServer(config(max_connections=10, **tls)) as server:
        admission = server.listener.admission
        async with silent_clients(server.port, SILENT) as silent, AsyncExitStack() as stack:
            for _ in range(10):
                client = await stack.enter_async_context(await RawClient.connect(server.port, context=context))
                assert await client.request({"type": "ping"}) == {"type": "pong"}
            assert (len(admission), admission.pending) == (10, 0)
            assert admission.refusals["silent"] == SILENT
            with pytest.raises(HandshakeRefused, match="all the connections it can take") as refused:
                await RawClient.connect(server.port, context=context)
            assert (refused.value.status, "retry-after" in refused.value.headers) == (503, True)
            async with asyncio.timeout(PATIENCE):
                for reader in silent:  # all are cut off
                    with suppress(ConnectionError):
                        assert await reader.read() == b""


async def test_half_open_connections_do_not_use_up_the_descriptors(tmp_path: Path) -> None:
    """With fewer descriptors than `handshakes`."""
    async with ServerProcess(tmp_path) as server:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (100, 100))
        async with silent_clients(server.port, SILENT):
            for number in range(33):
                async with await RawClient.connect(server.port) as client:
                    assert (await client.register(f"stranger{number}"))["success"] is True
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_a_silent_tls_client_is_let_go_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One never shakes hands. Another one does, and then it asks for nothing and does not answer the end of TLS."""
    # What an event loop waits that is told nothing: longer than a busy machine may need for this.
    monkeypatch.setattr(asyncio.constants, "SSL_SHUTDOWN_TIMEOUT", 3600.0)
    files = make_certificates(tmp_path)
    settings = config(tls_cert=files.cert, tls_key=files.key, handshake_timeout=1.0)
    context = ssl.create_default_context(cafile=str(files.ca))

    def shake_hands_and_fall_silent(port: int) -> None:
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        secure = context.wrap_socket(plain, server_hostname="127.0.0.1")
        with socket.socket(fileno=secure.detach()) as deaf:
            deaf.settimeout(PATIENCE)
            with suppress(ConnectionError):
                while deaf.recv(65536):
                    pass

    async with (
        SignalingServer(settings, tuning=Tuning(tls_shutdown_timeout=0.1)) as server,
        silent_clients(server.port, 1) as (mute,),
    ):
        await asyncio.to_thread(shake_hands_and_fall_silent, server.port)
        async with asyncio.timeout(PATIENCE):
            with suppress(ConnectionError):
                assert await mute.read() == b""


async def test_a_stop_does_not_wait_for_clients_that_say_nothing() -> None:
    async with SignalingServer(config()) as server, silent_clients(server.port, 3) as silent:
        await http_get(server.port, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            await server.stop()
            for reader in silent:
                with suppress(ConnectionError):
                    assert await reader.read() == b""


# --- by address -------------------------------------------------------------------------------------------------------


async def test_an_address_that_has_all_its_connections_is_told_and_the_others_are_served() -> None:
    async with SignalingServer(config(host="0.0.0.0", connections_per_address=2)) as server:
        async with AsyncExitStack() as stack:
            first, _ = [
                await stack.enter_async_context(await RawClient.connect(server.port, address=OUTSIDE)) for _ in range(2)
            ]
            with pytest.raises(HandshakeRefused, match="Too many connections come from your address") as refused:
                await RawClient.connect(server.port, address=OUTSIDE)
            assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "5")
            for _ in range(5):  # this machine has no limit
                client = await stack.enter_async_context(await RawClient.connect(server.port))
                assert await client.request({"type": "ping"}) == {"type": "pong"}
            await first.leave()
            async with await RawClient.connect(server.port, address=OUTSIDE) as client:
                assert await client.request({"type": "ping"}) == {"type": "pong"}
        assert server.listener.admission.refusals["address"] == 1
        assert server.listener.requests["address"] == 1


async def test_an_address_that_connects_too_often_is_told_when_to_come_back() -> None:
    async with SignalingServer(config(host="0.0.0.0", connects_per_address=1)) as server:
        with pytest.raises(HandshakeRefused, match="connects too often") as refused:
            await come_and_go(server.port, OUTSIDE)
        assert (refused.value.status, "retry-after" in refused.value.headers) == (429, True)


async def test_clients_that_connect_too_often_together_are_told_when_to_come_back() -> None:
    async with SignalingServer(config(connects_per_second=1)) as server:
        with pytest.raises(HandshakeRefused, match="Too many clients connect at once") as refused:
            await come_and_go(server.port, "127.0.0.1")
        assert (refused.value.status, "retry-after" in refused.value.headers) == (503, True)


async def test_the_metrics_count_what_was_refused() -> None:
    async with SignalingServer(config(max_connections=1, admin_port=0)) as server:
        async with await RawClient.connect(server.port):
            with pytest.raises(HandshakeRefused):
                await RawClient.connect(server.port)
            assert server.admin_port is not None
            request = b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            _, _, page = await http_get(server.admin_port, request)
        for line in (
            "aldis_connections_accepted 1.0",
            "aldis_handshakes_pending 0.0",
            'aldis_connections_refused_total{reason="full"} 1.0',
            'aldis_connections_refused_total{reason="address"} 0.0',
        ):
            assert f"\n{line}\n".encode() in page
