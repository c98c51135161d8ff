"""All that a store keeps of one device of a peer: its messages, its dialer and the path to it.

Rules of this module:

* A device outlives its connections (`path`), and the login.
* Its name is not known before the server has said which devices are online, or one has called. Then it stays.
* A device that breaks the protocol loses the connection, and nothing else: what it has sent before stands.
* What belongs to the user (presence, the key, one not accepted) is in `peer.Peer`; it knows of no other device.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Protocol

from aldis.client.backoff import Backoff
from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.errors import (
    AldisError,
    PeerConnectionFailed,
    PeerKeyChanged,
    PeerOffline,
    PeerRefused,
    PeerUnknown,
    ProtocolViolation,
)
from aldis.peer.connection import PeerState
from aldis.peer.transport import Timer, Timers
from aldis.protocol.channel import Content
from aldis.store.files.job import Ending
from aldis.store.journal.writer import JournalWriter, new_stream
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.stream import MessageStream, Recipient
from aldis.store.peers.dialer import Dialer
from aldis.store.peers.listener import DeviceListener, ListenerContext
from aldis.store.peers.paths import Carrier, DevicePaths, PathMode, PathsContext
from aldis.store.peers.readings import Readings
from aldis.store.peers.relay import RELAY_AFTER
from aldis.store.peers.relay_listener import RelayListener, RelayListenerOwner
from aldis.store.state import DeviceView, StoreLimits

_log = logging.getLogger(__name__)


class DeviceContext(PathsContext, ListenerContext, Protocol):
    """What a device needs of the store that it belongs to."""

    moments: Iterator[int]
    """Numbers that grow, to tell what happened later. To read the clock with each message would cost more."""

    @property
    def limits(self) -> StoreLimits:
        """How much may be kept."""

    @property
    def backoff(self) -> Backoff:
        """The pauses between calls."""

    @property
    def journal(self) -> JournalWriter | None:
        """Where queues are kept, if anywhere."""

    @property
    def mailbox(self) -> Recipient:
        """Where messages go."""

    @property
    def timers(self) -> Timers:
        """Time."""

    @property
    def registered(self) -> bool:
        """Whether the server can be asked."""

    def random(self) -> float:
        """A number evenly from 0 to 1."""

    def control_received(self, device: PeerDevice, data: bytes) -> None:
        """The device's store says something. Raises `ProtocolViolation`."""


