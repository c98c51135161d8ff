"""A whole server: the hub, its directory, the two ports, the clock, and the orderly stop.

    async with SignalingServer(ServerConfig(port=0, data=":memory:")) as server:
        print(server.url)
        await server.serve_forever()

Stopping takes `drain_seconds` at most. The server accepts no more connections, lets the directory answer the open
questions, leaves the sessions for the next process, tells clients when to come back, closes with 4000, reads on
until they have closed too, and closes the directory.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final

from aldis.backends.base import Directory, DirectoryUnavailable, Question, answer
from aldis.backends.memory import MemoryDirectory
from aldis.backends.sqlite import SqliteDirectory
from aldis.backends.sqlite_file import FILE_NAME
from aldis.errors import ConfigError, StateError
from aldis.hub.hub import Hub
from aldis.hub.settings import HubSettings
from aldis.server.addresses import AddressLimits
from aldis.server.administration import Administration, admin_token
from aldis.server.admission import Admission
from aldis.server.ban_file import FILE_NAME as BANS_NAME
from aldis.server.ban_file import BanFile
from aldis.server.config import MEMORY, ServerConfig, changes
from aldis.server.handover_file import FILE_NAME as HANDOVER_NAME
from aldis.server.handover_file import HandoverFile
from aldis.server.listener import Listener, address_error
from aldis.server.logs import OUTAGE_SECONDS, FaultLog, OutageLog, get_logger
from aldis.server.metrics import DirectoryStats, Metrics, ServerCollector
from aldis.server.names import ServerNames
from aldis.server.origins import OriginPolicy, is_reachable
from aldis.server.pages import Pages
from aldis.server.proxies import TrustedProxies
from aldis.server.redirect import Redirects
from aldis.server.routes import Routes
from aldis.server.systemd import ActivatedSockets
from aldis.server.tls import ServerTls
from aldis.server.tuning import Tuning
from aldis.server.turn import ConfiguredIceServers
from aldis.server.turn_server import TurnServer, turn_settings
from aldis.server.websocket import Connections

if TYPE_CHECKING:
    from aldis.server.admin_api import AdminApi

# Seconds after which a readiness probe reports the directory as stuck. Probes themselves give up after a few seconds.
READY_TIMEOUT: Final = 2.0

log = get_logger("aldis.server")


def _origins(config: ServerConfig) -> OriginPolicy:
    return OriginPolicy(config.origins, reachable=is_reachable(config.host, config.names))


class SignalingServer:
    """One signaling server. `async with` starts and stops it. Inside, read `port`, `url` and `admin_port`.

    Starting raises `ConfigError` for a port, certificate or other setting that cannot be used, and
    `DirectoryUnavailable` when the directory cannot be opened. `pages` replaces those of the package. `sockets` listen
    already, in place of the ports in the settings.
    """

    def __init__(
        self,
        config: ServerConfig | None = None,
        *,
        tuning: Tuning | None = None,
        pages: Pages | None = None,
        sockets: ActivatedSockets | None = None,
    ) -> None:
        self.config = config = config or ServerConfig()
        self._tuning = tuning = tuning or Tuning()
        self._given = sockets or ActivatedSockets()
        self.turn = TurnServer(turn_settings(config), log) if config.turn_server else None
        self._ice = ConfiguredIceServers(config.stun, config.turn, config.turn_secret, own=self.turn)
        self.hub = Hub(
            HubSettings(
                auth=config.auth,
                max_message_bytes=config.max_message_bytes,
                resume_window=config.resume_window,
                new_names_per_address=config.new_names_per_address,
                max_detached=config.max_connections,
                detached_bytes=config.detached_bytes,
                ping_interval=config.ping_interval,
                pong_timeout=config.ping_interval,
            ),
            ask=self._ask,
            wake=self._wake,
            random=os.urandom,
            wall=time.time,
            ice=self._ice,
        )
        self.faults = FaultLog(log)
        self.connections = Connections(
            self.hub,
            max_message_bytes=config.max_message_bytes,
            fault=self.faults,
            close_timeout=tuning.close_timeout,
            messages_per_second=config.messages_per_second,
            bytes_per_second=config.bytes_per_second,
        )
        self._pages = (pages or Pages.of_package()) if config.web else None
        self._names = ServerNames(config.names, secure=config.tls_cert is not None)
        self._routes = routes = Routes(
            names=self._names,
            origins=_origins(config),
            site=self._pages,
            base_path=config.base_path,
            hsts=config.hsts and config.tls_cert is not None,
        )
        admission = Admission(
            AddressLimits(
                connections_per_address=config.connections_per_address,
                connects_per_address=config.connects_per_address,
                connects_per_second=config.connects_per_second,
                now=monotonic(),
            ),
            max_connections=config.max_connections,
            handshakes=config.handshakes,
            max_refusals=tuning.max_refusals,
        )
        self.listener = Listener(
            *(self.connections, routes, admission, log, tuning),
            trusted=TrustedProxies(config.trusted_proxies),
            proxy_protocol=config.proxy_protocol,
        )
        self._handover_file = HandoverFile(None if config.data == MEMORY else Path(config.data) / HANDOVER_NAME, log)
        self._ban_file = BanFile(None if config.data == MEMORY else Path(config.data) / BANS_NAME)
        self._redirects = Redirects(self._names, self.listener.requests, tuning.handshake_timeout)
        self._tls: ServerTls | None = None
        self._look_at_certificate = 0.0
        self._directory: Directory | None = None
        self._directory_stats = DirectoryStats()
        self._outage = OutageLog(log, "the directory of names", OUTAGE_SECONDS)
        self._answers: set[asyncio.Task[None]] = set()
        self._releases: set[asyncio.Future[bool | None]] = set()
        self._all_answered = asyncio.Event()
        self._working = False
        self._ticking: asyncio.Task[None] | None = None
        self._running: AsyncExitStack | None = None
        self._stop_asked = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._host = config.host
        self._port = 0
        self._admin_port: int | None = None
        self._redirect_port: int | None = None

    # --- addresses --------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The public port."""
        return self._port

    @property
    def admin_port(self) -> int | None:
        """The admin port; None when it is off."""
        return self._admin_port

    @property
    def redirect_port(self) -> int | None:
        """The port that redirects to https; None when it is off."""
        return self._redirect_port

    @property
    def url(self) -> str:
        """The URL for clients on this machine. Clients elsewhere need the machine's name in place of the address."""
        return self._url("ws")

    @property
    def page_url(self) -> str | None:
        """The URL of the page for browsers on this machine; None when there is no page."""
        if self._pages is None or not self._pages.complete:
            return None
        # Use `localhost`, as people do: for a browser, 127.0.0.1 is another origin, with other keys.
        return self._url("http").replace("http://127.0.0.1:", "http://localhost:") + "/"

    def _url(self, scheme: str) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104
        secure = "" if self.config.tls_cert is None else "s"
        return f"{scheme}{secure}://{f'[{host}]' if ':' in host else host}:{self._port}"

    # --- starting and stopping --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the directory and both ports, and start serving."""
        if self._running is not None:
            raise StateError("a server starts once")
        config = self.config
        async with AsyncExitStack() as stack:
            if config.tls_cert is not None and config.tls_key is not None:
                self._tls = ServerTls(config.tls_cert, config.tls_key)
                self._use_certificate(self._tls, config)
            self._directory = directory = await self._open_directory()
            stack.push_async_callback(directory.close)
            saved = self._handover_file.take()
            if saved is not None:
                log.info("goes on with the sessions of the last run", sessions=self.hub.restore(saved, monotonic()))
            for ban in self._ban_file.load():
                self.hub.ban(ban)
            if self.turn is not None:
                await self.turn.start()
                stack.push_async_callback(self.turn.close)
            if config.admin_port is not None:
                # Imported here: it loads aiohttp, which takes a third of the start time, and not every server has this
                # port.
                from aldis.server.admin import AdminSite

                collector = ServerCollector(
                    self.hub,
                    directory=self._directory_stats,
                    closes=self.connections.closes,
                    requests=self.listener.requests,
                    admission=self.listener.admission,
                    scheduler=self.connections.scheduler,
                    turn=self.turn,
                    faults=lambda: self.faults.count,
                    certificate_expires=lambda: None if self._tls is None else self._tls.expires,
                )
                admin = AdminSite(Metrics(collector), self.ready, self._api())
                stack.push_async_callback(admin.close)
                self._admin_port = await admin.listen(config.admin_host, config.admin_port)
            stack.callback(self.listener.stop_accepting)
            context = None if self._tls is None else self._tls.context
            host, self._port = await self.listener.listen(config.host, config.port, context, self._given.public)
            if self._given.public:
                self._host = host
            if self._given.redirect and context is None:
                raise ConfigError("tls_cert", "is needed: there is a socket to redirect from plain HTTP")
            stack.callback(self._redirects.close)
            try:
                self._redirect_port = await self._redirects.listen(
                    config.host, config.redirect_port, self._port, self._given.redirect
                )
            except (OSError, ValueError) as error:
                raise address_error("redirect_", config.host, config.redirect_port or 0, error) from error
            self._ticking = asyncio.create_task(self._tick(), name="aldis-tick")
            self._running = stack.pop_all()
        self._announce()

    def _api(self) -> AdminApi:
        from aldis.server.admin_api import AdminApi  # it loads aiohttp, as above

        config = self.config
        data = None if config.data == MEMORY else Path(config.data)
        try:
            token = admin_token(config.admin_token, data)
        except OSError as error:
            raise ConfigError("data", f"the admin token cannot be kept in {data}: {error.strerror or error}") from error
        administration = Administration(
            self.hub,
            self.connections.scheduler,
            self._ban_file,
            log,
            release=self.release,
            end=self.connections.ban,
            stop=self.ask_to_stop,
        )
        return AdminApi(administration, token, log)

    async def _open_directory(self) -> Directory:
        if self.config.data == MEMORY:
            return MemoryDirectory()
        return await SqliteDirectory.open(Path(self.config.data) / FILE_NAME)

    def _announce(self) -> None:
        config = self.config
        admin = None if self._admin_port is None else f"http://{config.admin_host}:{self._admin_port}"
        more: dict[str, object] = {"origins": str(_origins(config))}
        more |= {} if self._redirect_port is None else {"redirect_port": self._redirect_port}
        log.info("serving", url=self.url, page=self.page_url, admin=admin, **more, auth=config.auth, data=config.data)
        if self._pages is not None and not self._pages.complete:
            log.warning("the page is missing from this installation; install the package aldis again to have it")
        if config.auth == "open":
            log.warning(
                "auth is open: clients of the classic dialect are admitted without proof of who they are;"
                " run it so among people who trust each other, or not at all"
            )

    async def serve_forever(self) -> None:
        """Wait until another task or a signal stops the server."""
        await self.asked_to_stop()
        await self.stop()

    async def asked_to_stop(self) -> None:
        """Return when the server has to stop, and has not done so yet."""
        if self._running is None:
            raise StateError("the server has not been started")
        await self._stop_asked.wait()

    def ask_to_stop(self) -> None:
        """Have `serve_forever` stop the server."""
        self._stop_asked.set()

    async def stop(self) -> None:
        """Stop gracefully within `drain_seconds`. A second call waits for the first."""
        if self._running is None:
            return
        self._stop_asked.set()
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(self._running), name="aldis-stop")
        await asyncio.shield(self._stopping)

    async def _stop(self, running: AsyncExitStack) -> None:
        began = monotonic()
        log.info("stopping", connections=len(self.connections))
        self.listener.stop_accepting()
        self._redirects.close()
        try:
            async with asyncio.timeout(self.config.drain_seconds):
                # The directory gets half of the time, so that clients get its answers before the close.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.config.drain_seconds / 2):
                        while self.hub.pending:
                            self._all_answered.clear()
                            await self._all_answered.wait()
                self.hub.drain(monotonic(), handed_over=self._handover_file.leave(self.hub.save()))
                await self.connections.wait_until_empty()
        except TimeoutError:
            log.warning("clients did not close in time", connections=len(self.connections))
        finally:
            await self.listener.abort()
            self.connections.abort()
            await self.connections.wait_until_empty()
            if self._ticking is not None:
                self._ticking.cancel()
                with suppress(asyncio.CancelledError):
                    await self._ticking
            for task in self._answers:
                task.cancel()
            await asyncio.gather(*self._answers, return_exceptions=True)
            for release in self._releases:
                if not release.done():
                    release.set_result(None)
            await running.aclose()
        log.info("stopped", seconds=round(monotonic() - began, 3))

    async def __aenter__(self) -> SignalingServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- for the operator -------------------------------------------------------------------------------------------

    async def release(self, user_id: str) -> bool:
        """End the binding of a name, for example when its owner has lost the key. Returns whether there was one.

        Connections that are registered with the name are closed (4501), and the next client that registers the name
        gets it. Raises `DirectoryUnavailable`. If another process releases a name in the directory's file, this server
        learns of it when a client next asks for the name.
        """
        if self._running is None:
            raise StateError("the server has not been started")
        done: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()

        def released(outcome: bool | None) -> None:
            if not done.done():
                done.set_result(outcome)

        self._releases.add(done)
        self.hub.release(user_id, released)
        try:
            outcome = await done
        finally:
            self._releases.discard(done)
        if outcome is None:
            raise DirectoryUnavailable("the directory could not release the name now")
        return outcome

    def reload(self, config: ServerConfig | None = None) -> bool:
        """Take over `config` as far as that costs no connection (`RELOADABLE`), and read the certificate again.

        Returns whether the settings and the certificate can be used. If not, one error in the log says why, and nothing
        changes. Settings that need a restart are one warning, and keep their values.
        """
        config = config or self.config
        changed, fixed = changes(self.config, config)
        config = replace(self.config, **{name: getattr(config, name) for name in changed})
        if not self._load_certificate(config):
            return False
        self.config = config
        self._ice.replace(config.stun, config.turn, config.turn_secret)
        self.connections.limit_rates(config.messages_per_second, config.bytes_per_second)
        self._routes.replace(origins=_origins(config), hsts=config.hsts and config.tls_cert is not None)
        self.listener.admission.limit(max_connections=config.max_connections, handshakes=config.handshakes)
        self._names.configure(config.names)
        if fixed:
            log.warning("these settings change at a restart only", settings=fixed)
        log.info("reloaded", changed=changed)
        return True

    # --- internal ---------------------------------------------------------------------------------------------------

    def _watch_certificate(self, now: float) -> None:
        """Look about once a minute whether the files of the certificate have changed."""
        if self._tls is not None and now >= self._look_at_certificate:
            self._look_at_certificate = now + self._tuning.certificate_look
            if self._tls.changed():
                self._load_certificate(self.config)

    def _load_certificate(self, config: ServerConfig) -> bool:
        tls, certificate, key = self._tls, config.tls_cert, config.tls_key
        if tls is None or certificate is None or key is None:
            return True
        try:
            tls.load(certificate, key, for_names=not config.names)
        except ConfigError as error:
            problem = str(error)
            log.error("the new certificate cannot be used; the earlier one stays", reason=problem)  # noqa: TRY400
            return False
        self._use_certificate(tls, config)
        log.info("new certificate", expires=str(tls.expires))
        return True

    def _use_certificate(self, tls: ServerTls, config: ServerConfig) -> None:
        if not config.names:
            self._names.certify(tls.names)
        if tls.expires is not None and tls.expires.timestamp() < time.time():
            log.warning("the certificate has expired; clients will refuse it", expired=str(tls.expires))

    async def ready(self) -> str | None:
        """Whether clients may be sent here: None, or the reason against it."""
        if self._stop_asked.is_set():
            return "it is stopping"
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await self._opened().check()
        except DirectoryUnavailable as error:
            return str(error)
        except TimeoutError:
            return f"the directory of names does not answer within {READY_TIMEOUT:g} s"
        return None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tuning.tick)
            now = monotonic()
            try:
                self.hub.tick(now)
                self.connections.tick(now)
                self._watch_certificate(now)
            except Exception as error:  # noqa: BLE001 - a bug: it is logged, and must not stop the time-outs
                self.faults(error)

    def _wake(self) -> None:
        """The hub has put something off."""
        if not self._working:
            self._working = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._working = False
        try:
            if self.hub.work():
                self._wake()
        except Exception as error:  # noqa: BLE001 - as above
            self.faults(error)
            self._wake()

    def _ask(self, question: Question) -> None:
        task = asyncio.create_task(self._answer(question))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, question: Question) -> None:
        kind = question.kind
        began = monotonic()
        directory = self._opened()
        try:
            found = await answer(directory, question)
        except Exception as error:  # noqa: BLE001 - anything but DirectoryUnavailable is a bug, and logged as one
            self._directory_failed(error)
            self._directory_stats.failures[kind] += 1
            bring: Callable[[float], None] = partial(self.hub.failed, question)
        else:
            self._directory_stats.seconds[kind].observe(monotonic() - began)
            if directory.healthy:  # reading may work while writing fails
                self._outage.works()
            bring = partial(self.hub.answered, question, found)
        try:
            bring(monotonic())
        except Exception as error:  # noqa: BLE001 - as above
            self.faults(error)
        if not self.hub.pending:
            self._all_answered.set()

    def _opened(self) -> Directory:
        if self._directory is None:
            raise StateError("the server has not been started")
        return self._directory

    def _directory_failed(self, error: Exception) -> None:
        if not isinstance(error, DirectoryUnavailable):
            self.faults(error)
        else:
            self._outage.failed(error)
