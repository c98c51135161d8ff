"""A coturn that runs by itself, with the file of the kit: the server asks it for relays, and its metrics tell of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from aldis.server.app import SignalingServer
from aldis.server.config import load_config
from aldis.server.turn_check import ask_for_relay, credentials
from support.commands import aldis
from support.kit import DEPLOY, ROOT, program, running, tool, written
from support.ports import free_port
from support.raw_websocket import http_get
from support.settings import config

SECRET = "0" * 64


def configured(folder: Path, port: int) -> Path:
    """The file of the kit, for another port."""
    here = {
        "listening-port=3478": f"listening-port={port}",
        "TURN_SECRET": SECRET,
        "syslog\nno-stdout-log\n": f"log-file=stdout\npidfile={folder}/pid\nuserdb={folder}/db\n",
    }
    file = folder / "turnserver.conf"
    file.write_text(written("coturn/turnserver.conf", here))
    return file


@asynccontextmanager
async def coturn(folder: Path, port: int, file: Path | None = None) -> AsyncIterator[None]:
    """That of the kit at another port. It listens on all addresses, and relays at the one that is not loopback."""
    file = file or configured(folder, port)
    async with running(program("turnserver"), "-c", file, says=b"IO method (auth thread)", cwd=folder):
        yield


async def told(server: SignalingServer) -> dict[str, float]:
    """Its metrics of TURN servers, after one more check."""
    await server.turn_watch.check()
    assert server.admin_port is not None
    _, _, page = await http_get(server.admin_port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return {name: float(value) for name, value in re.findall(r"^(aldis_turn_\S+) (\S+)$", page.decode(), re.MULTILINE)}


def settings(port: int, **more: Any) -> dict[str, Any]:
    return {"admin_port": 0, "turn_check": (f"turn:127.0.0.1:{port}",), "turn_secret": SECRET, **more}


async def test_the_metrics_tell_of_the_coturn_of_the_kit_when_it_comes_and_goes(tmp_path: Path) -> None:
    port = free_port()
    up, relays = (f'aldis_turn_{what}{{server="127.0.0.1:{port}"}}' for what in ("up", "relays"))
    async with SignalingServer(config(**settings(port))) as server:
        assert await told(server) == {up: 0, relays: 0}
        async with coturn(tmp_path, port):
            assert await told(server) == {up: 1, relays: 1}
            server.reload(config(**settings(port, turn_secret="another")))
            assert await told(server) == {up: 1, relays: 0}
            assert server.turn_watch.found[f"127.0.0.1:{port}"].problem == "it gives no relay: 401 Unauthorized"
            server.reload(config(**settings(port)))
            assert await told(server) == {up: 1, relays: 1}
        assert await told(server) == {up: 0, relays: 0}


async def test_an_operator_is_told_of_a_coturn_that_does_not_relay_as_of_one_that_the_server_runs(
    tmp_path: Path,
) -> None:
    port = free_port()
    at = f"127.0.0.1:{port}"
    async with SignalingServer(config(**settings(port, data=str(tmp_path / "data")))) as server:
        address = {"ALDIS_ADMIN": f"http://127.0.0.1:{server.admin_port}", "ALDIS_DATA": str(tmp_path / "data")}

        async def said(*words: str) -> str:
            return (await asyncio.to_thread(aldis, "admin", *words, home=tmp_path, extra=address)).stdout

        await server.turn_watch.check()
        reason = "does not relay: it cannot be asked: Connection refused"
        assert server.health.read()["problems"] == [f"The TURN server at {at} {reason}."]
        assert await said("turn") == f"{at} {reason}\n"
        async with coturn(tmp_path, port):
            await server.turn_watch.check()
            assert server.health.read()["problems"] == []
            assert await said("turn") == f"{at} relays\n"
            assert re.search(rf"^TURN server +{at} relays$", await said("stats"), re.MULTILINE)


async def test_the_secret_of_the_kit_is_changed_as_the_guide_says(tmp_path: Path) -> None:
    port = free_port()
    file, secrets = configured(tmp_path, port), tmp_path / "secrets.env"
    secrets.write_text(f"ALDIS_TURN_SECRET={SECRET}\n")
    guide = (ROOT / "docs" / "deploy.md").read_text().partition("### A new TURN secret")[2].partition("\n## ")[0]
    change, end = (
        re.sub("^    ", "", lines, flags=re.MULTILINE) for lines in re.findall(r"(?:^    .*\n)+", guide, re.MULTILINE)
    )
    (tmp_path / "systemctl").write_text("#!/bin/sh\n")
    (tmp_path / "systemctl").chmod(0o755)

    async def works(secret: str) -> bool:
        name, password = credentials(secret, "/check", int(time.time()) + 60)
        return not (await ask_for_relay("127.0.0.1", port, name, password)).problem

    def typed(lines: str) -> None:
        lines = lines.replace("/etc/aldis/", "/etc/").replace("/etc/", f"{tmp_path}/")
        assert tool("sh", "-euc", f"PATH={tmp_path}:$PATH\n{lines}").returncode == 0

    typed(change)
    new = secrets.read_text().strip().removeprefix("ALDIS_TURN_SECRET=")
    assert new not in (SECRET, "")
    async with coturn(tmp_path, port, file):
        assert (await works(SECRET), await works(new)) == (True, True)
    typed(end)
    async with coturn(tmp_path, port, file):
        assert (await works(SECRET), await works(new)) == (False, True)


async def test_a_name_that_nothing_knows_is_a_turn_server_that_is_down() -> None:
    async with SignalingServer(config(**settings(3478, turn_check=("turn:nowhere.invalid",)))) as server:
        assert set((await told(server)).values()) == {0}
        assert "cannot be asked" in server.turn_watch.found["nowhere.invalid:3478"].problem


async def test_a_server_that_asks_none_has_no_metrics_of_any() -> None:
    async with SignalingServer(config(admin_port=0)) as server:
        assert await told(server) == {}


def test_the_settings_of_the_kit_ask_coturn_where_it_listens(tmp_path: Path) -> None:
    (port,) = re.findall(r"^listening-port=(\d+)$", (DEPLOY / "coturn" / "turnserver.conf").read_text(), re.MULTILINE)
    for name in ("aldis.toml", "direct/aldis.toml"):
        found = load_config({}, {"ALDIS_TURN_SECRET": SECRET, "ALDIS_DATA": str(tmp_path)}, DEPLOY / name)
        assert found.turn_check == (f"turn:127.0.0.1:{port}",)
    services = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())["services"]
    assert f"--listening-port={port}" in services["coturn"]["command"]
    # coturn is in the network of the machine, which a container reaches by this name.
    assert services["aldis"]["environment"]["ALDIS_TURN_CHECK"] == f"turn:host.docker.internal:{port}"
    assert services["aldis"]["extra_hosts"] == ["host.docker.internal:host-gateway"]
