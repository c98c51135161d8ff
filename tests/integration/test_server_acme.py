"""Certificates that the server gets by itself, from a real authority: Pebble."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import stat
from contextlib import AsyncExitStack, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from aldis.server.app import SignalingServer
from aldis.server.certificates.challenges import ALPN, TLS, Challenge
from support.certificates import Certificates, make_certificates
from support.commands import aldis
from support.patience import PATIENCE
from support.pebble import Front, Pebble
from support.ports import free_port
from support.raw_websocket import RawClient, http_get
from support.server_process import ServerProcess
from support.settings import config

DOMAIN = "signal.example.com"
TOKEN = "a token of the operator"


async def trusting(authority: Pebble) -> ssl.SSLContext:
    """What trusts the certificates of this authority, and nothing else."""
    return ssl.create_default_context(cafile=str(await authority.root()))


async def serial_of(port: int, context: ssl.SSLContext) -> str:
    """The serial number of the certificate that a new connection gets, which has to be one for our domain."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=DOMAIN)
    try:
        return str(writer.get_extra_info("peercert")["serialNumber"])
    finally:
        writer.transport.abort()


async def dial(server: ServerProcess, context: ssl.SSLContext) -> RawClient:
    """A client of the server, by its domain."""
    host = f"{DOMAIN}:{server.port}"
    return await RawClient.connect(server.port, host=host, context=context, server_hostname=DOMAIN)


def process(folder: Path, authority: Pebble, *, plain: bool = True, **more: Any) -> ServerProcess:
    """A server that gets its certificate at this authority."""
    settings = {**authority.settings(plain=plain), "admin_port": 0, "admin_token": TOKEN, **more}
    return ServerProcess(folder, **settings)


async def ask(server: ServerProcess, method: str, path: str) -> Any:
    """What the admin API answers."""
    url = f"http://127.0.0.1:{server.admin_port}/api/v1{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers={"Authorization": f"Bearer {TOKEN}"}) as reply,
    ):
        return await reply.json()


async def page(server: ServerProcess, path: str) -> tuple[int, str]:
    """A page of the admin port."""
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()
    status, _, body = await http_get(server.admin_port, request)
    return status, body.decode()


# --- the two challenges -----------------------------------------------------------------------------------------------


async def test_http_01_gets_a_certificate_that_clients_trust(tmp_path: Path) -> None:
    async with Pebble(tmp_path) as authority, process(tmp_path, authority) as server:
        line = await server.wait_for_line("orders a certificate")
        assert line["challenge"] == "http-01"
        await server.wait_for_line("new certificate")
        assert await page(server, "/readyz") == (200, "ready\n")
        async with await dial(server, await trusting(authority)) as client:
            assert (await client.register("alice"))["success"] is True
        assert not [line for line in server.lines() if "JWS" in line["event"]]
        kept = tmp_path / "data" / "acme"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o700
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()} == {
            "accounts.json": 0o600,
            "certificate.pem": 0o600,
            "lock": 0o600,
        }
        environment = {"ALDIS_ADMIN": f"http://127.0.0.1:{server.admin_port}", "ALDIS_ADMIN_TOKEN": TOKEN}
        said = await asyncio.to_thread(aldis, "admin", "certificate", home=tmp_path, extra=environment)
        assert f"names       {DOMAIN}\n" in said.stdout, said.stderr
        assert "ordered by the server" in said.stdout
        found = (await ask(server, "GET", "/statistics"))["certificate"]
        assert (found["source"], found["names"], found["problem"], found["failures"]) == ("acme", [DOMAIN], "", 0)
        assert found["issuer"].startswith("Pebble Intermediate CA")
        assert found["nextAttempt"] < found["expires"]
        _, metrics = await page(server, "/metrics")
        assert 'aldis_certificate_orders_total{outcome="ok"} 1.0' in metrics
        assert "aldis_certificate_ready 1.0" in metrics
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_tls_alpn_01_needs_no_port_80(tmp_path: Path) -> None:
    async with Pebble(tmp_path) as authority, process(tmp_path, authority, plain=False) as server:
        line = await server.wait_for_line("orders a certificate")
        assert line["challenge"] == "tls-alpn-01"
        await server.wait_for_line("new certificate")
        assert await serial_of(server.port, await trusting(authority))
        assert await server.stop() == 0
        server.assert_clean_log()


