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
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final

from aldis.backends.base import Directory, DirectoryUnavailable
from aldis.backends.directory_url import without_password
from aldis.backends.opening import open_directory
from aldis.errors import ConfigError, StateError
from aldis.hub.hub import Hub
from aldis.server.accounts import Accounts
from aldis.server.addresses import AddressLimits
from aldis.server.admin_token import admin_token
from aldis.server.administration import Administration
from aldis.server.admission import Admission
from aldis.server.ban_file import FILE_NAME as BANS_NAME
from aldis.server.ban_file import BanFile
from aldis.server.certificate_updates import CertificateUpdates
from aldis.server.cluster_member import ClusterMember
from aldis.server.config import MEMORY, STUN_PORT, ServerConfig, changes
from aldis.server.connections import Connections
from aldis.server.data_folder import held_folder
from aldis.server.dialled import page_url
from aldis.server.handover_file import FILE_NAME as HANDOVER_NAME
from aldis.server.handover_file import HandoverFile, go_on
from aldis.server.health import Health
from aldis.server.hub_settings import hub_settings
from aldis.server.listener import Listener
from aldis.server.logs import FaultLog, Throttle, get_logger
from aldis.server.metrics import Metrics, ServerCollector
from aldis.server.names import ServerNames
from aldis.server.node_administration import NodeAdministration
from aldis.server.pages import Pages
from aldis.server.part_settings import address_limits, opening_limits, origins
from aldis.server.proxies import TrustedProxies
from aldis.server.put_off import PutOff
from aldis.server.questions import Questions
from aldis.server.redirect import Redirects
from aldis.server.routes import Routes
from aldis.server.same_settings import told
from aldis.server.sockets import address_error
from aldis.server.stun import StunAnswers
from aldis.server.stun_port import StunPort, stun_host
from aldis.server.systemd import ActivatedSockets
from aldis.server.tuning import Tuning
from aldis.server.turn import ConfiguredIceServers
from aldis.server.turn_folder import turn_settings
from aldis.server.turn_server import TurnServer
from aldis.server.turn_watch import TurnWatch

if TYPE_CHECKING:
    from aldis.server.admin_api import AdminApi

# Seconds between two warnings that no memory is left.
MEMORY_LOG_SECONDS: Final = 60.0

log = get_logger("aldis.server")
_directory_log = get_logger("aldis.directory")


