"""`SignalingClient`: a program's connection to a signaling server, kept alive.

It runs a `ClientMachine` on an event loop: it passes the time and the transport's input to the machine, carries out the
machine's effects, and turns its numbered requests into coroutines. The machine makes all decisions. The client owns one
transport, at most one task that dials, and one timer; `close` waits until all of them are gone. Not thread-safe: all
calls and callbacks run on the loop on which `connect` was called.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TypeVar
from weakref import WeakSet

from aldis.client import outbound
from aldis.client.address import ServerAddress
from aldis.client.backoff import Backoff
from aldis.client.effects import (
    CloseTransport,
    Completed,
    Dial,
    Effect,
    Failed,
    Happened,
    Noted,
    Result,
    SealKeyDue,
    Send,
)
from aldis.client.events import (
    Closed,
    Discovery,
    IceServers,
    Registered,
    Registration,
    SignalingEvent,
    SignalingState,
)
from aldis.client.machine import ClientMachine
from aldis.client.redialling import Redialling
from aldis.client.sealing import wire
from aldis.client.settings import MachineSettings
from aldis.client.stream import EventStream
from aldis.client.timers import Timer, earliest
from aldis.client.tokens import TokenProvider, TokenSource
from aldis.client.transport import Transport, open_transport, tls_context
from aldis.errors import (
    AldisError,
    RequestTimeout,
    ServerUnreachable,
    StateError,
    TokenUnavailable,
    UsageError,
)
from aldis.identity.keys import Identity
from aldis.identity.seal_keys import SealKeys
from aldis.protocol import messages as m
from aldis.protocol.addresses import DEFAULT_DEVICE, join
from aldis.protocol.privacy import VISIBILITIES, Privacy, PrivacyChange, Visibility
from aldis.settings import check_seconds, check_type

_logger = logging.getLogger("aldis.client")
_T = TypeVar("_T")


class SignalingClient:
    """The signaling connection of a user, or of one device of a user.

        async with SignalingClient("wss://signal.example", "alice") as client:
            await client.register(identity)
            found = await client.discover("bob")

    After `connect` it stays connected. When a connection is lost, it dials again (`backoff` says when), registers the
    name again, and resumes the session if the server still has it, or else restores the watches. Requests made
    meanwhile wait for that, up to their time-out. The client ends by `close`. It ends by itself when the server's close
    code forbids reconnecting, when the server refuses the name, or when `backoff.attempts` are used up. Then the event
    `Closed` carries the error, and every later call raises it.

    Requests raise `RequestFailed` (the server refused; it has a `code`), `RequestTimeout`, `ConnectionLost` (it is
    unknown whether the server acted on the request) and, for calls that make no sense, `StateError` and its siblings.
    A request that the server limits is sent again (`RequestsDelayed`). It raises `RequestFailed` with the code
    `rate-limited` and `retry_after` only if the pause is longer than the request's time-out. `register` raises it at
    once.
    """

    def __init__(
        self,
        url: str,
        user_id: str,
        *,
        device: str = DEFAULT_DEVICE,
        token: str | TokenProvider | None = None,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        backoff: Backoff | None = None,
        request_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        seal_keys: SealKeys | None = None,
    ) -> None:
        """Make a client that is not connected: call `connect` next, or use `async with`.

        For the forms of `url` see `client.address`. `device` names one of several devices of the user. `token` is what
        the server's operator asks for, if anything: a text, or a function, async or not, that gets one. It is called
        before each registration, also after a lost connection, and has `connect_timeout` seconds. `ca_file` has PEM
        certificates to trust instead of the system's; `ssl_context` is a TLS context of your own instead. Time-outs are
        in seconds, `connect_timeout` for each attempt. A message to a user whose connection is lost gets the server's
        resume window on top of `request_timeout`. `seal_keys`: publish these sealing keys of the user and device, so
        that others can send sealed messages (`RelayReceived`). Raises `ConfigError` and `InvalidAddress`.
        """
        for name, seconds in (("request_timeout", request_timeout), ("connect_timeout", connect_timeout)):
            check_seconds(name, seconds)
        self._token = TokenSource(token)
        if ssl_context is not None:
            check_type("ssl_context", ssl_context, ssl.SSLContext, "an ssl.SSLContext")
        if backoff is not None:
            check_type("backoff", backoff, Backoff, "a Backoff")
        self._server_address = ServerAddress.parse(url)
        self._ssl_context = tls_context(self._server_address, ssl_context, ca_file)
        self._connect_timeout = connect_timeout
        self.seal_keys = seal_keys
        """The sealing keys of this client, to open with; None without any."""
        self._machine = ClientMachine(
            MachineSettings(
                host=self._server_address.server,
                user_id=user_id,
                device=device,
                token=self._token.token,
                seal_key=None if seal_keys is None else self._seal_key_to_register,
                backoff=backoff or Backoff(),
                request_timeout=request_timeout,
            ),
            random=random.random,
        )
        self._transport: Transport | None = None
        self._dialing: asyncio.Task[None] | None = None
        self._sealing: asyncio.Task[None] | None = None
        self._redialling = Redialling(self.url)
        self._timer = Timer(self._look_at_the_clock)
        self._futures: dict[int, asyncio.Future[Result]] = {}
        self._subscribers: dict[object, Callable[[SignalingEvent], None]] = {}
        # Weak references: an iterator that the program has dropped gets no more events.
        self._streams: WeakSet[EventStream] = WeakSet()
        self._carrying_out = False

    # --- properties -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> SignalingState:
        """The state of the client; `CONNECTED` means registered."""
        if self._dialing is not None and not self._machine.ended:
            return SignalingState.CONNECTING
        return self._machine.state

    @property
    def url(self) -> str:
        """The server's URL, as the client dials it."""
        return self._server_address.url

    @property
    def server(self) -> str:
        """The server's name: host and port as in the `Host` header, lower case. Pins are stored under it."""
        return self._server_address.server

    @property
    def user_id(self) -> str:
        """The name to register."""
        return self._machine.settings.user_id

    @property
    def device(self) -> str:
        """The device to register the name for."""
        return self._machine.settings.device

    @property
    def address(self) -> str:
        """User id and device, as the server writes them into `from`."""
        return join(self.user_id, self.device)

    @property
    def identity(self) -> Identity | None:
        """The key to register with, also after a reconnection; None before `register`."""
        return self._machine.identity

    # --- connection -------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Make the first connection. Call `register` next, and soon: servers close connections without a name.

        Raises `ServerUnreachable` (then you may call it again), and `StateError` when it is connected already.
        """
        self._machine.check_not_ended()
        if self.state is not SignalingState.DISCONNECTED:
            raise StateError("connect() was called already")
        task = self._dialing = asyncio.get_running_loop().create_task(self._dial())
        try:
            await task
        except asyncio.CancelledError:
            if task.cancelled() and self._machine.ended:
                raise StateError("the client was closed while it was connecting") from None
            raise
        finally:
            self._dialing = None

    async def close(self) -> None:
        """Leave the server and free all resources. Can be called at any time, and repeatedly; never raises."""
        self._machine.close()
        self._carry_out()
        self._timer.cancel()
        for task in (self._dialing, self._sealing):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        if self._transport is not None:
            await self._transport.wait_closed()

    async def __aenter__(self) -> SignalingClient:
        try:
            await self.connect()
        except asyncio.CancelledError:
            await self.close()  # the connection may be open already, and nothing else would close it
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # --- hints ------------------------------------------------------------------------------------------------------

    def suspect(self) -> None:
        """The server may be gone: ask it at once. Without an answer within 3 s the connection counts as lost."""
        self._machine.suspect(self._now())
        self._carry_out()

    def network_changed(self) -> None:
        """This machine has other addresses, or has slept: make a new connection at once if the address of this one is
        gone or if there is none. Otherwise ask the server, which has 1.5 s to answer."""
        self._redialling.network_changed()
        cut = self._transport is not None and self._transport.is_cut
        self._machine.network_changed(self._now(), cut=cut)
        self._carry_out()

    def hurry(self) -> None:
        """Somebody waits for the server: until it is back, dial it more often, for up to ten minutes."""
        self._machine.hurry(self._now())
        self._carry_out()

    # --- requests ---------------------------------------------------------------------------------------------------

    async def register(self, identity: Identity) -> Registration:
        """Register the name, with a proof of this key.

        The first key that is proved for a name is bound to it. Raises `RequestFailed`. Its `code` is `key-mismatch`
        when the name belongs to another key, and `token-required`, `token-invalid` or `token-expired` when the server
        wants another token. Raises `TokenUnavailable` when the program's own function gives none.
        """
        await self._token.renew(self._connect_timeout)
        await self._writable("register")
        return await self._result(self._machine.register(identity, self._now()), Registration)

    async def unregister(self) -> None:
        """Give the name up; others see the user go offline. The connection stays, for another `register`."""
        await self._writable("unregister")
        await self._done([self._machine.unregister(self._now())])

    async def rotate(self, new_identity: Identity) -> None:
        """Bind the name to a new key. The old key cannot register any more.

        After `ConnectionLost` or `RequestTimeout` it is unknown which key is right. Keep both until the client is
        registered again, then read `identity`.
        """
        await self._writable("rotate")
        await self._done([self._machine.rotate(new_identity, self._now())])

    async def discover(self, user_id: str) -> Discovery:
        """Ask the server about a user: whether they are online, their key, their devices."""
        await self._writable("discover")
        return await self._result(self._machine.discover(user_id, self._now()), Discovery)

    async def watch(self, *user_ids: str) -> None:
        """Get the presence of users as `PresenceChanged` events: one now for each user, and one at every change.

        Watches are restored after a reconnection. If this raises, the named users are not watched, except those that
        were watched before.
        """
        await self._writable("watch")
        await self._done(self._machine.watch(user_ids, self._now()))

    async def unwatch(self, *user_ids: str) -> None:
        """End watches. Users that are not watched are ignored."""
        await self._writable("unwatch")
        await self._done(self._machine.unwatch(user_ids, self._now()))

    async def send_offer(
        self,
        to: str,
        sdp: str,
        *,
        connection: str | None = None,
        proof: m.Proof | None = None,
        capabilities: m.Capabilities | None = None,
    ) -> None:
        """Send an offer to an address, and wait until the server has handed it over.

        Raises `RequestFailed` with the code `not-online` when the user is not online, like the other `send_` methods.
        """
        await self._relay(outbound.offer(to, sdp, connection, proof, capabilities))

    async def send_answer(
        self,
        to: str,
        sdp: str,
        *,
        connection: str | None = None,
        proof: m.Proof | None = None,
        capabilities: m.Capabilities | None = None,
    ) -> None:
        """Send an answer to the address of the offer's sender."""
        await self._relay(outbound.answer(to, sdp, connection, proof, capabilities))

    async def send_ice_candidate(
        self, to: str, candidate: m.Candidate | None, *, connection: str | None = None
    ) -> None:
        """Send an ICE candidate; None means that there are no more."""
        await self._relay(outbound.ice_candidate(to, candidate, connection))

    async def send_bye(
        self,
        to: str,
        *,
        connection: str | None = None,
        reason: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """End a peer connection; with a `code`, refuse an offer (see `ByeReceived`)."""
        await self._relay(outbound.bye(to, connection, reason, code, retry_after))

    async def relay(self, to: str, sealed: bytes) -> None:
        """Send a sealed message to an address, and wait until the server has handed it over.

        `sealed` has at most what fits into `limits.max_message_bytes` in base64. Raises `RequestFailed`; the code
        `relay-disabled` is final: this server relays none.
        """
        await self._relay(outbound.relay(to, sealed))

    async def renew_seal_key(self) -> None:
        """Make a new sealing key and show it to others; earlier ones open handshakes for a minute more.

        The client does so by itself when a session could not be resumed, after `rotate`, and each hour.
        """
        if self.seal_keys is None:
            raise StateError("this client has no sealing keys")
        if (identity := self.identity) is None:
            raise StateError("not registered: call register() first")
        pair, seal_key = self.seal_keys.to_publish(identity)
        await self._done([self._machine.publish_seal_key(wire(seal_key), self._now())])
        self.seal_keys.published(pair, self._now())
        self._set_timer()

    @property
    def privacy(self) -> Privacy:
        """Who may see our user, and who may call, as the server has said last; the default before `register`."""
        return self._machine.privacy

    async def change_privacy(
        self,
        *,
        presence: Visibility | None = None,
        offers: Visibility | None = None,
        add_contacts: Iterable[str] = (),
        remove_contacts: Iterable[str] = (),
        block: Iterable[str] = (),
        unblock: Iterable[str] = (),
    ) -> Privacy:
        """Change who may see our user (`presence`) and who may call (`offers`): `public`, `contacts` or `hidden`.

        It counts for all devices of the user, and the server keeps it. Returns the whole of it; without arguments
        nothing changes. After a change by another device, the event `PrivacyChanged` comes. Raises `RequestFailed`
        (code `too-large`: more names than the server keeps; `unknown-type`: an older server), `UsageError`.
        """
        for name, value in (("presence", presence), ("offers", offers)):
            if value is not None and value not in VISIBILITIES:
                raise UsageError(f"{name} is one of {', '.join(VISIBILITIES)}, not {value!r}")
        lists = [frozenset(names) for names in (add_contacts, remove_contacts, block, unblock)]
        await self._writable("privacy")
        return await self._result(
            self._machine.change_privacy(PrivacyChange(presence, offers, *lists), self._now()), Privacy
        )

    async def ice_servers(self) -> IceServers:
        """Ask for STUN and TURN servers. Ask again before `ttl` is over."""
        await self._writable("ice-servers")
        return await self._result(self._machine.ice_servers(self._now()), IceServers)

    async def ping(self) -> float:
        """Measure the round trip to the server, in seconds. Needs no registration."""
        await self._writable("ping")
        return await self._result(self._machine.ping(self._now()), float)

    # --- events -----------------------------------------------------------------------------------------------------

    def subscribe(self, callback: Callable[[SignalingEvent], None]) -> Callable[[], None]:
        """Call `callback` with each event, on the loop. Call the returned function to end that.

        A callback must not block. Its exceptions are logged, and do not affect other callbacks.
        """
        key = object()
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    def events(self) -> EventStream:
        """An async iterator over all events from now on; it ends after `Closed`.

        A reader that falls a thousand events behind gets `StateError`: an iterator that nobody reads must not grow
        without bound, and silently leaving out an offer would be worse.
        """
        stream = EventStream()
        if self._machine.ended:
            stream.end()
        else:
            self._streams.add(stream)
        return stream

    def _publish(self, event: SignalingEvent) -> None:
        for key, callback in list(self._subscribers.items()):
            if key not in self._subscribers:
                continue  # another callback has ended this subscription
            try:
                callback(event)
            except Exception:
                _logger.exception("a subscriber raised on %s", type(event).__name__)
        for stream in list(self._streams):
            stream.put(event)
            if isinstance(event, Closed):
                stream.end()

    # --- called by the transport ------------------------------------------------------------------------------------

    def text_received(self, text: str) -> None:
        self._machine.received(text, self._now())
        self._carry_out()

    def life_shown(self) -> None:
        self._machine.heard(self._now())

    def transport_lost(self, code: int, reason: str) -> None:
        self._transport = None
        self._machine.lost(self._now(), code, reason)
        self._carry_out()

    # --- the machine ------------------------------------------------------------------------------------------------

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _carry_out(self) -> None:
        """Carry out the machine's effects. A callback may lead back here; then the outer call does the rest."""
        if self._carrying_out:
            return
        self._carrying_out = True
        try:
            while effects := self._machine.take():
                for effect in effects:
                    self._do(effect)
        finally:
            self._carrying_out = False
        self._set_timer()

    def _set_timer(self) -> None:
        expiry = None if self.seal_keys is None else self.seal_keys.next_expiry
        self._timer.set(earliest(self._machine.next_deadline, expiry))

    def _do(self, effect: Effect) -> None:
        match effect:
            case Send(text):
                if self._transport is not None:
                    self._transport.send(text)
            case CloseTransport(code, reason, at_once):
                if self._transport is not None:
                    self._transport.close(code, reason, at_once=at_once)
            case Dial():
                self._dialing = asyncio.get_running_loop().create_task(self._redial())
            case SealKeyDue():
                if self._sealing is None:
                    self._sealing = asyncio.get_running_loop().create_task(self._change_seal_key())
            case Completed(number, result):
                future = self._futures.pop(number, None)
                if future is not None and not future.done():
                    future.set_result(result)
            case Failed(number, error):
                future = self._futures.pop(number, None)
                if future is not None and not future.done():
                    future.set_exception(error)
            case Happened(event):
                if self.seal_keys is not None and isinstance(event, Registered):
                    self.seal_keys.registered(self._now())
                elif self.seal_keys is not None and isinstance(event, Closed):
                    self.seal_keys.clear()
                self._publish(event)
            case Noted(text):
                _logger.debug("%s", text)

    def _look_at_the_clock(self) -> None:
        if self.seal_keys:
            self.seal_keys.purge(self._now())
        self._machine.tick(self._now())
        self._carry_out()

    def _seal_key_to_register(self, identity: Identity, resuming: bool) -> m.SealKey:
        assert self.seal_keys  # the machine has this function only then  # noqa: S101
        return wire(self.seal_keys.to_register(identity, resuming=resuming))

    async def _change_seal_key(self) -> None:
        try:
            await self.renew_seal_key()
        except AldisError as error:
            _logger.debug("no new sealing key: %s", error)
        finally:
            self._sealing = None

    async def _dial(self, tcp_timeout: float | None = None) -> None:
        transport = await open_transport(
            self._server_address,
            ssl_context=self._ssl_context,
            connect_timeout=self._connect_timeout,
            tcp_timeout=tcp_timeout,
        )
        self._transport = transport
        self._machine.connected(self._now())
        self._carry_out()
        transport.start(self)

    async def _redial(self) -> None:
        try:
            if self.identity is not None:
                await self._token.renew(self._connect_timeout)
            await self._redialling.attempt(self._dial)
        except ServerUnreachable as error:
            self._machine.unreachable(self._now(), error.reason)
        except TokenUnavailable as error:
            self._machine.unreachable(self._now(), str(error))
        except Exception:
            # A fault of our own: log it, and dial again later.
            _logger.exception("dialling failed because of an internal error")
            self._machine.unreachable(self._now(), "an internal error")
        finally:
            self._dialing = None
        self._carry_out()

    # --- requests and futures ---------------------------------------------------------------------------------------

    async def _writable(self, request: str) -> None:
        """Wait until the network has taken what was sent, so that senders slow down to its pace."""
        if (transport := self._transport) is None or transport.is_writable:
            return
        seconds = self._machine.settings.request_timeout
        try:
            async with asyncio.timeout(seconds):
                await transport.writable()
        except TimeoutError:
            raise RequestTimeout(request, seconds) from None

    async def _relay(self, message: m.Relayed) -> None:
        await self._writable(str(message.__struct_config__.tag))
        await self._done([self._machine.relay(message, self._now())])

    def _future(self, number: int) -> asyncio.Future[Result]:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._futures[number] = future
        return future

    async def _done(self, numbers: Iterable[int]) -> None:
        """Wait for requests without a result; raise the first error when all have ended."""
        futures = [self._future(number) for number in numbers]
        self._carry_out()
        if len(futures) > 1:  # it takes two more turns of the loop, and all that is relayed is alone
            await asyncio.gather(*futures, return_exceptions=True)
        for future in futures:
            await future

    async def _result(self, number: int, kind: type[_T]) -> _T:
        future = self._future(number)
        self._carry_out()
        result = await future
        if not isinstance(result, kind):
            raise TypeError(f"request {number} gave {result!r}")
        return result
