"""`aldis serve` as a process: what it tells, what it refuses, how it stops."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from pathlib import Path

import pytest

from aldis.cli.serve import _LAYOUT
from aldis.server.config import SETTINGS, help_of
from support.certificates import make_certificates
from support.commands import Piped, aldis

FREE = ("--port", "0", "--admin-port", "none", "--data", ":memory:")


def test_every_setting_is_an_option_and_explained(tmp_path: Path) -> None:
    assert sorted(name for group in _LAYOUT.values() for name in group) == sorted(SETTINGS)
    shown = " ".join(aldis("serve", "--help", home=tmp_path).stdout.split())
    for name in SETTINGS:
        assert re.search(rf"--{name.replace('_', '-')}[ ,]", shown)
        assert " ".join(help_of(name).split()).removesuffix(".") in shown


async def test_it_says_where_it_listens_and_what_to_type_next(tmp_path: Path) -> None:
    async with Piped("serve", *FREE, home=tmp_path) as server:
        text = await server.says("Ctrl-C stops the server")
        url = re.search(r"Aldis listens at (ws://127\.0\.0\.1:\d+), for this machine alone", text)
        assert url
        proposed = re.findall(r"aldis(?:\.cli\.main)? (chat .*)", text)
        assert proposed == [
            f"chat bob --as alice --server {url[1]}",
            f"chat alice --as bob --server {url[1]}",
        ]
        # What it says to type works as it stands.
        first, second = proposed
        async with Piped(*second.split(), home=tmp_path) as bob, Piped(*first.split(), home=tmp_path) as alice:
            await alice.type("it works\n")
            assert await bob.line() == "alice: it works"
        server.process.send_signal(signal.SIGINT)
        assert await server.end() == 0
        assert await server.rest() == ""


async def test_it_says_first_of_all_which_page_to_open(tmp_path: Path) -> None:
    async with Piped("serve", *FREE, "--log-level", "error", home=tmp_path) as server:
        text = await server.says("Ctrl-C stops the server")
    assert re.match(r"\nOpen http://localhost:\d+/ in a browser\.\n", text)
    assert "--tls-cert" not in text


async def test_it_says_what_two_people_need_beside_the_commands(tmp_path: Path) -> None:
    """Both commands fail without it."""
    made = aldis("token", "--new-key", tmp_path / "keys.json", home=tmp_path)
    assert made.returncode == 0, made.stderr
    words = ("serve", "--port", "0", "--admin-port", "none", "--data", ":memory:")
    tokens = ("--auth", "token", "--jwks", str(tmp_path / "keys.json"))
    listed = ("--name-policy", "closed")
    token = "each with a token in ALDIS_TOKEN (`aldis token --help`)"
    names = "once `aldis admin names add` has listed both names"
    for settings, told in (
        (tokens, f"like this, {token}:"),
        (listed, f"like this, {names}:"),
        ((*tokens, *listed), f"like this, {token}, {names}:"),
        ((), "In two terminals, two people can talk like this:"),
    ):
        async with Piped(*words, *settings, home=tmp_path) as server:
            await server.says(told)


async def test_without_the_page_it_says_nothing_of_one(tmp_path: Path) -> None:
    for words, extra in ((("--no-web",), {}), ((), {"ALDIS_WEB": "no"})):
        async with Piped("serve", *FREE, *words, home=tmp_path, extra=extra) as server:
            text = await server.says("Ctrl-C stops the server")
        assert "page=None" in text
        assert "browser" not in text
    async with Piped("serve", *FREE, "--web", home=tmp_path, extra={"ALDIS_WEB": "no"}) as server:
        assert "in a browser" in await server.says("Ctrl-C stops the server")


async def test_it_stops_on_sigterm_with_code_0(tmp_path: Path) -> None:
    async with Piped("serve", *FREE, home=tmp_path) as server:
        await server.says("Ctrl-C stops the server")
        server.process.send_signal(signal.SIGTERM)
        assert await server.end() == 0


async def test_open_admission_is_warned_of(tmp_path: Path) -> None:
    async with Piped("serve", *FREE, "--auth", "open", home=tmp_path) as server:
        assert "warning" in await server.says("admitted without proof")


async def test_a_log_for_machines_holds_nothing_but_json(tmp_path: Path) -> None:
    async with Piped("serve", *FREE, "--log-format", "json", home=tmp_path) as server:
        await server.says('"serving"')
        server.process.send_signal(signal.SIGTERM)
        assert await server.end() == 0
    events = [json.loads(line)["event"] for line in server.errors.splitlines()]
    assert events[0] == "serving"


async def test_an_option_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "aldis.toml").write_text('admin-port = "none"\ndata = ":memory:"\nport = 1\nlog-level = "debug"\n')
    extra = {"ALDIS_CONFIG": str(tmp_path / "aldis.toml"), "ALDIS_PORT": "2", "ALDIS_LOG_LEVEL": "error"}
    async with Piped("serve", "--port", "0", home=tmp_path, extra=extra) as server:
        text = await server.says("Ctrl-C stops the server")
    assert "serving" not in text  # the level is that of the environment
    assert not re.search(r"127\.0\.0\.1:[12]\b", text)


def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = aldis("serve", "--port", port, "--admin-port", "none", "--data", ":memory:", home=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"aldis: port: 127.0.0.1:{port} is in use")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--port", "99999"), "port: '99999' given with --port cannot be used"),
        (("--auth", "none"), "auth: 'none' given with --auth cannot be used"),
        (("--config", "/nowhere.toml"), "--config: cannot read /nowhere.toml"),
        (("--tls-cert", "x.pem"), "tls_key: tls_cert and tls_key go together"),
        (("--prt", "1"), "unrecognized arguments: --prt 1"),
    ],
)
def test_a_wrong_setting_is_told_with_its_name(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    refused = aldis("serve", *words, home=tmp_path)
    assert refused.returncode == 2
    assert told in refused.stderr


async def test_listening_for_all_tells_an_address_for_others(tmp_path: Path) -> None:
    async with Piped("serve", "--host", "0.0.0.0", "--stun-port", "0", *FREE, home=tmp_path) as server:
        text = await server.says("Ctrl-C stops the server")
    assert "for this machine alone" not in text
    assert re.search(r"Aldis listens at ws://127\.0\.0\.1:\d+\.\n", text)
    # Here the page works, and from elsewhere it would not.
    assert re.search(r"Open http://localhost:\d+/ in a browser\.\nBrowsers .* https://.* --tls-cert .*\n", text)


async def test_listening_where_a_browser_gives_no_keys_is_told(tmp_path: Path) -> None:
    # In the namespace of the tests the second address of this machine, as one in a network would be.
    async with Piped("serve", "--host", "10.77.0.1", *FREE, home=tmp_path) as server:
        text = await server.says("Ctrl-C stops the server")
    assert re.search(r"The page is at http://10\.77\.0\.1:\d+/\.\nBrowsers .* https://", text)
    assert "Open" not in text


async def test_a_server_with_tls_is_talked_to_by_who_trusts_its_certificate(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    words = [*FREE, "--tls-cert", str(certificate), "--tls-key", str(key)]
    async with Piped("serve", *words, home=tmp_path) as server:
        text = await server.says("Ctrl-C stops the server")
        assert re.search(r"Open https://127\.0\.0\.1:\d+/ in a browser", text)
        found = re.search(r"wss://127\.0\.0\.1:\d+", text)
        assert found
        chat = ["chat", "bob", "--as", "alice", "--no-wait", "--server", found[0]]
        trusting = await asyncio.to_thread(aldis, *chat, "--ca-file", certificate, home=tmp_path, stdin=b"x\n")
        assert (trusting.returncode, "nobody has registered the name bob" in trusting.stderr) == (5, True)
        wary = await asyncio.to_thread(aldis, *chat, home=tmp_path, stdin=b"x\n")
        assert wary.returncode == 3
        assert "certificate" in wary.stderr


async def test_a_server_with_a_certificate_for_a_name_is_dialled_by_that(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "::"):
        for name in ("a.example", "localhost"):
            files = make_certificates(tmp_path, host=name)
            words = ("--host", host, "--stun-port", "0", "--tls-cert", str(files.cert), "--tls-key", str(files.key))
            async with Piped("serve", *FREE, *words, home=tmp_path) as server:
                text = await server.says("Ctrl-C stops the server")
            assert re.search(rf"Open https://{name}:\d+/ in a browser\.\n", text)
            assert re.search(rf"aldis(?:\.cli\.main)? chat bob --as alice --server wss://{name}:\d+\n", text)
            assert re.search(rf"It is dialled as wss://{name}:\d+, on this machine too", text)


async def test_a_server_that_orders_its_certificate_is_dialled_by_its_domain(tmp_path: Path) -> None:
    words = ("--acme-domain", "a.example", "--acme-agree-tos", "--acme-directory", "https://127.0.0.1:1/")
    kept = ("--port", "0", "--admin-port", "none", "--data", str(tmp_path / "data"))
    async with Piped("serve", *kept, *words, home=tmp_path) as server:
        text = await server.says("Ctrl-C stops the server")
    assert re.search(r"Open https://a\.example:\d+/ in a browser\.\n", text)
    assert re.search(r"aldis chat bob --as alice --server wss://a\.example:\d+\n", text)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM files."""
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "aldis test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    paths = folder / "cert.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths
