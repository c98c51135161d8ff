"""What a running server takes over without losing a connection: a new certificate."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import ssl
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from aldis.server.certificate_updates import CertificateUpdates
from aldis.server.logs import get_logger
from aldis.server.names import ServerNames
from aldis.server.tuning import Tuning
from aldis.server.turn_server import TurnServer
from support.certificates import Certificates, make_certificates
from support.cluster_servers import page
from support.patience import PATIENCE
from support.raw_websocket import HandshakeRefused, RawClient, http_get
from support.server_process import ServerProcess
from support.settings import config

OFTEN = {"certificate_look": 0.0, "tick": 0.02}


def files_of(folder: Path, host: str = "127.0.0.1") -> Certificates:
    folder.mkdir()
    return make_certificates(folder, host=host)


def replace(old: Certificates, new: Certificates) -> None:
    """As certbot and `mv` do it: one file after the other, each at once."""
    for source, target in ((new.cert, old.cert), (new.key, old.key)):
        shutil.copy(source, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)


async def serial_of(port: int, trusted: Certificates) -> str:
    """The serial number of the certificate that a new connection gets. Raises `SSLError` for any other."""
    context = trusted.client_context()
    context.check_hostname = False
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return str(writer.get_extra_info("peercert")["serialNumber"])
    finally:
        writer.transport.abort()


async def talks(client: RawClient) -> None:
    assert await client.request({"type": "ping"}) == {"type": "pong"}


def secure(files: Certificates, host: str = "127.0.0.1") -> dict[str, Any]:
    return {"context": files.client_context(), "server_hostname": host}


async def test_sighup_brings_a_new_certificate_and_connections_stay(tmp_path: Path) -> None:
    files, new = files_of(tmp_path / "old"), files_of(tmp_path / "new")
    async with ServerProcess(tmp_path, admin_port=0, tls_cert=str(files.cert), tls_key=str(files.key)) as server:
        request = b"GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        assert b"\naldis_certificate_expires_timestamp_seconds 1." in (await http_get(server.admin_port, request))[2]
        async with await RawClient.connect(server.port, **secure(files)) as client:
            await client.register("alice")
            before = await serial_of(server.port, files)
            replace(files, new)
            assert await serial_of(server.port, files) == before  # until it is told
            server.signal(signal.SIGHUP)
            await server.wait_for_line("new certificate")
            assert await serial_of(server.port, new) != before
            with pytest.raises(ssl.SSLCertVerificationError):
                await serial_of(server.port, files)
            await talks(client)
            async with await RawClient.connect(server.port, **secure(new)) as other:
                assert (await other.register("bob"))["success"] is True
        assert await server.stop() == 0
        server.assert_clean_log()


class Turn:
    """Which certificates a TURN server is told of."""

    def __init__(self) -> None:
        self.told: list[tuple[Path, Path]] = []

    def use_certificate(self, certificate: Path, key: Path) -> tuple[Path, Path]:
        return certificate, key

    def change(self, files: tuple[Path, Path]) -> None:
        self.told.append(files)


def test_only_files_that_have_changed_are_a_new_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files, new = files_of(tmp_path / "old"), files_of(tmp_path / "new")
    settings, turn = config(tls_cert=files.cert, tls_key=files.key), Turn()
    names = ServerNames((), secure=True)
    updates = CertificateUpdates(settings, names, cast(TurnServer, turn), Tuning(), get_logger("aldis.tls"))
    updates.open()

    def news() -> list[str]:
        """What the log says of a hang-up and of a look by itself."""
        updates.load(settings)
        updates.tick(float("inf"))
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return said

    assert news() == []
    replace(files, new)
    assert news() == ["new certificate"]
    assert news() == []
    kept = files.key.with_suffix(".kept")
    files.key.rename(kept)
    assert len(news()) == 1  # it cannot be used
    kept.rename(files.key)
    assert news() == ["new certificate"]
    assert news() == []
    assert turn.told == [(files.cert, files.key)] * 2


def test_other_settings_for_the_same_files_are_no_new_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files, new = files_of(tmp_path / "old"), files_of(tmp_path / "new")
    settings = config(tls_cert=files.cert, tls_key=files.key)
    updates = CertificateUpdates(settings, ServerNames((), secure=True), None, Tuning(), get_logger("aldis.tls"))
    updates.open()
    updates.load(config(tls_cert=files.cert, tls_key=files.key, max_connections=1))
    assert caplog.records == []
    updates.load(config(tls_cert=new.cert, tls_key=new.key))
    assert [record.getMessage() for record in caplog.records] == ["new certificate"]


@pytest.mark.parametrize("by_itself", [False, True], ids=["uvloop", "asyncio"])
async def test_changed_files_are_noticed_by_themselves(tmp_path: Path, by_itself: bool) -> None:
    files, new = files_of(tmp_path / "old"), files_of(tmp_path / "new")
    if by_itself:
        settings = config(tls_cert=files.cert, tls_key=files.key)
        async with SignalingServer(settings, tuning=Tuning(certificate_look=0.0, tick=0.02)) as server:
            replace(files, new)
            await presents(server.port, new)
    else:
        async with ServerProcess(tmp_path, tuning=OFTEN, tls_cert=str(files.cert), tls_key=str(files.key)) as process:
            replace(files, new)
            await presents(process.port, new)
            assert await process.stop() == 0


async def presents(port: int, files: Certificates) -> None:
    """Return when new connections get this certificate."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await serial_of(port, files)
            except ssl.SSLCertVerificationError:
                continue
            return


