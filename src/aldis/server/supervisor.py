"""The supervisor of several workers: it opens the ports, starts the workers, and does what `supervision` decides.

    SIGINT, SIGTERM    all workers drain; a second one ends all at once
    SIGHUP             read the settings, and replace the workers one by one

It serves no client and has no hub. Beside the workers it runs the TURN server, so that no relay ends with a worker, and
tells systemd how the service is. A worker is a process (`aldis serve-worker`) in a process group of its own, so Ctrl-C
in a terminal reaches the supervisor alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from aldis.errors import ConfigError
from aldis.server.certificate_updates import CertificateUpdates
from aldis.server.config import ServerConfig
from aldis.server.logs import get_logger
from aldis.server.names import ServerNames
from aldis.server.supervision import (
    CLOSING_SECONDS,
    Close,
    Command,
    Drain,
    Finished,
    Kill,
    Pause,
    Phase,
    Replaced,
    Reread,
    Serving,
    Start,
    Supervision,
)
from aldis.server.systemd import ActivatedSockets, Notifier
from aldis.server.tuning import Tuning
from aldis.server.turn_folder import turn_settings
from aldis.server.turn_server import TurnServer
from aldis.server.watchdog import Watchdog
from aldis.server.worker_link import WorkerOrder, WorkerReport, WorkerStart, encode, receive, to_plain
from aldis.server.worker_ports import WorkerPorts, check_sockets
from aldis.server.worker_settings import changed_ports, for_worker

# A worker that has not reported for so many intervals hangs, and is killed before systemd ends them all.
SILENT_INTERVALS: Final = 1.5
COMMAND: Final = "serve-worker"

log = get_logger("aldis.server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is served together by all workers, as a single server tells it."""

    config: ServerConfig
    url: str
    page_url: str | None
    port: int


@dataclass(slots=True)
class _Worker:
    number: int
    slot: int
    config: ServerConfig
    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    served: bool = False
    heard: float = 0.0


