"""What attackers can make a real server keep, by the memory of its process."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from aldis.backends.sqlite_file import FILE_NAME
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from aldis.protocol.messages import MAX_DEVICES, MAX_SEAL_KEY
from aldis.server.listener import SEND_BUFFER
from support.certificates import make_certificates
from support.cluster_servers import metric
from support.patience import PATIENCE
from support.raw_websocket import BINARY, TEXT, RawClient, encode_frame
from support.server_process import ServerProcess
from support.settings import UNLIMITED

SESSIONS = 20
MESSAGES = 60
# What the kernel counts for the process beside what is kept: buffers of connections, pools of Python's allocator.
MAX_GROWTH = 48 * 1024 * 1024
# Requests that wait for a look-up: in all more than the kernel's buffers of both ends take.
REQUESTS = 20_000
REQUEST_SIZE = 2000
# The kernel's buffers of both ends, and a message.
UNCOUNTED = 2 * SEND_BUFFER + 64 * 1024
MAX_WAITING = 8 * 1024 * 1024


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def test_twenty_sessions_that_confirm_nothing_cost_what_is_counted_for_resume(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, data=":memory:", **UNLIMITED) as server, AsyncExitStack() as stack:
        mallory, *targets = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(21)]
        await mallory.register("mallory")
        for number, target in enumerate(targets):
            await target.register(f"target{number}")
        before = resident(server.pid)
        # Relayed as some 60 bytes; the one wide character makes a str of it keep four bytes for each of the others.
        padding = "x" * 65_000 + "\U0001f526"
        for number, target in enumerate(targets):
            message = {"type": "ice-candidate", "to": f"target{number}", "candidate": None, "colour": padding}
            frame = encode_frame(TEXT, json.dumps(message, ensure_ascii=False).encode())
            for _ in range(MESSAGES):
                mallory.send_bytes(frame)
                await mallory.writer.drain()
            for _ in range(MESSAGES):
                assert (await target.receive())["from"] == "mallory"
        grown = resident(server.pid) - before
        assert grown < MAX_GROWTH, f"{grown / SESSIONS / MESSAGES:.0f} bytes for each message of 60"


async def test_a_watcher_of_many_devices_gets_all_of_their_presence_and_is_not_called_slow(tmp_path: Path) -> None:
    """Forty names with all the devices and sealing keys that there may be: 1.9 MB, asked for ten times."""
    names = [f"user{number}" for number in range(40)]
    async with ServerProcess(tmp_path, data=":memory:") as server, AsyncExitStack() as stack:
        identity = Identity.generate()

        async def device(name: str, device: str) -> None:
            client = await stack.enter_async_context(await RawClient.connect(server.port))
            key = bytes(MAX_SEAL_KEY)
            signature = identity.sign(proofs.seal(name, device, key))
            seal_key = {"publicKey": to_base64(key), "signature": to_base64(signature)}
            assert (await client.register(name, identity, device=device, sealKey=seal_key))["success"] is True

        for name in names:
            await asyncio.gather(*(device(name, f"device{number}") for number in range(MAX_DEVICES)))
        watcher = await stack.enter_async_context(await RawClient.connect(server.port))
        await watcher.register("watcher")
        # More than the kernel takes for a client that does not read at once.
        for number in range(10):
            watcher.send({"type": "watch", "userIds": names, "id": number})
        watcher.send({"type": "ping", "id": "last"})
        told, replies = set(), set()
        while len(replies) < 11:
            message = await watcher.receive()
            if message["type"] == "presence":
                assert len(message["devices"]) == MAX_DEVICES
                told.add(message["userId"])
            else:
                replies.add(message["re"])
        assert told == set(names)
        assert replies == {*range(10), "last"}


async def test_lost_clients_cost_no_more_than_may_be_kept_for_them(tmp_path: Path) -> None:
    """Two hundred users who leave 190 KB each behind, where 4 MB may be kept."""
    limit = 4_000_000
    async with (
        ServerProcess(tmp_path, data=":memory:", detached_bytes=limit, **UNLIMITED) as server,
        await RawClient.connect(server.port) as mallory,
    ):
        await mallory.register("mallory")
        before = resident(server.pid)
        for number in range(200):
            target = await RawClient.connect(server.port)
            await target.register(f"target{number}")
            for _ in range(3):
                mallory.send({"type": "bye", "to": f"target{number}", "reason": "x" * 63_000})
                assert (await target.receive())["from"] == "mallory"
            target.vanish()
        assert (await mallory.request({"type": "discover", "userId": "target199", "id": 1}))["online"] is True
        assert (await mallory.request({"type": "discover", "userId": "target0", "id": 2}))["online"] is False
        grown = resident(server.pid) - before
    assert grown < limit + 8 * 1024 * 1024, f"{grown} bytes"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
async def test_a_client_that_sends_on_while_a_name_is_looked_up_is_slowed_down_by_tcp(
    tmp_path: Path, tls: bool
) -> None:
    """Another process holds the lock of the directory; 40 MB of requests come meanwhile, and all are answered."""
    files = make_certificates(tmp_path)
    settings: dict[str, Any] = {"tls_cert": str(files.cert), "tls_key": str(files.key)} if tls else {}
    more: dict[str, Any] = {"context": files.client_context(), "server_hostname": "127.0.0.1"} if tls else {}
    async with ServerProcess(tmp_path, **settings, **UNLIMITED) as server:
        async with await RawClient.connect(server.port, **more) as client:
            await client.register("somebody")
        before = resident(server.pid)
        holder = sqlite3.connect(tmp_path / "data" / FILE_NAME, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        async with await RawClient.connect(server.port, **more) as client:
            identity = Identity.generate()
            register = {"type": "register", "userId": "alice", "publicKey": to_base64(identity.public_key)}
            challenge = await client.request(register)
            client.send({"type": "prove", "signature": client.sign(identity, challenge, "alice")})

            async def send_on() -> None:
                for number in range(REQUESTS):
                    client.send({"type": "ping", "id": number, "colour": "x" * REQUEST_SIZE})
                    await client.writer.drain()

            sending = asyncio.create_task(send_on())
            # Longer than all of it takes to send, and shorter than a server waits for the lock.
            done, _ = await asyncio.wait([sending], timeout=2)
            assert not done, "the server has read on"
            grown = resident(server.pid) - before
            holder.execute("ROLLBACK")
            holder.close()
            assert (await client.receive())["success"] is True
            for number in range(REQUESTS):
                assert await client.receive() == {"type": "pong", "re": number}
            await sending
        assert grown < MAX_WAITING, f"{grown} bytes"


async def test_clients_that_do_not_answer_a_close_cost_no_more_than_is_kept_for_them(tmp_path: Path) -> None:
    """Five hundred whose message is refused after its 60 KB have been read: 60 MB of buffers."""
    limit = 4_000_000
    async with (
        ServerProcess(tmp_path, data=":memory:", tuning={"closing_bytes": limit}, **UNLIMITED) as server,
        AsyncExitStack() as stack,
    ):
        before = resident(server.pid)
        for _ in range(500):
            client = await stack.enter_async_context(await RawClient.connect(server.port))
            client.send_frame(BINARY, b"x" * 60_000)
            assert (await client.receive_frame()).close_code == 1003
        grown = resident(server.pid) - before
    assert grown < limit + 16 * 1024 * 1024, f"{grown} bytes"


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_what_a_client_does_not_read_is_counted_but_for_a_little_that_the_kernel_takes(
    tmp_path: Path, tls: bool
) -> None:
    files = make_certificates(tmp_path)
    settings: dict[str, Any] = {"tls_cert": str(files.cert), "tls_key": str(files.key)} if tls else {}
    more: dict[str, Any] = {"ssl": files.client_context(), "server_hostname": "127.0.0.1"} if tls else {}
    async with ServerProcess(tmp_path, data=":memory:", admin_port=0, **UNLIMITED, **settings) as server:
        narrow = socket.create_connection(("127.0.0.1", server.port))
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader, writer = await asyncio.open_connection(sock=narrow, limit=1024, **more)
        deaf = RawClient(reader, writer, f"127.0.0.1:{server.port}")
        await deaf.shake_hands("/", "aldis.v1", {})
        async with deaf:
            await deaf.register("deaf")
            ping = {"type": "ping", "id": "\U0001f526" * 64}
            deaf.send(ping)
            size = len((await deaf.receive_frame()).payload)
            transport: Any = writer.transport
            (transport._ssl_protocol._transport if tls else transport).pause_reading()
            before, many = await metric(server, 'aldis_memory_bytes{kind="transport"}'), 900_000 // size
            for _ in range(many):
                deaf.send(ping)
            async with asyncio.timeout(PATIENCE):
                while await metric(server, 'aldis_messages_total{outcome="ok",type="ping"}') <= many:
                    pass
            counted = await metric(server, 'aldis_memory_bytes{kind="transport"}') - before
            # Of TLS records the kernel takes fewer bytes, because each is a packet.
            assert many * size - counted < (215_000 if tls else UNCOUNTED)
