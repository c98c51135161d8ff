"""A server that is none: what its clients say it passes on to another server, as if it were them.

So it hands out that server's challenges, and brings back proofs that were meant for itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientError, ClientSession, WSMsgType, web

from support.patience import PATIENCE


class RelayingServer:
    """`host`, dialled by its clients, passes on to `target`; `headers` go with each connection there."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.host = ""
        self.headers: dict[str, str] = {}
        # What the other server has said, and the HTTP statuses with which it has refused.
        self.heard: list[dict[str, Any]] = []
        self.refusals: list[int] = []
        # The code with which it has closed, once it has.
        self.closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    @property
    def url(self) -> str:
        return f"ws://{self.host}"

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        # The raw client of the tests does not answer a CLOSE frame; aiohttp waits 10 s for the answer unless told.
        socket = web.WebSocketResponse(protocols=["aldis.v1"], timeout=0.5)
        await socket.prepare(request)
        protocols = ["aldis.v1"] if socket.ws_protocol else []
        async with ClientSession() as session:
            try:
                other = await session.ws_connect(self.target, protocols=protocols, headers=self.headers)
            except ClientError as error:
                self.refusals.append(getattr(error, "status", 0))
                await socket.close()
                return socket

            async def bring_back() -> None:
                async for frame in other:
                    if frame.type is WSMsgType.TEXT:
                        self.heard.append(json.loads(frame.data))
                        await socket.send_str(frame.data)
                if not self.closed.done():
                    self.closed.set_result(other.close_code)
                await socket.close()

            async with asyncio.timeout(PATIENCE):
                back = asyncio.create_task(bring_back())
                async for frame in socket:
                    if frame.type is WSMsgType.TEXT and not other.closed:
                        await other.send_str(frame.data)
                await other.close()
                await back
        return socket


@asynccontextmanager
async def relaying_server(target: str) -> AsyncIterator[RelayingServer]:
    """One on a free port of this machine, which says of itself what it is called."""
    server = RelayingServer(target)
    application = web.Application()
    application.router.add_get("/", server.serve)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.host = f"127.0.0.1:{runner.addresses[0][1]}"
    server.headers = {"Host": server.host}
    try:
        yield server
    finally:
        await runner.cleanup()
