"""All that a store keeps of one peer: its messages, the dialer, the path, and what the server says of it.

Rules of this module:

* A peer outlives its connections (`path`), and the login.
* A peer that breaks the protocol loses the connection, and nothing else: what it has sent before stands.
* What a peer may ask of the store is in `PeerContext`; it knows of no other peer.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final, Protocol

from aldis.client.backoff import Backoff
from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
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
)
from aldis.peer.connection import Failure, PeerState
from aldis.peer.transport import Timers
from aldis.protocol.channel import Ack, Chunk, Content, Hello
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.stream import MessageStream, Recipient
from aldis.store.peers.dialer import Dialer
from aldis.store.peers.path import DirectPath, PathContext
from aldis.store.peers.presence import Directory, PeerPresence
from aldis.store.peers.views import PeerViews
from aldis.store.services import PeerServices
from aldis.store.state import PeerStats, PeerView, StoreLimits, peer_stats

_log = logging.getLogger(__name__)

# Of what the peer's program says that it can do; this version knows of two things, with short names.
MAX_FEATURES: Final = 16
MAX_FEATURE: Final = 32
_STREAM_BYTES: Final = 16


class PeerContext(PathContext, Directory, Protocol):
    """What a peer needs of the store that it belongs to."""

    views: PeerViews  # is told when something in `Peer.view` may have changed
    services: PeerServices  # what goes on with peers beyond messages

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

    def require(self, user_id: str, fingerprint: str) -> None:
        """Refuse all keys with another fingerprint. Raises `FingerprintMismatch` when such a one is pinned, and
        `IdentityError`."""

    def pinned(self, user_id: str) -> bytes | None:
        """The key that is pinned, to be shown; None, too, when that cannot be read."""

    def random(self) -> float:
        """A number evenly from 0 to 1."""

    def arrived(self, size: int) -> None:
        """So many bytes of a message have come."""

    def control_received(self, peer: Peer, data: bytes) -> None:
        """The peer's store says something. Raises `ProtocolViolation`."""


