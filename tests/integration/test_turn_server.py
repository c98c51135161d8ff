"""`--turn-server`: a real coturn beside the server, watched and started again, and used by real peers."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from aioice.stun import TransactionFailed

from aldis.errors import ConfigError, UsageError
from aldis.protocol.messages import IceServer
from aldis.server import turn_server
from aldis.server.app import SignalingServer
from aldis.server.turn import RETRY_TTL, ConfiguredIceServers
from aldis.server.turn_folder import TurnFolder, turn_settings
from support.certificates import Certificates, make_certificates
from support.commands import aldis
from support.coturn import allocate
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import RawClient, http_get
from support.server_process import ServerProcess
from support.settings import config

# coturn relays to no loopback address; this one is of tools/netns.sh.
ADDRESS = "10.77.0.1"
HOURS = 4 * 3600
RELAY = {"turn_relay_ports": "50000-50063"}


def settings(**more: Any) -> dict[str, Any]:
    return {"turn_server": True, "turn_address": ADDRESS, "host": "0.0.0.0", "turn_port": free_port(), **RELAY, **more}


def told(server: SignalingServer, user_id: str = "alice") -> tuple[list[IceServer], int]:
    """The servers that a user is told of, now."""
    assert server.turn is not None
    return ConfiguredIceServers((), (), "", HOURS, own=server.turn).servers(user_id, time.time())


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
        assert answer["ttl"] == HOURS
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


async def test_the_next_start_removes_the_secrets_of_a_server_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    async with ServerProcess(tmp_path, environ={"TMPDIR": str(temporary)}, own_program=True, **settings()) as server:
        (left,) = temporary.iterdir()
        server.signal(signal.SIGKILL)
        await server.wait()
    assert (left / "turndb").exists()
    async with SignalingServer(config(**settings())):
        (folder,) = temporary.iterdir()
        assert folder != left
    assert not list(temporary.iterdir())


async def test_the_secret_is_in_a_file_of_its_own_and_gone_after_the_end() -> None:
    async with SignalingServer(config(**settings())) as server:
        turn = server.turn
        assert turn is not None
        assert turn._folder is not None
        assert turn._process is not None
        folder = turn._folder.path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        # coturn's own file beside these is its log of events, which holds no secret.
        assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("turnserver.conf", "turndb")} == {0o600}
        assert turn.secret not in (folder / "turnserver.conf").read_text()
        assert turn.secret not in Path(f"/proc/{turn._process.pid}/cmdline").read_text()
    assert not folder.exists()


async def test_a_new_secret_is_taken_at_once_and_the_earlier_one_until_its_credentials_expire() -> None:
    given = settings()
    port = int(given["turn_port"])
    async with SignalingServer(config(**given)) as server:
        turn = server.turn
        assert turn is not None
        process = turn._process
        before = told(server)[0][1]
        assert turn.earlier_until is None
        until = await turn.rotate("", HOURS)
        assert turn.earlier_until == until > time.time() + HOURS - 60
        after = told(server)[0][1]
        assert before.credential != after.credential
        assert await allocate(before, port) == await allocate(after, port) == ADDRESS
        (earlier,) = turn._earlier
        turn._forget(earlier)  # as the timer does after that time
        assert turn.earlier_until is None
        assert await allocate(after, port) == ADDRESS
        with pytest.raises(TransactionFailed):
            await allocate(before, port)
        assert turn._process is process  # nobody's relay has ended
        for _ in range(turn_server.MOST_EARLIER):
            await turn.rotate("", HOURS)
        with pytest.raises(UsageError, match="earlier secrets are still in use"):
            await turn.rotate("", HOURS)


async def test_an_operator_makes_a_new_secret(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, admin_port=0, **settings()) as server:
        environment = {"ALDIS_ADMIN": f"http://127.0.0.1:{server.admin_port}", "ALDIS_DATA": str(tmp_path / "data")}

        async def say(*words: str) -> str:
            done = await asyncio.to_thread(aldis, "admin", *words, home=tmp_path, extra=environment)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert "earlier secret  none" in await say("turn")
        assert (await say("turn", "rotate")).startswith("the TURN server has a new secret; the earlier one is taken ")
        shown = await say("turn")
        assert "earlier secret  taken until" in shown
        assert "relays          yes, asked " in shown
        assert "TURN server             up, started again 0 times" in await say("stats")
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_whether_it_relays_is_looked_at_and_told() -> None:
    async with SignalingServer(config(**settings())) as server:
        turn = server.turn
        assert turn is not None
        assert turn._folder is not None
        assert (turn.allocation_problem, turn.allocation_checked is None) == ("", False)
        turn._folder.write_secrets(ADDRESS, ("another",))
        await turn._check_allocation()
        assert turn.allocation_problem == "it gives no relay: 401 Unauthorized"
        assert turn.up
        turn._folder.write_secrets(ADDRESS, (turn.secret,))
        await turn._check_allocation()
        assert not turn.allocation_problem


async def serial_at(port: int, files: Certificates) -> str:
    """The serial number of the certificate at a TLS port of the TURN server, once it is of this authority."""
    context = files.client_context()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            except (ssl.SSLError, ConnectionError):
                continue  # it still has the earlier one, or is about to listen
            serial = str(writer.get_extra_info("peercert")["serialNumber"])
            writer.close()
            return serial


async def test_a_renewed_certificate_reaches_the_turn_server_and_ends_no_relay(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    files, new = make_certificates(tmp_path / "old"), make_certificates(tmp_path / "new")
    port = free_port()
    given = settings(tls_cert=files.cert, tls_key=files.key, turn_tls_port=port)
    async with SignalingServer(config(**given)) as server:
        assert server.turn is not None
        process = server.turn._process
        before = await serial_at(port, files)
        new.cert.replace(files.cert)
        new.key.replace(files.key)
        assert server.reload()
        assert await serial_at(port, new) != before
        assert (server.turn._process, server.turn.restarts) == (process, 0)


async def test_a_first_certificate_opens_the_port_for_tls(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    port = free_port()
    async with SignalingServer(config(**settings(turn_tls_port=port))) as server:
        turn = server.turn
        assert turn is not None
        assert len(told(server)[0][1].urls) == 2
        await turn.use_certificate(files.cert, files.key)
        assert await serial_at(port, files)
        await turn.wait_until(up=True)
        assert len(told(server)[0][1].urls) == 3
        assert turn.restarts == 0


async def test_a_new_secret_in_the_settings_is_one_for_the_turn_server(tmp_path: Path) -> None:
    given = settings(turn_secret="the first")
    async with SignalingServer(config(**given)) as server:
        turn = server.turn
        assert turn is not None
        assert turn.secret == "the first"
        assert server.reload(config(**{**given, "turn_secret": "the second"}))
        await asyncio.gather(*turn._changes)
        assert turn.secret == "the second"
        assert await allocate(told(server)[0][1], int(given["turn_port"])) == ADDRESS


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


def test_one_for_the_internet_relays_to_no_private_address() -> None:
    def lines(address: str) -> list[str]:
        folder = TurnFolder()
        folder.remove()
        return folder.lines(turn_settings(config(turn_server=True, turn_address=address)))

    assert "denied-peer-ip=10.0.0.0-10.255.255.255" in lines("turn.example.com")
    assert "denied-peer-ip=10.0.0.0-10.255.255.255" in lines("8.8.8.8")
    assert not any("denied" in line for line in lines("192.168.1.5"))
