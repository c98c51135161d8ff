"""The operator's application, as a real HTTP server on loopback: it shows keys, decides on registrations, and is told
who is online. It can refuse, hang and die."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import ssl
import time
from contextlib import suppress
from typing import Any

from aiohttp import web

from support.certificates import Certificates
from support.patience import PATIENCE
from support.ports import free_port

SECRET = "a secret of server and application"


class Application:
    """`async with Application() as app`: its URLs are `app.url("/jwks")` and so on.

    `answers` has what a path answers with: bytes, a JSON value, or a response. Paths in `hanging` do not answer until
    `let_go`.
    """

    def __init__(self, *, tls: Certificates | None = None, **answers: Any) -> None:
        """`tls`: with https, by this certificate."""
        self.port = free_port()
        self._tls = tls
        self.answers: dict[str, Any] = {f"/{name}": value for name, value in answers.items()}
        self.hanging: set[str] = set()
        self.requests: list[tuple[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._grown = asyncio.Condition()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def url(self, path: str) -> str:
        return f"http{'' if self._tls is None else 's'}://127.0.0.1:{self.port}{path}"

    def hook(self, **settings: Any) -> dict[str, Any]:
        """The settings of a server that asks this application."""
        return {"hook_url": self.url("/hook"), "hook_secret": SECRET, "hook_cache": 0, **settings}

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._tls.cert, self._tls.key)
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context).start()

    async def die(self) -> None:
        """Nothing listens any more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self._released.set()
            await runner.cleanup()

    def let_go(self) -> None:
        """Answer what hangs."""
        self.hanging.clear()
        self._released.set()

    async def asked(self, number: int) -> None:
        """Wait for so many requests."""
        await self._wait(lambda: len(self.requests) >= number)

    async def told(self, number: int) -> list[dict[str, Any]]:
        """Wait for so many presence events, and return all."""
        await self._wait(lambda: len(self.events) >= number)
        return self.events

    async def _wait(self, done: Any) -> None:
        async with asyncio.timeout(PATIENCE), self._grown:
            await self._grown.wait_for(done)

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        content = json.loads(body) if body else None
        async with self._grown:
            self.requests.append((request.path, content))
            self.headers.append(dict(request.headers))
            self._grown.notify_all()
        if request.method == "POST":
            check_signature(request.headers["Aldis-Timestamp"], request.headers["Aldis-Signature"], body)
        if request.path in self.hanging:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._released.wait(), PATIENCE)
        answer = self.answers.get(request.path, {})
        if isinstance(answer, web.Response):
            return answer
        if callable(answer):
            answer = answer(content)
            if isinstance(answer, web.Response):
                return answer
        if isinstance(content, dict) and content.get("type") == "presence":
            async with self._grown:
                self.events += content["events"]
                self._grown.notify_all()
        return web.Response(body=answer) if isinstance(answer, bytes) else web.json_response(answer)

    async def __aenter__(self) -> Application:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()


def check_signature(timestamp: str, signature: str, body: bytes) -> None:
    """As an application should: the right secret, and a moment ago."""
    assert abs(time.time() - int(timestamp)) < 60
    expected = hmac.new(SECRET.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert signature == f"sha256={expected}"
