"""A server as a program: the signals, systemd, the event loop, and the limit of open files.

    SIGINT, SIGTERM    stop in good order; a second one ends the process at once
    SIGHUP             read the settings and the certificate again (`SignalingServer.reload`)

With several workers, `server.supervisor` has the signals; this runs each worker (`run_worker`).

`aldis serve` calls `run`. A program that embeds a server uses `SignalingServer`, and has signals of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from aldis.backends.directory_url import hosts_of
from aldis.errors import ConfigError
from aldis.server.app import SignalingServer
from aldis.server.config import ServerConfig
from aldis.server.garbage import Garbage
from aldis.server.log_addresses import ShownAddresses
from aldis.server.logs import configure, get_logger
from aldis.server.redirect import MAX_OPEN
from aldis.server.supervisor import Served, Supervisor
from aldis.server.systemd import Notifier, activated_sockets
from aldis.server.tuning import Tuning
from aldis.server.watchdog import Watchdog, signs_of_life
from aldis.server.worker_link import WorkerLink, WorkerReport

# File descriptors that are not clients: the ports, the database, the admin port's connections, and the handshakes and
# replies under way, and the redirects.
SPARE_DESCRIPTORS: Final = 256 + MAX_OPEN + Tuning().max_untaken
# The loop, the ports and the database take about 15. With fewer than this, no client fits.
FEWEST_DESCRIPTORS: Final = 64
# <malloc.h>; to set it also ends its growth.
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 128 * 1024
# <sys/prctl.h>: the signal that a process gets when the thread that started it ends.
_PR_SET_PDEATHSIG: Final = 1
# Nobody has more connections in one process. The table takes 8 bytes for each.
_MOST_DESCRIPTORS: Final = 65_536
# How long closing the directory and the ports may take, after the clients have gone.
_CLOSING_SECONDS: Final = 5.0

log = get_logger("aldis.server")


def run(
    config: ServerConfig,
    started: Callable[[SignalingServer | Served], None] | None = None,
    *,
    tuning: Tuning | None = None,
    reread: Callable[[], ServerConfig] | None = None,
) -> int:
    """Run a server until SIGINT or SIGTERM: in this process, or with several workers. A second signal ends it at once.
    Returns an exit code.

    `started` is called when the server accepts connections. `reread` reads the settings again, for SIGHUP. Logs to
    stderr as configured. Raises `ConfigError` and `DirectoryUnavailable` like `SignalingServer.start`.
    """
    _configure_log(config)
    for warning in config.warnings:
        log.warning(warning)
    notifier, given = Notifier(os.environ), activated_sockets(os.environ)
    if config.workers > 1:
        supervisor = Supervisor(
            *(config, given, notifier), tuning=tuning, reread=reread, started=started, configure_log=_configure_log
        )
        with asyncio.Runner() as runner:
            return runner.run(supervisor.run())
    _prepare(config)
    server = partial(SignalingServer, tuning=tuning, sockets=given)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Process(config, server, notifier, reread).serve(started))


def run_worker(descriptor: int) -> int:
    """Run one worker of a supervisor, whose line has this descriptor. Raises like `run`."""
    link = WorkerLink(descriptor)
    _end_with(link.start.supervisor)
    # Its process group is not that of the terminal, which may stop those that write to it (termios(3), TOSTOP).
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    config = link.config
    _configure_log(config, link.start.worker)
    _prepare(config)
    server = partial(SignalingServer, tuning=link.tuning, sockets=link.sockets())
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Process(config, server, Notifier({}), None, link).serve(None))


def _prepare(config: ServerConfig) -> None:
    """What makes this process fit for a server."""
    _raise_descriptor_limit(config)
    _make_descriptor_table()
    _return_large_buffers()


class _Process:
    """A running server, its signals, and what systemd is told."""

    def __init__(
        self,
        config: ServerConfig,
        make: Callable[[ServerConfig], SignalingServer],
        notifier: Notifier,
        reread: Callable[[], ServerConfig] | None,
        link: WorkerLink | None = None,
    ) -> None:
        self._config, self._make = config, make
        self._notifier = notifier
        self._reread = reread
        self._link = link
        self._asked = False
        self._told = False
        self._watchdog = Watchdog(config.watchdog_seconds)

    async def serve(self, started: Callable[[SignalingServer | Served], None] | None) -> int:
        """Serve until the process, its supervisor or an operator asks the server to stop."""
        loop = asyncio.get_running_loop()
        self._server = server = self._make(self._config)
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows: KeyboardInterrupt ends the wait below
                loop.add_signal_handler(number, self._stop, number)
        with suppress(NotImplementedError, AttributeError):  # Windows has no SIGHUP
            loop.add_signal_handler(signal.SIGHUP, self._reload if self._link is None else _nothing)
        if self._link is not None:
            await self._link.listen(self._obey)
        # From before it says that it serves: a server that hangs at once has to end, too.
        turning = signs_of_life(self._watchdog.alive, self._watchdog.interval)
        own_watchdog = asyncio.create_task(turning, name="aldis-own-watchdog")
        try:
            async with server:
                await self._serve(server, started)
        finally:
            own_watchdog.cancel()
            self._watchdog.stop()
        return 0

    async def _serve(self, server: SignalingServer, started: Callable[[SignalingServer | Served], None] | None) -> None:
        self._notifier.ready(f"Serving at {server.url}")
        self._report_serving()
        watchdog = asyncio.create_task(signs_of_life(*self._sign_to_others()), name="aldis-watchdog")
        garbage = asyncio.create_task(_look_for_garbage(), name="aldis-garbage")
        try:
            if started is not None:
                started(server)
            await server.asked_to_stop()
            if self._link is not None and not (self._asked or self._told):
                self._link.report(WorkerReport(report="stopping"))
            drain = server.config.drain_seconds
            self._notifier.stopping(f"Draining {len(server.connections)} connections", drain + _CLOSING_SECONDS)
            await server.stop()
        finally:
            watchdog.cancel()
            garbage.cancel()

    def _stop(self, number: signal.Signals) -> None:
        if self._asked:
            log.warning("stopped at once", signal=number.name)
            sys.stderr.flush()
            # Nothing is lost: everything that clients were told is on the disk.
            os._exit(128 + number)
        log.info("asked to stop; once more to stop at once", signal=number.name)
        self._asked = True
        self._server.ask_to_stop()

    def _obey(self, is_replaced: bool) -> None:
        """The supervisor has asked to stop, or has ended."""
        self._told = True
        self._server.ask_to_stop(is_replaced=is_replaced)

    def _report_serving(self) -> None:
        server = self._server
        if self._link is not None:
            self._link.report(
                WorkerReport(
                    report="serving",
                    url=server.url,
                    page=server.page_url,
                    port=server.port,
                    admin_port=server.admin_port,
                )
            )

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
            _configure_log(server.config)
        # Also after a failure: the service is as ready as before, and systemd waits for this.
        self._notifier.ready(f"Serving at {server.url}{'' if reloaded else '; the last reload failed, see the log'}")

    def _sign_to_others(self) -> tuple[Callable[[], None], float | None]:
        """What tells systemd or the supervisor that the event loop turns, and how often."""
        link = self._link
        if link is None:
            return self._notifier.alive, self._notifier.watchdog
        return partial(link.report, WorkerReport(report="alive")), link.start.alive_every


async def _look_for_garbage() -> None:
    garbage = Garbage(gc, sys.getallocatedblocks)
    garbage.start(monotonic())
    while True:
        await asyncio.sleep(1.0)
        garbage.tick(monotonic())


def _nothing() -> None:
    """A worker takes new settings from its supervisor alone, and hears of its end by `WorkerLink`."""


def _end_with(supervisor: int) -> None:
    """Have the kernel end this process when its supervisor ends during the start; later, `WorkerLink` notices it.

    Not with SIGTERM: the signal comes once for each thread of the supervisor that held this process (prctl(2)), and a
    second SIGTERM would end it at once.
    """
    if sys.platform != "linux":
        return
    with suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGHUP)
    # A frozen program has a process of its own between the two.
    if os.getppid() != supervisor and not getattr(sys, "frozen", False):
        raise EOFError("the supervisor has ended")


def _configure_log(config: ServerConfig, worker: int | None = None) -> None:
    hosts = [urlsplit(f"//{name}").hostname or "" for name in config.names]
    hosts += [*hosts_of(config.redis), *hosts_of(config.directory)]
    own = (config.host, config.admin_host, config.turn_address, *hosts)
    configure(config.log_format, config.log_level, ShownAddresses(config.log_addresses, own), worker)


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


def _make_descriptor_table() -> None:
    """Have the kernel make the table of open files as large as it will be.

    Linux doubles the table when it is full. In a process with several threads that waits for all processors
    (`synchronize_rcu` in fs/file.c), 10 ms or more, in which the event loop stands still within `accept`.
    """
    if sys.platform != "linux":
        return
    import fcntl
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = min(limit, _MOST_DESCRIPTORS) if limit != resource.RLIM_INFINITY else _MOST_DESCRIPTORS
    with suppress(OSError), Path(os.devnull).open("rb") as file:
        os.close(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, highest - 1))


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
