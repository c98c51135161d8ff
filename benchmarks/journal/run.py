"""What a journal costs: messages through two stores, with one at both ends and without.

    tools/netns.sh .venv/bin/python -m benchmarks.journal.run [--messages N] [--folder DIR]

Server and both stores are in one process, so a figure is for two programs that share one core. The folder should be on
the disk that journals will be on: each commit is synced to it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

os.environ["WRTC_ALLOW_LOOPBACK"] = "1"

from aldis.errors import QueueFull
from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from aldis.store.state import StoreLimits
from aldis.store.store import NetworkStore

SIZES = (100, 16 * 1024)


async def measure(folder: Path | None, size: int, count: int) -> tuple[float, float]:
    """Messages a second, and microseconds of processor for each, both programs and all threads together."""
    journals = [None, None] if folder is None else [folder / f"{name}-{size}.journal" for name in ("a", "b")]
    limits = StoreLimits(queue_messages=20_000)
    config = ServerConfig(port=0, admin_port=None, data=":memory:")
    async with (
        SignalingServer(config) as server,
        NetworkStore(journal=journals[0], limits=limits) as alice,
        NetworkStore(journal=journals[1], limits=limits) as bob,
    ):
        await alice.connect_to_signaling(server.url, "alice")
        await bob.connect_to_signaling(server.url, "bob")
        await alice.connect_to_peer("bob")
        payload = os.urandom(size)
        started, busy = time.perf_counter(), time.process_time()

        async def send() -> None:
            for _ in range(count):
                while True:
                    try:
                        alice.send("bob", payload)
                        break
                    except QueueFull:
                        await asyncio.sleep(0.001)
                if alice.state.peers["bob"].queued > 4000:
                    await asyncio.sleep(0)

        sending = asyncio.create_task(send())
        read = 0
        async for _ in bob.messages():
            read += 1
            if read == count:
                break
        await sending
        await alice.drain()
        return count / (time.perf_counter() - started), (time.process_time() - busy) / count * 1e6


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for size in SIZES:
            count = arguments.messages if size < 1024 else arguments.messages // 5
            without, busy_without = await measure(None, size, count)
            kept, busy = await measure(Path(folder), size, count)
            print(
                f"{size:6} bytes: {without:6.0f} messages/s without a journal, {kept:6.0f} with one"
                f" ({kept / without:.2f}); {busy_without:.0f} and {busy:.0f} us of processor for each",
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(main())
