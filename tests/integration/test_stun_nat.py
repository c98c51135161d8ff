"""Peers behind NATs find each other with nothing but `aldis serve`: its STUN port shows them their addresses."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

import pytest

from support.nat_lab import SERVER, Namespace, NatLab, python
from support.patience import PATIENCE

_SERVER = """
import asyncio, sys
from dataclasses import replace
from time import monotonic
from aldis.server.app import SignalingServer
from aldis.server.stun_port import StunPort
from support.settings import config

async def main():
    async with SignalingServer(config(host="0.0.0.0", port=8080, stun_port=3478)) as server:
        print(server.stun.port, flush=True)
        # A second STUN server, of which clients are told on demand.
        await StunPort(server.stun.answers, clock=monotonic, fault=print).listen("0.0.0.0", 3479)
        if "two" in sys.argv:
            server.reload(replace(server.config, stun=("stun:203.0.113.1:3478", "stun:203.0.113.1:3479")))
        await asyncio.Event().wait()

asyncio.run(main())
"""
_PEER = """
import asyncio, json, sys
from aldis.store.store import NetworkStore

async def main(me, other, engine):
    async with NetworkStore(engine=engine) as store:
        await store.connect_to_signaling("ws://203.0.113.1:8080", me)
        print(json.dumps("registered"), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await store.connect_to_peer(other, timeout=40)
        store.send(other, f"from {me}")
        said = (await anext(store.messages())).content
        stats = await store.stats(other)
        print(json.dumps({"said": said, "path": stats.path, "local": stats.local}), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def lab() -> Iterator[NatLab]:
    with NatLab() as made, served(made):
        yield made


@contextmanager
def served(lab: NatLab, *words: str) -> Iterator[None]:
    """A server with the settings that everybody has; or with two STUN servers."""
    with running(lab.internet, python(_SERVER, *words)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"3478\n"
        yield


@contextmanager
def running(where: Namespace, words: list[str]) -> Iterator[Popen[bytes]]:
    # A socket on 127.0.0.1, as tools/netns.sh wants it, gets no answer from a STUN server, and is waited for.
    env = {name: value for name, value in os.environ.items() if name != "WRTC_ALLOW_LOOPBACK"}
    process = Popen(where.inside(*words), stdout=PIPE, stdin=PIPE, stderr=DEVNULL, cwd="tests", env=env)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def told_by(process: Popen[bytes]) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(2 * PATIENCE):
        return json.loads(await asyncio.to_thread(process.stdout.readline))


@pytest.mark.parametrize("engine", ["wrtc", "aiortc"])
async def test_two_peers_behind_nats_connect_directly(lab: NatLab, engine: str) -> None:
    here, there = lab.home(), lab.home()
    with (
        running(here, python(_PEER, "alice", "bob", engine)) as alice,
        running(there, python(_PEER, "bob", "alice", engine)) as bob,
    ):
        for process in (alice, bob):
            assert await told_by(process) == "registered"
        for process in (alice, bob):
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        for process, other in ((alice, "bob"), (bob, "alice")):
            told = await told_by(process)
            assert (told["said"], told["path"]) == (f"from {other}", "direct")


async def doctor(where: Namespace) -> tuple[int, dict[str, dict[str, str]]]:
    words = ["-m", "aldis", "doctor", "--json", "--data", ":memory:", "--timeout", "2"]
    with running(where, [sys.executable, *words, "--server", f"ws://{SERVER}:8080"]) as process:
        report = json.loads((await asyncio.to_thread(process.communicate))[0])
    return process.returncode, {check["check"]: check for check in report["checks"]}


async def test_the_doctor_behind_a_nat_sees_the_address_of_the_router(lab: NatLab) -> None:
    code, checks = await doctor(lab.home())
    assert code == 0
    assert checks["STUN"]["text"].startswith(f"stun:{SERVER}:3478 sees this machine as 203.0.113.11:")
    for engine in ("wrtc", "aiortc"):
        assert "203.0.113.11:" in checks[f"{engine} candidates"]["text"]
    assert checks["direct"]["mark"] == "ok"
    assert "seen from outside as 203.0.113.11" in checks["direct"]["text"]


@pytest.mark.parametrize("words", [(), ("two",)], ids=["one STUN server", "two STUN servers"])
async def test_the_doctor_behind_a_symmetric_nat_does_not_say_that_all_is_well(words: tuple[str, ...]) -> None:
    with NatLab() as lab, served(lab, *words):
        code, checks = await doctor(lab.home(symmetric=True))
    assert ("is symmetric" if words else "may be symmetric") in checks["direct"]["text"]
    if checks["relay"]["mark"] == "ok":
        assert (code, checks["direct"]["mark"]) == (0, "note")
    else:
        assert (code, checks["direct"]["mark"]) == ((7, "fail") if words else (0, "warn"))
        assert "TURN server" in checks["direct"]["advice"]
