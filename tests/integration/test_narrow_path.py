"""Large packets are lost on the way and nobody says so: what is said gets through all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen

import pytest

from support.narrow_path import NarrowPath
from support.nat_lab import Namespace, python
from support.patience import PATIENCE

# The server, and in front of it a proxy that leaves the size of its segments to the system.
_SERVER = """
import asyncio
from aldis.server.app import SignalingServer
from support.settings import config

async def pass_on(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

async def proxy(reader, writer):
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", 8080)
    await asyncio.gather(pass_on(reader, to_writer), pass_on(to_reader, writer))

async def main():
    async with SignalingServer(config(host="0.0.0.0", port=8080, names=("203.0.113.1:8080", "203.0.113.1:8081"))):
        async with await asyncio.start_server(proxy, "203.0.113.1", 8081):
            print("ready", flush=True)
            await asyncio.Event().wait()

asyncio.run(main())
"""
# Any program, such as a browser: a request of 6 KB, and an answer of 100 KB.
_BROWSER = """
import urllib.request
from aldis.server.pages import Pages
path = max(Pages.of_package().paths, key=lambda path: b"/page-" in path and not path.endswith(b".map")).decode()
request = urllib.request.Request(f"http://203.0.113.1:8080{path}", headers={"Cookie": "x" * 6000})
with urllib.request.urlopen(request) as reply:
    print(len(reply.read()) > 100_000)
"""
_CLIENT = """
import asyncio
from aldis.client.client import SignalingClient
from aldis.identity.keys import Identity

async def main():
    names = [f"{number}-{'x' * 100}" for number in range(200)]
    async with SignalingClient("ws://203.0.113.1:8081", "alice") as client:
        await client.register(Identity.generate())
        await client.watch(*names)  # 20 KB, and as much comes back
        print(not (await client.discover(names[-1])).online)

asyncio.run(main())
"""


@contextmanager
def served(server: Namespace) -> Iterator[None]:
    with Popen(server.inside(*python(_SERVER)), stdout=PIPE, cwd="tests") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("program", [_BROWSER, _CLIENT], ids=["any program", "client through a proxy"])
def test_what_is_large_gets_through_a_path_that_loses_large_packets_in_silence(program: str) -> None:
    with NarrowPath() as path, served(path.server):
        command = path.client.inside(*python(program))
        ran = subprocess.run(command, cwd="tests", capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert ran.stdout == "True\n", ran.stderr
