"""A server as a program: the signals, the event loop, and the limit of open files.

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
from typing import Final

from aldis.errors import ConfigError
from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from aldis.server.logs import configure, get_logger
from aldis.server.redirect import MAX_OPEN
from aldis.server.tuning import Tuning

# File descriptors that are not clients: the ports, the database, the admin port's connections, and the handshakes and
# replies under way, and the redirects.
SPARE_DESCRIPTORS: Final = 256 + MAX_OPEN + Tuning().max_untaken
# The loop, the ports and the database take about 15. With fewer than this, no client fits.
FEWEST_DESCRIPTORS: Final = 64
# <malloc.h>; to set it also ends its growth.
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 128 * 1024

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
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(config, started, tuning, reread))


async def _serve(
    config: ServerConfig,
    started: Callable[[SignalingServer], None] | None,
    tuning: Tuning | None,
    reread: Callable[[], ServerConfig] | None,
) -> int:
    loop = asyncio.get_running_loop()
    server = SignalingServer(config, tuning=tuning)
    asked = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal asked
        if asked:
            log.warning("stopped at once", signal=number.name)
            sys.stderr.flush()
            # Nothing is lost: everything that clients were told is on the disk.
            os._exit(128 + number)
        log.info("asked to stop; once more to stop at once", signal=number.name)
        asked = True
        server.ask_to_stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: KeyboardInterrupt ends the wait below
            loop.add_signal_handler(number, on_signal, number)
    with suppress(NotImplementedError, AttributeError):  # Windows has no SIGHUP
        loop.add_signal_handler(signal.SIGHUP, _reload, server, reread)
    async with server:
        if started is not None:
            started(server)
        await server.serve_forever()
    return 0


def _reload(server: SignalingServer, reread: Callable[[], ServerConfig] | None) -> None:
    """Take over what has changed in the settings; if they cannot be used, say why, and leave everything as it is."""
    try:
        config = server.config if reread is None else reread()
        _raise_descriptor_limit(config)
    except ConfigError as error:
        log.error("the new settings cannot be used; the earlier ones stay", reason=str(error))  # noqa: TRY400
        return
    if server.reload(config):
        for warning in config.warnings:
            log.warning(warning)
        logging.getLogger().setLevel(config.log_level.upper())


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
    import ctypes

    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
