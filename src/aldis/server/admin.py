"""The admin port, for the operator's tools. Only the API has a password, so keep the port on loopback.

GET /healthz    200 while the process answers
GET /readyz     200 when the server is ready for clients, with what does not work although; else 503 with the reason
GET /metrics    metrics for Prometheus
/api/v1/...     the admin API (`server.admin_api`)
GET /           the operator's page (`server/admin_page/`), which asks the API

How much of the event loop and how many connections it may have: `server.admin_gate`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.resources import files
from time import monotonic
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from aldis.server.acceptor import Acceptor
from aldis.server.admin_api import AdminApi
from aldis.server.admin_gate import AdminGate
from aldis.server.metrics import CONTENT_TYPE, Metrics
from aldis.server.sockets import address_error, listening_sockets

# The outcome of a request, or of a connection without one, that had to go for another one.
CROWDED_OUT: Final = "admin-crowded"
# Seconds that a running scrape may take when the server stops.
SHUTDOWN_TIMEOUT: Final = 1.0
# Seconds for which a page of metrics is sent again while more requests wait: to make one takes two milliseconds.
AS_IT_WAS: Final = 1.0
_PAGE: Final = {"/": "index.html", "/admin.js": "admin.js", "/admin.css": "admin.css"}
_KINDS: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_PAGE_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _no_bad_requests(record: logging.LogRecord) -> bool:
    """Keep aiohttp's tracebacks of invalid HTTP out of the log: such requests get a 400."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class AdminSite:
    """Serves the admin port. `ready` returns None, or why the server is not ready for clients.

    `notes` are lines about what does not work although it is ready.
    """

    def __init__(
        self,
        metrics: Metrics,
        ready: Callable[[], Awaitable[str | None]],
        api: AdminApi,
        notes: Callable[[], list[str]] = list,
        *,
        fault: Callable[[Exception], None],
        outcomes: Counter[str],
    ) -> None:
        self._metrics = metrics
        self._notes = notes
        self._api = api
        self._ready = ready
        self._runner: web.AppRunner | None = None
        self._gate = AdminGate(self._protocol, lambda: outcomes.update([CROWDED_OUT]))
        self._made = b"", 0.0  # the last page of metrics, and when
        self._acceptor = Acceptor(self._gate, fault)

    async def listen(self, host: str, port: int, given: Sequence[socket.socket] = ()) -> int:
        """Listen, and return the port. With `given` sockets, `host` and `port` are not used. Raises `ConfigError` when
        the port cannot be opened."""
        app = web.Application(middlewares=[self._in_turn()])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._page)
        self._api.add_to(app)
        for path, name in _PAGE.items():
            app.router.add_get(path, partial(self._file, name))
        logger = logging.getLogger("aldis.admin")
        logger.addFilter(_no_bad_requests)
        self._runner = web.AppRunner(app, access_log=None, logger=logger, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await self._runner.setup()
        try:
            for each in list(given) or await listening_sockets(host, port):
                self._acceptor.add(each)
        except (OSError, ValueError) as error:
            raise address_error("admin_", host, port, error) from error
        return cast(int, self._acceptor.port)

    async def close(self) -> None:
        """Close the port and its connections."""
        self._acceptor.close()
        self._gate.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _in_turn(self) -> Middleware:
        @web.middleware
        async def in_turn(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._gate.handle(request, handler)

        return in_turn

    def _protocol(self) -> asyncio.Protocol:
        assert self._runner is not None  # noqa: S101 - `listen` makes it before it accepts
        assert self._runner.server is not None  # noqa: S101
        return self._runner.server()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        reason = await self._ready()
        if reason is None:
            return web.Response(text="".join(f"{line}\n" for line in ("ready", *self._notes())))
        return web.Response(status=503, text=f"not ready: {reason}\n")

    async def _file(self, name: str, request: web.Request) -> web.Response:
        data = files("aldis.server").joinpath("admin_page", name).read_bytes()
        kind = _KINDS[name.rpartition(".")[2]]
        return web.Response(body=data, content_type=kind, charset="utf-8", headers=_PAGE_HEADERS)

    async def _page(self, request: web.Request) -> web.Response:
        page, made_at = self._made
        now = monotonic()
        if not self._gate.crowded or now - made_at >= AS_IT_WAS:
            page = self._metrics.page()
            self._made = page, now
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})
