"""TLS as clients meet it: versions, ciphers, resumption, HSTS, the redirect from plain HTTP, and what it costs."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from benchmarks.attack.records import APPLICATION_DATA, Sealed
from benchmarks.attack.wire import Target, Wire

from aldis.errors import ConfigError
from aldis.protocol.frames import Opcode
from aldis.server import picows_protocol, tls_reading
from aldis.server.app import SignalingServer
from aldis.server.opening import UNREAD
from aldis.server.redirect import MAX_HEAD, MAX_OPEN
from support.certificates import Certificates, make_certificates
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import RawClient, encode_frame, http_get, read_reply
from support.server_process import ServerProcess
from support.settings import config

# An idle connection costs 28.7 KiB here, and 6.3 without TLS. Without `_return_large_buffers` it was 50.
MOST_IDLE = 36 * 1024
READ = 128 * 1024  # what the kernel has at most for one read


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@pytest.fixture
async def server(tmp_path: Path, files: Certificates) -> AsyncIterator[ServerProcess]:
    """On uvloop, with the redirect."""
    settings: dict[str, Any] = {"tls_cert": str(files.cert), "tls_key": str(files.key), "redirect_port": free_port()}
    async with ServerProcess(tmp_path, **settings) as server:
        yield server


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_asyncio", [False, True])
async def test_a_client_may_ask_for_new_keys_and_a_flood_of_that_is_answered_bit_by_bit(
    server: ServerProcess, files: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_asyncio: bool
) -> None:
    async with AsyncExitStack() as stack:
        port, reads = server.port, 0
        if on_asyncio:
            given = config(tls_cert=str(files.cert), tls_key=str(files.key))
            port = (await stack.enter_async_context(SignalingServer(given))).port
            slow = tls_reading.TlsReading._slow

            def count(reading: tls_reading.TlsReading, size: int) -> None:
                nonlocal reads
                reads += 1
                slow(reading, size)

            monkeypatch.setattr(tls_reading.TlsReading, "_slow", count)
            monkeypatch.setattr(tls_reading, "SLOW_READ", 0.0)
        wire = await Wire.dial(Target(port, tls=True))
        stack.callback(wire.abort)
        sealed = await Sealed.after_handshake(wire, tmp_path)
        await wire.send_raw(b"".join(sealed.key_update() for _ in range(1500)))
        request = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        await wire.send_raw(sealed.record(request[:20], APPLICATION_DATA))
        await wire.send_raw(sealed.key_update() + sealed.record(request[20:], APPLICATION_DATA))
        async with asyncio.timeout(PATIENCE):
            assert (await wire.head()).startswith(b"HTTP/1.1 200 ")
        assert not on_asyncio or reads > 27 * 1500 // tls_reading.LEAST_READ


# --- handshakes -------------------------------------------------------------------------------------------------------


async def test_tls_1_2_and_1_3_are_spoken_with_ciphers_of_today_only(
    server: ServerProcess, files: Certificates
) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = files.client_context()
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        connection = writer.get_extra_info("ssl_object")
        assert connection.selected_alpn_protocol() == "http/1.1"
        assert "GCM" in connection.cipher()[0] or "CHACHA20" in connection.cipher()[0]
        writer.transport.abort()
    for cipher in ("ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-SHA", "ECDHE-ECDSA-AES128-CCM"):
        context = files.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(f"{cipher}:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_comes_back_resumes_its_tls_session(
    server: ServerProcess, files: Certificates, version: ssl.TLSVersion
) -> None:
    context = files.client_context()
    context.minimum_version = context.maximum_version = version

    def visit(session: ssl.SSLSession | None) -> tuple[bool | None, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", server.port)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure,
        ):
            secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            assert secure.recv(12) == b"HTTP/1.1 200"
            return secure.session_reused, secure.session

    reused, session = await asyncio.to_thread(visit, None)
    assert not reused
    assert (await asyncio.to_thread(visit, session))[0]


async def test_a_client_cannot_renegotiate(server: ServerProcess, files: Certificates) -> None:
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{server.port}", "-CAfile", str(files.ca)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate(b"R\n")
    assert b"Cipher is ECDHE" in output
    assert b"no renegotiation" in output.lower()


# --- HSTS -------------------------------------------------------------------------------------------------------------


async def test_the_page_over_tls_asks_browsers_for_https(server: ServerProcess, files: Certificates) -> None:
    context = files.client_context()
    for host, asked in ((f"127.0.0.1:{server.port}", True), (f"localhost:{server.port}", False)):
        request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        status, headers, _ = await http_get(server.port, request, context)
        assert status == 200
        assert headers.get("strict-transport-security") == ("max-age=31536000" if asked else None)


async def test_without_tls_or_without_the_setting_nothing_is_asked(files: Certificates) -> None:
    secure = config(tls_cert=files.cert, tls_key=files.key, hsts=False)
    for settings, context in ((config(), None), (secure, files.client_context())):
        async with SignalingServer(settings) as server:
            request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
            status, headers, _ = await http_get(server.port, request, context)
            assert (status, headers.get("strict-transport-security")) == (200, None)


# --- the redirect -----------------------------------------------------------------------------------------------------


def redirect_port(server: ServerProcess) -> int:
    return int(server.settings["redirect_port"])


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_plain_http_is_sent_to_the_same_path_over_tls(server: ServerProcess, method: str) -> None:
    port = redirect_port(server)
    request = f"{method} /src/?a=b HTTP/1.1\r\nhost:  127.0.0.1:{port}\r\nAccept: */*\r\n\r\n".encode()
    status, headers, body = await http_get(port, request)
    assert (status, headers["location"]) == (308, f"https://127.0.0.1:{server.port}/src/?a=b")
    assert (headers["connection"], bool(body)) == ("close", method != "HEAD")


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"GET /\rX-A: b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: 127.0.0.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\r\n\r\n", 400),
        (b"GET /" + b"x" * MAX_HEAD, 400),
    ],
)
async def test_what_is_not_for_this_server_is_not_sent_on(
    server: ServerProcess, request_bytes: bytes, expected: int
) -> None:
    status, headers, _ = await http_get(redirect_port(server), request_bytes)
    assert (status, headers.get("location")) == (expected, None)
    server.assert_clean_log()


async def test_silent_clients_do_not_keep_others_from_the_redirect(server: ServerProcess) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", redirect_port(server)) for _ in range(MAX_OPEN)]
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{redirect_port(server)}\r\n\r\n".encode()
    status, _, _ = await http_get(redirect_port(server), request)
    assert status == 308
    oldest, _ = silent[0]
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionResetError):
            assert await oldest.read() == b""
    for _, writer in silent:
        writer.close()
    server.assert_clean_log()


@pytest.mark.parametrize(
    ("names", "host", "location"),
    [
        ("signal.example", "signal.example", "https://signal.example/"),
        ("signal.example", "Signal.Example.:80", "https://signal.example/"),
        ("signal.example:{port}", "signal.example", "https://signal.example:{port}/"),
        ("signal.example", "127.0.0.1", None),
        ("signal.example", "other.example", None),
    ],
)
async def test_the_redirect_knows_the_names_of_the_server(
    files: Certificates, names: str, host: str, location: str | None
) -> None:
    port = free_port()
    settings = config(port=port, names=names.format(port=port), tls_cert=files.cert, tls_key=files.key, redirect_port=0)
    async with SignalingServer(settings) as server:
        assert server.redirect_port
        request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        status, headers, _ = await http_get(server.redirect_port, request)
        if location is None:
            # Its own address stands for its first name.
            location = "https://signal.example/" if host == "127.0.0.1" else None
        assert headers.get("location") == (location and location.format(port=port))
        assert status == (421 if location is None else 308)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_the_redirect_listens_on_ipv4_too_where_the_server_does(files: Certificates, address: str) -> None:
    async with SignalingServer(config(host="::", tls_cert=files.cert, tls_key=files.key, redirect_port=0)) as server:
        assert server.redirect_port
        reader, writer = await asyncio.open_connection(address, server.redirect_port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers, _ = await read_reply(reader)
        assert (status, headers["location"]) == (308, f"https://localhost:{server.port}/")
        writer.close()


async def test_a_redirect_port_that_is_taken_or_without_tls_is_an_error(files: Certificates) -> None:
    with pytest.raises(ConfigError, match="without TLS"):
        config(redirect_port=80)
    with pytest.raises(ConfigError, match="is the public port already"):
        config(port=443, redirect_port=443, tls_cert=files.cert, tls_key=files.key)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = config(tls_cert=files.cert, tls_key=files.key, redirect_port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="in use by another program") as raised:
            await SignalingServer(settings).start()
    assert raised.value.setting == "redirect_port"


# --- what it costs ----------------------------------------------------------------------------------------------------


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def test_an_idle_connection_costs_a_bounded_amount_of_memory(server: ServerProcess, files: Certificates) -> None:
    more: dict[str, Any] = {"context": files.client_context(), "server_hostname": "127.0.0.1"}
    async with AsyncExitStack() as stack:

        async def connect(count: int) -> None:
            for _ in range(count):
                client = await stack.enter_async_context(await RawClient.connect(server.port, **more))
                assert await client.request({"type": "ping"}) == {"type": "pong"}

        async with await RawClient.connect(server.port, **more):
            pass  # frees a read buffer, after which glibc would take the next ones from its heap
        await connect(100)
        before = resident(server.pid)
        await connect(200)
        each = (resident(server.pid) - before) / 200
    assert each < MOST_IDLE, f"{each:.0f} bytes"


# --- clients that have given up -------------------------------------------------------------------------------------


def hello(files: Certificates) -> bytes:
    """The first thing that a TLS client says."""
    outgoing = ssl.MemoryBIO()
    client = files.client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a client that has closed behind its data")
async def test_no_handshake_is_spent_on_clients_that_have_given_up(tmp_path: Path) -> None:
    """After a restart thousands wait for their turn. Each handshake for one that has left makes all others later."""
    files = make_certificates(tmp_path)
    async with ServerProcess(tmp_path, tls_cert=str(files.cert), tls_key=str(files.key)) as server:
        server.signal(signal.SIGSTOP)  # it is very busy
        waiting, left = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(2)]
        with waiting, left:
            for one in (waiting, left):
                one.sendall(hello(files))
            left.shutdown(socket.SHUT_WR)
            server.signal(signal.SIGCONT)
            assert await asyncio.to_thread(waiting.recv, 1) == b"\x16"  # a handshake record: RFC 8446 section 5.1
            with pytest.raises(ConnectionResetError):  # what it had said was not read
                await asyncio.to_thread(left.recv, 1)
        async with await RawClient.connect(
            server.port, context=files.client_context(), server_hostname="127.0.0.1"
        ) as client:
            assert (await client.register("alice"))["success"] is True
        assert await server.stop() == 0
        server.assert_clean_log()


# --- clients that make TLS dear ---------------------------------------------------------------------------------------


@pytest.fixture
async def here(files: Certificates) -> AsyncIterator[SignalingServer]:
    """A server in this process, with room for ten handshakes."""
    async with SignalingServer(config(tls_cert=files.cert, tls_key=files.key, tls_handshakes=10)) as server:
        yield server


def protocol_of(server: SignalingServer) -> Any:
    """What reads the only connection."""
    (connection,) = server.connections._open
    transport: Any = connection
    return transport._transport.underlying_transport.get_protocol()


async def test_of_too_many_unfinished_handshakes_the_oldest_makes_room(
    here: SignalingServer, files: Certificates
) -> None:
    with ExitStack() as stack:
        unfinished = []
        for _ in range(12):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", here.port), PATIENCE))
            one.sendall(hello(files))
            assert await asyncio.to_thread(one.recv, 1) == b"\x16"
            unfinished.append(one)
        for oldest in unfinished[:2]:
            with suppress(ConnectionResetError):
                while await asyncio.to_thread(oldest.recv, 65536):
                    pass  # the rest of the server's flight, and then the end
        assert here.listener.admission.refusals["opening"] == 2
        async with await RawClient.connect(
            here.port, context=files.client_context(), server_hostname="127.0.0.1"
        ) as client:
            assert await client.request({"type": "ping"}) == {"type": "pong"}
        assert here.listener.admission.refusals["opening"] == 3


async def test_a_connection_is_read_by_as_many_bytes_as_its_records_allow(
    here: SignalingServer, files: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record may carry one byte, and to open it takes as long as one of 16 KiB nearly does."""
    padding = "x" * 20_000
    async with await RawClient.connect(
        here.port, context=files.client_context(), server_hostname="127.0.0.1"
    ) as client:
        assert await client.request({"type": "ping", "padding": padding}) == {"type": "pong"}
        reader = protocol_of(here)
        assert reader._most > picows_protocol.LEAST_READ
        clock = iter(range(1_000_000))
        monkeypatch.setattr(picows_protocol, "monotonic", lambda: float(next(clock)))
        assert await client.request({"type": "ping", "padding": padding}) == {"type": "pong"}
        assert reader._most == picows_protocol.LEAST_READ
        for byte in encode_frame(Opcode.TEXT, b'{"type":"ping"}'):
            client.send_bytes(bytes([byte]))
        assert await client.receive() == {"type": "pong"}


async def test_little_is_taken_from_a_client_that_is_not_read(here: SignalingServer, files: Certificates) -> None:
    """The event loop itself would keep 256 KiB for each of them, which no limit counts."""
    async with await RawClient.connect(
        here.port, context=files.client_context(), server_hostname="127.0.0.1"
    ) as client:
        assert await client.request({"type": "ping"}) == {"type": "pong"}
        (connection,) = here.connections._open
        paused: Any = connection
        paused.pause_reading()
        underlying = protocol_of(here).transport.underlying_transport
        client.send_bytes(encode_frame(Opcode.TEXT, b" " * 40_000) * 400)
        for _ in range(5000):  # turns of the loop
            await asyncio.sleep(0)
        assert 0 < underlying.get_read_buffer_size() <= UNREAD + READ
