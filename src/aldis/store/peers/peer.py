"""All that a store keeps of one peer: the messages, the dialer, and the connection when there is one.

Rules of this module:

* A peer outlives its connections. Each `PeerConnection` has a listener of its own (`_Ears`), so that one that was let
  go of is not heard any more.
* A peer that breaks the protocol loses the connection, not the peer: what it has sent before stands.
* What a peer may ask of the store is in `PeerContext`; it knows of no other peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Final, Protocol

from aldis.client.backoff import Backoff
from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
    Discovery,
    OfferReceived,
    PresenceChanged,
)
from aldis.errors import (
    AldisError,
    PeerConnectionFailed,
    PeerKeyChanged,
    PeerOffline,
    PeerUnknown,
    ProtocolViolation,
    RequestFailed,
)
from aldis.peer.connection import Failure, PeerConnection, PeerListener, PeerState
from aldis.peer.transport import Timers
from aldis.protocol.addresses import DEFAULT_DEVICE, split
from aldis.protocol.channel import Ack, Chunk, Content, Hello
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.stream import MessageStream, Recipient
from aldis.store.peers.dialer import Dialer, registered_anew
from aldis.store.state import PeerStats, PeerView, StoreLimits, peer_stats

_log = logging.getLogger(__name__)

# Of what the peer's program says that it can do; this version knows of two things, with short names.
MAX_FEATURES: Final = 16
MAX_FEATURE: Final = 32


class PeerContext(Protocol):
    """What a peer needs of the store that it belongs to."""

    @property
    def limits(self) -> StoreLimits:
        """How much may be kept."""

    @property
    def backoff(self) -> Backoff:
        """The pauses between calls."""

    @property
    def mailbox(self) -> Recipient:
        """Where messages go."""

    @property
    def timers(self) -> Timers:
        """Time."""

    @property
    def registered(self) -> bool:
        """Whether the server can be asked."""

    @property
    def ended(self) -> AldisError | None:
        """Why the server will never be there again, or None."""

    async def watch(self, user_id: str) -> None:
        """Have presence told. Raises `SignalingError`."""

    async def discover(self, user_id: str) -> Discovery:
        """Ask the server for a user. Raises `SignalingError`."""

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        """Note what the directory says; return the key that stands, which is the pinned one where there is one. Raises
        `FingerprintMismatch`, `IdentityError`."""

    def require(self, user_id: str, fingerprint: str) -> None:
        """Refuse all keys with another fingerprint. Raises `FingerprintMismatch` when such a one is pinned, and
        `IdentityError`."""

    def pinned(self, user_id: str) -> bytes | None:
        """The key that is pinned, to be shown; None, too, when that cannot be read."""

    def connection(self, user_id: str, listener: PeerListener, hello: Callable[[], Hello]) -> PeerConnection:
        """Make a connection."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start a task that the store owns."""

    def random(self) -> float:
        """A number evenly from 0 to 1."""

    def changed(self, peer: Peer) -> None:
        """Something in `Peer.view` may have changed."""

    def arrived(self, size: int) -> None:
        """So many bytes of a message have come."""

    def connected(self, peer: Peer) -> None:
        """What is sent gets through, now or again."""

    def control_received(self, peer: Peer, data: bytes) -> None:
        """The peer's store says something. Must not raise."""

    def over(self, peer: Peer, error: AldisError, *, restarted: bool = False) -> None:
        """What is under way beyond messages will not get any further, for `error`. With `restarted` a new program has
        taken the other's place: what it was not told yet it can be told."""

    def busy(self, user_id: str) -> bool:
        """Whether something is under way that needs a connection."""


