"""What attackers can make a real server keep, by the memory of its process."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

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
