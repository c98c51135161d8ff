"""docs/accounts.md is true: its application, its settings and its client run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import aiohttp

from support.application import SECRET
from support.commands import aldis
from support.patience import PATIENCE
from support.ports import free_port
from support.server_process import ServerProcess

PAGE = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


async def online(url: str, expected: list[str]) -> None:
    """Wait until the application knows of exactly these users."""
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"{url}/online") as reply:
                    if await reply.json() == expected:
                        return
            except aiohttp.ClientError:
                pass  # it has not started yet
            await asyncio.sleep(0)


async def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    app, client = blocks("python")
    (settings,) = blocks("toml")
    aldis("token", "--new-key", tmp_path / "keys.json", home=tmp_path)
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "aldis.toml").write_text(settings.replace("http://127.0.0.1:5000", url))
    environ = {**os.environ, "HOOK_SECRET": SECRET, "PORT": url.rpartition(":")[2], "APP": url}
    application = subprocess.Popen([sys.executable, "-c", app], cwd=tmp_path, env=environ)
    try:
        await online(url, [])
        async with ServerProcess(tmp_path, config=str(tmp_path / "aldis.toml"), hook_secret=SECRET) as server:
            environ["SERVER"] = f"ws://127.0.0.1:{server.port}"

            async def run(code: str, **more: str) -> tuple[int, str]:
                done = await asyncio.to_thread(
                    subprocess.run,
                    [sys.executable, "-c", code],
                    cwd=tmp_path,
                    env={**environ, **more},
                    capture_output=True,
                    timeout=PATIENCE,
                    check=False,
                )
                return done.returncode, (done.stdout + done.stderr).decode()

            staying = subprocess.Popen([sys.executable, "-c", client], cwd=tmp_path, env={**environ, "STAY": "1000"})
            try:
                await online(url, ["alice"])
            finally:
                staying.kill()
                staying.wait()
            code, text = await run(client)
            assert (code, text) == (0, "registered as alice\n")
            code, text = await run(client.replace("alice.pem", "other.pem"))
            assert (code, "belongs to another key" in text) == (1, True)
            suspended = client.replace('"alice"', '"bob"').replace("correct horse", "battery staple")
            code, text = await run(suspended)
            assert (code, "your account is suspended" in text) == (1, True)
            code, text = await run(client.replace("correct horse", "wrong"))
            assert (code, "TokenUnavailable" in text) == (1, True)
        async with aiohttp.ClientSession() as session:
            event = {"id": "x-1", "type": "online", "user": "mallory"}
            headers = {"Aldis-Timestamp": "1764355000", "Aldis-Signature": "sha256=00"}
            async with session.post(f"{url}/aldis/presence", json={"events": [event]}, headers=headers) as reply:
                assert reply.status == 403
    finally:
        application.kill()
        application.wait()
