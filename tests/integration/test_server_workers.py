"""A server with several workers (`--workers`): real processes over a real Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from aldis.protocol.codes import CloseCode
from support.certificates import make_certificates
from support.commands import Piped, aldis
from support.patience import PACE, PATIENCE
from support.ports import free_port
from support.raw_websocket import RawClient, http_get
from support.redis_server import RedisServer
from support.server_process import ServerProcess
from support.worker_processes import Workers, ended

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
OFFER = {"type": "offer", "offer": {"type": "offer", "sdp": "v=0"}}
# So many clients are at both of two workers, but for once in 2**23 runs.
MANY = 24


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", *DURABLE) as server:
        yield server


async def metric(port: int, name: str) -> float:
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    _, _, body = await http_get(port, request)
    return next(float(line.split()[1]) for line in body.decode().splitlines() if line.startswith(f"{name} "))


async def page_status(port: int) -> int:
    request = b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % port
    return (await http_get(port, request))[0]


@asynccontextmanager
async def people(server: ServerProcess, count: int = MANY, name: str = "user") -> AsyncIterator[list[RawClient]]:
    """Registered clients: user-0, user-1, ..."""
    async with AsyncExitStack() as stack:
        clients = []
        for number in range(count):
            client = await stack.enter_async_context(await RawClient.connect(server.port))
            assert (await client.register(f"{name}-{number}"))["success"] is True
            clients.append(client)
        yield clients


# --- start and stop ---------------------------------------------------------------------------------------------------


async def test_users_of_all_workers_find_each_other_and_sigterm_ends_all_with_0(
    tmp_path: Path, redis: RedisServer
) -> None:
    async with Workers(tmp_path, redis, admin_port=0) as server:
        admin = {line["worker"]: line["admin_port"] for line in server.serving()}
        async with people(server) as clients:
            counts = [await metric(admin[number], "aldis_connections") for number in (0, 1)]
            assert sum(counts) == MANY
            assert all(counts)
            for number, client in enumerate(clients):
                other = (number + 1) % MANY
                found = await client.request({"type": "discover", "userId": f"user-{other}", "id": 1})
                assert [each["device"] for each in found["devices"]] == ["main"]
                assert (await client.request({**OFFER, "to": f"user-{other}", "id": 2}))["type"] == "ack"
                assert (await clients[other].receive())["from"] == f"user-{number}"
            pids = server.pids()
            server.signal(signal.SIGTERM)
            closes = await asyncio.gather(*(client.wait_closed() for client in clients))
            assert {code for code, _ in closes} == {CloseCode.GOING_AWAY}
        assert await server.wait() == 0
        for pid in pids.values():
            await ended(pid)
        assert {line["worker"] for line in server.lines() if line["event"] == "joined the cluster"} == {0, 1}
        assert "Traceback" not in server.log_text()


def test_without_redis_workers_are_refused(tmp_path: Path) -> None:
    refused = aldis("serve", "--workers", "2", "--port", "0", home=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("aldis: workers: more than one need redis: they share nothing else")


def test_a_worker_that_cannot_start_ends_it_all_with_its_code_and_one_message(
    tmp_path: Path, redis: RedisServer
) -> None:
    redis.kill()
    words = ("--port", "0", "--admin-port", "none", "--data", str(tmp_path / "data"))
    extra = {"ALDIS_REDIS": redis.url()}
    alone = aldis("serve", *words, home=tmp_path, extra=extra)
    refused = aldis("serve", *words, "--workers", "3", home=tmp_path, extra=extra)
    assert refused.returncode == alone.returncode == 1
    message = alone.stderr[alone.stderr.index("aldis: ") :]
    assert refused.stderr.count(message) == 1


async def test_the_welcome_is_printed_once_and_tells_of_the_workers(tmp_path: Path, redis: RedisServer) -> None:
    words = ("--workers", "2", "--port", "0", "--admin-port", "none", "--data", str(tmp_path / "data"))
    secret = {"ALDIS_REDIS": redis.url(), "ALDIS_HOOK_SECRET": "s3cret" * 10}
    async with Piped("serve", *words, "--log-level", "warning", home=tmp_path, extra=secret) as server:
        text = await server.says("Ctrl-C stops the server")
        assert ", for this machine alone, with 2 processes.\n" in text
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_child(path, server)]
        assert len(commands) == 2
        assert not [command for command in commands if b"redis" in command or b"s3cret" in command]
        server.process.send_signal(signal.SIGINT)
        assert await server.end() == 0
    assert server.errors.count("Ctrl-C stops the server") == 1


def _is_child(path: Path, server: Piped) -> bool:
    try:
        return f"\nPPid:\t{server.process.pid}\n" in (path.parent / "status").read_text()
    except OSError:  # it has ended
        return False


async def test_a_second_signal_ends_all_at_once(tmp_path: Path, redis: RedisServer) -> None:
    async with Workers(tmp_path, redis) as server, people(server, 1):
        server.signal(signal.SIGTERM)
        await server.wait_for_line("stopping", number=2)
        server.signal(signal.SIGTERM)
        assert await server.wait() == 128 + signal.SIGTERM
        for pid in server.pids().values():
            await ended(pid)


async def test_workers_end_in_good_order_when_their_supervisor_is_killed(tmp_path: Path, redis: RedisServer) -> None:
    async with Workers(tmp_path, redis) as server, people(server, MANY) as clients:
        server.signal(signal.SIGKILL)
        closes = await asyncio.gather(*(client.wait_closed() for client in clients))
        assert {code for code, _ in closes} == {CloseCode.GOING_AWAY}
        for pid in server.pids().values():
            await ended(pid)
        assert await server.wait() == -signal.SIGKILL


async def test_an_operator_stops_all_workers_by_one_of_them(tmp_path: Path, redis: RedisServer) -> None:
    async with Workers(tmp_path, redis, admin_port=0, admin_token="t" * 32) as server:
        port = server.serving()[-1]["admin_port"]
        head = f"POST /api/v1/drain HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {'t' * 32}\r\n"
        request = f"{head}Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()
        status, _, body = await http_get(port, request)
        assert status == 200, body
        assert await server.wait() == 0


async def test_a_second_server_at_the_same_port_is_refused(tmp_path: Path, redis: RedisServer) -> None:
    async with Workers(tmp_path, redis) as server:
        words = ("--workers", "2", "--port", str(server.port), "--admin-port", "none", "--data", ":memory:")
        extra = {"ALDIS_REDIS": redis.url()}
        refused = await asyncio.to_thread(aldis, "serve", *words, home=tmp_path, extra=extra)
        assert refused.returncode == 2
        assert f"port: 127.0.0.1:{server.port} is in use by another program" in refused.stderr


# --- a worker that dies -----------------------------------------------------------------------------------------------


async def test_a_killed_worker_is_started_again_and_the_others_go_on(tmp_path: Path, redis: RedisServer) -> None:
    async with Workers(tmp_path, redis, admin_port=0) as server:
        async with people(server) as clients:
            before = server.pids()
            admin = {line["worker"]: line["admin_port"] for line in server.serving()}
            others = await metric(admin[1], "aldis_connections")
            os.kill(before[0], signal.SIGKILL)
            line = await server.wait_for_line("a worker has ended")
            assert (line["worker"], line["pid"], line["signal"], line["level"]) == (0, before[0], "SIGKILL", "error")
            await server.wait_for_line("a worker serves", number=3)
            after = server.pids()
            assert (after[0] != before[0], after[1]) == (True, before[1])
            assert server.serving()[-1]["admin_port"] == admin[0]
            assert await metric(admin[1], "aldis_connections") == others
            alive = [client for client in clients if not client.reader.at_eof()]
            assert len(alive) == others
            for client in alive:
                assert await client.request({"type": "ping"}) == {"type": "pong"}
        async with people(server, name="late"):
            assert await metric(admin[0], "aldis_connections") > 0
        assert await server.stop() == 0


async def test_a_worker_that_a_signal_without_a_name_has_ended_is_started_again(
    tmp_path: Path, redis: RedisServer
) -> None:
    async with Workers(tmp_path, redis) as server:
        os.kill(server.pids()[0], signal.SIGRTMIN + 1)
        line = await server.wait_for_line("a worker has ended")
        assert (line["worker"], line["signal"]) == (0, f"signal {signal.SIGRTMIN + 1:d}")
        await server.wait_for_line("a worker serves", number=3)
        assert await server.stop() == 0


async def test_connections_that_wait_for_a_killed_worker_are_served_by_the_next_one(
    tmp_path: Path, redis: RedisServer
) -> None:
    async with Workers(tmp_path, redis) as server:
        for pid in server.pids().values():
            os.kill(pid, signal.SIGSTOP)  # nobody accepts
        waiting = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MANY)]
        for pid in server.pids().values():
            os.kill(pid, signal.SIGKILL)
        clients = [RawClient(*streams, f"127.0.0.1:{server.port}") for streams in waiting]
        for client in clients:
            await client.shake_hands("/", "aldis.v1", {})
            client.vanish()
        assert await server.stop() == 0


async def test_a_worker_that_dies_again_and_again_is_started_after_a_pause_and_the_others_have_its_clients(
    tmp_path: Path, redis: RedisServer
) -> None:
    async with Workers(tmp_path, redis) as server:
        os.kill(server.pids()[0], signal.SIGKILL)
        await server.wait_for_line("a worker serves", number=3)
        os.kill(server.pids()[0], signal.SIGKILL)
        paused = await server.wait_for_line("a worker dies again and again; the next try is later")
        assert (paused["worker"], paused["seconds"]) == (0, 1.0)
        async with people(server, 8):
            pass
        await server.wait_for_line("a worker serves", number=4)
        assert server.serving()[-1]["worker"] == 0
        assert await server.stop() == 0


# --- new workers ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)  # six workers start, one after the other
async def test_sighup_replaces_workers_one_by_one_and_no_client_is_refused(tmp_path: Path, redis: RedisServer) -> None:
    async with Workers(tmp_path, redis, "web = true\n") as server, people(server) as clients:
        before = server.pids()
        assert await page_status(server.port) == 200
        stop, reached = asyncio.Event(), 0

        async def come_and_go() -> None:
            """Any refusal and any reset is an exception here."""
            nonlocal reached
            while not stop.is_set():
                async with await RawClient.connect(server.port):
                    reached += 1
                await asyncio.sleep(PACE)

        coming = [asyncio.create_task(come_and_go())]
        leaving = asyncio.gather(*(client.wait_closed() for client in clients))
        await server.hang_up()
        server.file.write_text("web = false\n")
        await server.hang_up(number=2)
        stop.set()
        await asyncio.gather(*coming)
        assert {code for code, _ in await leaving} == {CloseCode.GOING_AWAY}
        assert reached > 50
        after = server.pids()
        assert not set(before.values()) & set(after.values())
        assert {await page_status(server.port) for _ in range(MANY)} == {426}  # no page any more
        # Each new one serves before the old one of its slot stops.
        turns = [(line["event"], line["worker"]) for line in server.lines() if line["event"] in TURNS]
        once = [("a worker serves", 0), ("stopping", 0), ("a worker serves", 1), ("stopping", 1)]
        assert turns[2:] == once * 2
        assert await server.stop() == 0
        assert not [line for line in server.lines() if line["level"] == "error" and line["area"] != "cluster"]
        assert "Traceback" not in server.log_text()


TURNS = ("a worker serves", "stopping")


async def test_settings_that_cannot_be_read_change_nothing(tmp_path: Path, redis: RedisServer) -> None:
    async with Workers(tmp_path, redis, "drain_seconds = 3\n") as server:
        before = server.pids()
        for number, text in enumerate(("port = [", "nonsense = 1\n", "workers = 2\nmemory_budget = -1\n")):
            server.file.write_text(text)
            line = await server.hang_up("the new settings cannot be used; the earlier ones stay", number + 1)
            assert line["level"] == "error"
        assert server.pids() == before
        # A worker that dies meanwhile gets the settings that hold.
        os.kill(before[1], signal.SIGKILL)
        await server.wait_for_line("a worker serves", number=3)
        assert await server.stop() == 0


async def test_settings_with_which_no_worker_serves_change_nothing(tmp_path: Path, redis: RedisServer) -> None:
    files = make_certificates(tmp_path)
    secure = f'tls_cert = "{files.cert}"\ntls_key = "{files.key}"\n'
    async with Workers(tmp_path, redis) as server:
        before = server.pids()
        server.file.write_text(secure.replace(str(files.key), str(tmp_path / "missing.pem")))
        await server.hang_up("a new worker does not serve; the earlier workers and settings stay")
        assert server.pids() == before
        os.kill(before[1], signal.SIGKILL)
        await server.wait_for_line("a worker serves", number=3)
        async with people(server, 4):
            pass
        server.file.write_text(secure)
        await server.hang_up()
        context = files.client_context()
        async with await RawClient.connect(server.port, context=context, server_hostname="127.0.0.1") as client:
            assert (await client.register("alice"))["success"] is True
        assert await server.stop() == 0


@pytest.mark.timeout(180)
async def test_sighup_changes_the_number_of_workers_and_no_open_port(tmp_path: Path, redis: RedisServer) -> None:
    port = free_port()
    toml = f"workers = 2\nport = {port}\n"
    async with Workers(tmp_path, redis, toml, workers=None, port=None, admin_port=0) as server:
        server.file.write_text(f"workers = 3\nport = {free_port()}\n")
        assert (await server.hang_up())["workers"] == 3
        assert (await server.wait_for_line("these settings change at a restart only"))["settings"] == ["port"]
        before = server.pids()
        assert set(before) == {0, 1, 2}
        for line in server.serving()[-3:]:
            assert await metric(line["admin_port"], "aldis_connections") == 0
        server.file.write_text("workers = 1\n")
        assert (await server.hang_up(number=2))["workers"] == 1
        for pid in before.values():
            await ended(pid)
        async with people(server, 4):
            pass
        assert await server.stop() == 0


async def test_each_worker_has_an_admin_port_of_its_own(tmp_path: Path, redis: RedisServer) -> None:
    first = free_port()
    assert free_port() == first + 1
    async with Workers(tmp_path, redis, admin_port=first) as server:
        assert {line["worker"]: line["admin_port"] for line in server.serving()} == {0: first, 1: first + 1}
        for port in (first, first + 1):
            assert await metric(port, "aldis_connections") == 0
            async with asyncio.timeout(PATIENCE):
                while await metric(port, "aldis_cluster_servers") != 2:
                    pass
        lowest = free_port()
        with socket.create_server(("127.0.0.1", lowest + 1)):
            other = Workers(tmp_path / "redis", redis, admin_port=lowest)
            with pytest.raises(AssertionError, match=f"admin_port: 127.0.0.1:{lowest + 1} is in use"):
                await other.start()
            assert await other.wait() == 3
