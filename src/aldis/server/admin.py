"""The admin port, for the operator's tools. Only the API has a password, so keep the port on loopback.

GET /healthz    200 while the process answers
GET /readyz     200 when the server is ready for clients, with what does not work although; else 503 with the reason
GET /metrics    metrics for Prometheus
/api/v1/...     the admin API (`server.admin_api`)
GET /           the operator's page (`server/admin_page/`), which asks the API
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from aldis.server.admin_api import AdminApi
from aldis.server.metrics import CONTENT_TYPE, Metrics
from aldis.server.sockets import address_error, dual_stack

# Seconds that a running scrape may take when the server stops.
SHUTDOWN_TIMEOUT: Final = 1.0
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
    ) -> None:
        self._metrics = metrics
        self._notes = notes
        self._api = api
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def listen(self, host: str, port: int, given: Sequence[socket.socket] = ()) -> int:
        """Listen, and return the port. With `given` sockets, `host` and `port` are not used. Raises `ConfigError` when
        the port cannot be opened."""
        app = web.Application()
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
            sockets = list(given)
            if not sockets and (dual := dual_stack(host, port)) is not None:
                sockets = [dual]
            for one in sockets:
                await web.SockSite(self._runner, one).start()
            if not sockets:
                await web.TCPSite(self._runner, host, port).start()
        except (OSError, ValueError) as error:
            raise address_error("admin_", host, port, error) from error
        return cast(int, self._runner.addresses[0][1])

    async def close(self) -> None:
        """Close the port and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()

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
        return web.Response(body=self._metrics.page(), headers={"Content-Type": CONTENT_TYPE})
