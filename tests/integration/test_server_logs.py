"""The log of a real server, at its most talkative: it holds no secret, no SDP, and no full address of a client."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from aldis.identity.keys import Identity
from support.patience import PATIENCE
from support.raw_websocket import BINARY, HandshakeRefused, RawClient, http_get
from support.server_process import ServerProcess

HOST = "signal.example"
IPV4, IPV6 = "203.0.113.77", "2001:db8:1:2::77"
SECRETS = {"turn_secret": "turn-s3cret", "admin_token": "admin-t0ken"}
# Texts of clients that are to be in no line.
SDP = "v=0\r\no=- 4611731400430051336 2 IN IP4 198.51.100.9\r\na=ice-pwd:vN4qTtLFlzQ3kWb0\r\n"
PRIVATE = ("a-private-w0rd", "vN4qTtLFlzQ3kWb0", "c=IN", "a=ice", "198.51.100")


async def talk(port: int, name: str, address: str, secrets: set[str]) -> None:
    """All that a client does, right and wrong, from an address that a proxy tells of."""
    headers = {"X-Forwarded-For": address, "Authorization": "Bearer a-private-w0rd", "Cookie": "a-private-w0rd"}
    identity = Identity.generate()

    async def connect(**more: Any) -> RawClient:
        return await RawClient.connect(port, host=HOST, headers={**headers, **more}, path="/?token=a-private-w0rd")

    async with await connect() as client:
        reply = await client.register(name, identity)
        secrets |= {reply["secret"], reply["session"]}
        ice = await client.request({"type": "ice-servers"})
        secrets |= {server["credential"] for server in ice["iceServers"] if "credential" in server}
        offer = {"type": "offer", "to": name, "offer": {"type": "offer", "sdp": SDP}, "id": "1"}
        for message in (
            offer,
            {**offer, "to": "nobody"},
            {"type": "relay", "to": name, "sealed": "a-private-w0rd", "id": "2"},
            {"type": "a-private-w0rd", "sdp": SDP},
            {"type": "offer", "to": 5, "offer": SDP},
        ):
            client.send(message)
        client.send("{" + SDP)
        assert (await client.request({"type": "ping", "id": "end"}))["type"]
        client.send_frame(BINARY, SDP.encode())
        assert (await client.wait_closed())[0] == 1003
    async with await connect() as client:
        taken = await client.register(name, Identity.generate())
        assert taken["code"] == "key-mismatch"
        client.send_bytes(b"\xff" + SDP.encode())  # no frame
        await client.wait_over()
    async with await connect() as client:
        resumed = await client.register(
            name, identity, resume={"session": reply["session"], "secret": "a-private-w0rd", "received": 0}
        )
        assert resumed["resumed"] is False
        client.vanish()
    async with await connect(Origin="https://a-private-w0rd.example") as client:
        await client.wait_closed()
    with pytest.raises(HandshakeRefused):
        await RawClient.connect(port, host=address if "." in address else f"[{address}]", headers=headers)
    head = f"GET /a-private-w0rd?sdp={base64.b64encode(SDP.encode()).decode()} HTTP/1.1\r\nHost: {HOST}\r\n"
    await http_get(port, f"{head}X-Forwarded-For: {address}\r\n\r\n".encode())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"a-private-w0rd " + SDP.encode() * 2 + b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await reader.read()
    writer.close()


def ask_admin(port: int, token: str, method: str, path: str, **body: object) -> None:
    data = json.dumps(body).encode() if body else None
    headers = {"Authorization": f"Bearer {token}"}
    try:
        with urlopen(Request(f"http://127.0.0.1:{port}{path}", data, headers, method=method)) as reply:
            reply.read()
    except HTTPError as error:
        error.close()


async def test_no_line_holds_a_secret_an_sdp_or_a_full_address(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"names": HOST, "trusted_proxies": "127.0.0.1", "turn": "turn:t.example", **SECRETS}
    secrets: set[str] = {*SECRETS.values(), *PRIVATE}
    async with ServerProcess(tmp_path, admin_port=0, **settings) as server:
        assert (await server.wait_for_line("serving"))["names"] == [HOST]
        for name, address in (("alice", IPV4), ("bob", IPV6)):
            await talk(server.port, name, address, secrets)
        for token in ("a-private-w0rd", SECRETS["admin_token"]):
            for path in ("/statistics", "/users/alice", "/a-private-w0rd"):
                await asyncio.to_thread(ask_admin, server.admin_port, token, "GET", f"/api/v1{path}")
            for value in (IPV4, IPV6):
                ban = {"kind": "network", "value": value}
                await asyncio.to_thread(ask_admin, server.admin_port, token, "POST", "/api/v1/bans", **ban)
        server.signal(signal.SIGHUP)
        await server.wait_for_line("reloaded")
        assert await server.stop() == 0
    text = server.log_text()
    assert "203.0.113.0/24" in text
    assert "2001:db8:1::/48" in text
    found = [secret for secret in {*secrets, IPV4, IPV6, "2001:db8:1:2"} if secret in text]
    assert not found, text
    assert "Traceback" not in text


async def test_levels_by_area_come_with_sighup_and_lines_name_their_area(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text('log_level = "info"\n')
    forwarded = {"X-Forwarded-For": IPV4}
    settings: dict[str, Any] = {"config": str(file), "log_level": None, "trusted_proxies": "127.0.0.1"}
    async with ServerProcess(tmp_path, **settings) as server:
        silent = await RawClient.connect(server.port, headers=forwarded)
        await silent.register("silent")
        file.write_text('log_level = "info,hub=debug"\nlog_addresses = "full"\n')
        server.signal(signal.SIGHUP)
        assert set((await server.wait_for_line("reloaded"))["changed"]) == {"log_level", "log_addresses"}
        async with await RawClient.connect(server.port, headers=forwarded) as client:
            await client.register("alice")
        line = await server.wait_for_line("disconnected")
        assert (line["area"], line["user"], line["address"]) == ("hub", "alice", IPV4)
        connected = [line for line in server.lines() if line["event"] == "connected"]
        assert [(line["area"], line["address"]) for line in connected] == [("hub", IPV4)]
        assert {line["area"] for line in server.lines()} == {"server", "hub"}
        async with await RawClient.connect(server.port, headers=forwarded):
            pass
        assert "user" not in await server.wait_for_line("disconnected", number=2)
        silent.vanish()
        await server.stop()


async def test_who_is_refused_a_connection_can_be_seen(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"log_level": "info,http=debug", "log_addresses": "full", "max_connections": 2}
    limits: dict[str, Any] = {"trusted_proxies": "127.0.0.1", "connections_per_address": 1}
    forwarded = {"X-Forwarded-For": IPV4}
    async with (
        ServerProcess(tmp_path, **settings, **limits) as server,
        await RawClient.connect(server.port, headers=forwarded),
    ):
        with pytest.raises(HandshakeRefused, match="429"):
            await RawClient.connect(server.port, headers=forwarded)
        line = await server.wait_for_line("refused a connection")
        assert (line["area"], line["reason"], line["address"]) == ("http", "address", IPV4)
        async with await RawClient.connect(server.port):
            with pytest.raises(HandshakeRefused, match="503"):
                await RawClient.connect(server.port)
        line = await server.wait_for_line("refused a connection", number=2)
        assert (line["reason"], line["address"]) == ("full", "127.0.0.1")