@pytest.mark.parametrize("broken", ["the key of another", "half a file", "no file"])
async def test_a_broken_pair_is_refused_once_and_the_old_one_stays(tmp_path: Path, broken: str) -> None:
    files, new = files_of(tmp_path / "old"), files_of(tmp_path / "new")
    refused = "the new certificate cannot be used; the earlier one stays"
    async with ServerProcess(tmp_path, tuning=OFTEN, tls_cert=str(files.cert), tls_key=str(files.key)) as server:
        before = await serial_of(server.port, files)
        match broken:
            case "the key of another":
                shutil.copy(new.cert, files.cert)
            case "half a file":
                files.cert.write_text(files.cert.read_text()[:300])
            case "no file":
                files.key.unlink()
        line = await server.wait_for_line(refused)
        assert line["level"] == "error"
        assert line["reason"].startswith(("tls_cert: ", "tls_key: "))
        assert await serial_of(server.port, files) == before
        replace(files, new)
        await server.wait_for_line("new certificate")
        assert await serial_of(server.port, new) != before
        # Looked at fifty times a second, and said once for each change.
        assert [line["event"] for line in server.lines()].count(refused) <= 2


async def test_the_names_follow_the_certificate(tmp_path: Path) -> None:
    files, new = files_of(tmp_path / "old", "old.example"), files_of(tmp_path / "new", "new.example")
    async with ServerProcess(tmp_path, tls_cert=str(files.cert), tls_key=str(files.key)) as server:
        host = f"new.example:{server.port}"
        with pytest.raises(HandshakeRefused, match="421"):
            await RawClient.connect(server.port, host=host, **secure(files, "old.example"))
        replace(files, new)
        server.signal(signal.SIGHUP)
        await server.wait_for_line("new certificate")
        async with await RawClient.connect(server.port, host=host, **secure(new, "new.example")) as client:
            assert (await client.register("alice"))["success"] is True
        old = f"old.example:{server.port}"
        with pytest.raises(HandshakeRefused, match="421"):
            await RawClient.connect(server.port, host=old, **secure(new, "new.example"))


@pytest.mark.parametrize("expired", [True, False])
async def test_a_certificate_that_clients_refuse_by_its_dates_is_told_of_until_another_one_comes(
    tmp_path: Path, expired: bool
) -> None:
    files = make_certificates(tmp_path, expired=expired, early=not expired)
    told = "the certificate has expired: clients refuse it" if expired else "the certificate is not valid before "
    settings: dict[str, Any] = {"tls_cert": str(files.cert), "tls_key": str(files.key)}
    async with ServerProcess(tmp_path, admin_port=0, **settings) as server:
        assert [line["level"] for line in server.lines() if line["event"].startswith(told)] == ["error"]
        status, text = await page(server, "/readyz")
        assert (status, text.startswith(f"ready\n{told}")) == (200, True)
        make_certificates(tmp_path)
        server.signal(signal.SIGHUP)
        await server.wait_for_line("new certificate")
        assert await page(server, "/readyz") == (200, "ready\n")


