"""A server that hangs ends itself, where it is told to, so that what started it starts it again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.patience import PATIENCE
from support.raw_websocket import RawClient
from support.redis_server import RedisServer
from support.server_process import ServerProcess
from support.systemd_manager import Manager
from support.worker_processes import Workers

# A regular expression that never ends, and holds the lock of the interpreter: at a signal, or when the server serves.
HANG = """
import re, signal

def hang(*_):
    re.match(r"(a+)+$", "a" * 60 + "b")
"""
HANGING = {
    "at a signal": f"{HANG}\nsignal.signal(signal.SIGUSR1, hang)",
    "at once": f"{HANG}\nfrom aldis.server.systemd import Notifier\nNotifier.ready = hang",
}
# It writes to a stderr that nobody reads, until that is full, and then hangs in it.
SILENCED = """
import os
from aldis.server.watchdog import Watchdog

Watchdog(1).alive()
while True:
    os.write(2, bytes(65536))
"""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def hanging(folder: Path, when: str) -> dict[str, str]:
    """Variables with which a server hangs."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HANGING[when])
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize("when", HANGING)
async def test_a_server_that_hangs_ends_and_says_what_it_was_doing(tmp_path: Path, when: str) -> None:
    environ = hanging(tmp_path / "hanging", when)
    server = ServerProcess(tmp_path, environ=environ, own_program=True, watchdog_seconds=1)
    async with server:
        if when == "at a signal":
            server.signal(signal.SIGUSR1)
        assert await server.wait() == 1
        text = server.log_text()
        assert "Timeout (0:00:01)!" in text
        assert "in hang" in text
    async with ServerProcess(tmp_path) as again, await RawClient.connect(again.port) as client:
        assert (await client.register("alice"))["success"]


async def test_a_server_that_turns_goes_on_and_stops_as_ever(tmp_path: Path) -> None:
    """For longer than the watchdog waits, which is longer than a busy machine keeps a server from turning."""
    manager = Manager(str(tmp_path / "notify"))
    environ = {**manager.environ, "WATCHDOG_USEC": "2400000"}
    async with ServerProcess(tmp_path, environ=environ, watchdog_seconds=8) as server:
        await manager.told()
        for _ in range(8):  # each comes 1.2 s after the one before
            assert await manager.next() == {"WATCHDOG": "1"}
        assert await server.stop() == 0
        server.assert_clean_log()
    manager.close()


async def test_a_stderr_that_nobody_reads_does_not_keep_a_server_from_ending() -> None:
    unread, stderr = os.pipe()
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", SILENCED, stderr=stderr)
    os.close(stderr)
    async with asyncio.timeout(PATIENCE):
        assert await program.wait() == 1
    os.close(unread)


async def test_a_supervisor_kills_a_worker_that_hangs_without_systemd(tmp_path: Path, redis: RedisServer) -> None:
    # The others, and the supervisor, are ended by their own watchdogs if the machine is too busy for them for so long.
    async with Workers(tmp_path, redis, watchdog_seconds=8) as server:
        pid = server.pids()[1]
        os.kill(pid, signal.SIGSTOP)
        line = await server.wait_for_line("a worker hangs, and is killed")
        assert (line["worker"], line["pid"]) == (1, pid)
        await server.wait_for_line("a worker serves", number=3)
        assert await server.stop() == 0
