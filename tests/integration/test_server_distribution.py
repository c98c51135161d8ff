"""`aldis-server`: the distribution for platforms that wrtc has no wheel for, installed where there is no wrtc."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from aldis.version import VERSION
from support.commands import environment
from support.patience import PATIENCE
from support.ports import free_port
from support.raw_websocket import http_get

ROOT = Path(__file__).parents[2]
TALK = """
import asyncio, sys
from aldis import NetworkStore

async def main(url):
    async with NetworkStore(engine="aiortc") as alice, NetworkStore(engine="aiortc") as bob:
        await alice.connect_to_signaling(url, "alice")
        await bob.connect_to_signaling(url, "bob")
        await alice.send("bob", "hello")
        async for message in bob.messages():
            print(message.sender, message.content)
            break

asyncio.run(main(sys.argv[1]))
"""


def build(source: Path, folder: Path) -> Path:
    """The wheel of a pyproject.toml, built without a network."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Those of `aldis` and `aldis-server`."""
    folder = tmp_path_factory.mktemp("wheels")
    return build(ROOT, folder / "whole"), build(ROOT / "packaging" / "server", folder / "server")


class Without:
    """A virtual environment that has all that is installed here but `wrtc`, Aldis, and `left_out`."""

    def __init__(self, folder: Path, *left_out: str) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=PATIENCE)
        self.python = folder / "bin" / "python"
        self.home = folder
        (packages,) = folder.glob("lib/python*/site-packages")
        here = Path(sysconfig.get_path("purelib"))
        for entry in here.iterdir():
            if (
                not entry.name.lower()
                .lstrip("_")
                .startswith(("wrtc", "webrtc", "aldis", "editable", "pycache", *left_out))
            ):
                (packages / entry.name).symlink_to(entry)

    def pip(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run pip for this environment, which has no network and no files but those that it is given."""
        command = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check", *words]
        own = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_NO_INDEX": "1"}
        return subprocess.run(
            command, env={**os.environ, **own}, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def run(self, *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the installed command `aldis`."""
        return subprocess.run(
            [self.python.with_name("aldis"), *words],
            input=stdin,
            env=environment(self.home),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def alpine(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Without:
    """An environment without wrtc, into which `aldis-server[aiortc]` was installed."""
    place = Without(tmp_path_factory.mktemp("venv"))
    installed = place.pip("install", f"{wheels[1]}[aiortc]")
    assert installed.returncode == 0, installed.stderr
    assert "Successfully installed aldis-server-" in installed.stdout
    return place


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(opened.read(name))


def test_it_is_the_same_without_the_requirement_of_wrtc(wheels: tuple[Path, Path]) -> None:
    whole, server = map(metadata, wheels)
    required = set(whole.get_all("Requires-Dist", ()))
    (wrtc,) = (requirement for requirement in required if requirement.startswith("wrtc"))
    assert set(server.get_all("Requires-Dist", ())) == required - {wrtc}
    for field in ("Version", "Requires-Python", "License-Expression", "Provides-Extra"):
        assert server[field] == whole[field]
    files = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as opened:
            files.append({name: opened.read(name) for name in opened.namelist() if name.startswith("aldis/")})
            (points,) = (name for name in opened.namelist() if name.endswith("entry_points.txt"))
            files[-1]["entry points"] = opened.read(points)
    assert files[0] == files[1]


def test_the_whole_cannot_be_installed_where_there_is_no_wrtc(wheels: tuple[Path, Path], tmp_path: Path) -> None:
    refused = Without(tmp_path / "venv").pip("install", wheels[0])
    assert refused.returncode != 0
    assert "wrtc" in refused.stderr


async def test_a_server_and_a_client_with_aiortc_run_without_wrtc(alpine: Without) -> None:
    admin = free_port()
    process = await asyncio.create_subprocess_exec(
        *(alpine.python.with_name("aldis"), "serve", "--port", "0", "--admin-port", str(admin), "--data", ":memory:"),
        stderr=asyncio.subprocess.PIPE,
        env=environment(alpine.home),
    )
    assert process.stderr
    try:
        text = ""
        async with asyncio.timeout(PATIENCE):
            while "Ctrl-C stops the server" not in text:
                line = await process.stderr.readline()
                assert line, text
                text += line.decode()
        assert "in a browser" in text
        status, _, metrics = await http_get(admin, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert status == 200
        assert f'aldis_info{{version="{VERSION}"}} 1.0' in metrics.decode()
        found = re.search(r"ws://127\.0\.0\.1:\d+", text)
        assert found
        talk = [str(alpine.python), "-c", TALK, found[0]]
        talked = await asyncio.to_thread(
            lambda: subprocess.run(talk, capture_output=True, text=True, timeout=PATIENCE, check=False)
        )
        assert (talked.returncode, talked.stdout) == (0, "alice hello\n"), talked.stderr
        # Said when the store is made, before anybody is asked anything.
        chat: tuple[str, ...]
        chat = ("chat", "bob", "--as", "alice", "--no-wait", "--server", found[0], "--data", ":memory:")
        refused = await asyncio.to_thread(alpine.run, *chat)
        assert refused.returncode == 2
        assert refused.stderr.startswith("aldis: the WebRTC engine 'wrtc' cannot be used: it is not installed; ")
        assert "--engine aiortc" in refused.stderr
        chat = ("chat", "dave", "--as", "carol", *chat[4:], "--engine", "aiortc")
        with_aiortc = await asyncio.to_thread(alpine.run, *chat, stdin="hello\n")
        assert with_aiortc.returncode == 5, with_aiortc.stderr  # registered, and dave is not there
        looked = await asyncio.to_thread(alpine.run, "doctor", "--server", found[0], "--data", ":memory:")
        assert looked.returncode == 0, looked.stdout
        assert re.search(r"! wrtc +not installed\n +-> ", looked.stdout)
        assert re.search(r"✓ aiortc channel +opened", looked.stdout)
    finally:
        process.terminate()
        await process.communicate()


def test_what_is_missing_is_told_with_the_command_that_installs_it(wheels: tuple[Path, Path], tmp_path: Path) -> None:
    """Never with one that brings the other distribution beside this one: both have the same files."""
    place = Without(tmp_path / "venv", "aiortc", "aioice", "redis", "psycopg")
    assert place.pip("install", wheels[1]).returncode == 0
    for setting, url, extra in (
        ("directory", "redis://127.0.0.1:1", "redis"),
        ("directory", "postgresql://127.0.0.1:1/aldis", "postgres"),
        ("redis", "redis://127.0.0.1:1", "redis"),
    ):
        told = place.run("serve", f"--{setting}", url, "--port", "0", "--admin-port", "none", "--data", place.home)
        assert told.returncode == 2
        assert f"aldis: {setting}: needs a library: pip install 'aldis-server[{extra}]' (" in told.stderr
    for engine in ("wrtc", "aiortc"):
        told = place.run("chat", "bob", "--as", "alice", "--engine", engine, "--data", ":memory:")
        assert told.returncode == 2
        assert f"engine '{engine}' cannot be used: it is not installed" in told.stderr
        assert "`pip install 'aldis-server[aiortc]'`" in told.stderr
        other = "`pip uninstall aldis-server` and then `pip install aldis`"
        assert (other in told.stderr) == (engine == "wrtc")
    assert place.run("keys", "new", "alice").returncode == 0
