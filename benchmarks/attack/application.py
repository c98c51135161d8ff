"""The operator's application, in a process of its own: `python -m benchmarks.attack.application PORT`.

It admits honest users at once. About all others it thinks for longer than any server waits.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from aiohttp import web

from benchmarks.attack.priority import put_users_first

SLOW: Final = 10.0  # seconds


async def decide(request: web.Request) -> web.Response:
    """Answer the server."""
    asked = await request.json()
    if not asked["user"].startswith("honest-"):
        await asyncio.sleep(SLOW)
    return web.json_response({"allow": True})


async def serve(port: int) -> None:
    """Answer until the end of standard input."""
    application = web.Application()
    application.router.add_post("/", decide)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """The command."""
    # It is nobody's attack that this process waits for its core.
    put_users_first()
    asyncio.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