class Supervisor:
    """The workers of one server. `await run()` returns the exit code."""

    def __init__(
        self,
        config: ServerConfig,
        given: ActivatedSockets,
        notifier: Notifier,
        *,
        tuning: Tuning | None = None,
        reread: Callable[[], ServerConfig] | None = None,
        started: Callable[[Served], None] | None = None,
        configure_log: Callable[[ServerConfig], None],
    ) -> None:
        self._config = config
        # The settings that were read last; they hold once a worker serves with them.
        self._candidate = config
        self._given, self._notifier = given, notifier
        self._tuning = tuning or Tuning()
        self._reread, self._started, self._configure_log = reread, started, configure_log
        self._ports = WorkerPorts(config, given, log)
        self._turn = TurnServer(turn_settings(config), get_logger("aldis.turn")) if config.turn_server else None
        self._certificates = CertificateUpdates(
            config, ServerNames(config.names, secure=config.secure), self._turn, self._tuning, get_logger("aldis.tls")
        )
        self._supervision = Supervision(config.workers, config.drain_seconds, config.handshake_timeout)
        self._watchdog = Watchdog(config.watchdog_seconds)
        self._workers: dict[int, _Worker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._asked = False
        self._url, self._port = "", 0
        self._page: str | None = None
        # The secret of the TURN server before a replacement.
        self._earlier_secret = ""

    async def run(self) -> int:
        """Serve until a signal or an operator stops it. Raises `ConfigError` like `SignalingServer.start`."""
        self._finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with AsyncExitStack() as stack:
            check_sockets(self._given, self._config)
            stack.callback(self._ports.close)
            await self._ports.open()
            for slot in range(self._config.workers):
                await self._ports.of(slot)  # all or none: a port that is taken is told before anything runs
            if self._turn is not None:
                self._certificates.open()
                await self._turn.start()
                stack.push_async_callback(self._turn.close)
            stack.callback(self._kill_all)
            self._listen_to_signals()
            self._look_every = asyncio.create_task(self._look(), name="aldis-supervisor-look")
            stack.callback(self._watchdog.stop)
            stack.callback(self._look_every.cancel)
            self._carry_out(self._supervision.start(monotonic()))
            code = await self._finished
            if self._timer is not None:
                self._timer.cancel()
        return code

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    # --- what it is asked -------------------------------------------------------------------------------------------

    def _stop(self, number: signal.Signals) -> None:
        if self._asked:
            log.warning("stopped at once", signal=number.name)
            sys.stderr.flush()
            self._kill_all()
            os._exit(128 + number)
        log.info("asked to stop; once more to stop at once", signal=number.name)
        self._asked = True
        self._stop_all()

    def _stop_all(self) -> None:
        drain = self._config.drain_seconds + CLOSING_SECONDS
        self._notifier.stopping(f"Draining {len(self._workers)} workers", drain)
        self._carry_out(self._supervision.stop(monotonic()))

    def _hang_up(self) -> None:
        if self._supervision.phase != Phase.RUNNING:
            log.info("asked for new settings; they are read when what is under way is done")
        self._carry_out(self._supervision.hang_up(monotonic()))

    def _read_again(self) -> None:
        """Take over the settings, or say why they cannot be used."""
        self._notifier.reloading()
        try:
            read = self._config if self._reread is None else self._reread()
            config, fixed = changed_ports(self._config, read)
            check_sockets(self._given, config)
        except ConfigError as error:
            log.error("the new settings cannot be used; the earlier ones stay", reason=str(error))  # noqa: TRY400
            self._keep()
            return
        except Exception:
            # A bug: a later SIGHUP has to be heard all the same.
            log.exception("the new settings cannot be read; the earlier ones stay")
            self._keep()
            return
        if not self._certificates.load(config):  # it says why
            self._keep()
            return
        for warning in config.warnings:
            log.warning(warning)
        if fixed:
            log.warning("these settings change at a restart only", settings=fixed)
        self._earlier_secret = "" if self._turn is None else self._turn.secret
        self._use_turn_secret(config.turn_secret, config.turn_credential_lifetime)
        log.info("replacing the workers", workers=config.workers)
        self._candidate = config
        seconds = (config.drain_seconds, config.handshake_timeout)
        self._carry_out(self._supervision.replace(config.workers, *seconds, monotonic()))

    def _keep(self) -> None:
        self._ready(" the last reload failed, see the log")
        self._carry_out(self._supervision.keep(monotonic()))

    def _use_turn_secret(self, secret: str, lifetime: int) -> None:
        """`lifetime`: that of credentials from now on. Those with the earlier secret may have the earlier one."""
        if self._turn is not None and secret and secret != self._turn.secret:
            self._turn.change(self._turn.rotate(secret, max(lifetime, self._config.turn_credential_lifetime)))

    def _ready(self, failure: str = "") -> None:
        status = f"Serving at {self._url} with {self._config.workers} workers"
        self._notifier.ready(f"{status};{failure}" if failure else status)

    # --- what is decided --------------------------------------------------------------------------------------------

    def _carry_out(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Start():
                    config = self._candidate if command.renewed else self._config
                    self._run(self._live(command.slot, command.worker, config))
                case Drain(number, replaced):
                    self._order(number, replaced=replaced)
                case Kill(number):
                    log.error("a worker takes too long, and is killed", **self._of(number))
                    self._signal(number, signal.SIGKILL)
                case Pause(slot, seconds):
                    self._ports.pause(slot)  # before it is said: who reads that may connect
                    log.warning("a worker dies again and again; the next try is later", worker=slot, seconds=seconds)
                case Close(slot):
                    self._ports.close_slot(slot)
                case Reread():
                    self._read_again()
                case Serving():
                    self._serving()
                case Replaced():
                    self._replaced(command)
                case Finished(code):
                    if not self._finished.done():
                        self._finished.set_result(code)
        self._wait_until_due()

    def _wait_until_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._supervision.due
        if due is not None and not self._finished.done():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due - monotonic()), self._tick)

    def _tick(self) -> None:
        self._carry_out(self._supervision.tick(monotonic()))

    def _serving(self) -> None:
        log.info("all workers serve", url=self._url, workers=self._config.workers)
        self._ready()
        if self._started is not None:
            self._started(Served(config=self._config, url=self._url, page_url=self._page, port=self._port))

    def _replaced(self, outcome: Replaced) -> None:
        if outcome.complete:
            log.info("all workers are new", workers=self._config.workers)
            self._ready()
            return
        if not outcome.usable:
            self._use_turn_secret(self._earlier_secret, self._candidate.turn_credential_lifetime)
        text = "a new worker does not serve; "
        text += "the workers that are not replaced stay" if outcome.usable else "the earlier workers and settings stay"
        log.error(text)
        self._ready(" the last reload failed, see the log")

    # --- workers ----------------------------------------------------------------------------------------------------

    def _run(self, life: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(life, name="aldis-worker")
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._finished.done():
            self._finished.set_exception(error)  # a bug: better no server than one that nobody watches

    async def _live(self, slot: int, number: int, config: ServerConfig) -> None:
        """One worker from its start to its end."""
        code = 1
        try:
            worker, reader = await self._spawn(slot, number, config)
        except (ConfigError, OSError) as error:
            log.error("a worker cannot be started", worker=slot, reason=str(error))  # noqa: TRY400
        else:
            self._workers[number] = worker
            if number in self._supervision.ending:  # it was told so before it could hear it
                self._order(number, replaced=False)
            await self._listen(worker, reader)
            code = await self._end_of(worker)
            worker.writer.close()
            del self._workers[number]
            self._tell_end(worker, code)
        self._carry_out(self._supervision.ended(number, code, monotonic()))

    async def _listen(self, worker: _Worker, reader: asyncio.StreamReader) -> None:
        """Hear what a worker reports, until it has ended."""
        while True:
            try:
                report = await receive(reader, WorkerReport)
            except msgspec.ValidationError:  # a report of another release
                continue
            except (msgspec.DecodeError, RecursionError) as error:
                text = "a worker says what nobody can read, and is killed"
                log.error(text, **self._of(worker.number), reason=str(error))  # noqa: TRY400 - no traceback is of use
                self._signal(worker.number, signal.SIGKILL)
                return
            if report is None:
                return
            self._hear(worker, report)

    async def _end_of(self, worker: _Worker) -> int:
        """The exit code of a worker whose line has ended: it serves nobody any more, and nobody can tell it to stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                return await worker.process.wait()
        log.error("a worker has left its line and does not end; it is killed", **self._of(worker.number))
        self._signal(worker.number, signal.SIGKILL)
        return await worker.process.wait()

    async def _spawn(self, slot: int, number: int, config: ServerConfig) -> tuple[_Worker, asyncio.StreamReader]:
        sockets = await self._ports.of(slot)
        turn = None if self._turn is None else self._turn.settings
        # The TURN server may be about to take a new one; it takes both then.
        secret = "" if self._turn is None else config.turn_secret or self._turn.secret
        start = WorkerStart(
            worker=slot,
            settings=to_plain(for_worker(config, turn=turn, secret=secret, stun=self._ports.stun)),
            supervisor=os.getpid(),
            tuning=asdict(self._tuning),
            public=[one.fileno() for one in sockets.public],
            redirect=[one.fileno() for one in sockets.redirect],
            admin=[one.fileno() for one in sockets.admin],
            stun=[one.fileno() for one in sockets.stun],
            alive_every=self._alive_every(config),
        )
        ours, theirs = socket.socketpair()
        with theirs:
            passed = [theirs.fileno(), *start.public, *start.redirect, *start.admin, *start.stun]
            command, environment = _command()
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                env=environment,
                pass_fds=passed,
                process_group=0,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(encode(start))
        return _Worker(number, slot, config, process, writer), reader

    def _hear(self, worker: _Worker, report: WorkerReport) -> None:
        worker.heard = monotonic()
        if report.report == "stopping":
            log.info("an operator has asked a worker to stop; all of them do", worker=worker.slot)
            self._stop_all()
        elif report.report == "serving":
            worker.served = True
            if worker.config is not self._config and worker.config is self._candidate:
                self._config = worker.config
                self._configure_log(self._config)
            self._url, self._page, self._port = report.url, report.page, report.port
            admin = {} if report.admin_port is None else {"admin_port": report.admin_port}
            log.info("a worker serves", worker=worker.slot, pid=worker.process.pid, **admin)
            self._carry_out(self._supervision.serving(worker.number, monotonic()))

    def _tell_end(self, worker: _Worker, code: int) -> None:
        how: dict[str, object] = {"exit_code": code} if code >= 0 else {"signal": _name_of(-code)}
        tell = log.info if worker.number in self._supervision.ending and code == 0 else log.error
        tell("a worker has ended", worker=worker.slot, pid=worker.process.pid, **how)

    def _order(self, number: int, *, replaced: bool) -> None:
        worker = self._workers.get(number)
        if worker is not None and not worker.writer.is_closing():
            worker.writer.write(encode(WorkerOrder(order="stop", replaced=replaced)))

    def _signal(self, number: int, which: signal.Signals) -> None:
        worker = self._workers.get(number)
        if worker is not None and worker.process.returncode is None:
            with suppress(ProcessLookupError):
                worker.process.send_signal(which)

    def _kill_all(self) -> None:
        for number in list(self._workers):
            self._signal(number, signal.SIGKILL)

    def _of(self, number: int) -> dict[str, object]:
        worker = self._workers.get(number)
        return {} if worker is None else {"worker": worker.slot, "pid": worker.process.pid}

    async def _look(self) -> None:
        """Once in a while: at the certificate for the TURN server, and whether workers hang; then tell systemd."""
        every = min(filter(None, (self._tuning.tick, self._notifier.watchdog, self._watchdog.interval)))
        while True:
            self._watchdog.alive()
            await asyncio.sleep(every)
            now = monotonic()
            self._certificates.tick(now)
            for worker in self._workers.values():
                told = self._alive_every(worker.config)
                if worker.served and told is not None and now - worker.heard > 2 * told * SILENT_INTERVALS:
                    log.error("a worker hangs, and is killed", **self._of(worker.number))
                    worker.served = False
                    self._signal(worker.number, signal.SIGKILL)
            if self._notifier.watchdog is not None:
                self._notifier.alive()

    def _alive_every(self, config: ServerConfig) -> float | None:
        """How often a worker reports: half of the shorter time after which it is taken to hang."""
        times = [self._notifier.watchdog or 0.0, config.watchdog_seconds / 2]
        return min(filter(None, times), default=None)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most of the real-time signals have none
        return f"signal {number}"


def _command() -> tuple[list[str], dict[str, str]]:
    """What starts a worker, but for its descriptor, and the environment for it."""
    environment = dict(os.environ)
    if getattr(sys, "frozen", False):
        return [sys.executable, COMMAND], environment
    # The package that runs here, and none in the folder where somebody has started it (`-P`).
    package = str(Path(__file__).resolve().parents[2])
    path = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{package}{os.pathsep}{path}" if path else package
    return [sys.executable, "-P", "-m", "aldis", COMMAND], environment