async def test_without_tls_a_sighup_ends_nothing(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, await RawClient.connect(server.port) as client:
        server.signal(signal.SIGHUP)
        await talks(client)
        await talks(client)


# --- settings ---------------------------------------------------------------------------------------------------------

# Those settings that a file tells, and the command line does not.
FROM_FILE: dict[str, Any] = {"log_level": None}


async def hang_up(server: ServerProcess, event: str = "reloaded", number: int = 1) -> dict[str, Any]:
    server.signal(signal.SIGHUP)
    return await server.wait_for_line(event, number=number)


async def test_sighup_brings_new_settings_and_connections_stay(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text("")
    async with ServerProcess(tmp_path, config=str(file), **FROM_FILE) as server:
        async with await RawClient.connect(server.port) as client:
            await client.register("alice")
            assert (await client.request({"type": "ice-servers"}))["iceServers"] == []
            file.write_text(
                'names = "new.example"\norigins = "https://good.example"\nstun = "stun:s.example"\n'
                'turn = "turn:t.example"\nturn_secret = "s3cret"\nmax_connections = 3\nlog_level = "warning"\n'
            )
            line = await hang_up(server)
            assert set(line["changed"]) == {
                *("names", "origins", "stun", "turn", "turn_secret", "max_connections", "log_level")
            }
            servers = (await client.request({"type": "ice-servers"}))["iceServers"]
            assert [entry["urls"] for entry in servers] == [["stun:s.example"], ["turn:t.example"]]
            with pytest.raises(HandshakeRefused, match="421"):
                await RawClient.connect(server.port, host="old.example")
            origin = {"Origin": "https://evil.example"}
            async with await RawClient.connect(server.port, host="new.example", headers=origin) as other:
                assert (await other.wait_closed())[0] == 4502
            async with (
                await RawClient.connect(server.port, host="new.example"),
                await RawClient.connect(server.port, host="new.example"),
            ):
                with pytest.raises(HandshakeRefused, match="503"):
                    await RawClient.connect(server.port, host="new.example")
            await talks(client)
        assert "s3cret" not in server.log_text()
        assert await server.stop() == 0
        assert "stopping" not in server.log_text()  # that is below a warning


async def test_new_rates_count_for_connections_that_are_open(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text("messages_per_second = 1\n")
    async with ServerProcess(tmp_path, config=str(file)) as server, await RawClient.connect(server.port) as client:
        file.write_text("messages_per_second = 1000000\nbytes_per_second = 1000000000\n")
        await hang_up(server)
        for number in range(2000):  # half an hour, by the earlier rate
            client.send({"type": "ping", "id": number})
        for number in range(2000):
            assert await client.receive() == {"type": "pong", "re": number}


async def test_new_limits_of_users_and_of_the_server_count_at_once(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text("")
    limits = {
        "devices_per_user": 1,
        "watches_per_user": 3,
        "watchers_per_user": 1,
        "user_discovers_per_second": 1,
        "user_messages_per_second": 500,
        "user_bytes_per_second": 500_000,
        "user_relayed_bytes_per_second": 300_000,
        "user_sealed_bytes_per_second": 30_000,
        "pair_sealed_bytes_per_second": 1024,
        "max_relay_file_bytes": 1000,
        "new_names_per_address": 1,
        "presence_interval": 60,
        "watches_bytes": 1_000_000,
        "privacy_bytes": 1_000_000,
        "failed_proofs_per_address": 5,
        "failed_proofs_per_name": 5,
        "memory_budget": 50_000_000,
        "detached_bytes": 70_000,
        "connections_per_address": 500,
        "connects_per_address": 500,
        "connects_per_second": 500,
        "handshakes": 500,
        "ping_interval": 30,
        "handshake_timeout": 20,
        "tls_handshakes": 400,
        "partial_requests_bytes": 1_000_000,
        "registration_timeout": 20,
        "stun_per_address": 20,
        "failed_proofs_per_connection": 2,
        "privacy_names_per_user": 1,
        "detached_bytes_per_user": 70_000,
        "outgoing_queue_bytes": 2_000_000,
        "turn_credential_lifetime": 3600,
    }
    async with ServerProcess(tmp_path, config=str(file)) as server, AsyncExitStack() as stack:
        alice, phone, bob, carol = [
            await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(4)
        ]
        await alice.register("alice")
        identity = Identity.generate()
        await bob.register("bob", identity)
        await bob.request({"type": "watch", "userIds": ["alice"], "id": 1})
        assert (await bob.receive())["type"] == "ack"
        file.write_text("".join(f"{name} = {value}\n" for name, value in limits.items()))
        line = await hang_up(server)
        assert set(line["changed"]) == set(limits)
        assert (await phone.register("bob", identity, device="phone"))["code"] == "over-capacity"
        assert (await carol.register("carol"))["success"] is True
        assert (await phone.register("dave"))["code"] == "rate-limited"  # the second name
        watch = {"type": "watch", "userIds": ["alice"], "id": 1}
        assert (await carol.request(watch))["code"] == "over-capacity"
        assert (await carol.request({**watch, "userIds": ["a", "b", "c", "d"]}))["code"] == "too-large"
        asked = [await carol.request({"type": "discover", "userId": "alice", "id": 1}) for _ in range(20)]
        assert "rate-limited" in [found.get("code") for found in asked]
        assert (await carol.request({"type": "privacy", "block": ["a", "b"]}))["code"] == "too-large"
        sealed = {"type": "relay", "to": "alice", "sealed": "A" * 3000, "id": 1}
        assert [(await carol.request(sealed)).get("code") for _ in range(2)] == [None, "rate-limited"]
        file.write_text("relay = false\n")
        await hang_up(server, number=2)
        assert (await carol.request(sealed))["code"] == "relay-disabled"
        file.write_text("memory_budget = 1\n")
        await hang_up(server, number=3)
        assert (await bob.wait_closed())[0] == 4007
        entered = False
        while not entered:  # the others may not be over yet
            with suppress(HandshakeRefused):
                await stack.enter_async_context(await RawClient.connect(server.port))
                entered = True
        with pytest.raises(HandshakeRefused, match="503"):
            await RawClient.connect(server.port)
        text = "no memory is left for all clients (memory_budget); the newest and idlest are given up"
        line = await server.wait_for_line(text)
        assert line["given_up"] >= 1


async def test_what_cannot_change_is_said_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text("")
    async with ServerProcess(tmp_path, config=str(file)) as server:
        fixed = 'resume-window = 5\nbase-path = "/a"\nauth = "open"\nwatches_per_session = 5\n'
        file.write_text(f'{fixed}origins = "https://good.example"\n')
        line = await hang_up(server)
        assert line["changed"] == ["origins"]
        warning = next(line for line in server.lines() if line["level"] == "warning")
        assert set(warning["settings"]) == {"resume_window", "base_path", "auth", "watches_per_session"}
        await hang_up(server, number=2)
        async with await RawClient.connect(server.port) as client:
            assert (await client.register("alice"))["success"] is True


async def test_a_limit_that_does_not_go_with_one_that_stays_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text("max_message_bytes = 524288\n")
    async with ServerProcess(tmp_path, config=str(file)) as server:
        file.write_text("outgoing_queue_bytes = 600000\nprivacy_names_per_user = 1\n")  # with smaller messages
        line = await hang_up(server, "the new settings cannot be used before a restart; the earlier ones stay")
        assert line["level"] == "error"
        assert "with max_message_bytes = 524288, a client that comes back may be sent 851968 bytes" in line["reason"]
        assert line["settings"] == ["max_message_bytes"]
        async with await RawClient.connect(server.port) as client:
            await client.register("alice")
            assert (await client.request({"type": "privacy", "block": ["a", "b"]}))["blocked"] == ["a", "b"]
        file.write_text("max_message_bytes = 524288\nprivacy_names_per_user = 2\n")
        assert (await hang_up(server))["changed"] == ["privacy_names_per_user"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_connections = 0\n", "max_connections: "),
        ("max_connectoins = 1\n", "is no setting"),
        ("a = [\n", "is not TOML"),
        ('turn = "turn:t.example"\n', "turn_secret: "),
        (None, "cannot read"),
    ],
)
async def test_settings_that_cannot_be_used_change_nothing(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text('stun = "stun:s.example"\n')
    async with ServerProcess(tmp_path, config=str(file)) as server, await RawClient.connect(server.port) as client:
        await client.register("alice")
        if text is None:
            file.unlink()
        else:
            file.write_text('stun = "stun:other.example"\n' + text)
        line = await hang_up(server, "the new settings cannot be used; the earlier ones stay")
        assert line["level"] == "error"
        assert reason in line["reason"]
        servers = (await client.request({"type": "ice-servers"}))["iceServers"]
        assert servers == [{"urls": ["stun:s.example"]}]


async def test_a_certificate_at_another_path_is_taken_over_with_all_else_or_nothing(tmp_path: Path) -> None:
    files, new = files_of(tmp_path / "old"), files_of(tmp_path / "new")
    file = tmp_path / "aldis.toml"
    file.write_text(f'tls_cert = "{files.cert}"\ntls_key = "{files.key}"\n')
    async with (
        ServerProcess(tmp_path, config=str(file)) as server,
        await RawClient.connect(server.port, **secure(files)) as client,
    ):
        await client.register("alice")
        file.write_text(f'stun = "stun:s.example"\ntls_cert = "{new.cert}"\ntls_key = "{files.key}"\n')
        await hang_up(server, "the new certificate cannot be used; the earlier one stays")
        assert (await client.request({"type": "ice-servers"}))["iceServers"] == []
        file.write_text(f'stun = "stun:s.example"\ntls_cert = "{new.cert}"\ntls_key = "{new.key}"\n')
        assert set((await hang_up(server))["changed"]) == {"stun", "tls_cert", "tls_key"}
        await serial_of(server.port, new)
        assert (await client.request({"type": "ice-servers"}))["iceServers"]
