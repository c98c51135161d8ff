"""The admin port, for the operator and the operator's machines; it has no password and belongs on loopback.

GET /healthz    200 as long as the process answers
GET /readyz     200 when clients may be sent here, else 503 with the reason
GET /metrics    for Prometheus
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from aldis.server.listener import address_error, dual_stack
from aldis.server.metrics import CONTENT_TYPE, Metrics

# Seconds that a scrape under way may take when the server stops.
SHUTDOWN_TIMEOUT: Final = 1.0


def _no_bad_requests(record: logging.LogRecord) -> bool:
    """Keep aiohttp's tracebacks of requests that are no HTTP out of the log: they are answered with 400."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


class AdminSite:
    """Serves the admin port. `ready` returns None, or why no client should be sent here."""

    def __init__(self, metrics: Metrics, ready: Callable[[], Awaitable[str | None]]) -> None:
        self._metrics = metrics
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def listen(self, host: str, port: int) -> int:
        """Listen, and return the port; raises `ConfigError` when that is not possible."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._page)
        logger = logging.getLogger("aldis.admin")
        logger.addFilter(_no_bad_requests)
        self._runner = web.AppRunner(app, access_log=None, logger=logger, shutdown_timeout=SHUTDOWN_TIMEOUT)
        await self._runner.setup()
        try:
            dual = dual_stack(host, port)
            site = web.TCPSite(self._runner, host, port) if dual is None else web.SockSite(self._runner, dual)
            await site.start()
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
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"not ready: {reason}\n")

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.page(), headers={"Content-Type": CONTENT_TYPE})
