"""A server as a service of systemd: what it tells, and sockets that outlive it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import msgpack

from aldis.errors import ConfigError
from aldis.hub.handover import Handover
from aldis.identity.keys import Identity
from aldis.server.systemd import activated_sockets
from support.certificates import make_certificates
from support.commands import aldis
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import CLOSE, TEXT, RawClient, http_get
from support.server_process import ServerProcess
from support.systemd_manager import Manager


@pytest.fixture(params=["path", "abstract"])
async def manager(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Manager]:
    is_path = request.param == "path"
    manager = Manager(str(tmp_path / "notify") if is_path else f"@aldis-test-{os.getpid()}")
    yield manager
    manager.close()


# --- what it tells ----------------------------------------------------------------------------------------------------


async def test_systemd_is_told_of_start_reload_and_stop(tmp_path: Path, manager: Manager) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text("")
    async with ServerProcess(tmp_path, config=str(file), environ=manager.environ, own_program=True) as server:
        serving = {"READY": "1", "STATUS": f"Serving at ws://127.0.0.1:{server.port}"}
        assert await manager.told() == serving
        server.signal(signal.SIGHUP)
        reloading = await manager.told()
        assert reloading["RELOADING"] == "1"
        assert int(reloading["MONOTONIC_USEC"]) > 0
        assert await manager.told() == serving
        file.write_text("port = [")
        server.signal(signal.SIGHUP)
        assert "RELOADING" in await manager.told()
        failed = await manager.told()
        assert failed["READY"] == "1"
        assert "the last reload failed" in failed["STATUS"]
        async with await RawClient.connect(server.port):
            server.signal(signal.SIGTERM)
            stopping = await manager.told()
            assert stopping == {
                "STOPPING": "1",
                "STATUS": "Draining 1 connections",
                "EXTEND_TIMEOUT_USEC": "13000000",  # drain_seconds and a little
            }
        assert await server.wait() == 0


async def test_the_watchdog_hears_of_an_event_loop_that_turns(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    environ = {**manager.environ, "WATCHDOG_USEC": "200000"}
    async with ServerProcess(tmp_path, environ=environ) as server:
        await manager.told()
        for _ in range(3):
            assert await manager.next() == {"WATCHDOG": "1"}
        server.signal(signal.SIGSTOP)  # it hangs
        manager.hears_nothing()
        server.signal(signal.SIGCONT)
        assert await manager.next() == {"WATCHDOG": "1"}
    manager.close()


async def test_the_watchdog_of_another_process_is_not_ours(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    environ = {**manager.environ, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    async with ServerProcess(tmp_path, environ=environ) as server:
        assert "READY" in await manager.next()
        server.signal(signal.SIGTERM)
        assert "STOPPING" in await manager.next()
        await server.wait()
    manager.close()


async def test_nobody_who_listens_is_no_error(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, environ={"NOTIFY_SOCKET": str(tmp_path / "nowhere")}) as server:
        assert await server.stop() == 0
        server.assert_clean_log()


# --- sockets ----------------------------------------------------------------------------------------------------------


async def test_given_sockets_take_the_place_of_the_ports(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as plain:
        sockets = {"public": public, "redirect": plain}
        async with ServerProcess(
            tmp_path, sockets=sockets, host="192.0.2.1", tls_cert=str(files.cert), tls_key=str(files.key)
        ) as server:
            assert server.port == public.getsockname()[1]
            more: dict[str, Any] = {"context": files.client_context(), "server_hostname": "127.0.0.1"}
            async with await RawClient.connect(server.port, **more) as client:
                assert (await client.register("alice"))["success"] is True
            request = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            status, headers, _ = await http_get(plain.getsockname()[1], request)
            assert (status, headers["location"]) == (308, f"https://127.0.0.1:{server.port}/a")
            assert await server.stop() == 0
            server.assert_clean_log()


async def test_systemd_socket_activate_starts_it_at_the_first_connection(tmp_path: Path) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *("systemd-socket-activate", "-l", f"127.0.0.1:{port}", sys.executable, "-m", "aldis", "serve"),
        *("--admin-port", "none", "--data", ":memory:", "--log-format", "json"),
        env={**os.environ, "HOME": str(tmp_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        assert b"Listening on" in await process.stderr.readline()
    async with await RawClient.connect(port) as client:
        assert (await client.register("alice"))["success"] is True
        process.send_signal(signal.SIGTERM)
        assert (await client.wait_closed())[0] == 4000
    async with asyncio.timeout(PATIENCE):
        await process.communicate()
    assert process.returncode == 0


async def test_a_socket_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as public, socket.create_server(("127.0.0.1", 0)) as plain:
        server = ServerProcess(tmp_path, sockets={"public": public, "redirect": plain})
        with pytest.raises(AssertionError, match="tls_cert: is needed"):
            await server.start()
        assert await server.wait() == 3
    with socket.socket() as idle:
        server = ServerProcess(tmp_path, sockets={"public": idle})
        with pytest.raises(AssertionError, match="does not listen for TCP"):
            await server.start()
        assert await server.wait() == 3


def test_sockets_of_another_process_are_not_ours() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "HOME": "/"}
    assert not activated_sockets(environ).public
    assert environ == {"HOME": "/"}  # so that no child process believes it either
    with pytest.raises(ConfigError, match="is no socket"):
        activated_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1000"})


# --- a restart --------------------------------------------------------------------------------------------------------


async def test_a_restart_refuses_no_connection(tmp_path: Path) -> None:
    """While no server runs, a client waits for the next one, in the queue of the socket."""
    identity = Identity.generate()
    with socket.create_server(("127.0.0.1", 0)) as public:
        port = public.getsockname()[1]
        async with ServerProcess(tmp_path, sockets={"public": public}) as server:
            async with await RawClient.connect(port) as client:
                await client.register("alice", identity)
                server.signal(signal.SIGTERM)
                assert (await client.wait_closed())[0] == 4000
            assert await server.wait() == 0
        early = asyncio.create_task(RawClient.connect(port))
        async with ServerProcess(tmp_path, sockets={"public": public}), await early as client:
            assert (await client.register("alice", identity))["success"] is True


NUMBERED = ("presence", "offer", "answer", "ice-candidate", "bye", "relay")


class Resuming:
    """A client that counts what it gets, and comes back to its session."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.identity = Identity.generate()
        self.received = 0
        self.messages: list[dict[str, Any]] = []
        self.ticket: dict[str, Any] = {}

    async def connect(self, port: int) -> dict[str, Any]:
        self.client = await RawClient.connect(port)
        resume: dict[str, Any] = {"resume": {**self.ticket, "received": self.received}} if self.ticket else {}
        reply = await self.client.register(self.name, self.identity, **resume)
        self.ticket = {"session": reply["session"], "secret": reply["secret"]}
        return reply

    async def read_until_closed(self) -> int:
        """Read all that comes, and answer the close; return its code."""
        while (frame := await self.client.receive_frame()).opcode == TEXT:
            self.take(json.loads(frame.payload))
        self.client.send_frame(CLOSE, frame.payload[:2])
        await self.client.wait_over()
        self.client.writer.close()
        return frame.close_code

    async def read_until_pong(self) -> None:
        self.client.send({"type": "ping", "id": "end"})
        while (message := await self.client.receive()) != {"type": "pong", "re": "end"}:
            self.take(message)

    def take(self, message: dict[str, Any]) -> None:
        self.received += message["type"] in NUMBERED
        self.messages.append(message)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


