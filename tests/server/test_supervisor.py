"""A supervisor and workers that are no servers: what real ones do once in a long while."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from aldis.server import supervisor
from aldis.server.config import ServerConfig
from aldis.server.supervisor import Supervisor
from aldis.server.systemd import ActivatedSockets, Notifier
from aldis.server.worker_link import WorkerReport
from support.patience import PATIENCE

# The first worker 1 leaves its line, and stays. The others stop when they are told so.
_WORKER = """
import sys, time
from pathlib import Path
from aldis.server.worker_link import WorkerLink, WorkerReport, encode

link, left = WorkerLink(int(sys.argv[2])), Path(sys.argv[1])
link._socket.sendall(encode(WorkerReport(report="serving", url="ws://localhost", port=1)))
if link.start.worker == 0 or not left.parent.exists() or left.exists():
    link._socket.recv(1)
else:
    left.touch()
    link._socket.close()
    time.sleep(3600)
"""


async def test_a_worker_that_leaves_its_line_and_does_not_end_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "CLOSING_SECONDS", 0.05)
    command = [sys.executable, "-c", _WORKER, str(tmp_path / "left")]
    monkeypatch.setattr(supervisor, "_command", lambda: (command, dict(os.environ)))
    served: asyncio.Queue[int] = asyncio.Queue()
    config = ServerConfig(redis="redis://127.0.0.1:1", workers=2, port=0, admin_port=None, stun_port=0)
    running = Supervisor(config, ActivatedSockets(), Notifier({}), configure_log=lambda _: None)
    hear = running._hear

    def heard(worker: supervisor._Worker, report: WorkerReport) -> None:
        hear(worker, report)
        served.put_nowait(worker.slot)

    monkeypatch.setattr(running, "_hear", heard)
    code = asyncio.ensure_future(running.run())
    async with asyncio.timeout(PATIENCE):
        assert [await served.get() for _ in range(3)] == [0, 1, 1]
        running._stop_all()
        assert await code == 0


async def test_settings_that_meet_a_bug_keep_no_later_ones_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", _WORKER, str(tmp_path / "no folder" / "left")]
    monkeypatch.setattr(supervisor, "_command", lambda: (command, dict(os.environ)))
    config = ServerConfig(redis="redis://127.0.0.1:1", workers=2, port=0, admin_port=None, stun_port=0)
    reread = asyncio.Event()

    def read() -> ServerConfig:
        reread.set()
        raise RuntimeError("a bug")

    serving = asyncio.Event()
    running = Supervisor(
        *(config, ActivatedSockets(), Notifier({})),
        reread=read,
        started=lambda _: serving.set(),
        configure_log=lambda _: None,
    )
    code = asyncio.ensure_future(running.run())
    async with asyncio.timeout(PATIENCE):
        await serving.wait()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            await reread.wait()
            reread.clear()
        running._stop_all()
        assert await code == 0


# A report of a newer release, and something that is no report of any.
_GARBAGE = """
import socket, sys, time
line = socket.socket(fileno=int(sys.argv[1]))
line.sendall(b"\\0\\0\\0\\x0c\\x81\\xa6report\\xa3new")
line.sendall(b"\\0\\0\\0\\1\\xc1")
time.sleep(3600)
"""


async def test_a_worker_that_says_what_nobody_can_read_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was not heard any more, and no word said so: killed after two minutes, or never once it had served."""
    monkeypatch.setattr(supervisor, "_command", lambda: ([sys.executable, "-c", _GARBAGE], dict(os.environ)))
    config = ServerConfig(redis="redis://127.0.0.1:1", workers=2, port=0, admin_port=None, stun_port=0)
    running = Supervisor(config, ActivatedSockets(), Notifier({}), configure_log=lambda _: None)
    async with asyncio.timeout(PATIENCE):
        assert await running.run() != 0
    (said, *_) = [record for record in caplog.records if "nobody can read" in record.getMessage()]
    assert "malformed" in str(said.__dict__), "what is only new is ignored"