class SignalingServer:
    """One signaling server. `async with` starts and stops it. Inside, read `port`, `url` and `admin_port`.

    Starting raises `ConfigError` for a port, certificate or other setting that cannot be used, and
    `DirectoryUnavailable` when the directory cannot be opened. `pages` replaces those of the package. `sockets` listen
    already, in place of the ports in the settings. The setting `workers` is for `aldis serve`: this is one of them.
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
        self.turn = TurnServer(turn_settings(config), get_logger("aldis.turn")) if config.turn_server else None
        self.turn_watch = TurnWatch(config.turn_check, lambda: self.config.turn_secret, get_logger("aldis.turn"))
        """The TURN servers that run by themselves and are asked whether they relay (`turn_check`)."""
        self._ice = ConfiguredIceServers(
            *(config.stun, config.turn, config.turn_secret, config.turn_credential_lifetime),
            own=self.turn,
            proxied=bool(config.trusted_proxies) or config.proxy_protocol,
        )
        self.accounts = Accounts(
            config, get_logger("aldis.accounts"), file_look=tuning.certificate_look, clustered=bool(config.redis)
        )
        """The operator's accounts: tokens, the list of names, and the operator's application."""
        self.faults = FaultLog(log)
        self._questions = Questions(
            lambda: self.hub, self.accounts, self.faults, _directory_log, away=self._is_directory_away
        )
        own = (config, self._questions.in_turn, self.faults, self.accounts.presence)
        self.member = ClusterMember(*own) if config.redis else None
        """This server as a node of a cluster; None for one that is alone."""
        self.hub = Hub(
            hub_settings(config),
            ask=self._questions.ask,
            wake=lambda seconds: self._work.wake(seconds),
            ask_account=self._questions.ask_account if self.accounts.decides else None,
            cluster=None if self.member is None else self.member.node,
            presence_changed=None if self.accounts.presence is None else self.accounts.presence.changed,
            random=os.urandom,
            wall=time.time,
            ice=self._ice,
        )
        answers = StunAnswers(config.stun_per_second, config.stun_per_address, monotonic())
        self.stun = StunPort(answers, clock=monotonic, fault=self.faults)
        """The UDP port that answers STUN; `port` is 0 when it is closed."""
        self._work = PutOff(self.hub.work, self.faults)
        self.connections = Connections(
            self.hub,
            max_message_bytes=config.max_message_bytes,
            fault=self.faults,
            close_timeout=tuning.close_timeout,
            messages_per_second=config.messages_per_second,
            bytes_per_second=config.bytes_per_second,
            closing_bytes=tuning.closing_bytes,
            outgoing_queue_bytes=config.outgoing_queue_bytes,
            tls=config.secure,
        )
        self._pages = (pages or Pages.of_package()) if config.web else None
        self._names = ServerNames(config.names, secure=config.secure)
        self.certificates = CertificateUpdates(config, self._names, self.turn, tuning, get_logger("aldis.tls"))
        self._routes = routes = Routes(
            names=self._names,
            origins=origins(config),
            site=self._pages,
            base_path=config.base_path,
            hsts=config.hsts and config.secure,
        )
        admission = Admission(
            AddressLimits(**address_limits(config), now=monotonic()),
            max_connections=config.max_connections,
            handshakes=config.handshakes,
            max_refusals=tuning.max_refusals,
            has_memory=lambda: not self.hub.memory.is_full,
        )
        if self.hub.cluster is not None:
            admission.addresses.share(self.hub.cluster.usage)
        self._proxies = TrustedProxies(config.trusted_proxies)
        self.listener = Listener(
            *(self.connections, routes, admission, get_logger("aldis.http"), tuning, opening_limits(config)),
            trusted=self._proxies,
            proxy_protocol=config.proxy_protocol,
            challenges=self.certificates.challenges,
        )
        self.health = Health(
            lambda: self.config,
            self.certificates,
            self.turn,
            admission=admission,
            scheduler=self.connections.scheduler,
            closes=self.connections.closes,
            stats=self.hub.stats,
            stun=self.stun,
            turn_watch=self.turn_watch,
        )
        """What an operator has to know."""
        self._operated = NodeAdministration(
            *(self.hub, self.connections.scheduler),
            health=self.health,
            accounts=self.accounts,
            settings=lambda: told(self.config),
        )
        self._handover_file = HandoverFile(
            None if config.data == MEMORY else Path(config.data) / HANDOVER_NAME, _directory_log
        )
        self._ban_file = BanFile(None if config.data == MEMORY else Path(config.data) / BANS_NAME)
        allowed = (self.listener.requests, config.handshake_timeout, self.certificates.challenges)
        self._redirects = Redirects(self._names, *allowed, fault=self.faults)
        self._memory_ended = 0
        self._memory_log = Throttle(MEMORY_LOG_SECONDS)
        self._releases: set[asyncio.Future[bool | None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._running: AsyncExitStack | None = None
        self._stop_asked = asyncio.Event()
        self._is_replaced = False
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
        """The URL of the page for browsers; None when there is no page. It has the server's own name if that is set
        or in its certificate, and else the address for this machine."""
        if self._pages is None or not self._pages.complete:
            return None
        # Use `localhost`, as people do: for a browser, 127.0.0.1 is another origin, with other keys.
        here = self._url("http").replace("http://127.0.0.1:", "http://localhost:") + "/"
        return page_url(self.config, self._port, self.certificates.names) or here

    def _url(self, scheme: str) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104
        secure = "s" if self.config.secure else ""
        return f"{scheme}{secure}://{f'[{host}]' if ':' in host else host}:{self._port}"

    # --- starting and stopping --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the directory and both ports, and start serving."""
        if self._running is not None:
            raise StateError("a server starts once")
        config = self.config
        async with AsyncExitStack() as stack:
            self._make_folder()
            self.certificates.open()
            tls = self.certificates.tls
            self._questions.directory = directory = await self._open_directory()
            stack.push_async_callback(directory.close)
            stack.push_async_callback(self.accounts.close)
            await self.accounts.start(directory)
            if self.member is None:
                if config.data != MEMORY:
                    stack.enter_context(held_folder(Path(config.data)))
                self._take_over(stack)
            else:
                # The clients of its last run are at other nodes by now, and the bans are those of all.
                if self._ban_file.load():
                    log.warning(f"the bans in {BANS_NAME} do not count in a cluster, which has its own; ban anew")
                await asyncio.to_thread(told, config)  # its hashes take long; they are kept
                await self.member.open(self.hub, end=self.connections.ban, respond=self._operated.respond)
                stack.push_async_callback(self.member.close)
            if self.turn is not None:
                await self.turn.start()
                stack.push_async_callback(self.turn.close)
            self.turn_watch.start()
            stack.push_async_callback(self.turn_watch.close)
            if config.admin_port is not None:
                # Imported here: it loads aiohttp, which takes a third of the start time, and not every server has this
                # port.
                from aldis.server.admin import AdminSite

                collector = ServerCollector(
                    self.hub,
                    directory=self._questions.stats,
                    closes=self.connections.closes,
                    requests=self.listener.requests,
                    admission=self.listener.admission,
                    scheduler=self.connections.scheduler,
                    turn=self.turn,
                    turn_watch=self.turn_watch,
                    stun=self.stun,
                    faults=lambda: self.faults.count,
                    accounts=self.accounts,
                    certificates=self.certificates,
                    config=lambda: self.config,
                    member=self.member,
                )
                known = (Metrics(collector), self.ready, self._api(directory), self._notes)
                admin = AdminSite(*known, fault=self.faults, outcomes=self.listener.requests)
                stack.push_async_callback(admin.close)
                self._admin_port = await admin.listen(config.admin_host, config.admin_port, self._given.admin)
            stack.callback(self.listener.stop_accepting)
            context = None if tls is None else tls.context
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
            await self._open_stun()
            stack.callback(self.stun.close)
            self.certificates.start(with_http=self._redirect_port is not None)
            stack.push_async_callback(self.certificates.close)
            self._ticking = asyncio.create_task(self._tick(), name="aldis-tick")
            self._running = stack.pop_all()
        self._announce()

    def _take_over(self, stack: AsyncExitStack) -> None:
        """Take what the last run of this server has left. Raises `ConfigError`. A start that fails puts it back."""
        bans = self._ban_file.load()
        saved = self._handover_file.take()
        if saved is not None:
            count = go_on(self.hub, saved, monotonic())
            stack.callback(lambda: self._running or self._handover_file.leave(saved))
            _directory_log.info("goes on with the sessions of the last run", sessions=count)
        for ban in bans:
            self.hub.ban(ban, monotonic())

    def _make_folder(self) -> None:
        """Make the folder of data, unless the directory of names does: that one is in it."""
        config = self.config
        if config.data == MEMORY or not (config.directory or config.redis):
            return
        try:
            Path(config.data).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("data", f"{config.data} cannot be made: {error.strerror or error}") from error

    async def _open_stun(self) -> None:
        """Open the STUN port, if it is wanted. Only the default port may be taken by another program."""
        config = self.config
        host = stun_host(config, self._host)
        if host is None:
            return
        self.stun.wanted = True
        try:
            await self.stun.listen(host, config.stun_port, self._given.stun)
        except (OSError, ValueError) as error:
            wrong = address_error("stun_", host, config.stun_port, error)
            if config.stun_port != STUN_PORT:
                raise wrong from error
            log.warning("no STUN: clients are told of none, unless another server is in `stun`", reason=wrong.problem)
        self._ice.stun_port = self.stun.port
        self._ice.replace(config.stun, config.turn, config.turn_secret, config.stun_address)

    def _api(self, directory: Directory) -> AdminApi:
        from aldis.server.admin_api import AdminApi  # it loads aiohttp, as above

        config = self.config
        data, admin_log = None if config.data == MEMORY else Path(config.data), get_logger("aldis.admin")
        try:
            token = admin_token(config.admin_token, data, admin_log.warning)
        except OSError as error:
            raise ConfigError("data", f"the admin token cannot be kept in {data}: {error.strerror or error}") from error
        administration = Administration(
            self.hub,
            self.connections.scheduler,
            self._ban_file,
            admin_log,
            health=self.health,
            release=self.release,
            directory=directory,
            accounts=self.accounts,
            end=self.connections.ban,
            stop=self.ask_to_stop,
            proxies=self._proxies,
            cluster=None if self.member is None else self.member.node.operator,
            here=self._operated,
        )
        return AdminApi(administration, token, admin_log)

    async def _open_directory(self) -> Directory:
        config = self.config
        return await open_directory(config.directory_url, config.directory_options, warn=_directory_log.warning)

    def _announce(self) -> None:
        config = self.config
        admin = None if self._admin_port is None else f"http://{config.admin_host}:{self._admin_port}"
        more: dict[str, object] = {"origins": str(origins(config))}
        more |= {} if self._redirect_port is None else {"redirect_port": self._redirect_port}
        more |= {"stun_port": self.stun.port} if self.stun.port else {}
        # The URL is for this machine; clients dial one of these.
        more |= {"directory": without_password(config.directory)} if config.directory else {}
        more |= {"redis": without_password(config.redis)} if config.redis else {}
        more |= {"names": list(names)} if (names := config.names or config.acme_domain) else {}
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

    def ask_to_stop(self, *, is_replaced: bool = False) -> None:
        """Have `serve_forever` stop the server. `is_replaced`: another one accepts from the same sockets, so clients
        that this one has accepted last are served too."""
        self._is_replaced = is_replaced
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
        self.listener.stop_accepting(draining=not self._is_replaced)
        if self._is_replaced:
            self._redirects.stop_accepting()
            await self.listener.settle(self._redirects.open)
        self._redirects.close()
        self.stun.close()
        await self.certificates.close()  # nobody could answer the authority any more
        try:
            async with asyncio.timeout(self.config.drain_seconds):
                # The directory gets half of the time, so that clients get its answers before the close.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.config.drain_seconds / 2):
                        await self._questions.answered()
                self.hub.drain(
                    monotonic(), handed_over=self.member is None and self._handover_file.leave(self.hub.save())
                )
                await self.connections.wait_until_empty()
        except TimeoutError:
            log.warning("clients did not close in time", connections=len(self.connections))
        finally:
            self._work.cancel()
            await self.listener.abort()
            self.connections.abort()
            await self.connections.wait_until_empty()
            if self._ticking is not None:
                self._ticking.cancel()
                with suppress(asyncio.CancelledError):
                    await self._ticking
            await self._questions.close()
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

        if self.member is not None:
            await self.member.releasing(user_id)
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
        try:
            config = replace(self.config, **{name: getattr(config, name) for name in changed})
        except ConfigError as error:  # some go together with others that stay
            text = "the new settings cannot be used before a restart; the earlier ones stay"
            log.error(text, reason=str(error), settings=fixed)  # noqa: TRY400 - it is no bug
            return False
        if not self.certificates.load(config):
            return False
        self.certificates.retry()
        earlier, self.config = self.config, config
        if self.turn is not None and "turn_secret" in changed and config.turn_secret:
            # Credentials with the earlier secret have the earlier lifetime.
            lifetime = max(earlier.turn_credential_lifetime, config.turn_credential_lifetime)
            self.turn.change(self.turn.rotate(config.turn_secret, lifetime))
        self.accounts.configure(config)
        self._ice.replace(config.stun, config.turn, config.turn_secret, config.stun_address)
        self._ice.lifetime = config.turn_credential_lifetime
        if not {"stun_per_second", "stun_per_address"}.isdisjoint(changed):
            self.stun.answers.limit(config.stun_per_second, config.stun_per_address, monotonic())
        self.hub.configure(hub_settings(config))
        self.connections.limit_rates(config.messages_per_second, config.bytes_per_second)
        self.connections.limit_queues(config.outgoing_queue_bytes)
        self.listener.limit(opening_limits(config))
        self._redirects.timeout = config.handshake_timeout
        self._routes.replace(origins=origins(config), hsts=config.hsts and config.secure)
        self.listener.admission.limit(max_connections=config.max_connections, handshakes=config.handshakes)
        self.listener.admission.addresses.limit(**address_limits(config))
        self._names.configure(config.names)
        if self.member is not None:
            self.member.compare_settings()
        if fixed:
            log.warning("these settings change at a restart only", settings=fixed)
        log.info("reloaded", changed=changed)
        return True

    # --- internal ---------------------------------------------------------------------------------------------------

    async def ready(self) -> str | None:
        """Whether clients may be sent here: None, or the reason against it."""
        if self._stop_asked.is_set():
            return "it is stopping"
        if (reason := self.certificates.not_ready()) is not None:
            return reason
        if self.accounts.unready is not None:
            return self.accounts.unready
        if self._questions.directory is None:
            raise StateError("the server has not been started")
        if self.member is not None and not self.config.directory and not self.member.node.healthy:
            return None  # it has the directory too: the notes say it
        return await self._questions.not_ready()

    def _is_directory_away(self) -> bool:
        """Whether it is on the Redis of the cluster, and that one does not answer."""
        return self.member is not None and not self.config.directory and self.member.node.away

    def _notes(self) -> list[str]:
        of_cluster = None if self.member is None else self.member.note
        return [*self.accounts.notes, *(note for note in (of_cluster, self.certificates.note()) if note is not None)]

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tuning.tick)
            now = monotonic()
            try:
                self.hub.tick(now)
                self.connections.tick(now)
                self._watch_memory()
                self.listener.tick(now)
                self.certificates.tick(now)
                if self.member is not None:
                    self.member.tick()
            except Exception as error:  # noqa: BLE001 - a bug: it is logged, and must not stop the time-outs
                self.faults(error)

    def _watch_memory(self) -> None:
        """Tell the operator of clients that were given up."""
        ended = self.hub.stats.memory_ended
        if ended > self._memory_ended and self._memory_log.pass_now() is not None:
            text = "no memory is left for all clients (memory_budget); the newest and idlest are given up"
            log.warning(text, given_up=ended - self._memory_ended, kept=self.hub.memory.total)
            self._memory_ended = ended
