"""`--turn-server`: a real coturn beside the server, watched and started again, and used by real peers."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from aioice.turn import create_turn_endpoint

from aldis.errors import ConfigError
from aldis.protocol.messages import IceServer
from aldis.server import turn_server
from aldis.server.app import SignalingServer
from aldis.server.logs import get_logger
from aldis.server.turn import RETRY_TTL, TTL, ConfiguredIceServers
from aldis.server.turn_server import TurnServer
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import RawClient, http_get
from support.server_process import ServerProcess
from support.settings import config

# coturn relays to no loopback address; this one is of tools/netns.sh.
ADDRESS = "10.77.0.1"
RELAY = {"turn_relay_ports": "50000-50063"}


def settings(**more: Any) -> dict[str, Any]:
    return {"turn_server": True, "turn_address": ADDRESS, "host": "0.0.0.0", "turn_port": free_port(), **RELAY, **more}


def told(server: SignalingServer, user_id: str = "alice") -> tuple[list[IceServer], int]:
    """The servers that a user is told of, now."""
    assert server.turn is not None
    return ConfiguredIceServers((), (), "", own=server.turn).servers(user_id, time.time())


async def allocate(server: IceServer, port: int) -> str:
    """Have the TURN server relay for us; the address at which it does."""
    assert server.username is not None
    assert server.credential is not None
    transport, _ = await create_turn_endpoint(
        asyncio.DatagramProtocol,
        server_addr=(ADDRESS, port),
        username=server.username,
        password=server.credential,
        lifetime=60,
        ssl=False,
        transport="udp",
    )
    try:
        return str(transport.get_extra_info("sockname")[0])
    finally:
        transport.close()


async def test_clients_are_told_of_the_turn_server_and_their_credentials_work() -> None:
    given = settings()
    async with SignalingServer(config(**given)) as server, await RawClient.connect(server.port) as client:
        await client.register("alice")
        answer = await client.request({"type": "ice-servers"})
        stun, turn = answer["iceServers"]
        port = given["turn_port"]
        assert stun == {"urls": [f"stun:{ADDRESS}:{port}"]}
        assert turn["urls"] == [f"turn:{ADDRESS}:{port}?transport=udp", f"turn:{ADDRESS}:{port}?transport=tcp"]
        assert turn["username"].endswith(":alice")
        assert answer["ttl"] == TTL
        read = IceServer(turn["urls"], turn["username"], turn["credential"])
        assert await allocate(read, int(str(port))) == ADDRESS


async def test_a_turn_server_that_dies_is_started_again_and_clients_are_not_told_of_it_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn_server, "FIRST_PAUSE", 0.2)
    async with SignalingServer(config(**settings())) as server:
        turn = server.turn
        assert turn is not None
        assert turn._process is not None
        turn._process.kill()
        async with asyncio.timeout(PATIENCE):
            await turn.wait_until(up=False)
            assert told(server) == ([], RETRY_TTL)
            await turn.wait_until(up=True)
        assert turn.restarts == 1
        assert len(told(server)[0]) == 2


async def test_the_turn_server_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    given = settings()
    async with ServerProcess(tmp_path, admin_port=0, **given) as server:
        assert server.admin_port
        _, _, body = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert b"aldis_turn_up 1.0" in body
        (child,) = (int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())
        ended = asyncio.Event()
        descriptor = os.pidfd_open(child)
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
        server.signal(signal.SIGKILL)
        await server.wait()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)


async def test_the_secret_is_in_a_file_of_its_own_and_gone_after_the_end() -> None:
    async with SignalingServer(config(**settings())) as server:
        turn = server.turn
        assert turn is not None
        assert turn._folder is not None
        assert turn._process is not None
        path = Path(turn._folder.name) / "turnserver.conf"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert turn.secret in path.read_text()
        assert turn.secret not in Path(f"/proc/{turn._process.pid}/cmdline").read_text()
    assert not path.exists()


async def test_with_a_certificate_it_serves_tls(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    given = settings(tls_cert=files.cert, tls_key=files.key, turn_tls_port=free_port())
    async with SignalingServer(config(**given)) as server:
        assert f"turns:{ADDRESS}:{given['turn_tls_port']}?transport=tcp" in told(server)[0][1].urls
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(str(given["turn_tls_port"])), ssl=files.client_context(), server_hostname="127.0.0.1"
        )
        writer.close()
        assert reader is not None


async def test_what_keeps_it_from_starting_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(turn_server, "START_SECONDS", 2.0)
    given = settings()
    async with SignalingServer(config(**given)):
        with pytest.raises(ConfigError, match="turn_port"):
            await SignalingServer(config(**given)).start()
    with pytest.raises(ConfigError, match="turn_address"):
        SignalingServer(config(turn_server=True, host="0.0.0.0"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="install coturn"):
        await SignalingServer(config(**settings())).start()


def test_one_for_the_internet_relays_to_no_private_address(tmp_path: Path) -> None:
    def lines(address: str) -> list[str]:
        made = turn_server.turn_settings(config(turn_server=True, turn_address=address))
        return TurnServer(made, get_logger("aldis.test"))._configuration(tmp_path)

    assert "denied-peer-ip=10.0.0.0-10.255.255.255" in lines("turn.example.com")
    assert "denied-peer-ip=10.0.0.0-10.255.255.255" in lines("8.8.8.8")
    assert not any("denied" in line for line in lines("192.168.1.5"))