def answering(files: Certificates) -> SignalingServer:
    """A server in this process, in the event loop of the test."""
    return SignalingServer(config(tls_cert=files.cert, tls_key=files.key))


def alpn(*protocols: str) -> ssl.SSLContext:
    """A client that asks for these protocols, and trusts everybody, as an authority does that checks a challenge."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    return context


async def test_during_a_challenge_clients_get_the_real_certificate(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, host=DOMAIN)
    async with answering(files) as server:
        with server.certificates.challenges.answered([Challenge(DOMAIN, TLS, "token", "token.thumbprint")]):
            real = await serial_of(server.port, files.client_context())
            for protocols in ((), ("http/1.1",), ("http/1.1", ALPN)):
                context = files.client_context()
                context.set_alpn_protocols(list(protocols))
                assert await serial_of(server.port, context) == real
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=alpn(ALPN), server_hostname=DOMAIN
            )
            secure = writer.get_extra_info("ssl_object")
            assert secure.selected_alpn_protocol() == ALPN
            assert b"\x2b\x06\x01\x05\x05\x07\x01\x1f" in secure.getpeercert(binary_form=True)  # acmeIdentifier
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""  # it is closed at once
            writer.close()
            # Other bytes than a handshake, and a name without a challenge, are nothing special.
            status, _, _ = await http_get(server.port, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", alpn("http/1.1"))
            assert status == 421
            assert await chosen(server.port, "b.example") is None
            assert await chosen(server.port, DOMAIN) == ALPN
        assert await chosen(server.port, DOMAIN) is None  # it is over
        assert server.faults.count == 0


async def chosen(port: int, name: str) -> str | None:
    """The protocol that the server chooses for an authority."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=alpn(ALPN), server_hostname=name)
    try:
        return cast(str | None, writer.get_extra_info("ssl_object").selected_alpn_protocol())
    finally:
        writer.transport.abort()


async def test_a_client_hello_may_come_in_pieces(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, host=DOMAIN)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = alpn(ALPN).wrap_bio(incoming, outgoing, server_hostname=DOMAIN)
    async with answering(files) as server:
        with server.certificates.challenges.answered([Challenge(DOMAIN, TLS, "token", "token.thumbprint")]):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            with pytest.raises(ssl.SSLWantReadError):
                secure.do_handshake()
            hello = outgoing.read()
            # The other connection makes sure that the server has had its turn.
            for piece in (hello[:3], hello[3:100], hello[100:]):
                writer.write(piece)
                await writer.drain()
                await serial_of(server.port, files.client_context())
            async with asyncio.timeout(PATIENCE):
                while secure.selected_alpn_protocol() is None:
                    incoming.write(await reader.read(4096))
                    try:
                        secure.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
            assert secure.selected_alpn_protocol() == ALPN
            writer.close()


async def test_during_a_challenge_a_silent_client_is_let_go_and_a_cut_off_one_is_no_fault(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, host=DOMAIN)
    given = config(tls_cert=files.cert, tls_key=files.key, handshake_timeout=0.2)
    async with SignalingServer(given) as server:
        with server.certificates.challenges.answered([Challenge(DOMAIN, TLS, "token", "token.thumbprint")]):
            for said in (b"", b"\x16\x03", b"\x16\x03\x01\x02\x00half"):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(said)
                async with asyncio.timeout(PATIENCE):
                    with suppress(ConnectionResetError):  # what it has said is not read
                        assert await reader.read() == b""
                writer.close()
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(said)
                writer.transport.abort()
        assert server.faults.count == 0


# --- renewal ----------------------------------------------------------------------------------------------------------


