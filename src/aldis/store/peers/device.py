"""All that a store keeps of one device of a peer: its messages, its dialer and the path to it.

Rules of this module:

* A device outlives its connections (`path`), and the login.
* Its name is not known before the server has said which devices are online, or one has called. Then it stays.
* A device that breaks the protocol loses the connection, and nothing else: what it has sent before stands.
* What belongs to the user (presence, the key, whether it is blocked) is in `peer.Peer`; it knows of no other device.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final, Protocol

from aldis.client.backoff import Backoff
from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.errors import AldisError, PeerConnectionFailed, PeerKeyChanged, PeerOffline, PeerUnknown, ProtocolViolation
from aldis.peer.connection import Failure, PeerState
from aldis.peer.transport import Timers
from aldis.protocol.channel import Ack, Chunk, Content, Hello
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.stream import MessageStream, Recipient
from aldis.store.peers.dialer import Dialer
from aldis.store.peers.path import DirectPath, PathContext
from aldis.store.services import PeerServices
from aldis.store.state import DeviceView, PeerStats, StoreLimits, peer_stats

_log = logging.getLogger(__name__)

# Of what the peer's program says that it can do; this version knows of two things, with short names.
MAX_FEATURES: Final = 16
MAX_FEATURE: Final = 32
_STREAM_BYTES: Final = 16


class DeviceContext(PathContext, Protocol):
    """What a device needs of the store that it belongs to."""

    services: PeerServices  # what goes on with devices beyond messages

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

    def random(self) -> float:
        """A number evenly from 0 to 1."""

    def arrived(self, size: int) -> None:
        """So many bytes of a message have come."""

    def control_received(self, device: PeerDevice, data: bytes) -> None:
        """The device's store says something. Raises `ProtocolViolation`."""


class DeviceOwner(Protocol):
    """The user."""

    user_id: str
    blocked: PeerKeyChanged | None

    @property
    def watched(self) -> bool:
        """Whether the server will tell when one of the user's devices comes online."""

    async def find(self, device: PeerDevice) -> None:
        """Ask the server for a device. Raises as `Dialer`'s `DialTarget.find`."""

    def check(self, device: PeerDevice) -> None:
        """Raise `PeerKeyChanged` until the new key is accepted, and why the server is gone for good where it would be
        needed."""

    def contacted(self) -> None:
        """The application has called or written to the user."""

    def connected(self, device: PeerDevice) -> None:
        """The device has proved the pinned key."""

    def channel_opened(self) -> None:
        """A device has a new connection."""

    def heard(self, device: PeerDevice) -> None:
        """Something has come from the device: what is sent to the user goes to it from now on."""

    def key_changed(self, device: PeerDevice, error: PeerKeyChanged) -> None:
        """The server says that the user has another key than the pinned one."""

    def lost(self) -> None:
        """A device may be gone."""

    def changed(self) -> None:
        """Something in a view may have changed."""

    def counted(self) -> None:
        """Only a number in a view may have changed."""


