"""The public port: who gets in, who is thrown out, and what happens to connections that go wrong."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
import uvloop
from cryptography.hazmat.primitives import serialization

from aldis.backends.sqlite_file import FILE_NAME
from aldis.errors import ConfigError
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from aldis.server import websocket
from aldis.server.app import SignalingServer
from aldis.server.http import Headers, HttpReply
from aldis.server.listener import RECEIVE_BUFFER
from aldis.server.pages import Pages
from aldis.server.tuning import Tuning
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.raw_websocket import PING, HandshakeRefused, RawClient, encode_frame, http_get
from support.settings import UNLIMITED, config


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config()) as server:
        yield server


# --- getting in -------------------------------------------------------------------------------------------------------


async def test_a_load_balancer_is_told_that_the_process_is_alive(server: SignalingServer) -> None:
    status, headers, body = await http_get(server.port, b"GET /healthz?probe=1 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (status, headers["connection"], body) == (200, "close", b"ok\n")


@pytest.mark.parametrize("path", ["/", "/ws", "/?token=x", "/ws?x"])
async def test_the_websocket_is_at_two_paths(server: SignalingServer, path: str) -> None:
    async with await RawClient.connect(server.port, path=path) as client:
        assert await client.request({"type": "ping"}) == {"type": "pong"}


@pytest.mark.parametrize("connection", ["Upgrade", "upgrade", "keep-alive, Upgrade", "Upgrade,keep-alive", "UPGRADE"])
async def test_the_connection_header_of_every_browser_is_understood(server: SignalingServer, connection: str) -> None:
    # Firefox sends `keep-alive, Upgrade`.
    async with await RawClient.connect(server.port, headers={"Connection": connection}) as client:
        assert await client.request({"type": "ping"}) == {"type": "pong"}


@pytest.mark.parametrize("offered", ["aldis.v1", "chat, aldis.v1", "aldis.v1,chat", "aldis.v2, aldis.v1"])
async def test_the_subprotocol_is_chosen_from_those_offered_and_named(server: SignalingServer, offered: str) -> None:
    async with await RawClient.connect(server.port, subprotocol=offered) as client:
        assert client.response_headers["sec-websocket-protocol"] == "aldis.v1"


async def test_the_subprotocol_may_be_offered_over_several_lines(server: SignalingServer) -> None:
    offered = "chat\r\nSec-WebSocket-Protocol: aldis.v1"
    async with await RawClient.connect(server.port, subprotocol=offered) as client:
        assert client.response_headers["sec-websocket-protocol"] == "aldis.v1"


async def test_a_frame_that_comes_with_the_request_is_read(server: SignalingServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    request = (
        b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: aldis.v1\r\n\r\n"
    )
    writer.write(request % server.port + encode_frame(1, b'{"type":"ping","id":1}'))
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
        client = RawClient(reader, writer, "h")
        assert await client.receive() == {"type": "pong", "re": 1}
    writer.close()


async def test_beyond_the_limit_connections_are_refused_with_a_time_to_come_back() -> None:
    async with SignalingServer(config(max_connections=2)) as server:
        async with await RawClient.connect(server.port) as first, await RawClient.connect(server.port):
            with pytest.raises(HandshakeRefused) as refused:
                await RawClient.connect(server.port)
            assert refused.value.status == 503
            assert int(refused.value.headers["retry-after"]) > 0
            await first.leave()
        async with await RawClient.connect(server.port) as third:
            assert await third.request({"type": "ping"}) == {"type": "pong"}


async def test_pages_from_elsewhere_are_closed_with_a_code_that_they_can_see() -> None:
    async with SignalingServer(config(origins="https://good.example, https://other.example:8443")) as server:
        for origin in ("https://good.example", "https://other.example:8443", "HTTPS://GOOD.example"):
            async with await RawClient.connect(server.port, headers={"Origin": origin}) as client:
                assert await client.request({"type": "ping"}) == {"type": "pong"}
        for origin in ("https://evil.example", "http://good.example", "null", "https://good.example.evil.example"):
            async with await RawClient.connect(server.port, headers={"Origin": origin}) as client:
                client.send({"type": "ping"})
                assert await client.wait_closed() == (4502, "origin not allowed")
        async with await RawClient.connect(server.port) as program:  # programs have no origin
            assert await program.request({"type": "ping"}) == {"type": "pong"}
        assert server.hub.stats.connections_now == 1


async def test_any_page_may_connect_to_a_server_for_this_machine_alone(server: SignalingServer) -> None:
    async with await RawClient.connect(server.port, headers={"Origin": "https://any.example"}) as client:
        assert await client.request({"type": "ping"}) == {"type": "pong"}


async def test_a_server_that_others_can_reach_takes_pages_of_its_own_host_alone() -> None:
    for reachable in ({"host": "0.0.0.0"}, {"names": "signal.example:8443"}):
        async with SignalingServer(config(**reachable)) as server:
            host = "signal.example:8443" if "names" in reachable else f"localhost:{server.port}"
            name = host.partition(":")[0]
            for origin in (f"http://{host}", f"https://{name}", f"http://{name}:5000"):
                async with await RawClient.connect(server.port, host=host, headers={"Origin": origin}) as page:
                    assert await page.request({"type": "ping"}) == {"type": "pong"}
            for origin in ("https://evil.example", f"https://{name}.evil.example", "null"):
                async with await RawClient.connect(server.port, host=host, headers={"Origin": origin}) as page:
                    assert await page.wait_closed() == (4502, "origin not allowed")
            async with await RawClient.connect(server.port, host=host) as program:
                assert await program.request({"type": "ping"}) == {"type": "pong"}


async def test_any_page_may_connect_where_the_settings_say_so() -> None:
    async with (
        SignalingServer(config(host="0.0.0.0", origins="*")) as server,
        await RawClient.connect(server.port, headers={"Origin": "https://any.example"}) as client,
    ):
        assert await client.request({"type": "ping"}) == {"type": "pong"}


async def test_a_proof_names_the_public_name_where_one_is_configured() -> None:
    async with SignalingServer(config(names="signal.example.com, alt.example.com:8443")) as server:
        for sent, taken in (
            ("Signal.Example.com", "signal.example.com"),
            ("alt.example.com:8443", "alt.example.com:8443"),
            ("Signal.Example.com:443", "signal.example.com"),  # a proxy that adds the port
            ("alt.example.com.:8443", "alt.example.com.:8443"),
            (f"127.0.0.1:{server.port}", "signal.example.com"),  # a proxy that writes there what it dials
        ):
            async with await RawClient.connect(server.port, host=sent) as client:
                client.host = taken
                assert (await client.register(f"user-of-{sent}"))["success"] is True


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("host", ["::", "0::0"])
async def test_a_server_on_all_ipv6_addresses_takes_ipv4_as_well(host: str, address: str) -> None:
    async with SignalingServer(config(host=host, admin_host=host, admin_port=0)) as server:
        dialled = f"[{address}]" if ":" in address else address
        for name in (dialled, "localhost"):
            async with await RawClient.connect(server.port, address=address, host=f"{name}:{server.port}") as client:
                assert (await client.register(f"at {name}".replace(" ", "-")))["success"] is True
        assert server.admin_port is not None
        reader, writer = await asyncio.open_connection(address, server.admin_port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).endswith(b"ok\n")
        writer.close()


async def test_a_port_that_is_taken_on_ipv4_alone_is_told_by_a_server_on_all_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="in use by another program"):
        await SignalingServer(config(host="::", port=other.getsockname()[1])).start()


@pytest.mark.parametrize("zone", ["none", "98765"])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_address_with_a_zone_that_is_not_there_is_told(
    loop: Callable[[], asyncio.AbstractEventLoop], zone: str
) -> None:
    with (
        asyncio.Runner(loop_factory=loop) as runner,
        pytest.raises(ConfigError, match=f"no network interface '{zone}'"),
    ):
        runner.run(SignalingServer(config(host=f"::1%{zone}")).start())


async def test_ipv6_is_served(server: SignalingServer) -> None:
    async with SignalingServer(config(host="::1")) as server:
        assert server.url == f"ws://[::1]:{server.port}"
        async with await RawClient.connect(server.port, address="::1", host=f"[::1]:{server.port}") as client:
            assert (await client.register("alice"))["success"] is True


async def test_a_port_in_use_is_an_error_in_words(server: SignalingServer) -> None:
    with pytest.raises(ConfigError, match=f"port: 127.0.0.1:{server.port} is in use") as raised:
        await SignalingServer(config(port=server.port)).start()
    assert raised.value.setting == "port"
    with pytest.raises(ConfigError) as raised:
        await SignalingServer(config(admin_port=server.port)).start()
    assert raised.value.setting == "admin_port"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
async def test_an_address_that_is_not_of_this_machine_is_an_error_in_words(host: str) -> None:
    with pytest.raises(ConfigError) as raised:
        await SignalingServer(config(host=host)).start()
    assert raised.value.setting == "host"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the segments of loopback are as the system has them")
async def test_many_segments_of_a_client_fit_into_what_the_kernel_takes_before_it_is_read(
    server: SignalingServer,
) -> None:
    """Where one fills half of it, as loopback has it, Linux may offer less than the next segment for ever: a proxy on
    this machine then sends 100 KB/s at best, however fast the server reads."""
    async with await RawClient.connect(server.port) as client:
        sock = client.writer.get_extra_info("socket")
        for _ in range(20):  # it grows as the window does
            message = {"type": "ping", "colour": "x" * 30_000}
            assert await client.request(message) == {"type": "pong"}
        segment = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        assert segment <= RECEIVE_BUFFER // 16


# --- being thrown out -------------------------------------------------------------------------------------------------


async def until_lost(server: SignalingServer) -> None:
    """Wait until the server has no connection."""
    async with asyncio.timeout(PATIENCE):
        await server.connections.wait_until_empty()


async def test_a_slow_consumer_is_closed_and_costs_a_bounded_amount_of_memory() -> None:
    async with (
        SignalingServer(config(**UNLIMITED)) as server,
        await RawClient.connect(server.port) as flood,
    ):
        await flood.register("flood")
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # Little on its way: what the server's kernel has no room for is dropped, and comes again after a pause that is
        # twice as long each time.
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        reader, writer = await asyncio.open_connection(sock=slow, limit=1024)
        client = RawClient(reader, writer, f"127.0.0.1:{server.port}")
        await client.shake_hands("/", "aldis.v1", {})
        await client.register("slow")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE):
            while not server.connections.closes[4002]:
                for _ in range(0 if writer.transport.get_write_buffer_size() else 200):
                    client.send({"type": "ping", "id": "\U0001f526" * 64})
                assert (await flood.request({"type": "ping"})) == {"type": "pong"}
        assert server.hub.stats.connections_now == 2
        # It does not answer the close, as it does not read.
        server.connections.tick(monotonic() + Tuning().close_timeout + 1)
        assert (await flood.request({"type": "ping"})) == {"type": "pong"}
        assert server.hub.stats.connections_now == 1
        writer.transport.abort()


async def test_a_half_open_connection_is_found_by_ping_and_aborted() -> None:
    tuning = Tuning(tick=0.02, close_timeout=0.1)
    async with (
        SignalingServer(config(ping_interval=1, resume_window=0), tuning=tuning) as server,
        await RawClient.connect(server.port) as bob,
        await RawClient.connect(server.port) as dead,
    ):
        await bob.register("bob")
        await dead.register("dead")
        bob.send({"type": "watch", "userIds": ["dead"]})
        assert (await bob.receive())["online"] is True
        # The dead one reads nothing and says nothing; bob answers pings by reading.
        news = await bob.receive()
        assert (news["userId"], news["online"]) == ("dead", False)
        assert (await dead.receive_frame()).opcode == PING
        assert (await dead.receive_frame()).close_code == 4003
        await dead.wait_over()
        assert await bob.request({"type": "ping"}) == {"type": "pong"}
        assert server.hub.stats.connections_now == 1


async def test_a_client_that_does_not_answer_a_close_is_aborted() -> None:
    tuning = Tuning(tick=0.02, close_timeout=0.1)
    async with SignalingServer(config(), tuning=tuning) as server:
        async with await RawClient.connect(server.port) as client:
            client.send_frame(2, b"x")
            assert (await client.receive_frame()).close_code == 1003
            await client.wait_over()  # without an answer
        await until_lost(server)


async def test_a_flood_after_a_close_does_not_hide_the_close_code(server: SignalingServer) -> None:
    # A socket closed with unread data is reset, and a reset throws away what was sent last.
    for _ in range(20):
        async with await RawClient.connect(server.port) as client:
            client.send_frame(2, b"x")
            for _ in range(200):
                client.send({"type": "relay", "to": "nobody", "sealed": "x" * 1000})
            assert (await client.wait_closed())[0] == 1003
    await until_lost(server)


async def test_a_client_that_comes_and_goes_leaves_nothing_behind(server: SignalingServer) -> None:
    for number in range(30):
        client = await RawClient.connect(server.port)
        if number % 3:
            await client.register(f"user{number}")
        if number % 2:
            await client.leave()
            client.writer.close()
        else:
            client.vanish()
    await until_lost(server)
    assert server.hub.stats.connections_now == 0
    assert not server.connections.due


async def test_a_client_that_is_not_read_can_still_be_closed_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers the close, and need not be cut off."""
    paused = asyncio.Event()
    pause = websocket.ClientConnection.pause_reading

    def pause_reading(connection: websocket.ClientConnection) -> None:
        pause(connection)
        paused.set()

    monkeypatch.setattr(websocket.ClientConnection, "pause_reading", pause_reading)
    async with SignalingServer(config(data=str(tmp_path)), tuning=Tuning(close_timeout=3600.0)) as server:
        with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            async with await RawClient.connect(server.port) as client:
                identity = Identity.generate()
                register = {"type": "register", "userId": "alice", "publicKey": to_base64(identity.public_key)}
                challenge = await client.request(register)
                client.send({"type": "prove", "signature": client.sign(identity, challenge, "alice")})
                for _ in range(300):
                    client.send({"type": "ping"})
                await client.writer.drain()
                async with asyncio.timeout(PATIENCE):
                    await paused.wait()
                server.hub.drain(monotonic())
                code, _ = await client.wait_closed()
                assert code == 4000
                await until_lost(server)
            holder.execute("ROLLBACK")


@pytest.mark.parametrize("said", [b"", b"GET", b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.1\r\n"])
async def test_one_that_connects_and_says_too_little_is_cut_off(said: bytes) -> None:
    async with SignalingServer(config(handshake_timeout=0.1)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(said)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()


async def test_a_bug_in_the_hub_costs_one_connection_and_tells_the_client_nothing(
    server: SignalingServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with await RawClient.connect(server.port) as good, await RawClient.connect(server.port) as bad:
        await good.register("good")

        def received(session: object, text: str, now: float) -> bool:
            if "break" in text:
                raise RuntimeError("a secret of the server")
            return server.hub.received(session, text, now)  # type: ignore[arg-type]

        monkeypatch.setattr(server.connections, "received", received)
        bad.send("break")
        assert await bad.wait_closed() == (1011, "internal error")
        assert await good.request({"type": "ping"}) == {"type": "pong"}
    assert server.faults.count == 1
    assert "a secret of the server" in caplog.text


async def test_a_bug_in_a_route_is_a_500_that_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class BrokenPages(Pages):
        def reply(self, path: bytes, headers: Headers) -> HttpReply | None:
            raise RuntimeError("a secret of the server")

    async with SignalingServer(config(names="h"), pages=BrokenPages(tmp_path)) as server:
        status, _, body = await http_get(server.port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (status, body) == (500, b"")
    assert "a secret of the server" in caplog.text


async def test_a_bug_in_the_hub_when_somebody_comes_or_goes_costs_that_one_only(
    server: SignalingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await RawClient.connect(server.port) as witness:
        with monkeypatch.context() as broken:

            def fail(*arguments: object, **more: object) -> None:
                raise RuntimeError("broken")

            broken.setattr(server.hub, "connected", fail)
            async with await RawClient.connect(server.port) as client:
                assert await client.wait_closed() == (1011, "internal error")
        with monkeypatch.context() as broken:
            broken.setattr(server.hub, "lost", fail)
            async with await RawClient.connect(server.port) as client:
                await client.leave()
            # Its own reply tells that the server has seen the other one go.
            assert await witness.request({"type": "ping"}) == {"type": "pong"}
        assert await witness.request({"type": "ping"}) == {"type": "pong"}
        assert server.faults.count == 2


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_tls_is_served_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=str(files.ca))
    async with SignalingServer(config(tls_cert=files.cert, tls_key=files.key)) as server:
        assert server.url == f"wss://127.0.0.1:{server.port}"
        async with (
            await RawClient.connect(server.port, context=context, server_hostname="127.0.0.1") as alice,
            await RawClient.connect(server.port, context=context, server_hostname="127.0.0.1") as bob,
        ):
            await alice.register("alice", Identity.generate())
            await bob.register("bob")
            for number in range(20):
                alice.send({"type": "bye", "to": "bob", "reason": "x" * 3000 * number + "y", "id": number})
                assert (await bob.receive())["reason"].endswith("y")
                assert await alice.receive() == {"type": "ack", "re": number}
            bob.send_frame(2, b"x")
            assert (await bob.wait_closed())[0] == 1003
        status, _, body = await http_get(server.port, b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n", context)
        assert (status, body) == (200, b"ok\n")


async def test_without_the_authority_the_certificate_is_not_trusted(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    async with SignalingServer(config(tls_cert=files.cert, tls_key=files.key)) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await RawClient.connect(server.port, context=ssl.create_default_context(), server_hostname="127.0.0.1")


async def test_old_tls_and_no_tls_are_refused(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    old = ssl.create_default_context(cafile=str(files.ca))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with SignalingServer(config(tls_cert=files.cert, tls_key=files.key)) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawClient.connect(server.port, context=old, server_hostname="127.0.0.1")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await RawClient.connect(server.port)
        context = ssl.create_default_context(cafile=str(files.ca))
        async with await RawClient.connect(server.port, context=context, server_hostname="127.0.0.1") as client:
            assert await client.request({"type": "ping"}) == {"type": "pong"}


@pytest.mark.parametrize(
    ("broken", "setting", "problem"),
    [
        ("missing", "tls_cert", "cannot read"),
        ("not a certificate", "tls_cert", "holds no certificate"),
        ("damaged", "tls_cert", "not a certificate and its key"),
        ("the key of another", "tls_key", "is not the key of the certificate"),
        ("swapped", "tls_cert", "holds no certificate"),
        ("no key", "tls_key", "holds no private key"),
        ("a folder", "tls_key", "cannot read"),
        ("encrypted", "tls_key", "is encrypted"),
    ],
)
async def test_a_certificate_that_cannot_be_used_is_an_error_in_words(
    tmp_path: Path, broken: str, setting: str, problem: str
) -> None:
    files = make_certificates(tmp_path)
    certificate, key = files.cert, files.key
    match broken:
        case "missing":
            certificate = tmp_path / "nowhere.pem"
        case "not a certificate":
            certificate.write_text("hello")
        case "damaged":
            certificate.write_text(certificate.read_text()[:200])
        case "the key of another":
            (tmp_path / "other").mkdir()
            key = make_certificates(tmp_path / "other").key
        case "swapped":
            certificate, key = key, certificate
        case "no key":
            key = certificate
        case "a folder":
            key = tmp_path
        case "encrypted":
            private = serialization.load_pem_private_key(key.read_bytes(), None)
            password = serialization.BestAvailableEncryption(b"password")
            pkcs8 = serialization.PrivateFormat.PKCS8
            key.write_bytes(private.private_bytes(serialization.Encoding.PEM, pkcs8, password))
    with pytest.raises(ConfigError, match=problem) as raised:
        await SignalingServer(config(tls_cert=certificate, tls_key=key)).start()
    assert raised.value.setting == setting


@pytest.mark.parametrize("name", ["host", "admin_host"])
@pytest.mark.parametrize("value", ["ß" * 60, ".", "a" * 70])
async def test_a_host_that_no_resolver_takes_is_an_error_of_that_setting(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match="no address and no host name") as raised:
        await SignalingServer(config(**{"admin_port": 0, name: value})).start()
    assert raised.value.setting == name