class DeviceOwner(RelayListenerOwner["PeerDevice"], Protocol):
    """The user."""

    user_id: str
    unaccepted: PeerKeyChanged | None

    @property
    def watched(self) -> bool:
        """Whether the server will tell when one of the user's devices comes online."""

    async def find(self, device: PeerDevice) -> None:
        """Ask the server for a device. Raises as `Dialer`'s `DialTarget.find`."""

    def check(self, device: PeerDevice) -> None:
        """Raise `PeerBlocked` for a blocked user, `PeerKeyChanged` until the new key is accepted, and why the server is
        gone for good where it would be needed."""

    def contacted(self) -> None:
        """The application has called or written to the user."""

    def key_changed(self, device: PeerDevice, error: PeerKeyChanged) -> None:
        """The server says that the user has another key than the pinned one."""

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
        self.touched = 0  # when something happened here last, as one of the context's moments
        self.error: AldisError | None = None
        self.has_left = False  # what it began before, and ends late, is no failure
        self._owner = owner
        self._context = context
        self._relay_timer: Timer | None = None  # until there is a session beside a call
        self._asking = 0  # calls of the application that wait for a connection with the user
        self._asking_here = 0  # and with exactly this device
        self.listener = DeviceListener(self, owner, context)
        self.paths = DevicePaths(self, RelayListener(self, owner, self.listener), context)
        self.path = self.paths.direct
        self.readings = Readings(self.paths, context, self.changed)
        self.messages = MessageStream(
            self,
            new_stream(),
            limits=context.limits,
            path=self.paths,
            recipient=context.mailbox,
            control=self._control_received,
            timers=context.timers,
            journaled=context.journal is not None,
        )
        if context.journal is not None and context.journal.bound:
            context.journal.attach(self.messages, self.user_id, name)
        self.dialer = Dialer(
            self, backoff=context.backoff, timers=context.timers, random=context.random, spawn=context.spawn
        )

    def take_name(self, name: str) -> None:
        """It is known now which device of the user it is."""
        self.name = name
        if self._context.journal is not None:
            self._context.journal.name_device(self.messages, self.user_id, name)

    def forget(self) -> None:
        """The store forgets the device; a journal does not."""
        self._cancel_relay()
        if self._context.journal is not None:
            self._context.journal.detach(self.messages)

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
        relay = self.paths.relay
        quiet = not (self.path.connected or self.path.state is PeerState.CONNECTING or relay.active) or relay.resting
        return quiet and not (self.wanted or self.messages.waiting)

    @property
    def shown(self) -> bool:
        """Whether an application may want to know of it, although the server does not list it."""
        return self.queued > 0 or self.paths.told not in (PeerState.NEW, PeerState.CLOSED, PeerState.FAILED)

    @property
    def file_limit(self) -> int | None:
        """The largest file that may go to the device now, in bytes; None: of any size."""
        return self.paths.file_limit

    @property
    def features(self) -> tuple[str, ...] | None:
        """What the device's program can do; None while nothing gets through to it."""
        return self.listener.features if self.paths.connected else None

    @property
    def round_trip_time(self) -> float | None:
        """Seconds, or None while the device is not connected or nothing was measured."""
        if self.paths.carrier is Carrier.RELAY:
            return self.paths.relay.round_trip_time
        connection = self.path.connection if self.path.told is PeerState.CONNECTED else None
        return None if connection is None else connection.round_trip_time

    def view(self, name: str, *, online: bool | None) -> DeviceView:
        """The device as the application sees it."""
        return DeviceView(
            device=name,
            state=self.paths.told,
            path=self.paths.in_use,
            online=online,
            round_trip_time=self.round_trip_time,
            queued=self.messages.queued,
            error=self.error,
            connections=self.listener.connections,
            features=self.features or (),
        )

    # --- for the user and the services ----------------------------------------------------------------------------

    async def connect(self, seconds: float, *, addressed: bool) -> None:
        """Return when the device is connected directly; or, when that fails, through the relay. Raises as
        `Dialer.connected`."""
        self._asking += not addressed
        self._asking_here += addressed
        began = self._context.timers.time()
        try:
            self._call_relay()
            try:
                await self.dialer.connected(seconds)
            except PeerConnectionFailed as error:
                self.paths.want_relay()
                left = max(began + seconds - self._context.timers.time(), 0.0)
                if not await self.paths.relay.opened(left):
                    raise self.paths.explain(error) from None
            self.kept |= not addressed
            self.kept_here |= addressed
        finally:
            self._asking -= not addressed
            self._asking_here -= addressed
            self.dialer.reconsider()
            self.changed()

    def send(self, content: Content, data: bytes, *, addressed: bool) -> Delivery:
        """Queue a message. Raises `QueueFull`."""
        delivery = self.messages.send(content, data, addressed=addressed)
        if self.path.state is not PeerState.CONNECTED:
            self.paths.want_relay()
            self.dialer.queued()
        self.counted()
        return delivery

    def send_control(self, data: bytes) -> Delivery:
        """Queue a control message. Raises `QueueFull`, and what `DeviceOwner.check` raises; nobody is called for it."""
        self._owner.check(self)
        return self.messages.send(Content.CONTROL, data)

    def take_back(self, deliveries: Iterable[Delivery]) -> None:
        """Control messages will not be sent. Only while no channel is open."""
        self.messages.take_back(deliveries)

    def call(self) -> None:
        """There is a new reason to be connected. Raises what `DeviceOwner.check` raises."""
        self._owner.check(self)
        self._owner.contacted()
        if self.path.state is not PeerState.CONNECTED:
            self.paths.want_relay()
            # While the relay is enough for messages, a call may be far away.
            self.dialer.poke(now=True) if self.relayed else self.dialer.queued()

    def receive(self, event: OfferReceived | AnswerReceived | CandidateReceived | ByeReceived) -> bool:
        """Take in what the device says through the server; False when it is meant for a connection that is gone."""
        if isinstance(event, ByeReceived) and self.paths.relay.bye(event):
            return True
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
            self.paths.drop_relay()
            # The owner of the new key knows nothing of what is under way.
            self.over(PeerConnectionFailed(self.user_id, reason), Ending.REPLACED)
        self.dialer.accepted(changed=changed)

    def drop(self, reason: str) -> None:
        """End the connection for a fault of the device's, and call again later if it is wanted."""
        error = PeerConnectionFailed(self.user_id, reason)
        self.path.release(reason, PeerState.FAILED)
        self.paths.relay.goodbye(reason)
        self.paths.relay_closed()
        self.error, self.paths.had_relay = error, False
        self.over(error, Ending.LEFT)  # the other side is told goodbye, which ends it there
        self.dialer.state_changed(PeerState.FAILED, error)
        self._owner.lost()
        self.changed()
        if self.wanted:
            self.paths.want_relay()

    def broke(self, problem: str) -> None:
        """What the device has said breaks the protocol."""
        _log.warning("%s breaks the protocol: %s", self.address, problem)
        self.drop(f"it breaks the protocol: {problem}")

    def renewed(self) -> None:
        """Our messages are numbered anew (`MessageStream`): tell the device so on another connection."""
        _log.warning("%s has messages that our journal does not know: it is from a backup", self.address)
        self.drop("a new stream begins")

    def let_go(self, reason: str) -> None:
        """End the connection, and forget what has arrived and is not handed over: it will come again."""
        self.drop(reason)
        self.messages.let_go()

    async def close(self, farewell: str, reason: str, error: AldisError, *, keep: bool = False) -> None:
        """End everything with this device: it is told `farewell`, what waits for it fails for `reason`, and calls that
        wait get `error`. It can be used again, unless with `keep` a journal keeps what waits for the next store.

        Done before it first waits, but for the connection's own end.
        """
        self.kept = self.kept_here = False
        self.dialer.stop(error)
        self._cancel_relay()
        self.messages.flush()
        connection = self.path.detach()
        self.paths.relay.goodbye(farewell)
        self.paths.relay_closed()
        self.fail(reason, error, keep=keep)
        if self.path.told is not PeerState.NEW:
            self.path.told = PeerState.CLOSED
        self.error = self._owner.unaccepted
        self.changed()
        if connection is not None:
            await connection.close(farewell)
        await self.paths.relay.finish()

    def signaling_ended(self, error: AldisError) -> None:
        """The server will never be there again: what needs it is over, what is connected goes on."""
        self.paths.drop_relay()
        if not self.path.connected:
            self.dialer.stop(error)
            self.fail(f"the signaling server is gone for good: {error}", error, keep=True)
            self.changed()

    def left(self) -> None:
        """The server says that the device is not there. The relay leads nowhere then, and nobody answers an attempt
        beside it: a program that leaves may not have got to its GOODBYE."""
        if self.paths.carrier is Carrier.RELAY:
            self.gone()
        self.paths.drop_relay()

    def gone(self) -> None:
        """The server says so, and the relay carries the messages, unless there is a direct connection again."""
        if self.path.connected:
            return
        self.dialer.stop(PeerOffline(self.address))
        self.hang_up("it has gone")
        self.has_left, self.path.told = True, PeerState.CLOSED
        self.changed()

    def presence_changed(self, online: bool, *, anew: bool) -> None:
        """The server has said whether the device is online. `anew`: it has just registered."""
        if anew:
            self.has_left = False
            self.paths.relay.returned()
        self.dialer.presence_changed(online, anew=anew)
        if online and self.wanted and not self.dialer.hushed:
            self.paths.want_relay()

    def signaling_returned(self, *, resumed: bool) -> None:
        """We are registered again. Unless `resumed`, something may have been missed."""
        self.paths.relay.returned()
        self.dialer.signaling_returned(resumed=resumed)
        if self.wanted and not self.dialer.hushed:
            self.paths.want_relay()

    def fail(self, reason: str, error: AldisError, *, keep: bool = False) -> None:
        """Nothing that waits will be delivered; with `keep` not by this store. Only while no channel is open."""
        self.messages.fail(reason, keep=keep)
        self.over(error, Ending.KEPT if keep else Ending.FINAL)

    def over(self, error: AldisError, ending: Ending = Ending.FINAL) -> None:
        """What is under way beyond messages will not get any further now; see `PeerServices.ended`."""
        self._context.services.ended(self, error, ending)

    def give_up(self, error: PeerKeyChanged) -> None:
        """The user has another key: nothing that waits can be delivered to this device."""
        self.error = error
        self.path.release("the key has changed", PeerState.FAILED)
        self.paths.drop_relay()
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
        self.paths.drop_relay()
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
    def unaccepted(self) -> PeerKeyChanged | None:
        """The user's key has changed, and nobody has accepted the new one."""
        return self._owner.unaccepted

    @property
    def queued(self) -> int:
        """How many messages wait for the device."""
        return self.messages.queued

    @property
    def has_waiting(self) -> bool:
        """Whether something waits for the device: messages, or files that go on."""
        return self.messages.queued > 0 or self._context.services.busy(self)

    @property
    def relayed(self) -> bool:
        """Whether messages get through the relay."""
        return self.paths.relay.open and not self.relay_only

    @property
    def resting(self) -> bool:
        """Whether nothing was said through the relay for a while."""
        return self.paths.relay.resting

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
        """How the connection stands now that the dialer makes; what was told may be a moment older."""
        if not self.relay_only:
            return self.path.state
        if self.paths.relay.open:
            return PeerState.CONNECTED
        return PeerState.CONNECTING if self.paths.relay.active else self.path.state

    @property
    def clock_from(self) -> float | None:
        """When the turn of the attempt came; None while it waits for it. Long ago when there is no attempt."""
        return 0.0 if self.path.connection is None else self.path.connection.clock_from

    def need_server(self) -> None:
        """The device waits for the server."""
        self._context.recovery.need_server()

    async def find(self) -> None:
        """Ask the server for the device. Raises `SignalingError`, `PeerOffline`, `PeerUnknown`, `PeerKeyChanged`,
        `IdentityError`."""
        if self._asking + self._asking_here:  # a timer: what the server is asked goes out first
            self._context.timers.call_later(0.0, self.paths.prepare)
        await self._owner.find(self)
        self.paths.relay.key_told()
        self._call_relay()

    def dial(self) -> None:
        """Start to connect, unless that is under way."""
        self.has_left = False
        if not self.relay_only:
            self.path.open().connect()
        elif not self.paths.want_relay():
            # Later: the dialer waits for it from now on.
            error = self.paths.why_no_relay()
            asyncio.get_running_loop().call_soon(self.dialer.state_changed, PeerState.FAILED, error)

    # --- the relay ------------------------------------------------------------------------------------------------

    def _call_relay(self) -> None:
        """Begin a session of the relay beside a call: at once for what waits to be sent, else when the direct
        connection takes its time."""
        if self.messages.queued or self.relay_only:
            self.paths.want_relay()
        elif self._relay_timer is None:
            self._relay_timer = self._context.timers.call_later(RELAY_AFTER, self._relay_due)

    def _relay_due(self) -> None:
        self._relay_timer = None
        if self.wanted and not self.dialer.hushed:
            self.paths.want_relay()

    def _cancel_relay(self) -> None:
        if self._relay_timer is not None:
            self._relay_timer.cancel()
            self._relay_timer = None

    @property
    def relay_only(self) -> bool:
        """Whether the relay is the only path that may be used."""
        return self.paths.relay_only

    def path_changed(self) -> None:
        """Other paths may be used from now on: end what may not go on, and begin anew."""
        mode = self.paths.mode
        if mode is not PathMode.AUTO:
            # An address that the other side has can be used until the connection ends.
            self.hang_up("another path was chosen")
            self.path.told = PeerState.NEW
        if mode is PathMode.DIRECT:
            self.paths.drop_relay()
        if self.wanted:
            self.paths.want_relay()
            self.dialer.poke(now=True)
        self.changed()

    def hang_up(self, reason: str) -> None:
        """End an attempt or a connection, for good."""
        if self.path.connection is not None:
            self.path.release(reason, PeerState.CLOSED)
            self.changed()

    def failed(self, error: AldisError, *, key_changed: PeerKeyChanged | None = None) -> None:
        """An attempt has failed. With `key_changed` nothing that waits can be delivered."""
        # That the peer is away is no fault: `online` says it. While the relay carries the messages, none is.
        away = isinstance(error, PeerOffline | PeerUnknown)
        self.error = None if away or self.paths.connected else error
        self.paths.had_relay &= self.paths.relay.open
        if key_changed is not None:
            self._owner.key_changed(self, key_changed)
        self._owner.lost()
        self.changed()
        if self.paths.relay.open and isinstance(error, PeerConnectionFailed) and self.dialer.in_vain:
            self._context.services.no_direct(self, error.reason)

    def delayed(self, error: PeerRefused) -> None:
        """The server takes no more messages to the device for a while; an attempt waits for that."""
        if self.state is PeerState.CONNECTING:
            self.error = error
            self.changed()

    # --- what comes of it -----------------------------------------------------------------------------------------

    def _control_received(self, data: bytes) -> None:
        try:
            self._context.control_received(self, data)
        except ProtocolViolation as error:
            self.broke(str(error))

    def changed(self) -> None:
        """Something in its view may have changed."""
        self._touch()
        self._owner.changed()

    def counted(self) -> None:
        """A message more, or less, waits."""
        self._touch()
        self._owner.counted()

    def _touch(self) -> None:
        self.touched = next(self._context.moments)
