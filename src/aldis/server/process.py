"""A server as a program: the signals, systemd, the event loop, and the limit of open files.

    SIGINT, SIGTERM    stop in good order; a second one ends the process at once
    SIGHUP             read the settings and the certificate again (`SignalingServer.reload`)

`aldis serve` calls `run`. A program that embeds a server uses `SignalingServer`, and has signals of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from aldis.errors import ConfigError
from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from aldis.server.logs import configure, get_logger
from aldis.server.redirect import MAX_OPEN
from aldis.server.systemd import Notifier, activated_sockets
from aldis.server.tuning import Tuning

# File descriptors that are not clients: the ports, the database, the admin port's connections, and the handshakes and
# replies under way, and the redirects.
SPARE_DESCRIPTORS: Final = 256 + MAX_OPEN + Tuning().max_untaken
# The loop, the ports and the database take about 15. With fewer than this, no client fits.
FEWEST_DESCRIPTORS: Final = 64
# <malloc.h>; to set it also ends its growth.
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 128 * 1024
# How long closing the directory and the ports may take, after the clients have gone.
_CLOSING_SECONDS: Final = 5.0

log = get_logger("aldis.server")


def run(
    config: ServerConfig,
    started: Callable[[SignalingServer], None] | None = None,
    *,
    tuning: Tuning | None = None,
    reread: Callable[[], ServerConfig] | None = None,
) -> int:
    """Run a server in this process until SIGINT or SIGTERM. A second signal ends it at once. Returns an exit code.

    `started` is called when the server accepts connections. `reread` reads the settings again, for SIGHUP. Logs to
    stderr as configured. Raises `ConfigError` and `DirectoryUnavailable` like `SignalingServer.start`.
    """
    configure(config.log_format, config.log_level)
    for warning in config.warnings:
        log.warning(warning)
    _raise_descriptor_limit(config)
    _return_large_buffers()
    notifier = Notifier(os.environ)
    server = partial(SignalingServer, tuning=tuning, sockets=activated_sockets(os.environ))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Process(config, server, notifier, reread).serve(started))


class _Process:
    """A running server, its signals, and what systemd is told."""

    def __init__(
        self,
        config: ServerConfig,
        make: Callable[[ServerConfig], SignalingServer],
        notifier: Notifier,
        reread: Callable[[], ServerConfig] | None,
    ) -> None:
        self._config, self._make = config, make
        self._notifier = notifier
        self._reread = reread
        self._asked = False

    async def serve(self, started: Callable[[SignalingServer], None] | None) -> int:
        """Serve until the process or an operator asks the server to stop."""
        loop = asyncio.get_running_loop()
        self._server = server = self._make(self._config)
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows: KeyboardInterrupt ends the wait below
                loop.add_signal_handler(number, self._stop, number)
        with suppress(NotImplementedError, AttributeError):  # Windows has no SIGHUP
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with server:
            self._notifier.ready(f"Serving at {server.url}")
            watchdog = asyncio.create_task(self._sign_of_life(), name="aldis-watchdog")
            try:
                if started is not None:
                    started(server)
                await server.asked_to_stop()
                drain = server.config.drain_seconds
                self._notifier.stopping(f"Draining {len(server.connections)} connections", drain + _CLOSING_SECONDS)
                await server.stop()
            finally:
                watchdog.cancel()
        return 0

    def _stop(self, number: signal.Signals) -> None:
        if self._asked:
            log.warning("stopped at once", signal=number.name)
            sys.stderr.flush()
            # Nothing is lost: everything that clients were told is on the disk.
            os._exit(128 + number)
        log.info("asked to stop; once more to stop at once", signal=number.name)
        self._asked = True
        self._server.ask_to_stop()

    def _reload(self) -> None:
        """Take over what has changed in the settings. If they cannot be used, say why, and change nothing."""
        server = self._server
        self._notifier.reloading()
        try:
            config = server.config if self._reread is None else self._reread()
            _raise_descriptor_limit(config)
        except ConfigError as error:
            log.error("the new settings cannot be used; the earlier ones stay", reason=str(error))  # noqa: TRY400
            reloaded = False
        else:
            reloaded = server.reload(config)
        if reloaded:
            for warning in config.warnings:
                log.warning(warning)
            logging.getLogger().setLevel(config.log_level.upper())
        # Also after a failure: the service is as ready as before, and systemd waits for this.
        self._notifier.ready(f"Serving at {server.url}{'' if reloaded else '; the last reload failed, see the log'}")

    async def _sign_of_life(self) -> None:
        """Tell the watchdog that the event loop turns."""
        seconds = self._notifier.watchdog
        while seconds is not None:
            self._notifier.alive()
            await asyncio.sleep(seconds)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None  # Windows has no limit
    return uvloop.Loop


def _raise_descriptor_limit(config: ServerConfig) -> None:
    """Raise the limit of file descriptors as far as this user may; warn when it is below the number of connections.

    Raises `ConfigError` when there are too few for any client.
    """
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = config.max_connections + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if max(soft, allowed) < FEWEST_DESCRIPTORS:
            problem = (
                f"this process may open {max(soft, allowed)} files, and a server needs {FEWEST_DESCRIPTORS} at least"
            )
            raise ConfigError("max_connections", f"{problem}; raise the limit (`ulimit -n`)")
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
        if max(soft, allowed) < wanted:
            log.warning(
                "the limit on open files is lower than max_connections needs", limit=max(soft, allowed), wanted=wanted
            )


def _return_large_buffers() -> None:
    """Keep glibc from taking the large buffers of event loops from its heap.

    Each TLS connection has a read buffer of 256 KiB, of which it touches one page, if the buffer comes from the kernel
    (mmap). After the first of them is freed, glibc takes the next ones from its heap, where many pages are touched
    already: an idle connection then costs 50 KiB instead of 29.
    """
    if sys.platform != "linux":
        return
    with suppress(ImportError, MemoryError, OSError, AttributeError):  # another libc, or a kernel that forbids it
        import ctypes

        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
