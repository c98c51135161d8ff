"""Several workers, and what there is once beside them: systemd, the STUN port, the TURN server, the plain port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aldis.peer.selftest import ask_stun
from aldis.protocol.codes import CloseCode
from aldis.protocol.messages import IceServer
from support.certificates import make_certificates
from support.coturn import allocate
from support.patience import PACE, PATIENCE
from support.ports import free_port
from support.raw_websocket import RawClient, http_get
from support.redis_server import RedisServer
from support.systemd_manager import Manager
from support.worker_processes import Workers, ended

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
MANY = 12


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", *DURABLE) as server:
        yield server


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


async def test_systemd_is_told_when_all_serve_when_they_are_replaced_and_when_they_stop(
    tmp_path: Path, redis: RedisServer, manager: Manager
) -> None:
    async with Workers(tmp_path, redis, environ=manager.environ) as server:
        serving = {"READY": "1", "STATUS": f"Serving at ws://127.0.0.1:{server.port} with 2 workers"}
        assert await manager.told() == serving
        server.file.write_text("workers = 2\n")
        await server.hang_up()
        assert (await manager.told())["RELOADING"] == "1"
        assert await manager.told() == serving
        server.file.write_text("port = [")
        await server.hang_up("the new settings cannot be used; the earlier ones stay")
        assert "RELOADING" in await manager.told()
        assert "the last reload failed" in (await manager.told())["STATUS"]
        server.signal(signal.SIGTERM)
        stopping = await manager.told()
        assert (stopping["STOPPING"], stopping["STATUS"]) == ("1", "Draining 2 workers")
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) == 18_000_000
        assert await server.wait() == 0


async def test_a_signal_of_systemd_to_all_processes_is_no_second_one(tmp_path: Path, redis: RedisServer) -> None:
    async with Workers(tmp_path, redis) as server, await RawClient.connect(server.port) as client:
        for pid in (server.pid, *server.pids().values()):  # KillMode=control-group
            os.kill(pid, signal.SIGTERM)
        assert (await client.wait_closed())[0] == CloseCode.GOING_AWAY
        assert await server.wait() == 0
        assert "stopped at once" not in server.log_text()


async def test_a_worker_that_hangs_is_killed_before_the_watchdog_ends_all(
    tmp_path: Path, redis: RedisServer, manager: Manager
) -> None:
    environ = {**manager.environ, "WATCHDOG_USEC": "4000000"}
    async with Workers(tmp_path, redis, environ=environ) as server:
        pid = server.pids()[1]
        os.kill(pid, signal.SIGSTOP)
        line = await server.wait_for_line("a worker hangs, and is killed")
        assert (line["worker"], line["pid"]) == (1, pid)
        await server.wait_for_line("a worker serves", number=3)
        await manager.told()
        assert await manager.next() == {"WATCHDOG": "1"}
        assert await server.stop() == 0


async def test_workers_accept_from_the_sockets_of_systemd(tmp_path: Path, redis: RedisServer) -> None:
    files = make_certificates(tmp_path)
    secure = {"tls_cert": str(files.cert), "tls_key": str(files.key)}
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as plain:
        port, redirect = (one.getsockname()[1] for one in (public, plain))
        async with Workers(tmp_path, redis, sockets={"public": public, "redirect": plain}, **secure) as server:
            assert server.port == port
            stop = asyncio.Event()

            async def ask_for_https() -> None:
                while not stop.is_set():
                    request = f"GET /x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
                    status, headers, _ = await http_get(redirect, request)
                    assert (status, headers["location"]) == (308, f"https://127.0.0.1:{port}/x")
                    await asyncio.sleep(PACE)

            asking = asyncio.create_task(ask_for_https())
            await server.hang_up()
            stop.set()
            await asking
            for _ in range(MANY):
                trusted: dict[str, Any] = {"context": files.client_context(), "server_hostname": "127.0.0.1"}
                async with await RawClient.connect(port, **trusted) as client:
                    assert await client.request({"type": "ping"}) == {"type": "pong"}
            assert await server.stop() == 0


async def test_stun_answers_as_long_as_one_worker_serves(tmp_path: Path, redis: RedisServer) -> None:
    port = free_port()
    async with Workers(tmp_path, redis, host="0.0.0.0", stun_port=port) as server:
        before = server.pids()
        os.kill(before[0], signal.SIGKILL)
        await ended(before[0])
        for _ in range(MANY):
            assert (await ask_stun("10.77.0.1", port, PATIENCE)).startswith("10.77.0.1:")
        await server.wait_for_line("a worker serves", number=3)
        os.kill(before[1], signal.SIGKILL)
        await ended(before[1])
        assert (await ask_stun("10.77.0.1", port, PATIENCE)).startswith("10.77.0.1:")
        await server.wait_for_line("a worker serves", number=4)
        async with await RawClient.connect(server.port, address="10.77.0.1") as client:
            await client.register("alice")
            told = await client.request({"type": "ice-servers"})
            assert told["iceServers"] == [{"urls": [f"stun:10.77.0.1:{port}"]}]
        assert await server.stop() == 0


async def test_a_taken_stun_port_is_an_error_of_the_whole_server(tmp_path: Path, redis: RedisServer) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", port))
        server = Workers(tmp_path, redis, host="0.0.0.0", stun_port=port)
        with pytest.raises(AssertionError, match=f"stun_port: 0.0.0.0:{port} is in use"):
            await server.start()
        assert await server.wait() == 3


async def test_one_turn_server_outlives_all_workers(tmp_path: Path, redis: RedisServer) -> None:
    settings: dict[str, Any] = {
        "turn_server": True,
        "turn_address": "10.77.0.1",
        "host": "0.0.0.0",
        "turn_port": free_port(),
        "turn_relay_ports": "50000-50063",
    }
    async with Workers(tmp_path, redis, **settings) as server:
        url = f"turn:10.77.0.1:{settings['turn_port']}?transport=udp"
        started = await server.wait_for_line("TURN server")
        assert started["urls"][0] == url
        server.file.write_text("turn_port = 3000\n" + 'turn_secret = "another secret"\n')
        await server.hang_up()
        assert [line["event"] for line in server.lines()].count("TURN server") == 1
        assert Path(f"/proc/{started['pid']}").exists()
        for number in range(MANY):
            async with await RawClient.connect(server.port) as client:
                await client.register(f"user-{number}")
                told = await client.request({"type": "ice-servers"})
                stun, turn = told["iceServers"]
                assert stun["urls"] == [f"stun:10.77.0.1:{settings['turn_port']}"]
                assert turn["urls"][0] == url
                given = IceServer(turn["urls"], turn["username"], turn["credential"])
                assert await allocate(given, settings["turn_port"]) == "10.77.0.1"
        server.signal(signal.SIGKILL)
        await ended(started["pid"])
        for pid in server.pids().values():
            await ended(pid)
        await server.wait()
