"""A program of one file, as PyInstaller makes it: the hooks that come with the package give it all that it needs."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from aldis.server.pages import Pages
from support.commands import environment
from support.patience import PATIENCE
from support.redis_server import RedisServer

# The command, and with the word `pair` two stores that talk to each other.
PROGRAM = """
import asyncio, sys

async def pair(url):
    from aldis import NetworkStore
    async with NetworkStore() as alice, NetworkStore() as bob:
        await alice.connect_to_signaling(url, "alice")
        await bob.connect_to_signaling(url, "bob")
        await alice.send("bob", "hello")
        async for message in bob.messages():
            print(message.sender, message.content)
            break

if sys.argv[1:2] == ["pair"]:
    asyncio.run(pair(sys.argv[2]))
else:
    from aldis.cli.main import main
    main()
"""
# Installed here for the tests and the checks; without them the program is made in half of the time.
LEFT_OUT = ("aiortc", "av", "pygments", "rich", "setuptools", "markdown_it", "unittest", "pytest")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    (folder / "program.py").write_text(PROGRAM)
    words = [word for name in LEFT_OUT for word in ("--exclude-module", name)]
    command = [sys.executable, "-m", "PyInstaller", "--onefile", "--log-level", "WARN", *words, "program.py"]
    # Its cache is in the home of the user, unless it is told otherwise. The best compression takes half of its time.
    extra = {"PYINSTALLER_CONFIG_DIR": str(folder / "cache"), "PYINSTALLER_ZLIB_COMPRESSION_LEVEL": "1"}
    own = environment(folder, extra)
    made = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=280, check=False)
    assert made.returncode == 0, made.stderr
    return folder / "dist" / "program"


# Making the program takes 12 s of processor time, and minutes on a machine that has other work. One test, since each
# test process would make its own.
@pytest.mark.timeout(300)
async def test_a_frozen_program_is_the_command_and_connects_two_stores(program: Path, tmp_path: Path) -> None:
    own = environment(tmp_path, {"PATH": ""})  # no Python, and nothing else to fall back on
    for words, said in ((["--version"], "aldis "), (["doctor", "--help"], "Usage: "), (["keys", "show"], "")):
        ran = subprocess.run([program, *words], env=own, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert (ran.returncode, ran.stdout.startswith(said)) == (0, True), ran.stderr
    server = await asyncio.create_subprocess_exec(
        *(program, "serve", "--port", "0", "--admin-port", "none", "--data", str(tmp_path / "data")),
        stderr=asyncio.subprocess.PIPE,
        env=own,
    )
    assert server.stderr
    try:
        text = ""
        async with asyncio.timeout(PATIENCE):
            while "Ctrl-C stops the server" not in text:
                line = await server.stderr.readline()
                assert line, text
                text += line.decode()
        found = re.search(r"ws(://127\.0\.0\.1:\d+)", text)
        assert found
        # What it proposes to type is this very program.
        assert f"    {program} chat bob --as alice" in text
        pages = Pages.of_package()
        for path in sorted(pages.paths - {b"/"}):
            with await asyncio.to_thread(urllib.request.urlopen, f"http{found[1]}{path.decode()}") as reply:
                assert reply.status == 200
        pair = await asyncio.create_subprocess_exec(
            program, "pair", f"ws{found[1]}", env=own, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE):
            heard, _ = await pair.communicate()
        assert (pair.returncode, heard) == (0, b"alice hello\n")
    finally:
        server.terminate()
        await server.communicate()
    assert server.returncode == 0
    await workers_of(program, tmp_path, own)


async def workers_of(program: Path, folder: Path, own: dict[str, str]) -> None:
    """It also starts workers of its own, and replaces them."""
    with RedisServer(folder / "redis", "--appendonly", "yes", "--appendfsync", "always") as redis:
        words = ("serve", "--workers", "2", "--port", "0", "--admin-port", "none", "--data", str(folder / "data"))
        server = await asyncio.create_subprocess_exec(
            *(program, *words), stderr=asyncio.subprocess.PIPE, env={**own, "ALDIS_REDIS": redis.url()}
        )
        assert server.stderr
        text = ""
        try:
            for signalled, awaited in ((None, "with 2 processes"), (signal.SIGHUP, "all workers are new")):
                if signalled is not None:
                    server.send_signal(signalled)
                async with asyncio.timeout(PATIENCE):
                    while awaited not in text:
                        line = await server.stderr.readline()
                        assert line, text
                        text += line.decode()
        finally:
            server.terminate()
            await server.communicate()
        assert server.returncode == 0
