"""The kit without a proxy: systemd holds the ports, and the server gets its certificate from a real authority."""

from __future__ import annotations

import re
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from aldis.server.config import load_config
from support.kit import DEPLOY, tool, written
from support.pebble import Pebble
from support.raw_websocket import RawClient, http_get
from support.server_process import ServerProcess

DIRECT = DEPLOY / "direct"
DOMAIN = "signal.example.com"
_COMMAND = Path(sys.executable).with_name("aldis")


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    places = {
        "aldis.service": written("systemd/aldis.service", {"/opt/aldis/bin/aldis": str(_COMMAND)}),
        "aldis.socket": (DEPLOY / "systemd" / "aldis.socket").read_text(),
        "aldis.service.d/direct.conf": (DIRECT / "service.conf").read_text(),
        "aldis.socket.d/direct.conf": (DIRECT / "socket.conf").read_text(),
        "aldis-redirect.socket": (DIRECT / "aldis-redirect.socket").read_text(),
    }
    for name, text in places.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    units = [tmp_path / name for name in places if name.count("/") == 0]
    told = tool("systemd-analyze", "verify", "--man=no", *units)
    assert [line for line in told.stdout.splitlines() if "aldis" in line] == []


def test_the_sockets_are_on_the_ports_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text((DIRECT / "aldis.toml").read_text())
    config = load_config({}, {"ALDIS_TURN_SECRET": "secret"}, file)
    assert config.warnings == ()
    for unit, port in (("socket.conf", config.port), ("aldis-redirect.socket", config.redirect_port)):
        assert re.findall(r"^ListenStream=(.+)$", (DIRECT / unit).read_text(), re.MULTILINE) == [str(port)]
    assert "FileDescriptorName=redirect\n" in (DIRECT / "aldis-redirect.socket").read_text()
    other = {line for line in (DEPLOY / "aldis.toml").read_text().splitlines() if line.startswith(("stun", "turn"))}
    assert other <= set((DIRECT / "aldis.toml").read_text().splitlines())


async def test_a_server_with_these_settings_and_sockets_gets_its_certificate(tmp_path: Path) -> None:
    file = tmp_path / "aldis.toml"
    file.write_text(written("direct/aldis.toml", {'turn_check = ["turn:127.0.0.1:3478"]\n': ""}))  # no coturn is here
    async with Pebble(tmp_path) as authority:
        secure = socket.create_server(("127.0.0.1", authority.tls_port))
        plain = socket.create_server(("127.0.0.1", authority.http_port))
        with secure, plain:
            more: dict[str, Any] = {"acme_directory": authority.directory, "acme_ca_file": str(authority.files.ca)}
            async with ServerProcess(
                tmp_path,
                sockets={"public": secure, "redirect": plain},
                config=str(file),
                turn_secret="secret",
                **more,
            ) as server:
                await server.wait_for_line("new certificate")
                context = ssl.create_default_context(cafile=str(await authority.root()))
                host = f"{DOMAIN}:{authority.tls_port}"
                async with await RawClient.connect(
                    authority.tls_port, host=host, context=context, server_hostname=DOMAIN
                ) as client:
                    assert (await client.register("alice"))["success"] is True
                request = f"GET /a HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode()
                status, headers, _ = await http_get(authority.http_port, request)
                assert (status, headers["location"]) == (308, f"https://{host}/a")
                assert await server.stop() == 0
                server.assert_clean_log()


def test_the_script_takes_the_option_and_no_other() -> None:
    assert tool("sh", "-n", DEPLOY / "setup.sh").returncode == 0
    for words in (["--direct"], ["--direct", "--help"], ["--drect", DOMAIN]):
        refused = tool("sh", DEPLOY / "setup.sh", *words)
        assert (refused.returncode, "usage" in refused.stdout) == (64, True)
