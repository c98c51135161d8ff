"""A proof that was made for another server is worth nothing here; and whoever dials a wrong name is told so."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aldis.client.client import SignalingClient
from aldis.errors import AldisError, ServerUnreachable
from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from support.certificates import make_certificates
from support.commands import aldis
from support.patience import PATIENCE
from support.raw_websocket import HandshakeRefused, RawClient, http_get
from support.relaying_server import RelayingServer, relaying_server
from support.server_process import ServerProcess
from support.settings import config


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config()) as server:
        yield server


async def is_known(server: SignalingServer, user_id: str) -> bool:
    """Whether somebody has ever registered this name here."""
    async with SignalingClient(server.url, "watcher") as watcher:
        await watcher.register(Identity.generate())
        found = await watcher.discover(user_id)
        return found.online or found.public_key is not None


async def dial(evil: RelayingServer) -> None:
    """A victim registers at the evil server, with a client as it is."""
    async with asyncio.timeout(PATIENCE), SignalingClient(evil.url, "victim") as victim:
        await victim.register(Identity.generate())


# --- the attack -------------------------------------------------------------------------------------------------------


async def test_a_proof_for_another_server_registers_nobody(server: SignalingServer) -> None:
    async with relaying_server(server.url) as evil:
        with pytest.raises(AldisError):
            await dial(evil)
        assert (evil.heard, evil.refusals) == ([], [421])  # not even a challenge
    assert not await is_known(server, "victim")


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
async def test_nor_does_one_that_comes_as_from_a_browser(server: SignalingServer, origin: str) -> None:
    async with relaying_server(server.url) as evil:
        evil.headers["Origin"] = origin
        with pytest.raises(AldisError):
            await dial(evil)
        async with asyncio.timeout(PATIENCE):
            assert await evil.closed == 4505
        assert evil.heard == []
    assert not await is_known(server, "victim")


@pytest.mark.parametrize(
    ("headers", "challenged"),
    [
        # With the right host there is a challenge, but the victim has signed the other one.
        ({"Host": "{good}"}, True),
        ({"Host": "localhost:{port}"}, True),
        # What proxies say is not believed.
        ({"Host": "{good}", "X-Forwarded-Host": "{evil}", "Forwarded": "host={evil}"}, True),
        ({"Host": "{evil}", "X-Forwarded-Host": "{good}", "Forwarded": "host={good}"}, False),
        # Near misses.
        ({"Host": "{evil}."}, False),
        ({"Host": "user@{evil}"}, False),
        ({"Host": "{good}@{evil}"}, False),
        ({"Host": "{good},{evil}"}, False),
        ({"Host": "{evil}:80"}, False),
    ],
)
async def test_no_header_makes_it_fit(server: SignalingServer, headers: dict[str, str], challenged: bool) -> None:
    async with relaying_server(server.url) as evil:
        good = f"127.0.0.1:{server.port}"
        evil.headers = {
            name: value.format(good=good, evil=evil.host, port=server.port) for name, value in headers.items()
        }
        with pytest.raises(AldisError):
            await dial(evil)
        kinds = [message.get("code") or message["type"] for message in evil.heard]
        assert kinds == (["challenge", "bad-signature"] if challenged else [])
    assert not await is_known(server, "victim")


async def test_two_hosts_or_a_whole_url_get_no_challenge(server: SignalingServer) -> None:
    good = f"127.0.0.1:{server.port}"
    for more, path, status in (
        ({"Host": f"{good}\r\nHost: evil.example"}, "/", 400),
        ({"Host": f"evil.example\r\nHost: {good}"}, "/", 400),
        ({"Host": "evil.example\r\nX: y"}, f"http://{good}/", 421),
        ({"Host": good}, "http://evil.example/", 404),
    ):
        with pytest.raises(HandshakeRefused) as refused:
            await RawClient.connect(server.port, path=path, headers=more)
        assert refused.value.status == status


async def test_the_same_with_names(server: SignalingServer) -> None:
    async with SignalingServer(config(names="signal.example")) as named, relaying_server(named.url) as evil:
        for host, challenged in ((evil.host, False), (f"127.0.0.1:{named.port}", True), ("signal.example", True)):
            evil.headers, evil.heard = {"Host": host}, []
            with pytest.raises(AldisError):
                await dial(evil)
            assert bool(evil.heard) is challenged
        async with await RawClient.connect(named.port, host="signal.example") as watcher:
            await watcher.register("watcher")
            found = await watcher.request({"type": "discover", "userId": "victim"})
            assert (found["online"], found.get("publicKey")) == (False, None)


async def test_a_session_that_is_online_cannot_be_resumed_through_another_server(server: SignalingServer) -> None:
    identity = Identity.generate()
    async with await RawClient.connect(server.port) as alice, relaying_server(server.url) as evil:
        registered = await alice.register("alice", identity)
        ticket = {"session": registered["session"], "secret": registered["secret"], "received": 0}
        for host in (evil.host, f"127.0.0.1:{server.port}"):
            evil.headers, evil.heard = {"Host": host}, []
            async with await RawClient.connect(int(evil.host.rpartition(":")[2])) as stolen:
                key = b64encode(identity.public_key).decode()
                stolen.send({"type": "register", "userId": "alice", "publicKey": key, "resume": ticket})
                if host == evil.host:
                    await stolen.wait_over()
                else:
                    proof = stolen.sign(identity, await stolen.receive(), "alice")
                    assert (await stolen.request({"type": "prove", "signature": proof}))["code"] == "bad-signature"
        assert await alice.request({"type": "ping"}) == {"type": "pong"}


async def test_a_classic_client_of_another_server_gets_no_name_here() -> None:
    async with SignalingServer(config(auth="open")) as server, relaying_server(server.url) as evil:
        async with await RawClient.connect(int(evil.host.rpartition(":")[2]), subprotocol=None) as victim:
            victim.send({"type": "register", "userId": "victim", "publicKey": "x"})
            await victim.wait_over()
        assert (evil.heard, evil.refusals) == ([], [421])
        assert not await is_known(server, "victim")


# --- the names that a server has --------------------------------------------------------------------------------------


async def registers(port: int, host: str, address: str = "127.0.0.1", **more: Any) -> bool:
    try:
        client = await RawClient.connect(port, address=address, host=host, **more)
    except HandshakeRefused as refused:
        assert refused.status == 421  # noqa: PT017 - and nothing else
        return False
    async with client:
        return bool((await client.register(f"user-{host}"))["success"])


async def test_an_address_counts_where_the_connection_has_arrived() -> None:
    async with SignalingServer(config(host="0.0.0.0")) as server:
        port = server.port
        assert await registers(port, f"127.0.0.1:{port}")
        assert await registers(port, f"localhost:{port}")
        assert await registers(port, f"127.0.0.9:{port}", "127.0.0.9")
        assert not await registers(port, f"127.0.0.1:{port}", "127.0.0.9")
        assert not await registers(port, "localhost")


async def test_names_in_the_certificate_count(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, host="*.signal.example")
    async with SignalingServer(config(tls_cert=files.cert, tls_key=files.key)) as server:
        port = server.port
        more: dict[str, Any] = {"context": files.client_context(), "server_hostname": "a.signal.example"}
        assert await registers(port, f"a.signal.example:{port}", **more)
        assert not await registers(port, "a.signal.example", **more)
        assert not await registers(port, f"a.b.signal.example:{port}", **more)
        assert not await registers(port, f"evil.example:{port}", **more)


# --- what people are told ---------------------------------------------------------------------------------------------


async def test_people_are_told_and_so_is_the_operator_once_in_a_while(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, admin_port=0) as server, relaying_server(f"ws://127.0.0.1:{server.port}"):
        other = f"my-box.local:{server.port}"
        status, headers, body = await http_get(server.port, f"GET / HTTP/1.1\r\nHost: {other}\r\n\r\n".encode())
        assert (status, headers["content-type"]) == (421, "text/plain; charset=utf-8")
        assert f"aldis serve --names {other}\n" in body.decode()
        for _ in range(5):
            with pytest.raises(HandshakeRefused) as refused:
                await RawClient.connect(server.port, host=other)
            assert (refused.value.status, refused.value.body) == (421, body)
        request = b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        _, _, page = await http_get(server.admin_port, request)
        assert 'outcome="misdirected"} 6.0' in page.decode()
        for path in ("/healthz", "/aldis.js"):
            request = f"GET {path} HTTP/1.1\r\nHost: {other}\r\n\r\n".encode()
            assert (await http_get(server.port, request))[0] == 200
        assert await server.stop() == 0
        lines = [line for line in server.lines() if "host" in line]
        assert [(line["level"], line["host"], line["unlogged_before"]) for line in lines] == [("warning", other, 0)]
        assert "--names" in lines[0]["event"]


async def test_the_client_the_command_line_and_the_doctor_say_what_to_do(
    server: SignalingServer, tmp_path: Path
) -> None:
    # A port that is forwarded to the server's.
    forward = await asyncio.start_server(lambda r, w: _forward(r, w, server.port), "127.0.0.1", 0)
    async with forward:
        host = f"127.0.0.1:{forward.sockets[0].getsockname()[1]}"
        advice = f"its operator has to start it with --names {host}"
        with pytest.raises(ServerUnreachable, match=advice):
            await SignalingClient(f"ws://{host}", "alice").connect()
        told = await asyncio.to_thread(aldis, "chat", "bob", "--as", "alice", "--server", host, home=tmp_path)
        assert told.returncode == 3
        assert advice in told.stderr
        told = await asyncio.to_thread(aldis, "doctor", "--json", "--server", host, home=tmp_path)
        assert told.returncode == 3
        found = {check["check"]: check for check in json.loads(told.stdout)["checks"]}
        assert (found["WebSocket"]["mark"], advice in found["WebSocket"]["text"]) == ("fail", True)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
        except ConnectionError:
            pass  # the other side closes too
        sink.close()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