class Peer:
    """One peer, as long as the store knows it."""

    def __init__(self, user_id: str, context: PeerContext, presence: PeerPresence) -> None:
        self.user_id = user_id
        self.presence = presence
        self.known = False  # it is a peer, and takes the place of one; else a user whom the application watches
        self.stranger = True  # they have come by themselves: the application has neither called nor written
        self.kept = False  # the application has asked for a connection, and had it
        self.admitted: bytes | None = None  # the key with which the application lets the peer in
        self.touched = 0.0  # when something happened here last
        self.blocked: PeerKeyChanged | None = None  # nothing is delivered before a person has accepted the new key
        self._features: tuple[str, ...] = ()  # what the peer's program can do, as it has said last
        self._context = context
        self._asking = 0
        self._error: AldisError | None = None
        self._key = context.pinned(user_id)
        self._connections = 0
        self.path = DirectPath(self, context)
        self.messages = MessageStream(
            user_id,
            secrets.token_urlsafe(_STREAM_BYTES),
            limits=context.limits,
            path=self.path,
            recipient=context.mailbox,
            control=self._control_received,
            timers=context.timers,
        )
        self.dialer = Dialer(
            self, backoff=context.backoff, timers=context.timers, random=context.random, spawn=context.spawn
        )

    # --- for the store --------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether there should be a connection."""
        return self.kept or self._asking > 0 or self.messages.queued > 0 or self._context.services.busy(self)

    @property
    def idle(self) -> bool:
        """Whether it may be forgotten to make place for another peer."""
        quiet = not (self.path.connected or self.state is PeerState.CONNECTING)
        return quiet and not (self.wanted or self.messages.waiting)

    @property
    def features(self) -> tuple[str, ...] | None:
        """What the peer's program can do; None while nothing gets through to it."""
        return self._features if self.state is PeerState.CONNECTED else None

    @property
    def round_trip_time(self) -> float | None:
        """Seconds, or None while the peer is not connected or nothing was measured."""
        connection = self.path.connection if self.path.told is PeerState.CONNECTED else None
        return None if connection is None else connection.round_trip_time

    @property
    def view(self) -> PeerView:
        """The peer as the application sees it."""
        return PeerView(
            user_id=self.user_id,
            state=self.path.told,
            online=self.presence.online,
            round_trip_time=self.round_trip_time,
            public_key=self._key,
            queued=self.messages.queued,
            error=self._error,
            connections=self._connections,
            features=self.features or (),
        )

    def load_pin(self) -> None:
        """It is known now whose directory counts: show the key that is pinned there."""
        self._key = self._context.pinned(self.user_id)
        self._context.views.changed(self)

    async def stats(self) -> PeerStats | None:
        """The path and the traffic; None when there is no connection."""
        connection = self.path.connection
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
        self._counted()
        return delivery

    def send_control(self, data: bytes) -> Delivery:
        """Queue a control message. Raises as `send` does; nobody is called for it."""
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
        connection = self.path.connection
        if not isinstance(event, OfferReceived) and connection is None:
            return False
        if isinstance(event, AnswerReceived) and connection is not None and not connection.knows(event.connection):
            return False
        self.path.open().receive(event)
        return True

    def presence_changed(self, event: PresenceChanged) -> None:
        """The server has said whether the peer is online."""
        anew = self.presence.changed(event)
        self.dialer.presence_changed(event.online, anew=anew)
        self._changed()

    def watch_ended(self) -> None:
        """The server does not say any more whether the peer is online: it has to be asked."""
        self.presence.watch_ended()
        self.dialer.poke(now=True)
        self._changed()

    def accept(self, *, changed: bool) -> None:
        """The application has accepted a key; `changed` when another one was pinned before."""
        self._key = self._context.pinned(self.user_id)
        self.blocked = self._error = None
        if changed:
            reason = "another key was accepted"
            self.hang_up(reason)
            # The owner of the new key knows nothing of what is under way.
            self._over(PeerConnectionFailed(self.user_id, reason), restarted=True)
        self.dialer.accepted(changed=changed)
        self._changed()

    def drop(self, reason: str) -> None:
        """End the connection for a fault of the peer's, and call again later if it is wanted."""
        error = PeerConnectionFailed(self.user_id, reason)
        self.path.release(reason, PeerState.FAILED)
        self._error = error
        self._over(error)  # the other side is told goodbye, which ends it there
        self.dialer.state_changed(PeerState.FAILED, error)
        self._changed()

    def broke(self, problem: str) -> None:
        """What the peer has said breaks the protocol."""
        _log.warning("%s breaks the protocol: %s", self.user_id, problem)
        self.drop(f"it breaks the protocol: {problem}")

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
        connection = self.path.detach()
        self._fail(reason, error)
        if self.path.told is not PeerState.NEW:
            self.path.told = PeerState.CLOSED
        self._error = self.blocked
        self._changed()
        if connection is not None:
            await connection.close(farewell)

    def signaling_ended(self, error: AldisError) -> None:
        """The server will never be there again: what needs it is over, what is connected goes on."""
        if not self.path.connected:
            self.dialer.stop(error)
            self._fail(f"the signaling server is gone for good: {error}", error)
            self._changed()

    def _check(self) -> None:
        if self.blocked is not None:
            raise PeerKeyChanged(self.user_id, self.blocked.pinned, self.blocked.offered)
        ended = self._context.ended
        if ended is not None and not self.path.connected:
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
    def watched(self) -> bool:
        """Whether the server will tell when the peer comes online."""
        return self.presence.watched

    @property
    def state(self) -> PeerState:
        """How the connection stands now; what was told may be a moment older."""
        return self.path.state

    @property
    def clock_from(self) -> float | None:
        """When the turn of the attempt came; None while it waits for it. Long ago when there is no attempt."""
        return 0.0 if self.path.connection is None else self.path.connection.clock_from

    async def find(self) -> None:
        """Ask the server for the peer. Raises `SignalingError`, `PeerOffline`, `PeerUnknown`, `PeerKeyChanged`,
        `IdentityError`."""
        await self.presence.find(self._context)

    def dial(self) -> None:
        """Start to connect, unless that is under way."""
        self.path.open().connect()

    def hang_up(self, reason: str) -> None:
        """End an attempt or a connection, for good."""
        if self.path.connection is not None:
            self.path.release(reason, PeerState.CLOSED)
            self._changed()

    def failed(self, error: AldisError, *, key_changed: PeerKeyChanged | None = None) -> None:
        """An attempt has failed. With `key_changed` nothing that waits can be delivered."""
        # That the peer is away is no fault: `online` says it.
        self._error = None if isinstance(error, PeerOffline | PeerUnknown) else error
        if key_changed is not None:
            self.blocked = key_changed
            self.path.release("the key has changed", PeerState.FAILED)
            self._fail(str(error), error)
        self._changed()

    # --- what the connection tells (`peer.connection.PeerListener`) --------------------------------------------------

    def state_changed(self, state: PeerState, error: Failure | None) -> None:
        before, self.path.told = self.path.told, state
        if state is PeerState.CONNECTED:
            self._key = self._context.pinned(self.user_id)
            self._error = None
            self._context.services.connected(self)
        elif error is not None:
            self._error = error
        if state is PeerState.CLOSED and before is PeerState.CONNECTED:
            self._over(PeerConnectionFailed(self.user_id, "the other side has hung up"))
        # What was told may be overtaken by a new attempt already; the dialer counts attempts.
        if state is self.state:
            self.dialer.state_changed(state, error)
        ended = self._context.ended
        if ended is not None:
            self.signaling_ended(ended)
        self._changed()

    def channel_opened(self, hello: Hello) -> None:
        self._connections += 1
        # What is not of this version is shown too, so that a program may tell; within reason, since it is a stranger's.
        known = [feature for feature in hello.features if len(feature) <= MAX_FEATURE]
        self._features = tuple(known[:MAX_FEATURES])
        try:
            restarted = self.messages.opened(hello)
        except ProtocolViolation as error:
            self.broke(str(error))
            return
        if restarted:
            reason = "the other side was started anew, or is another device"
            self._over(PeerConnectionFailed(self.user_id, reason), restarted=True)
        if self.path.told is PeerState.CONNECTED:
            # In place of the connection before: no other state follows that would tell it.
            self._context.services.connected(self)
            self._changed()
        else:
            self._counted()

    def frame_received(self, frame: Chunk | Ack) -> None:
        before = self.messages.queued
        try:
            self.messages.received(frame)
        except ProtocolViolation as error:
            self.broke(str(error))
            return
        if isinstance(frame, Chunk):
            self._context.arrived(len(frame.data))
        if self.messages.queued != before:
            self._counted()

    def channel_closed(self) -> None:
        self.messages.closed()

    def writable(self) -> None:
        self.messages.pump()

    def refused(self, error: Failure) -> None:
        _log.warning("%s", error)
        self.dialer.refused(error)
        if self.state is not PeerState.CONNECTED:
            self._error = error
        self._changed()

    # --- what comes of it -----------------------------------------------------------------------------------------

    def _control_received(self, data: bytes) -> None:
        try:
            self._context.control_received(self, data)
        except ProtocolViolation as error:
            self.broke(str(error))

    def _fail(self, reason: str, error: AldisError) -> None:
        """Nothing that waits will be delivered."""
        self.messages.fail(reason)
        self._over(error)

    def _over(self, error: AldisError, *, restarted: bool = False) -> None:
        """What is under way beyond messages will not get any further."""
        self._context.services.ended(self, error, restarted=restarted)

    def _changed(self) -> None:
        self._touch()
        self._context.views.changed(self)

    def _counted(self) -> None:
        """A message more, or less, waits."""
        self._touch()
        self._context.views.counted(self)

    def _touch(self) -> None:
        self.touched = self._context.timers.time()
