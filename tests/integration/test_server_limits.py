"""Each of these limits is a setting, which a running server takes over and clients meet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from aldis.protocol.stun import BINDING_REQUEST, write_message
from aldis.server.app import SignalingServer
from aldis.server.limit_settings import MIN_QUEUE
from aldis.server.opening import MAX_HEAD
from aldis.server.stun import BURST_SECONDS
from aldis.server.tuning import Tuning
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import CONTINUATION, TEXT, RawClient, http_get
from support.settings import UNLIMITED, config


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config(admin_port=0, **UNLIMITED), tuning=Tuning(tick=0.02)) as server:
        yield server


def change(server: SignalingServer, **settings: Any) -> None:
    """As a hang-up does, when the file has other values."""
    assert server.reload(replace(server.config, **settings))


async def metric(server: SignalingServer, name: str) -> float:
    """The value of a metric."""
    request = b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    text = (await http_get(server.admin_port or 0, request))[2].decode()
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).rpartition(" ")[2])


def limits(server: SignalingServer) -> dict[str, int]:
    """Which limits were reached, as an operator sees it, and how often."""
    return {found["limit"]: found["count"] for found in server.health.limits()}


# --- before the first message -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n"], ids=["nothing", "half a request"])
async def test_the_time_to_send_a_request_counts_for_the_connections_to_come(
    server: SignalingServer, said: bytes
) -> None:
    earlier, to_it = await asyncio.open_connection("127.0.0.1", server.port)
    to_it.write(b"GET /healthz HTTP/1.1\r\n")
    assert (await http_get(server.port, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"))[0] == 200
    change(server, handshake_timeout=0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(said)
    to_it.write(b"Host: h\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert (await earlier.read()).startswith(b"HTTP/1.1 200")
        assert await reader.read() == b""
    assert await metric(server, 'aldis_connections_refused_total{reason="late"}') == 1
    assert limits(server) == {"handshake_timeout": 1}
    for each in (writer, to_it):
        each.close()


async def test_the_time_for_tls_and_the_number_of_handshakes_change_while_the_port_is_open(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    settings = config(tls_cert=files.cert, tls_key=files.key)
    record = b"\x16\x03\x01\x02\x00"  # a handshake record of 512 bytes: RFC 8446 section 5.1
    async with SignalingServer(settings, tuning=Tuning(tick=0.02)) as server, AsyncExitStack() as stack:

        async def begin() -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            writer.write(record)
            return reader

        async def is_cut_off(reader: asyncio.StreamReader) -> None:
            async with asyncio.timeout(PATIENCE):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""

        change(server, tls_handshakes=10)
        first, *_ = [await begin() for _ in range(11)]
        await is_cut_off(first)
        assert limits(server) == {"tls_handshakes": 1}
        change(server, tls_handshakes=100, handshake_timeout=0.1)
        await is_cut_off(await begin())
        assert limits(server)["tls_handshakes"] == 1
        change(server, handshake_timeout=60.0)
        async with await RawClient.connect(
            server.port, context=files.client_context(), server_hostname="127.0.0.1"
        ) as client:
            assert await client.request({"type": "ping"}) == {"type": "pong"}


async def test_without_tls_no_connection_gives_way_to_others_that_open() -> None:
    async with SignalingServer(config(tls_handshakes=10)) as server, AsyncExitStack() as stack:
        clients = await asyncio.gather(*(RawClient.connect(server.port) for _ in range(100)))
        for client in clients:
            await stack.enter_async_context(client)
            assert await client.request({"type": "ping"}) == {"type": "pong"}


async def test_requests_that_are_not_whole_take_no_more_memory_than_is_set(server: SignalingServer) -> None:
    change(server, partial_requests_bytes=64 * 1024)
    long = b"GET / HTTP/1.1\r\nCookie: " + b"x" * (MAX_HEAD - 1000)
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(5):  # 75 KiB
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            readers.append(reader)
            writer.write(long)
            await writer.drain()
        async with asyncio.timeout(PATIENCE):
            done, _ = await asyncio.wait(
                [asyncio.create_task(reader.read()) for reader in readers], return_when=asyncio.FIRST_COMPLETED
            )
        assert len(done) == 1
    assert await metric(server, 'aldis_connections_refused_total{reason="heads"}') == 1
    assert limits(server) == {"partial_requests_bytes": 1}


async def test_an_address_gets_as_many_stun_answers_as_is_set() -> None:
    settings = config(host="0.0.0.0", stun_port=free_port())
    request = write_message(BINDING_REQUEST, bytes(range(12)))
    async with SignalingServer(settings) as server:
        change(server, stun_per_address=1)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        ):
            other.bind(("127.0.0.2", 0))
            for each, count in ((client, BURST_SECONDS + 40), (other, 1)):
                each.setblocking(False)
                for _ in range(count):
                    each.sendto(request, ("127.0.0.1", server.stun.port))
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_recv(other, 2048)
        outcomes = server.stun.answers.outcomes
        # One more for each second that this has taken.
        assert outcomes["limited"] + outcomes["answered"] == BURST_SECONDS + 41
        assert BURST_SECONDS + 1 <= outcomes["answered"] < BURST_SECONDS + 20
        assert limits(server) == {"stun_per_address, stun_per_second": outcomes["limited"]}


# --- names and proofs -------------------------------------------------------------------------------------------------


async def test_a_client_has_as_long_to_register_as_is_set(server: SignalingServer) -> None:
    change(server, registration_timeout=1)
    async with await RawClient.connect(server.port) as named, await RawClient.connect(server.port) as nameless:
        await named.register("alice")
        assert await nameless.wait_closed() == (4004, "not registered in time")
        assert await named.request({"type": "ping"}) == {"type": "pong"}
    assert await metric(server, 'aldis_closes_total{code="4004"}') == 1
    assert limits(server) == {"registration_timeout": 1}


async def test_a_connection_has_as_many_wrong_signatures_as_is_set(server: SignalingServer) -> None:
    change(server, failed_proofs_per_connection=2)
    async with await RawClient.connect(server.port) as client:
        register = {"type": "register", "userId": "alice", "publicKey": to_base64(Identity.generate().public_key)}
        for tries in (1, 2):
            assert (await client.request(register))["type"] == "challenge"
            answer = await client.request({"type": "prove", "signature": "A" * 86 + "=="})
            assert answer["code"] == "bad-signature", tries
        assert await client.wait_closed() == (4501, "too many bad signatures")
    assert await metric(server, 'aldis_closes_total{code="4501"}') == 1
    assert limits(server) == {"failed-proofs-per-connection": 1}


async def test_credentials_of_turn_hold_as_long_as_is_set() -> None:
    turn = {"turn": ("turn:t.example",), "turn_secret": "s3cret", "turn_credential_lifetime": 600}
    async with SignalingServer(config(**turn)) as server, await RawClient.connect(server.port) as client:
        await client.register("alice")
        assert (await client.request({"type": "ice-servers"}))["ttl"] == 600
        change(server, turn_credential_lifetime=86_400)
        answer = await client.request({"type": "ice-servers"})
        assert answer["ttl"] == 86_400
        assert answer["iceServers"][0]["username"].endswith(":alice")


# --- memory -----------------------------------------------------------------------------------------------------------


async def test_a_session_watches_as_many_names_as_is_set_and_clients_are_told() -> None:
    async with SignalingServer(config(watches_per_session=2)) as server, await RawClient.connect(server.port) as client:
        assert (await client.register("alice"))["limits"]["maxWatches"] == 2
        refused = await client.request({"type": "watch", "userIds": ["a", "b", "c"], "id": 1})
        assert refused["code"] == "too-large"
        assert refused["message"] == "at most 2 names can be watched by one session"
        assert limits(server) == {"watches-per-session": 1}


@pytest.mark.parametrize("parts", [1, 2], ids=["in one frame", "in fragments"])
async def test_an_operator_sees_that_a_message_was_too_long(server: SignalingServer, parts: int) -> None:
    half = b"x" * (server.config.max_message_bytes // 2 + 1)
    async with await RawClient.connect(server.port) as client:
        if parts == 1:
            client.send_frame(TEXT, half + half)
        else:
            client.send_frame(TEXT, half, fin=False)
            client.send_frame(CONTINUATION, half)
        assert (await client.wait_closed())[0] == 1009
    assert limits(server) == {"max_message_bytes": 1}


async def test_what_clients_have_been_told_stays_until_a_restart(server: SignalingServer) -> None:
    assert server.reload(replace(server.config, watches_per_session=2, privacy_names_per_user=5))
    assert (server.hub.settings.max_watches, server.hub.settings.max_privacy_names) == (10_000, 5)
    assert server.config.watches_per_session == 10_000


async def test_a_user_has_as_many_contacts_as_is_set(server: SignalingServer) -> None:
    change(server, privacy_names_per_user=2)
    async with await RawClient.connect(server.port) as client:
        await client.register("alice")
        kept = await client.request({"type": "privacy", "block": ["a", "b"], "addContacts": ["c", "d"]})
        assert (kept["blocked"], kept["contacts"]) == (["a", "b"], ["c", "d"])
        refused = await client.request({"type": "privacy", "block": ["e"]})
        assert refused["code"] == "too-large"
        assert refused["message"] == "at most 2 contacts and 2 blocked users, and 49152 bytes of names"
        change(server, privacy_names_per_user=1)  # the names that are there stay, and may be taken out
        assert (await client.request({"type": "privacy", "block": ["e"], "unblock": ["a"]}))["code"] == "too-large"
        assert (await client.request({"type": "privacy", "unblock": ["a"]}))["blocked"] == ["b"]
        change(server, privacy_names_per_user=1500)
        many = [f"user{number}" for number in range(1400)]
        for some in (many[:700], many[700:]):
            kept = await client.request({"type": "privacy", "block": some})
        assert len(kept["blocked"]) == 1401
    assert limits(server) == {"privacy-names": 2}


async def test_for_a_lost_user_no_more_is_kept_than_is_set(server: SignalingServer) -> None:
    change(server, detached_bytes_per_user=64 * 1024)
    async with await RawClient.connect(server.port) as mallory, await RawClient.connect(server.port) as target:
        await mallory.register("mallory")
        await target.register("target")
        for _ in range(2):
            mallory.send({"type": "bye", "to": "target", "reason": "x" * 40_000})
            await target.receive()
        target.vanish()
        async with asyncio.timeout(PATIENCE):
            while server.hub.online("target"):
                await mallory.request({"type": "ping"})
    assert await metric(server, "aldis_detached_ended_total") == 1
    assert limits(server) == {"detached_bytes": 1}


async def test_for_a_slow_client_as_much_waits_as_is_set(server: SignalingServer) -> None:
    change(server, outgoing_queue_bytes=8 * 1024 * 1024)
    async with await RawClient.connect(server.port) as other:
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader, writer = await asyncio.open_connection(sock=slow, limit=1024)
        client = RawClient(reader, writer, f"127.0.0.1:{server.port}")
        await client.shake_hands("/", "aldis.v1", {})
        await client.register("slow")
        writer.transport.pause_reading()  # type: ignore[attr-defined]

        async def ask() -> None:
            for _ in range(0 if writer.transport.get_write_buffer_size() else 200):
                client.send({"type": "ping", "id": "\U0001f526" * 64})
            assert await other.request({"type": "ping"}) == {"type": "pong"}

        async with asyncio.timeout(PATIENCE):
            while server.hub.memory.use.transports < 2 * 1024 * 1024:
                await ask()
            assert server.connections.closes[4002] == 0
            change(server, outgoing_queue_bytes=MIN_QUEUE)
            while not server.connections.closes[4002]:
                await ask()
        writer.transport.abort()
    assert await metric(server, 'aldis_closes_total{code="4002"}') == 1
    assert limits(server) == {"outgoing_queue_bytes": 1}