class PeerDevice:
    """One device of a peer, as long as the store knows it."""

    def __init__(self, name: str | None, owner: DeviceOwner, context: DeviceContext) -> None:
        self.user_id = owner.user_id
        self.name = name
        self.kept = False  # the application has asked for a connection with the user, and had it
        self.kept_here = False  # the same, with exactly this device
        self.heard = 0  # the larger, the later something has come; 0 is never
        self.touched = 0.0  # when something happened here last
        self.connections = 0
        self.error: AldisError | None = None
        self._features: tuple[str, ...] = ()  # what the device's program can do, as it has said last
        self._owner = owner
        self._context = context
        self._asking = 0  # calls of the application that wait for a connection with the user
        self._asking_here = 0  # and with exactly this device
        self.path = DirectPath(self, context)
        self.messages = MessageStream(
            self,
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

    # --- what others want to know ---------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """As an application writes it."""
        return self.user_id if self.name is None else f"{self.user_id}/{self.name}"

    @property
    def wanted(self) -> bool:
        """Whether there should be a connection."""
        return (
            self.kept
            or self.kept_here
            or self._asking + self._asking_here > 0
            or self.messages.queued > 0
            or self._context.services.busy(self)
        )

    @property
    def idle(self) -> bool:
        """Whether it may be forgotten to make place for another."""
        quiet = not (self.path.connected or self.state is PeerState.CONNECTING)
        return quiet and not (self.wanted or self.messages.waiting)

    @property
    def shown(self) -> bool:
        """Whether an application may want to know of it, although the server does not list it."""
        return self.queued > 0 or self.path.told not in (PeerState.NEW, PeerState.CLOSED, PeerState.FAILED)

    @property
    def features(self) -> tuple[str, ...] | None:
        """What the device's program can do; None while nothing gets through to it."""
        return self._features if self.state is PeerState.CONNECTED else None

    @property
    def round_trip_time(self) -> float | None:
        """Seconds, or None while the device is not connected or nothing was measured."""
        connection = self.path.connection if self.path.told is PeerState.CONNECTED else None
        return None if connection is None else connection.round_trip_time

    def view(self, name: str, *, online: bool | None) -> DeviceView:
        """The device as the application sees it."""
        return DeviceView(
            device=name,
            state=self.path.told,
            online=online,
            round_trip_time=self.round_trip_time,
            queued=self.messages.queued,
            error=self.error,
            connections=self.connections,
            features=self.features or (),
        )

    async def stats(self) -> PeerStats | None:
        """The path and the traffic; None when there is no connection."""
        connection = self.path.connection
        found = None if connection is None else await connection.stats()
        return None if connection is None or found is None else peer_stats(found, connection.round_trip_time)

    # --- for the user and the services ----------------------------------------------------------------------------

    async def connect(self, seconds: float, *, addressed: bool) -> None:
        """Return when the device is connected. Raises as `Dialer.connected`."""
        self._asking += not addressed
        self._asking_here += addressed
        try:
            await self.dialer.connected(seconds)
            self.kept |= not addressed
            self.kept_here |= addressed
        finally:
            self._asking -= not addressed
            self._asking_here -= addressed
            self.dialer.reconsider()
            self._changed()

    def send(self, content: Content, data: bytes, *, addressed: bool) -> Delivery:
        """Queue a message. Raises `QueueFull`."""
        delivery = self.messages.send(content, data, addressed=addressed)
        if self.state is not PeerState.CONNECTED:
            self.dialer.queued()
        self._counted()
        return delivery

    def send_control(self, data: bytes) -> Delivery:
        """Queue a control message. Raises `QueueFull`, and what `DeviceOwner.check` raises; nobody is called for it."""
        self._owner.check(self)
        return self.messages.send(Content.CONTROL, data)

    def call(self) -> None:
        """There is a new reason to be connected. Raises what `DeviceOwner.check` raises."""
        self._owner.check(self)
        self._owner.contacted()
        if self.state is not PeerState.CONNECTED:
            self.dialer.queued()

    def receive(self, event: OfferReceived | AnswerReceived | CandidateReceived | ByeReceived) -> bool:
        """Take in what the device says through the server; False when it is meant for a connection that is gone."""
        connection = self.path.connection
        if not isinstance(event, OfferReceived) and connection is None:
            return False
        if isinstance(event, AnswerReceived) and connection is not None and not connection.knows(event.connection):
            return False
        self.path.open().receive(event)
        return True

    def accepted(self, *, changed: bool) -> None:
        """The application has accepted a key; `changed` when another one was pinned before."""
        self.error = None
        if changed:
            reason = "another key was accepted"
            self.hang_up(reason)
            # The owner of the new key knows nothing of what is under way.
            self.over(PeerConnectionFailed(self.user_id, reason), restarted=True)
        self.dialer.accepted(changed=changed)

    def drop(self, reason: str) -> None:
        """End the connection for a fault of the device's, and call again later if it is wanted."""
        error = PeerConnectionFailed(self.user_id, reason)
        self.path.release(reason, PeerState.FAILED)
        self.error = error
        self.over(error)  # the other side is told goodbye, which ends it there
        self.dialer.state_changed(PeerState.FAILED, error)
        self._owner.lost()
        self._changed()

    def broke(self, problem: str) -> None:
        """What the device has said breaks the protocol."""
        _log.warning("%s breaks the protocol: %s", self.address, problem)
        self.drop(f"it breaks the protocol: {problem}")

    def let_go(self, reason: str) -> None:
        """End the connection, and forget what has arrived and is not handed over: it will come again."""
        self.drop(reason)
        self.messages.let_go()

    async def close(self, farewell: str, reason: str, error: AldisError) -> None:
        """End everything with this device: it is told `farewell`, what waits for it fails for `reason`, and calls that
        wait get `error`. It can be used again.

        Done before it first waits, but for the connection's own end.
        """
        self.kept = self.kept_here = False
        self.dialer.stop(error)
        self.messages.flush()
        connection = self.path.detach()
        self.fail(reason, error)
        if self.path.told is not PeerState.NEW:
            self.path.told = PeerState.CLOSED
        self.error = self._owner.blocked
        self._changed()
        if connection is not None:
            await connection.close(farewell)

    def signaling_ended(self, error: AldisError) -> None:
        """The server will never be there again: what needs it is over, what is connected goes on."""
        if not self.path.connected:
            self.dialer.stop(error)
            self.fail(f"the signaling server is gone for good: {error}", error)
            self._changed()

    def fail(self, reason: str, error: AldisError) -> None:
        """Nothing that waits will be delivered. Only while no channel is open."""
        self.messages.fail(reason)
        self.over(error)

    def over(self, error: AldisError, *, restarted: bool = False) -> None:
        """What is under way beyond messages will not get any further."""
        self._context.services.ended(self, error, restarted=restarted)

    def give_up(self, error: PeerKeyChanged) -> None:
        """The user has another key: nothing that waits can be delivered to this device."""
        self.error = error
        self.path.release("the key has changed", PeerState.FAILED)
        self.fail(str(error), error)

    # --- moving to another device ---------------------------------------------------------------------------------

    @property
    def movable(self) -> bool:
        """Whether something is here that is meant for the user, and not for exactly this device."""
        return bool(self._asking or self.kept or self.messages.movable or self._context.services.movable(self))

    def move_to(self, other: PeerDevice) -> None:
        """This device is gone, and the other one there: hand over the messages for the user. Nobody is told before
        `moved_to`."""
        if self.path.connection is not None:
            self.path.release("it has gone", PeerState.CLOSED)
        other.messages.take_over(self.messages.withdraw())
        other.kept, self.kept = other.kept or self.kept, False

    def moved_to(self, other: PeerDevice) -> None:
        """The messages are there: hand over what else is meant for the user, and have the other device called."""
        # A call that waits for a connection goes on waiting for the other one (`Peer.connect`).
        self.dialer.stop(PeerOffline(self.address))
        self.dialer.retry()  # something may be left that does not move
        self._context.services.moved(self, other)
        other.dialer.queued()

    # --- for the dialer -------------------------------------------------------------------------------------------

    @property
    def blocked(self) -> PeerKeyChanged | None:
        """The user's key has changed, and nobody has accepted the new one."""
        return self._owner.blocked

    @property
    def queued(self) -> int:
        """How many messages wait for the device."""
        return self.messages.queued

    @property
    def registered(self) -> bool:
        """Whether the server can be asked."""
        return self._context.registered

    @property
    def watched(self) -> bool:
        """Whether the server will tell when the device comes online."""
        return self._owner.watched

    @property
    def state(self) -> PeerState:
        """How the connection stands now; what was told may be a moment older."""
        return self.path.state

    @property
    def clock_from(self) -> float | None:
        """When the turn of the attempt came; None while it waits for it. Long ago when there is no attempt."""
        return 0.0 if self.path.connection is None else self.path.connection.clock_from

    async def find(self) -> None:
        """Ask the server for the device. Raises `SignalingError`, `PeerOffline`, `PeerUnknown`, `PeerKeyChanged`,
        `IdentityError`."""
        await self._owner.find(self)

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
        self.error = None if isinstance(error, PeerOffline | PeerUnknown) else error
        if key_changed is not None:
            self._owner.key_changed(self, key_changed)
        self._owner.lost()
        self._changed()

    # --- what the connection tells (`peer.connection.PeerListener`) -----------------------------------------------

    def state_changed(self, state: PeerState, error: Failure | None) -> None:
        before, self.path.told = self.path.told, state
        if state is PeerState.CONNECTED:
            self.error = None
            self._owner.connected(self)
            self._context.services.connected(self)
        elif error is not None:
            self.error = error
        if state is PeerState.CLOSED and before is PeerState.CONNECTED:
            self.over(PeerConnectionFailed(self.user_id, "the other side has hung up"))
        # What was told may be overtaken by a new attempt already; the dialer counts attempts.
        if state is self.state:
            self.dialer.state_changed(state, error)
        if before is PeerState.CONNECTED:
            self._owner.lost()
        ended = self._context.ended
        if ended is not None:
            self.signaling_ended(ended)
        self._changed()

    def channel_opened(self, hello: Hello) -> None:
        self.connections += 1
        self._owner.channel_opened()
        # What is not of this version is shown too, so that a program may tell; within reason, since it is a stranger's.
        known = [feature for feature in hello.features if len(feature) <= MAX_FEATURE]
        self._features = tuple(known[:MAX_FEATURES])
        if hello.stream != self.messages.their_stream:
            self._owner.heard(self)  # a reconnect says nothing of where the user is, a program that starts does
        try:
            restarted = self.messages.opened(hello)
        except ProtocolViolation as error:
            self.broke(str(error))
            return
        if restarted:
            self.over(PeerConnectionFailed(self.user_id, "the other side was started anew"), restarted=True)
        if self.path.told is PeerState.CONNECTED:
            # In place of the connection before: no other state follows that would tell it.
            self._context.services.connected(self)
            self._changed()
        else:
            self._counted()

    def frame_received(self, frame: Chunk | Ack) -> None:
        before = self.messages.queued
        if isinstance(frame, Chunk):
            self._owner.heard(self)  # first: the application may answer at once
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
            self.error = error
        self._changed()

    # --- what comes of it -----------------------------------------------------------------------------------------

    def _control_received(self, data: bytes) -> None:
        try:
            self._context.control_received(self, data)
        except ProtocolViolation as error:
            self.broke(str(error))

    def _changed(self) -> None:
        self._touch()
        self._owner.changed()

    def _counted(self) -> None:
        """A message more, or less, waits."""
        self._touch()
        self._owner.counted()

    def _touch(self) -> None:
        self.touched = self._context.timers.time()