async def test_sessions_go_on_in_the_next_process_and_nobody_goes_offline(tmp_path: Path) -> None:
    """Also what the server has acknowledged, and a client has not got, comes with the next process."""
    alice, bob, carol = Resuming("alice"), Resuming("bob"), Resuming("carol")
    with socket.create_server(("127.0.0.1", 0)) as public:
        port = public.getsockname()[1]
        async with ServerProcess(tmp_path, sockets={"public": public}) as server:
            for one in (alice, bob, carol):
                assert (await one.connect(port))["resumed"] is False
                one.client.send({"type": "watch", "userIds": ["alice", "bob", "carol"]})
                await one.read_until_pong()
            for one in (alice, bob, carol):
                await one.read_until_pong()
            before = [(one, len(one.messages)) for one in (alice, bob, carol)]
            carol.client.vanish()  # within its resume window when the server stops
            for number in range(200):
                alice.client.send({"type": "relay", "to": "bob", "sealed": str(number), "id": number})
            await alice.read_until_pong()  # all are acknowledged
            # bob reads nothing of it now, and his connection breaks while the server stops.
            server.signal(signal.SIGTERM)
            await server.wait_for_line("stopping")
            bob.client.vanish()
            assert await alice.read_until_closed() == 4000
            assert await server.wait() == 0
            server.assert_clean_log()
        assert (tmp_path / "data" / "sessions.handover").stat().st_mode & 0o777 == 0o600
        async with ServerProcess(tmp_path, sockets={"public": public}) as server:
            assert not (tmp_path / "data" / "sessions.handover").exists()
            for one in (alice, carol, bob):
                assert (await one.connect(port))["resumed"] is True
                await one.read_until_pong()
            # At the start, before all had come, some were told that others were not there yet.
            late = [one.messages[first:] for one, first in before]
            assert not [told for messages in late for told in messages if told["type"] == "presence"]
            acknowledged = {message["re"] for message in alice.of("ack") if "re" in message}
            arrived = [int(message["sealed"]) for message in bob.of("relay")]
            assert arrived == sorted(set(arrived))
            assert acknowledged == set(arrived) == set(range(200))
            for one in (alice, bob, carol):
                one.client.vanish()
            assert await server.stop() == 0
            server.assert_clean_log()


