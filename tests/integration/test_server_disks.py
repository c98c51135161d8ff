"""A server whose names are on a real disk of its own: one that is full, and one that cannot be written.

Each server has a mount namespace, so these tests need Linux and users that may make namespaces (see tools/netns.sh).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from aldis.identity.keys import Identity
from support.raw_websocket import RawClient
from support.server_forks import RUN
from support.server_process import ServerProcess

FULL_DISK = 'mount -t tmpfs -o size=512k none "$0" && exec "$@"'
READ_ONLY_DISK = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


class ServerOnDisk(ServerProcess):
    """A server whose data directory is what the shell command `mount` makes of it."""

    def __init__(self, folder: Path, mount: str) -> None:
        super().__init__(folder)
        self._data = folder / "data"
        self._data.mkdir(exist_ok=True)
        self._mount = mount

    async def _spawn(self) -> asyncio.subprocess.Process:
        program = f"{RUN}\nserve(*map(json.loads, sys.argv[1:]))"
        return await asyncio.create_subprocess_exec(
            *("unshare", "--map-root-user", "--mount", "sh", "-c", self._mount, str(self._data)),
            *(sys.executable, "-W", "default", "-c", program, json.dumps(self.settings), "{}"),
            stderr=asyncio.subprocess.PIPE,
        )

    @property
    def seen(self) -> Path:
        """The data directory as the server sees it."""
        return Path(f"/proc/{self.pid}/root{self._data}")


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(4096))


async def test_a_full_disk_fails_new_names_only_and_is_used_again_when_there_is_room(tmp_path: Path) -> None:
    told: dict[str, Identity] = {}
    server = ServerOnDisk(tmp_path, FULL_DISK)
    async with server:

        async def register(name: str, identity: Identity) -> dict[str, object]:
            async with await RawClient.connect(server.port) as client:
                reply = await client.register(name, identity)
                await client.leave()
            if reply["type"] == "registered":
                told[name] = identity
            return reply

        await register("known", Identity.generate())
        for outage in range(2):
            fill(server.seen / "filler")
            # What was allocated before may still take some.
            for number in range(100):
                reply = await register(f"user{outage}-{number}", Identity.generate())
                if reply["type"] == "error":
                    break
            assert (reply["code"], reply["temporary"], reply["retryAfter"]) == ("internal", True, 1.0)
            for name, identity in list(told.items()):
                assert (await register(name, identity))["type"] == "registered"
                assert (await register(name, Identity.generate()))["code"] == "key-mismatch"
            assert (await register("late", Identity.generate()))["code"] == "internal"
            (server.seen / "filler").unlink()
            assert (await register(f"after{outage}", Identity.generate()))["type"] == "registered"
        assert await server.stop() == 0
    events = [line["event"] for line in server.lines() if line["level"] == "error"]
    assert events == ["the directory of names fails"] * 2  # each outage once, whatever failed in it
    # Nor does anything else of these requests fill the log, whose usual level is `info`.
    usual = [line["event"] for line in server.lines() if line["level"] != "debug"]
    begin = usual.index("serving")
    told_of = ["the directory of names fails", "the directory of names answers again"] * 2
    assert usual[begin + 1 : begin + 5] == told_of
    assert len(usual[begin:]) <= 8, usual
    assert "Traceback" not in server.log_text()
    reason = next(line["reason"] for line in server.lines() if line["level"] == "error")
    assert "full" in reason


async def test_a_disk_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    identity = Identity.generate()
    async with ServerProcess(tmp_path) as first:
        async with await RawClient.connect(first.port) as client:
            await client.register("alice", identity)
        assert await first.stop() == 0
    files = sorted(os.listdir(tmp_path / "data"))
    server = ServerOnDisk(tmp_path, READ_ONLY_DISK)
    with pytest.raises(AssertionError, match="Read-only file system"):
        await server.start()
    assert await server.wait() == 3
    assert "Traceback" not in server.log_text()
    assert sorted(os.listdir(tmp_path / "data")) == files
