"""A machine on which nothing but ::1 is there: a network namespace of its own for each test."""

from __future__ import annotations

import asyncio
import sys

import pytest

from support.patience import PATIENCE

_ONLY_IPV6 = 'ip link set lo up && ip address delete 127.0.0.1/8 dev lo && exec "$@"'
_PROGRAM = """
import asyncio, sys
from aldis.server.app import SignalingServer
from aldis.store.store import NetworkStore
from support.settings import config

async def main(engine):
    async with SignalingServer(config(host="::1")) as server, NetworkStore(engine=engine) as alice, \
            NetworkStore(engine=engine) as bob:
        url = f"ws://[::1]:{server.port}"
        await alice.connect_to_signaling(url, "alice")
        await bob.connect_to_signaling(url, "bob")
        await alice.connect_to_peer("bob")
        alice.send("bob", "over ::1")
        print((await anext(bob.messages())).content)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("engine", ["aiortc", "wrtc"])
async def test_two_peers_connect_where_the_only_address_is_ipv6_loopback(engine: str) -> None:
    words = ["unshare", "--net", "sh", "-c", _ONLY_IPV6, "sh", sys.executable, "-c", _PROGRAM, engine]
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd="tests"
    )
    try:
        async with asyncio.timeout(2 * PATIENCE):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, output.decode()) == (0, "over ::1\n"), errors.decode()