async def left_by_a_server(folder: Path) -> Resuming:
    """A client whose server has been stopped in order."""
    client = Resuming("alice")
    async with ServerProcess(folder) as server:
        await client.connect(server.port)
        server.signal(signal.SIGTERM)
        assert await client.read_until_closed() == 4000
        await server.wait()
    return client


async def test_old_sessions_are_not_taken_over(tmp_path: Path) -> None:
    alice = await left_by_a_server(tmp_path)
    file = tmp_path / "data" / "sessions.handover"
    saved = msgpack.decode(file.read_bytes(), type=Handover)
    file.write_bytes(msgpack.encode(Handover(saved.saved_at - 31, saved.sessions)))
    async with ServerProcess(tmp_path) as server:
        assert (await alice.connect(server.port))["resumed"] is False
        server.signal(signal.SIGTERM)
        await alice.read_until_closed()
        await server.wait()
    for damaged in (b"no sessions", b"\x81" + msgpack.encode("a field of another release") + b"\x91" * 100_000):
        file.write_bytes(damaged)
        async with ServerProcess(tmp_path) as server:
            assert (await alice.connect(server.port))["resumed"] is False
            await server.wait_for_line("the sessions of the last run cannot be read; clients register anew")
            alice.client.vanish()


@pytest.mark.parametrize("obstacle", ["a port that is taken", "a broken list of bans"])
async def test_a_start_that_fails_leaves_the_sessions_for_the_next_one(tmp_path: Path, obstacle: str) -> None:
    alice = await left_by_a_server(tmp_path)
    bans = tmp_path / "data" / "bans.json"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = {"admin_port": taken.getsockname()[1]} if obstacle.endswith("taken") else {}
        if not settings:
            bans.write_text("no list")
        failing = ServerProcess(tmp_path, own_program=True, **settings)
        with pytest.raises(AssertionError, match=r"ConfigError: (admin_port|data): "):
            await failing.start()
        assert await failing.wait() != 0
    bans.unlink(missing_ok=True)
    assert (tmp_path / "data" / "sessions.handover").stat().st_mode & 0o777 == 0o600
    async with ServerProcess(tmp_path) as server:
        assert (await alice.connect(server.port))["resumed"] is True
        alice.client.vanish()


async def test_who_does_not_come_back_goes_offline_after_the_resume_window(tmp_path: Path) -> None:
    alice, bob = Resuming("alice"), Resuming("bob")
    settings: dict[str, Any] = {"resume_window": 8, "port": free_port()}
    async with ServerProcess(tmp_path, **settings) as server:
        for one in (alice, bob):
            await one.connect(server.port)
        alice.client.send({"type": "watch", "userIds": ["bob"]})
        await alice.read_until_pong()
        server.signal(signal.SIGTERM)
        assert {await alice.read_until_closed(), await bob.read_until_closed()} == {4000}
        await server.wait()
    async with ServerProcess(tmp_path, **settings) as server:
        assert (await alice.connect(server.port))["resumed"] is True
        gone = await alice.client.receive()
        assert (gone["type"], gone["userId"], gone["online"]) == ("presence", "bob", False)
        alice.client.vanish()


def test_help_is_not_disturbed_by_variables_of_systemd(tmp_path: Path) -> None:
    assert aldis("serve", "--help", home=tmp_path, extra={"LISTEN_FDS": "1"}).returncode == 0
