"""A disk that becomes read-only under a running server, as the kernel makes it when the disk fails."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp

from aldis.identity.keys import Identity
from support.failing_disk import FailingDisk
from support.raw_websocket import RawClient
from support.server_forks import RUN
from support.server_process import ServerProcess

READ_ONLY = "the file system it is on, is read-only"
TOKEN = "a token of the operator"


class ServerOnFailingDisk(ServerProcess):
    """A server whose data directory is on this disk."""

    def __init__(self, folder: Path, disk: FailingDisk) -> None:
        super().__init__(folder, data=str(disk.path / "data"), admin_port=0, admin_token=TOKEN)
        self._disk = disk

    async def _spawn(self) -> asyncio.subprocess.Process:
        program = f"{RUN}\nserve(*map(json.loads, sys.argv[1:]))"
        command = (sys.executable, "-W", "default", "-c", program, json.dumps(self.settings), "{}")
        return await asyncio.create_subprocess_exec(*self._disk.around(*command), stderr=asyncio.subprocess.PIPE)

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        """What the admin port answers."""
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers, **more) as reply:
            return reply.status, await reply.text()

    async def register(self, name: str, identity: Identity) -> dict[str, Any]:
        """What a new client is told."""
        async with await RawClient.connect(self.port) as client:
            reply = await client.register(name, identity)
            await client.leave()
            return reply


async def relayed(sender: RawClient, recipient: RawClient, name: str) -> bool:
    sender.send({"type": "relay", "to": name, "sealed": "AAAA"})
    return bool((await recipient.receive())["sealed"] == "AAAA")


async def test_a_disk_that_becomes_read_only_fails_new_names_only_and_loses_none(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path)
    known = {f"user{number}": Identity.generate() for number in range(20)}
    async with ServerOnFailingDisk(tmp_path, disk) as server:
        for name, identity in known.items():
            assert (await server.register(name, identity))["type"] == "registered"
        ban = {"kind": "user", "value": "mallory"}
        assert (await server.ask("POST", "/api/v1/bans", json=ban))[0] == 200
        async with await RawClient.connect(server.port) as alice, await RawClient.connect(server.port) as bob:
            known |= {"alice": Identity.generate(), "bob": Identity.generate()}
            await alice.register("alice", known["alice"])
            await bob.register("bob", known["bob"])
            disk.fail(server.pid)
            for number in range(30):
                reply = await server.register(f"new{number}", Identity.generate())
                assert (reply["type"], reply["code"]) == ("error", "internal")
                assert (reply["temporary"], reply["retryAfter"]) == (True, 1.0)
            assert await relayed(alice, bob, "bob")
            assert await relayed(bob, alice, "alice")
            for name in list(known)[:20]:
                assert (await server.register(name, known[name]))["type"] == "registered"
                assert (await server.register(name, Identity.generate()))["code"] == "key-mismatch"
                found = await bob.request({"type": "discover", "userId": name})
                assert (found["type"], found["online"]) == ("discover-response", False)
            # What an operator sees.
            assert (await server.ask("GET", "/healthz"))[0] == 200
            status, text = await server.ask("GET", "/readyz")
            assert status == 503
            assert READ_ONLY in text
            _, metrics = await server.ask("GET", "/metrics")
            assert 'aldis_directory_failures_total{question="claim"} 30.0' in metrics
            status, text = await server.ask("POST", "/api/v1/bans", json={"kind": "user", "value": "eve"})
            assert status == 503
            assert "the ban holds, but cannot be written: Read-only file system" in text
            assert (await server.register("eve", Identity.generate()))["code"] == "forbidden"
            status, text = await server.ask("POST", "/api/v1/users/user3/release")
            assert status == 503
        assert await server.stop() == 0
    told = [(line["event"], line["reason"]) for line in server.lines() if line["level"] in ("error", "warning")]
    assert [event for event, _ in told] == [
        "the directory of names fails",
        "the bans cannot be written; until they are, a stop loses them",
        "the sessions cannot be kept; clients register anew",
    ]
    assert READ_ONLY in told[0][1]
    assert all("ead-only" in reason for _, reason in told), told
    assert "Traceback" not in server.log_text()
    assert all(line.startswith("{") for line in server.log_text().splitlines()), server.log_text()

    disk.repair()
    async with ServerOnFailingDisk(tmp_path, disk) as again:
        for name, identity in known.items():
            assert (await again.register(name, identity))["type"] == "registered"
            assert (await again.register(name, Identity.generate()))["code"] == "key-mismatch"
        for number in range(30):
            assert (await again.register(f"new{number}", Identity.generate()))["type"] == "registered"
        assert json.loads((await again.ask("GET", "/api/v1/bans"))[1])["bans"][0]["value"] == "mallory"
        assert (await again.ask("GET", "/readyz"))[0] == 200
        assert await again.stop() == 0
    again.assert_clean_log()


# A server that renews its certificate must not order one that it cannot keep.
CERTIFICATES = """
import sys
from pathlib import Path
from aldis.server.certificates.files import CertificateFiles

files = CertificateFiles(Path(sys.argv[1]))
files.save_account("https://ca.example", "https://ca.example/1", "a key")
print("kept", flush=True)
sys.stdin.readline()
try:
    with files.order():
        print("orders")
except OSError as error:
    print(error.strerror, files.account("https://ca.example"))
"""


async def test_no_certificate_is_ordered_that_could_not_be_kept(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path)
    pipe = asyncio.subprocess.PIPE
    command = disk.around(sys.executable, "-c", CERTIFICATES, str(disk.path))
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"kept\n"
    disk.fail(process.pid)
    said, _ = await process.communicate(b"\n")
    assert said == b"Read-only file system ('https://ca.example/1', 'a key')\n"


async def test_a_server_does_not_start_while_the_disk_is_read_only(tmp_path: Path) -> None:
    disk = FailingDisk(tmp_path)
    async with ServerOnFailingDisk(tmp_path, disk) as server:
        disk.fail(server.pid)
        # As systemd would start it after a crash, on the disk as the first one sees it.
        command = ("nsenter", "--mount", "--target", str(server.pid), sys.executable, "-m", "aldis", "serve")
        words = ("--port", "0", "--admin-port", "none", "--data", str(disk.path / "data"))
        second = await asyncio.create_subprocess_exec(*command, *words, stderr=asyncio.subprocess.PIPE)
        _, said = await second.communicate()
        assert second.returncode == 1
        assert b"names.sqlite3 cannot be opened: Read-only file system" in said
        assert b"Traceback" not in said