class Peer:
    """One peer, as long as the store knows it."""

    def __init__(self, user_id: str, context: PeerContext, stream: str, online: bool | None, *, stranger: bool) -> None:
        """`stream` is a random name; `online` what is known already; see `stranger`."""
        self.user_id = user_id
        self.stranger = stranger  # they have come by themselves: the application has neither called nor written
        self.kept = False  # the application has asked for a connection, and had it
        self.admitted: bytes | None = None  # the key with which the application lets the peer in
        self.touched = 0.0  # when something happened here last
        self.watched = False
        self._features: tuple[str, ...] = ()  # what the peer's program can do, as it has said last
        self._context = context
        self._asking = 0
        self._state = PeerState.NEW
        self._error: AldisError | None = None
        self._online = online
        self._devices: tuple[str, ...] = ()  # those that are online, newest first, as the server has said last
        self._key = context.pinned(user_id)
        self._blocked: PeerKeyChanged | None = None
        self._connection: PeerConnection | None = None
        self._ears: _Ears | None = None
        self._connections = 0
        self.messages = MessageStream(
            user_id,
            stream,
            limits=context.limits,
            path=self,
            recipient=context.mailbox,
            control=lambda data: context.control_received(self, data),
            timers=context.timers,
        )
        self.dialer = Dialer(
            self, backoff=context.backoff, timers=context.timers, random=context.random, spawn=context.spawn
        )

    # --- for the store --------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether there should be a connection."""
        return self.kept or self._asking > 0 or self.messages.queued > 0 or self._context.busy(self.user_id)

    @property
    def idle(self) -> bool:
        """Whether it may be forgotten to make place for another peer."""
        quiet = self.state not in (PeerState.CONNECTING, PeerState.CONNECTED, PeerState.DISCONNECTED)
        return quiet and not (self.wanted or self.messages.waiting)

    @property
    def features(self) -> tuple[str, ...] | None:
        """What the peer's program can do; None while nothing gets through to it."""
        return self._features if self.state is PeerState.CONNECTED else None

    @property
    def round_trip_time(self) -> float | None:
        """Seconds, or None while the peer is not connected or nothing was measured."""
        connection = self._connection if self._state is PeerState.CONNECTED else None
        return None if connection is None else connection.round_trip_time

    @property
    def view(self) -> PeerView:
        """The peer as the application sees it."""
        return PeerView(
            user_id=self.user_id,
            state=self._state,
            online=self._online,
            round_trip_time=self.round_trip_time,
            public_key=self._key,
            queued=self.messages.queued,
            error=self._error,
            connections=self._connections,
            features=self.features or (),
        )

    async def stats(self) -> PeerStats | None:
        """The path and the traffic; None when there is no connection."""
        connection = self._connection
        found = None if connection is None else await connection.stats()
        return None if connection is None or found is None else peer_stats(found, connection.round_trip_time)

    async def connect(self, seconds: float, fingerprint: str | None) -> None:
        """Return when the peer is connected. Raises `PeerError`, `IdentityError`, `StateError`, and why the server is
        gone for good."""
        self._check()
        self.stranger = False
        if fingerprint is not None:
            self._context.require(self.user_id, fingerprint)
        self._asking += 1
        try:
            await self.dialer.connected(seconds)
            self.kept = True
        finally:
            self._asking -= 1
            self.dialer.reconsider()
            self._changed()

    def send(self, content: Content, data: bytes) -> Delivery:
        """Queue a message. Raises `QueueFull`, `PeerKeyChanged` until the new key is accepted, and why the server is
        gone for good where it would be needed."""
        self._check()
        delivery = self.messages.send(content, data)
        self.stranger = False
        if self.state is not PeerState.CONNECTED:
            self.dialer.queued()
        self._changed()
        return delivery

    def send_control(self, data: bytes) -> Delivery:
        """Queue a word to the peer's store. Raises as `send` does; nobody is called for it."""
        self._check()
        return self.messages.send(Content.CONTROL, data)

    def call(self) -> None:
        """There is a new reason to be connected. Raises as `send` does."""
        self._check()
        self.stranger = False
        if self.state is not PeerState.CONNECTED:
            self.dialer.queued()

    def receive(self, event: OfferReceived | AnswerReceived | CandidateReceived | ByeReceived) -> bool:
        """Take in what the peer says through the server; False when it is meant for a connection that is gone."""
        connection = self._connection
        if connection is None:
            if not isinstance(event, OfferReceived):
                return False
            connection = self._connect()
        elif isinstance(event, AnswerReceived) and not connection.knows(event.connection):
            return False
        # A bare user id as sender is the device `main`; as recipient it would be whichever device came last.
        user_id, device = split(event.sender)
        connection.receive(event if device is not None else replace(event, sender=f"{user_id}/{DEFAULT_DEVICE}"))
        return True

    def presence_changed(self, event: PresenceChanged) -> None:
        """The server has said whether the peer is online."""
        anew = not event.initial and registered_anew(self._devices, event.devices)
        self._online, self._devices = event.online, event.devices
        self.dialer.presence_changed(event.online, anew=anew)
        self._changed()

    def watch_ended(self) -> None:
        """The server does not say any more whether the peer is online: it has to be asked."""
        self.watched = False
        self._online, self._devices = None, ()
        self.dialer.poke(now=True)
        self._changed()

    def accept(self, *, changed: bool) -> None:
        """The application has accepted a key; `changed` when another one was pinned before."""
        self._key = self._context.pinned(self.user_id)
        self._blocked = self._error = None
        if changed:
            self.hang_up("another key of yours has been accepted")
        self.dialer.accepted()
        self._changed()

    def drop(self, reason: str) -> None:
        """End the connection for a fault of the peer's, and call again later if it is wanted."""
        error = PeerConnectionFailed(self.user_id, reason)
        self._release(reason)
        self._state = PeerState.FAILED
        self._error = error
        self._context.over(self, error)  # the other side is told goodbye, which ends it there
        self.dialer.state_changed(PeerState.FAILED, error)
        self._changed()

    def let_go(self, reason: str) -> None:
        """End the connection, and forget what has arrived and is not handed over: it will come again."""
        self.drop(reason)
        self.messages.let_go()

    async def close(self, farewell: str, reason: str, error: AldisError) -> None:
        """End everything with this peer: it is told `farewell`, what waits for it fails for `reason`, who waits for a
        connection gets `error`. The peer can be used again.

        Done before it first waits, but for the connection's own end.
        """
        self.kept = False
        self.dialer.stop(error)
        self.messages.flush()
        connection = self._detach()
        self._fail(reason, error)
        if self._state is not PeerState.NEW:
            self._state = PeerState.CLOSED
        self._error = self._blocked
        self._changed()
        if connection is not None:
            await connection.close(farewell)

    def signaling_ended(self, error: AldisError) -> None:
        """The server will never be there again: what needs it is over, what is connected goes on."""
        if self.state not in (PeerState.CONNECTED, PeerState.DISCONNECTED):
            self.dialer.stop(error)
            self._fail(f"the signaling server is gone for good: {error}", error)
            self._changed()

    def _check(self) -> None:
        if self._blocked is not None:
            raise PeerKeyChanged(self.user_id, self._blocked.pinned, self._blocked.offered)
        ended = self._context.ended
        if ended is not None and self.state not in (PeerState.CONNECTED, PeerState.DISCONNECTED):
            raise ended

    # --- for the dialer -------------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """How many messages wait for the peer."""
        return self.messages.queued

    @property
    def registered(self) -> bool:
        """Whether the server can be asked."""
        return self._context.registered

    @property
    def state(self) -> PeerState:
        """How the connection stands now; what was told may be a moment older."""
        return self._state if self._connection is None else self._connection.state

    @property
    def clock_from(self) -> float | None:
        """When the turn of the attempt came; None while it waits for it. Long ago when there is no attempt."""
        return 0.0 if self._connection is None else self._connection.clock_from

    async def find(self) -> None:
        """Ask the server for the peer. Raises `SignalingError`, `PeerOffline`, `PeerUnknown`, `PeerKeyChanged`,
        `IdentityError`."""
        if not self.watched:
            try:
                await self._context.watch(self.user_id)
            except RequestFailed as error:
                # The server allows no more watches: it is asked at each attempt then.
                _log.debug("the presence of %s cannot be watched: %s", self.user_id, error)
            else:
                self.watched = True
        found = await self._context.discover(self.user_id)
        self._online, self._devices = found.online, found.devices
        if found.public_key is not None:
            standing = self._context.expect(self.user_id, found.public_key)
            if standing != found.public_key:
                raise PeerKeyChanged(self.user_id, standing, found.public_key)
        if not found.online:
            raise PeerOffline(self.user_id) if found.public_key is not None else PeerUnknown(self.user_id)

    def dial(self) -> None:
        """Start to connect, unless that is under way."""
        connection = self._connection or self._connect()
        connection.connect()

    def hang_up(self, reason: str) -> None:
        """End an attempt or a connection, for good."""
        if self._connection is not None:
            was_connected = self.state is PeerState.CONNECTED
            self._release(reason)
            self._state = PeerState.CLOSED
            if was_connected:
                self._context.over(self, PeerConnectionFailed(self.user_id, reason))
            self._changed()

    def blocked(self, error: PeerKeyChanged) -> None:
        """The key has changed: nothing that waits can be delivered."""
        self._blocked = error
        self._release("the key has changed")
        self._state = PeerState.FAILED
        self._fail(str(error), error)
        self._changed()

    def failed(self, error: AldisError) -> None:
        """An attempt has failed."""
        # That the peer is away is no fault: `online` says it.
        self._error = None if isinstance(error, PeerOffline | PeerUnknown) else error
        self._changed()

    # --- for the messages -------------------------------------------------------------------------------------

    def send_frame(self, frame: bytes) -> bool:
        """The direct path."""
        return self._connection is not None and self._connection.send_frame(frame)

    # --- the connection -------------------------------------------------------------------------------------------

    def _connect(self) -> PeerConnection:
        self._ears = _Ears(self)
        self._connection = self._context.connection(self.user_id, self._ears, self._ears.hello)
        return self._connection

    def _detach(self) -> PeerConnection | None:
        connection, self._connection, self._ears = self._connection, None, None
        self.messages.closed()
        return connection

    def _release(self, reason: str) -> None:
        connection = self._detach()
        if connection is not None:
            self._context.spawn(connection.close(reason), f"close {self.user_id}")

    def _fail(self, reason: str, error: AldisError) -> None:
        """Nothing that waits will be delivered."""
        self.messages.fail(reason)
        self._context.over(self, error)

    def _changed(self) -> None:
        self.touched = self._context.timers.time()
        self._context.changed(self)

    def hears(self, ears: _Ears) -> bool:
        """Whether these are the ears of the connection that counts."""
        return self._ears is ears

    def state_changed(self, state: PeerState, error: Failure | None) -> None:
        before, self._state = self._state, state
        if state is PeerState.CONNECTED:
            self._key = self._context.pinned(self.user_id)
            self._error = None
            self._context.connected(self)
        elif error is not None:
            self._error = error
        if state is PeerState.CLOSED and before is PeerState.CONNECTED:
            self._context.over(self, PeerConnectionFailed(self.user_id, "the other side has hung up"))
        # What was told may be overtaken by a new attempt already; the dialer counts attempts.
        if state is self.state:
            self.dialer.state_changed(state, error)
        if self._context.ended is not None:
            self.signaling_ended(self._context.ended)
        self._changed()

    def channel_opened(self, hello: Hello) -> None:
        self._connections += 1
        # What is not of this version is shown too, so that a program may tell; within reason, since it is a stranger's.
        known = [feature for feature in hello.features if len(feature) <= MAX_FEATURE]
        self._features = tuple(known[:MAX_FEATURES])
        self._obey(lambda: self._begin(hello))

    def _begin(self, hello: Hello) -> None:
        if self.messages.opened(hello):
            reason = "the other side was started anew, or is another device"
            self._context.over(self, PeerConnectionFailed(self.user_id, reason), restarted=True)

    def frame_received(self, frame: Chunk | Ack) -> None:
        self._obey(lambda: self.messages.received(frame))
        if isinstance(frame, Chunk):
            self._context.arrived(len(frame.data))

    def refused(self, error: Failure) -> None:
        _log.warning("%s", error)
        self.dialer.refused(error)
        if self.state is not PeerState.CONNECTED:
            self._error = error
        self._changed()

    def _obey(self, take_in: Callable[[], None]) -> None:
        before = self.messages.queued
        try:
            take_in()
        except ProtocolViolation as error:
            _log.warning("%s breaks the protocol: %s", self.user_id, error)
            self.drop(f"it breaks the protocol: {error}")
        else:
            if self.messages.queued != before:
                self._changed()


class _Ears:
    """The listener of one connection; deaf once the peer has let go of it."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def state_changed(self, state: PeerState, error: Failure | None) -> None:
        if self._peer.hears(self):
            self._peer.state_changed(state, error)

    def hello(self) -> Hello:
        messages = self._peer.messages
        return messages.hello() if self._peer.hears(self) else messages.greeting()

    def channel_opened(self, hello: Hello) -> None:
        if self._peer.hears(self):
            self._peer.channel_opened(hello)

    def frame_received(self, frame: Chunk | Ack) -> None:
        if self._peer.hears(self):
            self._peer.frame_received(frame)

    def channel_closed(self) -> None:
        if self._peer.hears(self):
            self._peer.messages.closed()

    def writable(self) -> None:
        if self._peer.hears(self):
            self._peer.messages.pump()

    def refused(self, error: Failure) -> None:
        if self._peer.hears(self):
            self._peer.refused(error)
