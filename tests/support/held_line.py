"""A line to a server on which a test counts round trips: what the server says waits until the test lets it through.

What the client says goes through at once. So whatever the client does before `let_through` it does without an answer,
and each `let_through` is one round trip.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, WSMsgType, web

from support.patience import PATIENCE

Message = dict[str, Any]


class HeldLine:
    """`host` leads to a server (`to`), for one client. Open until `hold` is called."""

    def __init__(self) -> None:
        self.target = ""
        self.host = ""
        self.said: list[Message] = []  # by the client
        self.waiting: list[str] = []  # of the server
        self.heard: list[Message] = []  # of the server, let through or not
        self.round_trips = 0
        self.hold_behind = ""  # a message of this type is the last that goes through by itself
        self._held = False
        self._client: web.WebSocketResponse | None = None
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://{self.host}"

    @asynccontextmanager
    async def to(self, target: str) -> AsyncIterator[None]:
        """Lead to the server at this URL. It has to know `host` as one of its names."""
        self.target = target
        yield

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        self._client = socket = web.WebSocketResponse(protocols=["aldis.v1"], timeout=0.5)
        await socket.prepare(request)
        host = {"Host": request.host}
        async with (
            ClientSession() as session,
            session.ws_connect(self.target, protocols=["aldis.v1"], headers=host) as other,
        ):
            back = asyncio.create_task(self._bring_back(other, socket))
            async for frame in socket:
                if frame.type is WSMsgType.TEXT and not other.closed:
                    self.said.append(json.loads(frame.data))
                    await other.send_str(frame.data)
                    self._changed.set()
            await other.close()
            await back
        return socket

    async def _bring_back(self, other: Any, socket: web.WebSocketResponse) -> None:
        async for frame in other:
            if frame.type is not WSMsgType.TEXT:
                continue
            self.waiting.append(frame.data)
            self.heard.append(json.loads(frame.data))
            self._changed.set()
            if not self._held:
                self._held = self.heard[-1]["type"] == self.hold_behind
                await self._send_waiting()
        await socket.close()

    async def _send_waiting(self) -> None:
        assert self._client is not None
        waiting, self.waiting = self.waiting, []
        for text in waiting:
            await self._client.send_str(text)

    def hold(self) -> None:
        """From now on what the server says waits."""
        self._held = True
        self.said.clear()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something is true of `said` or `waiting`."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def has(self, kind: str) -> bool:
        """Whether a message of this type waits."""
        return any(json.loads(text)["type"] == kind for text in self.waiting)

    async def open(self) -> None:
        """From now on nothing waits."""
        self._held = False
        self.hold_behind = ""
        await self._send_waiting()

    async def let_through(self) -> None:
        """One round trip: the client hears all that waits."""
        self.round_trips += 1
        await self._send_waiting()


@asynccontextmanager
async def held_line() -> AsyncIterator[HeldLine]:
    """A line on a free port of this machine."""
    line = HeldLine()
    application = web.Application()
    application.router.add_get("/", line.serve)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    line.host = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield line
    finally:
        await runner.cleanup()
