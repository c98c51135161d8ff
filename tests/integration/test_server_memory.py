"""What attackers can make a real server keep, by the memory of its process."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from aldis.protocol.messages import MAX_DEVICES, MAX_SEAL_KEY
from support.raw_websocket import TEXT, RawClient, encode_frame
from support.server_process import ServerProcess

SESSIONS = 20
MESSAGES = 60
# What the kernel counts for the process beside what is kept: buffers of connections, pools of Python's allocator.
MAX_GROWTH = 48 * 1024 * 1024


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def test_twenty_sessions_that_confirm_nothing_cost_what_is_counted_for_resume(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, data=":memory:") as server, AsyncExitStack() as stack:
        mallory, *targets = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(21)]
        await mallory.register("mallory")
        for number, target in enumerate(targets):
            await target.register(f"target{number}")
        before = resident(server.pid)
        # Relayed as some 60 bytes; the one wide character makes a str of it keep four bytes for each of the others.
        padding = "x" * 65_000 + "\U0001f526"
        for number, target in enumerate(targets):
            message = {"type": "ice-candidate", "to": f"target{number}", "candidate": None, "colour": padding}
            frame = encode_frame(TEXT, json.dumps(message, ensure_ascii=False).encode())
            for _ in range(MESSAGES):
                mallory.send_bytes(frame)
                await mallory.writer.drain()
            for _ in range(MESSAGES):
                assert (await target.receive())["from"] == "mallory"
        grown = resident(server.pid) - before
        assert grown < MAX_GROWTH, f"{grown / SESSIONS / MESSAGES:.0f} bytes for each message of 60"


async def test_a_watcher_of_many_devices_gets_all_of_their_presence_and_is_not_called_slow(tmp_path: Path) -> None:
    """Forty names with all the devices and sealing keys that there may be: 1.9 MB, asked for ten times."""
    names = [f"user{number}" for number in range(40)]
    async with ServerProcess(tmp_path, data=":memory:") as server, AsyncExitStack() as stack:
        identity = Identity.generate()

        async def device(name: str, device: str) -> None:
            client = await stack.enter_async_context(await RawClient.connect(server.port))
            key = bytes(MAX_SEAL_KEY)
            signature = identity.sign(proofs.seal(name, device, key))
            seal_key = {"publicKey": to_base64(key), "signature": to_base64(signature)}
            assert (await client.register(name, identity, device=device, sealKey=seal_key))["success"] is True

        for name in names:
            await asyncio.gather(*(device(name, f"device{number}") for number in range(MAX_DEVICES)))
        watcher = await stack.enter_async_context(await RawClient.connect(server.port))
        await watcher.register("watcher")
        # More than the kernel takes for a client that does not read at once.
        for number in range(10):
            watcher.send({"type": "watch", "userIds": names, "id": number})
        watcher.send({"type": "ping", "id": "last"})
        told, replies = set(), set()
        while len(replies) < 11:
            message = await watcher.receive()
            if message["type"] == "presence":
                assert len(message["devices"]) == MAX_DEVICES
                told.add(message["userId"])
            else:
                replies.add(message["re"])
        assert told == set(names)
        assert replies == {*range(10), "last"}
