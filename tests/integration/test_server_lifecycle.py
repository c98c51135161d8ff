"""Starting, stopping, dying and coming back: a real process, real signals, a real disk."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aldis.backends.base import DirectoryUnavailable
from aldis.backends.sqlite_file import FILE_NAME
from aldis.errors import ConfigError, StateError
from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from support.patience import PATIENCE
from support.raw_websocket import CLOSE, TEXT, RawClient, http_get
from support.server_process import ServerProcess
from support.settings import UNLIMITED


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with ServerProcess(tmp_path, admin_port=0) as server:
        yield server


async def admin(server: ServerProcess | SignalingServer, path: str) -> tuple[int, str]:
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()
    assert server.admin_port
    status, _, body = await http_get(server.admin_port, request)
    return status, body.decode()


# --- the directory survives -------------------------------------------------------------------------------------------


async def test_names_survive_kill_9_and_belong_to_their_keys_after_it(server: ServerProcess, tmp_path: Path) -> None:
    identities = {f"user{number}": Identity.generate() for number in range(20)}
    for user_id, identity in identities.items():
        async with await RawClient.connect(server.port) as client:
            assert (await client.register(user_id, identity))["success"] is True
    server.signal(signal.SIGKILL)
    assert await server.wait() == -signal.SIGKILL
    async with ServerProcess(tmp_path, admin_port=0) as again:
        for user_id, identity in identities.items():
            async with await RawClient.connect(again.port) as thief, await RawClient.connect(again.port) as owner:
                refused = await thief.register(user_id)
                assert (refused["type"], refused["code"]) == ("error", "key-mismatch")
                assert (await owner.register(user_id, identity))["success"] is True
        assert await again.stop() == 0
        again.assert_clean_log()


async def test_who_was_told_registered_before_kill_9_is_bound_even_under_load(tmp_path: Path) -> None:
    # Each round kills the server while 32 clients register as fast as they can. The next goes on with the same names.
    told: dict[str, Identity] = {}
    for number in range(3):
        server = ServerProcess(tmp_path, **UNLIMITED)
        await server.start()
        before, enough = len(told), asyncio.Event()

        async def register(
            names: list[str], *, server: ServerProcess = server, enough: asyncio.Event = enough, before: int = before
        ) -> None:
            while True:
                name, identity = names.pop(), Identity.generate()
                async with await RawClient.connect(server.port) as client:
                    if (await client.register(name, identity))["type"] == "registered":
                        told[name] = identity
                if len(told) >= before + 150:
                    enough.set()

        names = [f"user{number}-{index}" for index in range(100_000)]
        crowd = [asyncio.create_task(register(names)) for _ in range(32)]
        async with asyncio.timeout(PATIENCE):
            await enough.wait()
        server.signal(signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL
        outcomes = await asyncio.gather(*crowd, return_exceptions=True)
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
    database = sqlite3.connect(tmp_path / "data" / FILE_NAME)
    bound = dict(database.execute("SELECT user_id, public_key FROM names"))
    database.close()
    assert {user_id: identity.public_key for user_id, identity in told.items()}.items() <= bound.items()
    async with ServerProcess(tmp_path, **UNLIMITED) as again:
        for user_id, identity in list(told.items())[::20]:
            async with await RawClient.connect(again.port) as thief, await RawClient.connect(again.port) as owner:
                assert (await thief.register(user_id))["code"] == "key-mismatch"
                assert (await owner.register(user_id, identity))["success"] is True
        assert await again.stop() == 0
        again.assert_clean_log()


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_tells_clients_when_to_come_back_and_closes_with_4000(
    server: ServerProcess, number: signal.Signals
) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register("alice")
        server.signal(number)
        notice = await client.receive()
        assert notice["type"] == "going-away"
        assert 0 <= notice["reconnectIn"] <= 60
        assert await client.wait_closed() == (4000, "this server is going away")
    assert await server.wait() == 0
    server.assert_clean_log()
    assert server.lines()[-1]["event"] == "stopped"


async def test_no_ack_of_a_message_that_was_handled_is_lost_in_a_stop(server: ServerProcess) -> None:
    # alice sends without waiting, also while the server stops. What bob got, alice must have an ack for.
    async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as bob:
        await alice.register("alice")
        await bob.register("bob")
        acknowledged: set[int] = set()
        arrived: set[int] = set()
        enough = asyncio.Event()

        in_flight = asyncio.Semaphore(200)  # more, and bob would be closed as a slow consumer

        async def send() -> None:
            for number in itertools.count():
                await in_flight.acquire()
                alice.send({"type": "bye", "to": "bob", "reason": str(number), "id": number})

        async def receive(client: RawClient, kind: str, field: str, into: set[int]) -> int:
            while (frame := await client.receive_frame()).opcode == TEXT:
                message = json.loads(frame.payload)
                if message["type"] == kind:
                    into.add(int(message[field]))
                    if client is alice:
                        in_flight.release()
                if len(into) > 500:
                    enough.set()
            client.send_frame(CLOSE, frame.payload[:2])
            return frame.close_code

        tasks = [
            asyncio.create_task(receive(alice, "ack", "re", acknowledged)),
            asyncio.create_task(receive(bob, "bye", "reason", arrived)),
        ]
        sending = asyncio.create_task(send())
        async with asyncio.timeout(PATIENCE):
            await enough.wait()
            server.signal(signal.SIGTERM)
            assert await asyncio.gather(*tasks) == [4000, 4000]
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    assert await server.wait() == 0
    assert len(arrived) > 500
    assert acknowledged == arrived
    server.assert_clean_log()


async def test_a_stop_is_bounded_also_when_a_client_does_not_answer(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, drain_seconds=0.5) as server:
        async with await RawClient.connect(server.port) as client:
            await client.register("alice")
            server.signal(signal.SIGTERM)
            assert await server.wait() == 0
        server.assert_clean_log()
        assert any(line["event"] == "clients did not close in time" for line in server.lines())


async def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, drain_seconds=60) as server, await RawClient.connect(server.port) as client:
        await client.register("alice")
        server.signal(signal.SIGTERM)
        await server.wait_for_line("stopping")
        server.signal(signal.SIGINT)
        assert await server.wait() == 128 + signal.SIGINT


async def test_the_port_is_free_again_at_once(server: ServerProcess, tmp_path: Path) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register("alice")
        server.signal(signal.SIGKILL)
        await server.wait()
        async with ServerProcess(tmp_path, port=server.port) as again:
            assert again.port == server.port


async def test_a_connection_that_comes_while_the_server_stops_gets_no_name(tmp_path: Path) -> None:
    config = ServerConfig(port=0, admin_port=0, data=":memory:")
    async with SignalingServer(config) as server, await RawClient.connect(server.port) as client:
        await client.register("alice")
        # Accepted, and its request is still on its way.
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert (await admin(server, "/readyz"))[0] == 200
        stop = asyncio.create_task(server.stop())
        assert (await client.receive())["type"] == "going-away"
        assert (await admin(server, "/readyz")) == (503, "not ready: it is stopping\n")
        late = RawClient(reader, writer, f"127.0.0.1:{server.port}")
        with pytest.raises(Exception, match="503"):
            await late.shake_hands("/", "aldis.v1", {})
        writer.close()
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await RawClient.connect(server.port)
        assert (await client.wait_closed())[0] == 4000
        await stop
        await server.stop()  # once more does no harm


async def test_serve_forever_ends_when_the_server_is_stopped() -> None:
    server = SignalingServer(ServerConfig(port=0, admin_port=None, data=":memory:"))
    with pytest.raises(StateError):
        await server.serve_forever()
    await server.stop()  # never started: nothing to stop
    async with server:
        forever = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)  # it has begun
        await server.stop()
        await forever
    with pytest.raises(StateError):
        await server.start()


# --- a directory that fails -------------------------------------------------------------------------------------------


async def test_a_locked_directory_fails_new_names_only_until_it_is_free_again(
    server: ServerProcess, tmp_path: Path
) -> None:
    known = Identity.generate()
    async with await RawClient.connect(server.port) as client:
        await client.register("known", known)
    holder = sqlite3.connect(tmp_path / "data" / FILE_NAME, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    async with await RawClient.connect(server.port) as client, await RawClient.connect(server.port) as other:
        assert (await other.register("known", known))["success"] is True
        reply = await client.register("new")
        assert (reply["type"], reply["code"], reply["temporary"]) == ("error", "internal", True)
        assert str(tmp_path) not in str(reply)
        status, reason = await admin(server, "/readyz")
        assert status == 503
        assert "does not answer" in reason or "locked by another process" in reason
        assert (await admin(server, "/healthz")) == (200, "ok\n")
        holder.execute("ROLLBACK")
        holder.close()
        assert (await client.register("new"))["success"] is True
        assert await admin(server, "/readyz") == (200, "ready\n")
    assert await server.stop() == 0
    events = [line["event"] for line in server.lines()]
    assert "Traceback" not in server.log_text()
    assert events.count("the directory of names fails") == 1
    assert events.count("the directory of names answers again") == 1


async def test_a_full_disk_fails_new_names_only_until_there_is_room(server: ServerProcess, tmp_path: Path) -> None:
    known = Identity.generate()
    async with await RawClient.connect(server.port) as client:
        await client.register("known", known)
    journal = tmp_path / "data" / f"{FILE_NAME}-wal"
    hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (journal.stat().st_size, hard))
    async with await RawClient.connect(server.port) as client, await RawClient.connect(server.port) as other:
        for _ in range(3):
            reply = await client.register("new")
            assert (reply["code"], reply["temporary"], reply["retryAfter"]) == ("internal", True, 1.0)
            assert (await other.register("known", known))["success"] is True  # bound already
            assert (await other.request({"type": "unregister", "id": 1}))["type"] == "unregistered"
        status, reason = await admin(server, "/readyz")
        assert status == 503
        assert "the disk" in reason
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert (await client.register("new"))["success"] is True
        assert await admin(server, "/readyz") == (200, "ready\n")
    assert await server.stop() == 0
    assert "Traceback" not in server.log_text()
    told = [line["event"] for line in server.lines() if "directory" in line["event"]]
    assert told == ["the directory of names fails", "the directory of names answers again"]


async def test_a_directory_that_is_removed_under_a_running_server_gives_no_name_away(
    server: ServerProcess, tmp_path: Path
) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register("alice")
        await client.leave()
    for file in (tmp_path / "data").iterdir():
        file.unlink()
    async with await RawClient.connect(server.port) as thief:
        assert (await thief.register("alice"))["code"] == "internal"
        assert "removed or replaced" in (await admin(server, "/readyz"))[1]


async def test_a_directory_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database" * 1000)
    with pytest.raises(DirectoryUnavailable, match="not a directory of names"):
        await SignalingServer(ServerConfig(port=0, admin_port=0, data=str(tmp_path))).start()


async def test_an_address_binds_so_many_new_names_and_uses_those_it_has(tmp_path: Path) -> None:
    known = Identity.generate()
    async with ServerProcess(tmp_path, admin_port=0, new_names_per_address=2) as server:
        async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as bob:
            assert (await alice.register("alice", known))["success"] is True
            assert (await bob.register("bob"))["success"] is True
        async with await RawClient.connect(server.port) as carol, await RawClient.connect(server.port) as again:
            refused = await carol.register("carol")
            assert (refused["code"], refused["temporary"]) == ("rate-limited", True)
            assert 43_100 < refused["retryAfter"] <= 43_200
            assert (await again.register("alice", known))["success"] is True
        assert 'aldis_registrations_total{outcome="rate-limited"} 1.0' in (await admin(server, "/metrics"))[1]


# --- what operators see -----------------------------------------------------------------------------------------------


async def test_the_metrics_tell_what_happens(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as bob:
        await alice.register("alice")
        await bob.register("bob")
        for number in range(10):
            alice.send({"type": "offer", "to": "bob", "offer": {"type": "offer", "sdp": "v=0"}, "id": number})
            await bob.receive()
            await alice.receive()
        await alice.request({"type": "bye", "to": "carol", "id": 1})
        status, page = await admin(server, "/metrics")
        assert status == 200
        for line in (
            "aldis_users_online 2.0",
            "aldis_connections 2.0",
            'aldis_messages_total{outcome="ok",type="offer"} 10.0',
            'aldis_messages_total{outcome="not-online",type="bye"} 1.0',
            'aldis_registrations_total{outcome="new"} 2.0',
            "aldis_relay_seconds_count 1.0",  # one in 16, and the first
            'aldis_relay_seconds_bucket{le="+Inf"} 1.0',
            "aldis_handshake_seconds_count 2.0",
            'aldis_directory_seconds_count{question="claim"} 2.0',
            'aldis_directory_failures_total{question="claim"} 0.0',
            "aldis_directory_pending 0.0",
            "aldis_faults_total 0.0",
            'aldis_info{version="',
            "process_resident_memory_bytes ",
            "process_open_fds ",
        ):
            assert line in page, line
        assert "alice" not in page


async def test_a_page_of_the_admin_port_that_is_not_there_is_404(server: ServerProcess) -> None:
    assert (await admin(server, "/nothing"))[0] == 404


async def test_noise_on_the_admin_port_is_no_line_of_the_log(server: ServerProcess) -> None:
    for noise in (
        b"\x00\xff\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.admin_port)
        writer.write(noise)
        async with asyncio.timeout(PATIENCE):
            assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
        writer.close()
    assert await server.stop() == 0
    server.assert_clean_log()


async def test_auth_open_is_warned_of(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, auth="open", data=":memory:") as server:
        assert server.admin_port == 0
        assert await server.stop() == 0
        assert [line["level"] for line in server.lines() if line["event"].startswith("auth is open")] == ["warning"]


async def test_a_log_has_one_line_an_event_whatever_clients_send(server: ServerProcess) -> None:
    async with await RawClient.connect(server.port) as client:
        await client.register('x"}\x7f{"event":"forged"}'.replace("\x7f", ""))
        client.send('{"type":"\\n{\\"event\\":\\"forged\\"}"}')
        await client.receive()
        secret = base64.b64encode(b"a secret nobody must log").decode()
        await client.request({"type": "relay", "to": "nobody", "sealed": secret})
        client.send_bytes(b"\xff\xff\n\nnonsense")
        await client.wait_closed()
    assert await server.stop() == 0
    server.assert_clean_log()
    assert secret not in server.log_text()
    assert all(line["event"] != "forged" for line in server.lines())


async def test_a_program_that_cannot_start_says_why_in_one_line(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    second = ServerProcess(tmp_path / "other", port=server.port, own_program=True)
    with pytest.raises(AssertionError, match=r"ConfigError: port: 127.0.0.1:\d+ is in use"):
        await second.start()
    assert await second.wait() == 3
    assert "Traceback" not in second.log_text()


async def test_the_folder_of_data_is_made_where_the_names_are_elsewhere(tmp_path: Path) -> None:
    data = tmp_path / "not" / "there"
    async with SignalingServer(ServerConfig(port=0, admin_port=0, data=str(data), directory=":memory:")):
        assert (data / "admin-token").is_file()
        assert data.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("in the way")
    for blocked in (tmp_path / "file", tmp_path / "file" / "below"):
        server = SignalingServer(ServerConfig(port=0, admin_port=None, data=str(blocked), directory=":memory:"))
        with pytest.raises(ConfigError, match="cannot be made"):
            await server.start()


@pytest.mark.parametrize("directory", ["", ":memory:"])
async def test_a_second_server_does_not_start_in_the_folder_of_a_running_one(tmp_path: Path, directory: str) -> None:
    def made() -> SignalingServer:
        return SignalingServer(ServerConfig(port=0, admin_port=0, data=str(tmp_path), directory=directory))

    async with made():
        with pytest.raises(ConfigError, match=r"data: .* is in use by another running server"):
            await made().start()
        before = sorted(path.name for path in tmp_path.iterdir())
    async with made():
        assert sorted(path.name for path in tmp_path.iterdir()) == before
