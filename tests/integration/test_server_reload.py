"""What a running server takes over without losing a connection: a new certificate."""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl
from pathlib import Path
from typing import Any

import pytest

from aldis.server.app import SignalingServer
from aldis.server.tuning import Tuning
from support.certificates import Certificates, make_certificates
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


async def test_an_expired_certificate_is_warned_of(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, expired=True)
    async with ServerProcess(tmp_path, tls_cert=str(files.cert), tls_key=str(files.key)) as server:
        line = await server.wait_for_line("the certificate has expired; clients will refuse it")
        assert line["level"] == "warning"


async def test_without_tls_a_sighup_ends_nothing(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server, await RawClient.connect(server.port) as client:
        server.signal(signal.SIGHUP)
        await talks(client)
        await talks(client)