async def test_a_renewal_ends_no_connection(tmp_path: Path) -> None:
    async with Pebble(tmp_path) as authority, process(tmp_path, authority) as server, AsyncExitStack() as stack:
        await server.wait_for_line("new certificate")
        context = await trusting(authority)
        before = await serial_of(server.port, context)
        clients = [await stack.enter_async_context(await dial(server, context)) for _ in range(50)]
        for number, client in enumerate(clients):
            assert (await client.register(f"user-{number}"))["success"] is True
        assert await ask(server, "POST", "/certificate/renew") == {"ordered": [DOMAIN]}
        await server.wait_for_line("new certificate", number=2)
        assert await serial_of(server.port, context) != before
        for client in clients:
            assert await client.request({"type": "ping"}) == {"type": "pong"}
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_the_turn_server_beside_it_gets_the_certificate_too(tmp_path: Path) -> None:
    tls_port = free_port()
    turn: dict[str, Any] = {
        "turn_server": True,
        "turn_address": DOMAIN,
        "turn_port": free_port(),
        "turn_tls_port": tls_port,
    }
    async with Pebble(tmp_path) as authority, process(tmp_path, authority, **turn) as server:
        await server.wait_for_line("new certificate")
        # It starts once more, since it had no port for TLS.
        await server.wait_for_line("the TURN server is up again")
        context = await trusting(authority)
        assert await serial_of(tls_port, context) == await serial_of(server.port, context)
        found = (await ask(server, "GET", "/statistics"))["turn"]
        assert found["urls"][-1] == f"turns:{DOMAIN}:{tls_port}?transport=tcp"
        assert (found["up"], found["restarts"], found["allocation"]["problem"]) == (True, 0, "")
        await ask(server, "POST", "/certificate/renew")
        await server.wait_for_line("the TURN server uses the new certificate")
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_a_restart_uses_the_kept_certificate_and_orders_none(tmp_path: Path) -> None:
    async with Pebble(tmp_path) as authority:
        async with process(tmp_path, authority) as server:
            await server.wait_for_line("new certificate")
            context = await trusting(authority)
            before = await serial_of(server.port, context)
            assert await server.stop() == 0
        await authority.stop()  # it is not needed
        async with process(tmp_path, authority) as server:
            assert await serial_of(server.port, context) == before
            assert await page(server, "/readyz") == (200, "ready\n")
            # It asks when to renew, in vain, and orders nothing.
            await server.wait_for_line("the authority does not tell when to renew")
            assert not [line for line in server.lines() if line["event"] == "orders a certificate"]
            assert await server.stop() == 0


async def test_other_domains_in_the_settings_are_another_certificate(tmp_path: Path) -> None:
    async with Pebble(tmp_path) as authority:
        async with process(tmp_path, authority) as server:
            await server.wait_for_line("new certificate")
            assert await server.stop() == 0
        async with process(tmp_path, authority, acme_domain=f"{DOMAIN}, www.example.com") as server:
            await server.wait_for_line("new certificate")
            found = (await ask(server, "GET", "/statistics"))["certificate"]
            assert found["names"] == [DOMAIN, "www.example.com"]


async def test_the_authority_says_when_to_renew(tmp_path: Path) -> None:
    window = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")  # at once: the certificate is to be revoked, for instance
    async with (
        Pebble(tmp_path) as authority,
        Front(authority, window=window) as front,
        process(tmp_path, authority, acme_directory=front.directory) as server,
    ):
        await server.wait_for_line("new certificate", number=2)
        # The second one is not asked to be renewed before 2100, and is renewed before it expires.
        found = (await ask(server, "GET", "/statistics"))["certificate"]
        assert found["nextAttempt"] is None or found["nextAttempt"] < found["expires"]
        assert await server.stop() == 0
        server.assert_clean_log()


# --- what goes wrong --------------------------------------------------------------------------------------------------


async def failed(server: ServerProcess, *, number: int = 1) -> tuple[str, timedelta]:
    """Why there is no new certificate, and how long the server waits."""
    line = await server.wait_for_line("no new certificate", number=number)
    waits = datetime.fromisoformat(line["next_try"]) - datetime.fromisoformat(line["timestamp"])
    return line["reason"], waits


async def test_without_its_authority_the_server_waits_and_says_so(tmp_path: Path) -> None:
    authority = Pebble(tmp_path)
    async with process(tmp_path, authority) as server:
        reason, waits = await failed(server)
        assert f"the authority 127.0.0.1:{authority.port} cannot be reached: " in reason
        assert timedelta(seconds=58) < waits < timedelta(seconds=76)
        status, text = await page(server, "/readyz")
        assert status == 503
        assert text == f"not ready: there is no certificate yet: {reason}\n"
        # Nobody sees a certificate that is not trusted: the handshake is refused.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=alpn("http/1.1"), server_hostname=DOMAIN)
        found = await ask(server, "GET", "/statistics")
        assert found["problems"] == [
            "There is no certificate yet: no client can connect.",
            f"No new certificate: {reason}.",
        ]
        _, metrics = await page(server, "/metrics")
        assert "aldis_certificate_ready 0.0" in metrics
        assert "aldis_certificate_failures_in_a_row 1.0" in metrics
        async with authority:
            server.signal(signal.SIGHUP)
            await server.wait_for_line("new certificate")
            assert await page(server, "/readyz") == (200, "ready\n")


