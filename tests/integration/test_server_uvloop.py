"""What depends on the event loop, again on uvloop: the tests beside this one run the server on asyncio's own loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import PING, RawClient, http_get
from support.server_process import ServerProcess
from support.settings import UNLIMITED


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


async def metric(server: ServerProcess, name: str) -> float:
    request = b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    _, _, page = await http_get(server.admin_port, request)
    return next((float(line.split(" ")[1]) for line in page.decode().splitlines() if line.startswith(f"{name} ")), 0.0)


async def test_a_slow_consumer_is_closed_for_what_it_asked_for_and_not_for_what_others_send(tmp_path: Path) -> None:
    settings = {"resume_window": 0, "close_timeout": 1, "admin_port": 0, **UNLIMITED}
    async with ServerProcess(tmp_path, **settings) as server:
        async with await RawClient.connect(server.port) as flood:
            await flood.register("flood")
            sock = socket.create_connection(("127.0.0.1", server.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # Little on its way: what the server's kernel has no room for is dropped, and comes again after a pause that
            # is twice as long each time.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
            reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
            slow = RawClient(reader, writer, f"127.0.0.1:{server.port}")
            await slow.shake_hands("/", "aldis.v1", {})
            await slow.register("slow")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            before = resident_bytes(server.pid)
            message = {"type": "relay", "to": "slow", "sealed": "x" * 60_000, "id": 1}
            async with asyncio.timeout(PATIENCE):
                while (reply := await flood.request(message))["type"] == "ack":
                    pass
            assert reply["code"] == "rate-limited"
            assert (await flood.request({"type": "bye", "to": "slow", "id": 2}))["type"] == "ack"
            # Closed with 4002, and aborted after some seconds as it does not answer; then it is not online.
            async with asyncio.timeout(PATIENCE):
                while (reply := await flood.request(message)).get("code") == "rate-limited":
                    for _ in range(0 if writer.transport.get_write_buffer_size() else 200):
                        slow.send({"type": "ping", "id": "\U0001f526" * 64})
            assert reply["code"] == "not-online"
            assert resident_bytes(server.pid) - before < 16 * 1024 * 1024
            assert await metric(server, 'aldis_closes_total{code="4002"}') == 1
            assert await metric(server, "aldis_connections") == 1
            writer.transport.abort()
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_a_half_open_connection_is_found_by_ping_and_aborted(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, ping_interval=1, resume_window=0, close_timeout=1, admin_port=0) as server:
        async with await RawClient.connect(server.port) as dead, await RawClient.connect(server.port) as watcher:
            await watcher.register("watcher")
            await dead.register("dead")
            assert (await watcher.request({"type": "watch", "userIds": ["dead"]}))["online"] is True
            assert (await watcher.receive())["online"] is False
            assert (await dead.receive_frame()).opcode == PING
            assert (await dead.receive_frame()).close_code == 4003
            await dead.wait_over()
        assert await server.stop() == 0
        server.assert_clean_log()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_page_is_served_and_http_1_0_is_told_what_is_missing(tmp_path: Path, tls: bool) -> None:
    files = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(files.ca)) if tls else None
    settings: dict[str, Any] = {"tls_cert": str(files.cert), "tls_key": str(files.key)} if tls else {}
    async with ServerProcess(tmp_path, names="h", **settings) as server:
        for version, expected in ((b"1.1", 200), (b"1.0", 505)):
            request = b"GET /src/page/main.js HTTP/%b\r\nHost: h\r\n\r\n" % version
            status, headers, body = await http_get(server.port, request, context)
            assert (status, headers["connection"]) == (expected, "close")
            assert int(headers["content-length"]) == len(body)
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_tls_is_served_and_noise_on_its_port_fills_no_log(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(files.ca))
    async with ServerProcess(tmp_path, tls_cert=str(files.cert), tls_key=str(files.key), log_level="info") as server:
        for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x00" * 5000):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(noise)
            async with asyncio.timeout(PATIENCE):
                with suppress(OSError):  # the server may have left already
                    writer.write_eof()
                    await reader.read()
            writer.close()
        connect = RawClient.connect
        async with (
            await connect(server.port, context=context, server_hostname="127.0.0.1") as alice,
            await connect(server.port, context=context, server_hostname="127.0.0.1") as bob,
        ):
            await alice.register("alice")
            await bob.register("bob")
            for number in range(1, 20):
                alice.send({"type": "bye", "to": "bob", "reason": "x" * 3000 * number, "id": number})
                assert len((await bob.receive())["reason"]) == 3000 * number
                assert await alice.receive() == {"type": "ack", "re": number}
            bob.vanish()
            alice.send_frame(2, b"x")
            assert (await alice.wait_closed())[0] == 1003
        assert await server.stop() == 0
        server.assert_clean_log()
        assert len(server.lines()) < 10


async def test_the_table_of_open_files_does_not_grow_while_clients_come(tmp_path: Path) -> None:
    """The loop stands still while it grows."""

    def table() -> int:
        lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("FDSize:"))

    async with ServerProcess(tmp_path, max_connections=300) as server:
        before = table()
        with ExitStack() as stack:
            for _ in range(290):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            async with await RawClient.connect(server.port) as client:
                assert await client.request({"type": "ping"}) == {"type": "pong"}
            assert table() == before
