"""NetworkStore: one object with which a program talks to others by their names.

It owns the connection to the signaling server and a `Link` for each peer, turns what the server brings into calls of
the links, and gives the application messages and state. Offers, candidates, reconnects, lost messages and proofs do
not show.

Rules of this module:

* One store, one user of one server, one life: after `disconnect()` a new one is needed.
* Everything happens on the loop on which `connect_to_signaling` was called.
* A fault of one peer, or of one callback, stays there.

It does not know how messages get through (`conversation`), when a peer is called (`caller`), nor what WebRTC is.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final

from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
from aldis.client.endpoint import Endpoint
from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
    Closed,
    Disconnected,
    Discovery,
    OfferReceived,
    PresenceChanged,
    Registered,
    SignalingEvent,
    SignalingState,
)
from aldis.errors import (
    AldisError,
    ConnectionLost,
    PeerConnectionFailed,
    ProtocolViolation,
    SignalingError,
    StateError,
    TooManyPeers,
    UsageError,
)
from aldis.identity.keys import PUBLIC_KEY_BYTES, Identity
from aldis.identity.pins import MemoryPins, Pins
from aldis.peer.connection import PeerConnection, PeerListener, PeerTiming
from aldis.peer.engine import Engine, EngineConfig
from aldis.peer.engines.catalog import load_engine
from aldis.peer.trust import Trust
from aldis.protocol.addresses import DEFAULT_DEVICE, check_user_id, split
from aldis.protocol.channel import Hello
from aldis.protocol.messages import IceServer
from aldis.store import content
from aldis.store.content import Sendable
from aldis.store.delivery import Delivery
from aldis.store.feeds import Letter, Mailbox, StateFeed, States
from aldis.store.ice import IceKeeper, PeerEvent, is_this_machine
from aldis.store.keys import DirectoryPins
from aldis.store.link import Link
from aldis.store.reception import Accept, Reception
from aldis.store.state import Message, PeerView, StoreLimits, StoreState
from aldis.store.tasks import Tasks

_log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 5.0  # for goodbyes; who cannot be reached by then will find out by itself
_PULSE_SECONDS: Final = 1.0  # how often round-trip times are looked at; the heartbeat is not faster
_STREAM_BYTES: Final = 16


class NetworkStore:
    """Talk to other users of a signaling server, directly and privately.

    `await connect_to_signaling(url, user_id)` first; then `send`, `messages`, `connect_to_peer`, `subscribe`; at the
    end `await disconnect()`, or use it with `async with`. All of it in docs/store.md.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        *,
        pins: Pins | None = None,
        engine: str | Engine = "wrtc",
        ice_servers: Sequence[IceServer] | None = None,
        allow_loopback: bool | None = None,
        accept: Accept | None = None,
        limits: StoreLimits | None = None,
        backoff: Backoff | None = None,
        timing: PeerTiming | None = None,
    ) -> None:
        """Nothing is connected yet.

        `identity`: our key; a fresh one when None, so nobody will know us again. `pins`: the keys of others; kept in
        memory when None. `engine`: `wrtc`, `aiortc`, or an engine. `ice_servers`: STUN and TURN servers; the
        signaling server is asked when None. `allow_loopback`: connect through 127.0.0.1 too; when None, if the
        signaling server is on this machine. `accept(user_id, public_key)`: whether a user who calls is let in;
        everybody is when None. `limits`, `backoff` (between calls to a peer), `timing` (of peer connections): for
        those who know better than the defaults.

        Raises `EngineMissing`.
        """
        self.identity = identity if identity is not None else Identity.generate()
        self.limits = limits or StoreLimits()
        self.backoff = backoff or Backoff()
        self._pins = DirectoryPins(pins if pins is not None else MemoryPins())
        self._engine = load_engine(engine) if isinstance(engine, str) else engine
        self._given_ice_servers = None if ice_servers is None else tuple(ice_servers)
        self._allow_loopback = allow_loopback
        self._accept = accept
        self._timing = timing
        self._client: SignalingClient | None = None
        self._trust: Trust | None = None
        self._ice: IceKeeper | None = None
        self._reception: Reception | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._signaling_error: AldisError | None = None
        self._links: dict[str, Link] = {}
        self._views: dict[str, PeerView] = {}
        self._publishing_soon = False
        self._arriving = 0  # at least what all links together hold of messages that are not handed over
        self._tasks = Tasks()  # of links: calls, goodbyes
        self._services = Tasks()
        self._feed = StateFeed()
        self.mailbox = Mailbox(self.limits.unread_messages, self.limits.unread_size, emptier=self._mailbox_has_room)
        self._closing: asyncio.Task[None] | None = None

    # --- the signaling server -------------------------------------------------------------------------------------

    async def connect_to_signaling(
        self,
        url: str,
        user_id: str,
        *,
        device: str = DEFAULT_DEVICE,
        token: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: Path | str | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Connect to the server at `url` and register as `user_id`. A lost connection comes back by itself.

        `device` tells the programs of one user apart. `ca_file`: certificates to trust, PEM. `backoff`: between
        attempts to reconnect. Raises `ServerUnreachable`, `RequestFailed` (code `key-mismatch`: the name belongs to
        another key), `UsageError` for arguments that cannot work, and `StateError` when the store is or was connected.
        After any other error than the last it may be called again.
        """
        if self._closing is not None:
            raise StateError("the store is closed; make a new one")
        if self._client is not None:
            raise StateError("the store is connected to a signaling server already")
        client = SignalingClient(
            url,
            check_user_id(user_id),
            device=device,
            token=token,
            ssl_context=ssl_context,
            ca_file=ca_file,
            backoff=backoff or Backoff(),
        )
        self._client = client
        self._trust = Trust(self.identity, user_id, client.server, self._pins)
        self._reception = Reception(client, self._accept, self.spawn)
        self._ice = IceKeeper(client, self._given_ice_servers, loopback=self._loopback(url))
        self._unsubscribe = client.subscribe(self._signaling_event)
        try:
            self._publish()
            await client.connect()
            await client.register(self.identity)
            self._services.spawn(self._ice.keep(), "keep the ICE servers")
            self._services.spawn(self._pulse(), "look at the round-trip times")
            for event in await self._ice.known():
                self._peer_event(event)
            self._ready()  # unless somebody has closed the store meanwhile
        except BaseException:
            self._unsubscribe()
            self._client = self._trust = self._ice = self._reception = self._unsubscribe = None
            await self._services.cancel()
            await client.close()
            self._publish()
            raise

    def _loopback(self, url: str) -> bool:
        return is_this_machine(Endpoint.parse(url).host) if self._allow_loopback is None else self._allow_loopback

    async def disconnect(self) -> None:
        """Say goodbye to all peers, leave the server, release everything. Idempotent.

        What has not been acknowledged fails with `DeliveryFailed` (wait with `drain` first); messages that have
        arrived can still be read.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="aldis store: disconnect")
        # Shielded: whoever gives up waiting must not leave sockets open.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for link in self._links.values():
            leaving = link.close("the other side has left", "the store was closed", StateError("the store was closed"))
            self._tasks.spawn(leaving, f"leave {link.user_id}")
        await self._services.cancel()
        await self._tasks.finish(_CLOSE_SECONDS)
        if self._client is not None:
            await self._client.close()
        if self._unsubscribe is not None:
            self._unsubscribe()
        self.mailbox.close()
        self._pins.close()
        self._publish()
        self._feed.close()

    async def __aenter__(self) -> NetworkStore:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    # --- peers ----------------------------------------------------------------------------------------------------

    async def connect_to_peer(self, user_id: str, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - one attempt is shared, each caller has a time of their own
        """Return when there is a direct connection to `user_id`; from then on it is kept up, whatever happens to it.

        Not needed before `send`, which connects by itself. Raises `PeerOffline`, `PeerUnknown` (nobody has this
        name), `PeerKeyChanged` (see `accept_key`), `ProofInvalid`, `PeerConnectionFailed` with a reason, after at most
        `timeout` seconds; `TooManyPeers`, `StateError`, `InvalidAddress`.
        """
        self._ready()
        await self._link(user_id).connect(timeout)

    async def disconnect_from_peer(self, user_id: str) -> None:
        """Say goodbye to one peer. What it has not acknowledged fails. It may call again, and so may we."""
        link = self._links.get(user_id)
        if link is not None:
            reason = "disconnect_from_peer was called"
            await link.close("the other side has hung up", reason, PeerConnectionFailed(user_id, reason))

    def accept_key(self, user_id: str, public_key: bytes) -> None:
        """Trust this key of a peer (32 bytes) from now on, instead of any other.

        To be called only after a person has compared fingerprints by other means: it is the one thing that keeps a
        stranger from taking the peer's place. Ends a connection that was made with another key.
        """
        client, _ = self._ready()
        check_user_id(user_id)
        if len(public_key) != PUBLIC_KEY_BYTES:
            raise UsageError(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(public_key)}")
        known = self._pins.pinned(client.server, user_id)
        self._pins.accept(client.server, user_id, public_key)
        link = self._links.get(user_id)
        if link is not None:
            link.accept(changed=known is not None and known != public_key)

    def _ready(self) -> tuple[SignalingClient, Trust]:
        if self._closing is not None:
            raise StateError("the store is closed")
        if self._client is None or self._trust is None:
            raise StateError("connect_to_signaling comes first")
        return self._client, self._trust

    def _link(self, user_id: str) -> Link:
        """The link of a peer, made if need be. Raises `InvalidAddress`, `UsageError`, `TooManyPeers`."""
        link = self._links.get(user_id)
        if link is None:
            client, _ = self._ready()
            if check_user_id(user_id) == client.user_id:
                raise UsageError("that is our own name")
            if len(self._links) >= self.limits.peers:
                self._forget_one()
            link = self._links[user_id] = Link(user_id, self, secrets.token_urlsafe(_STREAM_BYTES))
            self.changed(link)
        return link

    def _forget_one(self) -> None:
        idle = [link for link in self._links.values() if link.idle]
        if not idle:
            raise TooManyPeers(self.limits.peers)
        link = min(idle, key=lambda link: link.touched)
        client, _ = self._ready()
        del self._links[link.user_id], self._views[link.user_id]
        link.hang_up("forgotten")
        self._pins.forget(client.server, link.user_id)
        if link.watched:
            self.spawn(self._unwatch(client, link.user_id), f"unwatch {link.user_id}")

    async def _unwatch(self, client: SignalingClient, user_id: str) -> None:
        try:
            await client.unwatch(user_id)
        except (SignalingError, StateError) as error:
            _log.debug("the watch of %s was not ended: %s", user_id, error)

    # --- messages -------------------------------------------------------------------------------------------------

    async def send(self, user_id: str, message: Sendable) -> Delivery:
        """Queue a message for a peer: a str as text, bytes, or a JSON value (dict, list, number, bool, None).

        Returns at once. Messages arrive once and in order, as soon as the peer can be reached; `await` what is
        returned to know when this one has, or ignore it. Raises `MessageTooLarge`, `QueueFull`, `UsageError` for what
        cannot be sent, `PeerKeyChanged` until the new key is accepted, `TooManyPeers`, `StateError`.
        """
        self._ready()
        kind, data = content.encode(message)
        return self._link(user_id).send(kind, data)

    async def drain(self, user_id: str | None = None, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio.timeout
        """Wait until all that was sent so far (to one peer, or to all) is acknowledged.

        Raises `DeliveryFailed` when a message will not be, `TimeoutError` after `timeout` seconds (None: never).
        """
        # Of each peer the newest message: those before it have arrived by then, or fail with it.
        last = [link.conversation.last for link in self._links.values() if user_id in (None, link.user_id)]
        async with asyncio.timeout(timeout):
            for delivery in last:
                if delivery is not None:
                    await delivery

    def messages(self) -> AsyncIterator[Message]:
        """An iterator over the messages that arrive, of all peers; it ends after `disconnect()`.

        Of several iterators each gets a part. Who does not read holds the senders back: nothing is lost. Without an
        iterator messages wait; while there is an `on_message` callback they go there instead.
        """
        return _Messages(self.mailbox, self._read)

    def on_message(self, callback: Callable[[Message], None]) -> Callable[[], None]:
        """Have each message handed to `callback`, which must not block, instead of to `messages()`.

        Returns what ends it. A callback that raises is logged, and the message counts as delivered.
        """

        def read(letter: Letter) -> None:
            message = self._read(letter)
            if message is not None:
                callback(message)

        return self.mailbox.on_letter(read)

    def _read(self, letter: Letter) -> Message | None:
        try:
            return Message(letter.sender, content.decode(letter.content, letter.data), letter.sequence)
        except ProtocolViolation as error:
            _log.warning("a message of %s cannot be read: %s", letter.sender, error)
            link = self._links.get(letter.sender)
            if link is not None and self._closing is None:
                link.drop(f"it breaks the protocol: {error}")
            return None

    def _mailbox_has_room(self) -> None:
        for link in list(self._links.values()):
            if link.conversation.waiting:
                link.conversation.hand_over()

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> StoreState:
        """How things stand now."""
        return self._feed.current

    def subscribe(self, callback: Callable[[StoreState], None]) -> Callable[[], None]:
        """Have `callback` called now, and at each change. Returns what ends it. What it raises is logged.

        Changes that only count queued messages may be told together.
        """
        return self._feed.subscribe(callback)

    def states(self) -> AsyncIterator[StoreState]:
        """An iterator over the states: the current one, then each change; who is slow sees the newest only."""
        return States(self._feed)

    def _publish(self) -> None:
        self._publishing_soon = False
        client = self._client
        state = StoreState(
            signaling=SignalingState.DISCONNECTED if client is None else client.state,
            signaling_error=self._signaling_error,
            user_id=None if client is None else client.user_id,
            peers=MappingProxyType(dict(self._views)),
        )
        self._feed.publish(state)

    # --- what the server brings -----------------------------------------------------------------------------------

    def _signaling_event(self, event: SignalingEvent) -> None:
        match event:
            case PresenceChanged():
                link = self._links.get(event.user_id)
                if link is not None:
                    link.presence_changed(event)
            case OfferReceived() | AnswerReceived() | CandidateReceived() | ByeReceived():
                # Not before it is known through which servers to answer.
                if self._ice is not None and not self._ice.hold_back(event):
                    self._peer_event(event)
            case _:
                if isinstance(event, Registered):
                    self._signaling_error = None
                    for link in list(self._links.values()):
                        link.caller.signaling_returned(resumed=event.resumed)
                elif isinstance(event, Disconnected):
                    self._signaling_error = ConnectionLost(event.reason)
                elif isinstance(event, Closed):
                    self._signaling_error = event.error
                self._publish()

    def _peer_event(self, event: PeerEvent) -> None:
        user_id, _ = split(event.sender)
        link = self._links.get(user_id)
        if self._closing is not None or self._reception is None:
            return
        if isinstance(event, OfferReceived):
            link = self._reception.admit(event, user_id, link, self._link)
        if link is not None:
            link.receive(event)

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(_PULSE_SECONDS)
            for link in list(self._links.values()):
                self.changed(link)

    # --- for the links (`link.Home`) ------------------------------------------------------------------------------

    @property
    def timers(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    @property
    def registered(self) -> bool:
        return self._client is not None and self._client.state is SignalingState.CONNECTED and self._closing is None

    async def watch(self, user_id: str) -> None:
        client, _ = self._ready()
        await client.watch(user_id)

    async def discover(self, user_id: str) -> Discovery:
        client, _ = self._ready()
        return await client.discover(user_id)

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        client, _ = self._ready()
        return self._pins.expect(client.server, user_id, public_key)

    def pinned(self, user_id: str) -> bytes | None:
        client, _ = self._ready()
        return self._pins.pinned(client.server, user_id)

    def connection(self, user_id: str, listener: PeerListener, hello: Callable[[], Hello]) -> PeerConnection:
        client, trust = self._ready()
        return PeerConnection(
            local=client.user_id,
            remote=user_id,
            engine=self._engine,
            config=self._config(),
            trust=trust,
            signaling=client,
            listener=listener,
            hello=hello,
            timing=self._timing,
        )

    def refresh(self, connection: PeerConnection) -> None:
        connection.config = self._config()

    def _config(self) -> EngineConfig:
        return EngineConfig() if self._ice is None else self._ice.config

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        return self._tasks.spawn(work, name)

    def random(self) -> float:
        return random.random()  # noqa: S311 - a pause, no secret

    def changed(self, link: Link) -> None:
        if self._links.get(link.user_id) is not link:
            return
        view, before = link.view, self._views.get(link.user_id)
        if view == before:
            return
        self._views[link.user_id] = view
        if before is None or replace(before, queued=view.queued) != view:
            self._publish()
        elif not self._publishing_soon:
            self._publishing_soon = True
            self.timers.call_soon(self._publish)

    def arrived(self, size: int) -> None:
        # An estimate that is never too low; looked at closely only when it comes to the limit.
        self._arriving += size
        if self._arriving > self.limits.arriving_size:
            links = list(self._links.values())
            self._arriving = sum(link.conversation.arriving for link in links)
            if self._arriving > self.limits.arriving_size:
                link = max(links, key=lambda link: link.conversation.arriving)
                self._arriving -= link.conversation.arriving
                _log.warning("%s has sent more than there is room for", link.user_id)
                link.let_go("it has sent more than there is room for; it will be sent again")


class _Messages:
    """The iterator of `messages()`."""

    def __init__(self, mailbox: Mailbox, read: Callable[[Letter], Message | None]) -> None:
        self._mailbox = mailbox
        self._read = read

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> Message:
        while (letter := await self._mailbox.next()) is not None:
            message = self._read(letter)
            if message is not None:
                return message
        raise StopAsyncIteration