@pytest.mark.parametrize("percent", ["50"])
async def test_refused_nonces_are_tried_again(tmp_path: Path, percent: str) -> None:
    async with Pebble(tmp_path, PEBBLE_WFE_NONCEREJECT=percent) as authority, process(tmp_path, authority) as server:
        await server.wait_for_line("new certificate")
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_a_domain_that_does_not_lead_here_is_said_for_each_port(tmp_path: Path) -> None:
    elsewhere: dict[str, Any] = {"port": free_port(), "redirect_port": free_port()}
    async with Pebble(tmp_path) as authority, process(tmp_path, authority, **elsewhere) as server:
        reason, _ = await failed(server)
        assert reason.startswith(f"port 80 of {DOMAIN} does not reach this server: ")
        await ask(server, "POST", "/certificate/renew")
        reason, waits = await failed(server, number=2)
        assert reason.startswith(f"port 443 of {DOMAIN} does not lead to this server: ")
        assert timedelta(seconds=178) < waits < timedelta(seconds=226)
        _, metrics = await page(server, "/metrics")
        assert 'aldis_certificate_orders_total{outcome="failed"} 2.0' in metrics


async def test_another_server_at_port_80_is_told_from_none(tmp_path: Path) -> None:
    async with Pebble(tmp_path) as authority:
        other = await asyncio.start_server(_not_found, "127.0.0.1", authority.http_port)
        async with other, process(tmp_path, authority, redirect_port=free_port()) as server:
            reason, _ = await failed(server)
            assert reason.startswith(f"port 80 of {DOMAIN} does not lead to this server, but to another, or to a proxy")


async def _not_found(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


async def test_an_authority_that_limits_is_left_alone_for_as_long_as_it_says(tmp_path: Path) -> None:
    async with (
        Pebble(tmp_path) as authority,
        Front(authority, limited=7200) as front,
        process(tmp_path, authority, acme_directory=front.directory) as server,
    ):
        reason, waits = await failed(server)
        host = f"127.0.0.1:{front.port}"
        assert reason == f"the authority {host} limits how much it issues: too many certificates of late"
        assert timedelta(seconds=7190) < waits < timedelta(seconds=9010)


async def test_an_authority_that_is_not_trusted_is_said(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    async with Pebble(tmp_path) as authority, process(tmp_path, authority, acme_ca_file=str(other.ca)) as server:
        reason, _ = await failed(server)
        assert f"the certificate of the authority 127.0.0.1:{authority.port} is not trusted" in reason
        assert "acme_ca_file" in reason


@pytest.mark.parametrize("lost", ["by us", "by the authority", "damaged"])
async def test_a_lost_account_is_made_again(tmp_path: Path, lost: str) -> None:
    async with Pebble(tmp_path) as authority, process(tmp_path, authority) as server:
        await server.wait_for_line("new certificate")
        accounts = tmp_path / "data" / "acme" / "accounts.json"
        before = json.loads(accounts.read_text())[authority.directory]
        match lost:
            case "by us":
                accounts.unlink()
            case "by the authority":
                await authority.stop()
                await authority.start()
            case "damaged":
                accounts.write_text("{")
        await ask(server, "POST", "/certificate/renew")
        await server.wait_for_line("new certificate", number=2)
        after = json.loads(accounts.read_text())[authority.directory]
        assert after["account"] != before["account"]
        assert (after["key"] == before["key"]) is (lost == "by the authority")
        assert await serial_of(server.port, await trusting(authority))
        assert await server.stop() == 0
        server.assert_clean_log()


async def test_a_damaged_certificate_is_ordered_again(tmp_path: Path) -> None:
    kept = tmp_path / "data" / "acme" / "certificate.pem"
    kept.parent.mkdir(parents=True)
    kept.write_text("-----BEGIN CERTIFICATE-----\nhalf of it")
    async with Pebble(tmp_path) as authority, process(tmp_path, authority) as server:
        await server.wait_for_line("new certificate")
        assert await serial_of(server.port, await trusting(authority))
        assert kept.with_name("certificate.pem.broken").exists()
