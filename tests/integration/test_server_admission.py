"""Who gets a place at the public port while others hold connections, silent or not, with and without TLS."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest

from aldis.server.app import SignalingServer
from aldis.server.tuning import Tuning
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import HandshakeRefused, RawClient, http_get
from support.server_process import ServerProcess
from support.settings import config

SILENT = 300


@asynccontextmanager
async def silent_clients(port: int, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Clients that connect and say nothing."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


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


async def test_a_silent_tls_client_is_let_go_soon(tmp_path: Path) -> None:
    """One never shakes hands. Another one does, and then it asks for nothing and does not answer the end of TLS."""
    files = make_certificates(tmp_path)
    tuning = Tuning(handshake_timeout=1.0, tls_shutdown_timeout=0.1)
    context = ssl.create_default_context(cafile=str(files.ca))

    def shake_hands_and_fall_silent(port: int) -> float:
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        secure = context.wrap_socket(plain, server_hostname="127.0.0.1")
        began = monotonic()
        with socket.socket(fileno=secure.detach()) as deaf:
            deaf.settimeout(PATIENCE)
            with suppress(ConnectionError):
                while deaf.recv(65536):
                    pass
        return monotonic() - began

    async with (
        SignalingServer(config(tls_cert=files.cert, tls_key=files.key), tuning=tuning) as server,
        silent_clients(server.port, 1) as (mute,),
    ):
        assert await asyncio.to_thread(shake_hands_and_fall_silent, server.port) < 10
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
