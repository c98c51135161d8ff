"""A file and messages on a slow line: the messages do not wait long behind the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE, Popen

from support.nat_lab import SERVER, Namespace, NatLab, python

# 100 KB a second
_SLOW = "tc qdisc add dev eth0 root tbf rate 800kbit burst 16kb latency 500ms"
SIZE = 4_000_000
# What may come before a message: that of a second, a piece of 64 KiB, and what comes while a busy machine answers.
MOST = 500_000
_SERVER = """
import asyncio
from aldis.server.app import SignalingServer
from support.settings import config

async def main():
    async with SignalingServer(config(host="0.0.0.0", port=8080, stun_port=3478)):
        print("ready", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
# Each message of alice asks how much of the file has come. So between two answers are a way back, which is quick, and a
# way there, behind the file.
_ALICE = """
import asyncio, json, sys
from aldis.store.store import NetworkStore

async def main(url, path):
    async with NetworkStore(path="direct") as store:
        await store.connect_to_signaling(url, "alice")
        await store.connect_to_peer("bob", timeout=40)
        await store.send_file("bob", path)
        answers = store.messages()
        came = []
        while len(came) < 3:
            store.send("bob", "how much?")
            content = (await anext(answers)).content
            if content:  # it has begun
                came.append(content)
        print(json.dumps(came), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
_BOB = """
import asyncio, sys
from aldis.store.store import NetworkStore

async def main(url, folder):
    taken = []
    async with NetworkStore(path="direct") as store:
        store.on_file(lambda transfer: (taken.append(transfer), transfer.accept(folder)))
        await store.connect_to_signaling(url, "bob")
        print("ready", flush=True)
        async for message in store.messages():
            store.send("alice", sum(transfer.transferred for transfer in taken))

asyncio.run(main(*sys.argv[1:]))
"""


@contextmanager
def running(where: Namespace, words: list[str]) -> Iterator[Popen[bytes]]:
    # A socket on 127.0.0.1, as tools/netns.sh wants it, gets no answer from a STUN server, and is waited for.
    env = {name: value for name, value in os.environ.items() if name != "WRTC_ALLOW_LOOPBACK"}
    with Popen(where.inside(*words), stdout=PIPE, stdin=PIPE, cwd="tests", env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def test_a_message_does_not_wait_behind_all_that_may_be_sent_of_a_file(tmp_path: Path) -> None:
    path, folder, url = tmp_path / "a.bin", tmp_path / "to", f"ws://{SERVER}:8080"
    path.write_bytes(os.urandom(SIZE))
    folder.mkdir()
    with NatLab() as lab, running(lab.internet, python(_SERVER)) as server:
        assert line(server) == "ready"
        here, there = lab.home(), lab.home()
        here.sh(_SLOW)
        with running(there, python(_BOB, url, str(folder))) as bob:
            assert line(bob) == "ready"
            with running(here, python(_ALICE, url, str(path))) as alice:
                came = json.loads(line(alice))
                assert all(after - before <= MOST for before, after in pairwise(came)), came
