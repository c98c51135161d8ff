"""What the connection with a device tells, and what comes of it.

Rules: what is told of a connection may be overtaken by a new attempt already. A device that breaks the protocol loses
the connection, and nothing else. It does not know when there should be a connection, nor what is said on it.
"""

from __future__ import annotations

import logging
from typing import Final, Generic, Protocol, TypeVar

from aldis.errors import AldisError, PeerConnectionFailed, ProtocolViolation
from aldis.peer.connection import Failure, PeerState
from aldis.protocol.channel import Ack, Chunk, Hello
from aldis.store.files.job import Ending, FilePeer
from aldis.store.messages.stream import MessageStream, StreamRenewed
from aldis.store.peers.dialer import Dialer
from aldis.store.peers.path import DirectPath
from aldis.store.peers.paths import Carrier, DevicePaths
from aldis.store.peers.readings import Readings
from aldis.store.peers.recovery import Recovery
from aldis.store.services import PeerServices

_log = logging.getLogger(__name__)

# Of what the peer's program says that it can do; this version knows of two things, with short names.
MAX_FEATURES: Final = 16
MAX_FEATURE: Final = 32


class ListenedDevice(FilePeer, Protocol):
    """What a listener works with: a `device.PeerDevice`."""

    error: AldisError | None
    has_left: bool
    path: DirectPath
    paths: DevicePaths
    messages: MessageStream
    dialer: Dialer
    readings: Readings

    @property
    def state(self) -> PeerState:
        """How the connection stands now."""

    @property
    def wanted(self) -> bool:
        """Whether there should be a connection."""

    def over(self, error: AldisError, ending: Ending = Ending.FINAL) -> None:
        """What is under way beyond messages will not get any further; see `PeerServices.ended`."""

    def broke(self, problem: str) -> None:
        """What the device has said breaks the protocol."""

    def renewed(self) -> None:
        """Our messages are numbered anew: the device is told so on another connection."""

    def signaling_ended(self, error: AldisError) -> None:
        """The server will never be there again."""

    def changed(self) -> None:
        """Something in its view may have changed."""

    def counted(self) -> None:
        """A message more, or less, waits."""


D = TypeVar("D", bound=ListenedDevice)
D_contra = TypeVar("D_contra", bound=ListenedDevice, contravariant=True)


class ListenerOwner(Protocol[D_contra]):
    """The user."""

    def connected(self, device: D_contra) -> None:
        """The device has proved the pinned key."""

    def channel_opened(self) -> None:
        """A device has a new connection."""

    def heard(self, device: D_contra) -> None:
        """Something has come from the device: what is sent to the user goes to it from now on."""

    def lost(self) -> None:
        """A device may be gone."""


class ListenerContext(Protocol):
    """What a listener needs of the store."""

    services: PeerServices  # what goes on with devices beyond messages
    recovery: Recovery

    @property
    def ended(self) -> AldisError | None:
        """Why the server will never be there again, or None."""

    def arrived(self, size: int) -> None:
        """So many bytes of a message have come."""


class DeviceListener(Generic[D]):
    """The `PeerListener` of one device."""

    def __init__(self, device: D, owner: ListenerOwner[D], context: ListenerContext) -> None:
        self.connections = 0
        """How many channels have been opened."""
        self.features: tuple[str, ...] = ()
        """What the device's program can do, as it has said last."""
        self.channel = 0
        """The number of its last HELLO."""
        self._device = device
        self._owner = owner
        self._context = context

    def state_changed(self, state: PeerState, error: Failure | None) -> None:
        late = self._device.has_left and state in (PeerState.CONNECTING, PeerState.FAILED)
        before, self._device.path.told = self._device.path.told, PeerState.CLOSED if late else state
        if state is PeerState.DISCONNECTED and before is PeerState.CONNECTED:
            self._context.recovery.path_lost()
        if state is PeerState.CONNECTED:
            self._device.error, self._device.has_left = None, False
            self._owner.connected(self._device)
            self._context.services.connected(self._device)
        elif error is not None and not (late or self._device.paths.connected):
            self._device.error = error
        if state is PeerState.CLOSED and before is PeerState.CONNECTED:
            self._device.over(PeerConnectionFailed(self._device.user_id, "the other side has hung up"), Ending.LEFT)
        # What was told may be overtaken by a new attempt already; the dialer counts attempts.
        if state is self._device.state:
            self._device.dialer.state_changed(state, error)
        gone = state not in (PeerState.CONNECTING, PeerState.CONNECTED)
        if gone and self._device.wanted and not self._device.dialer.hushed:
            self._device.paths.want_relay()
        if before is PeerState.CONNECTED:
            self._owner.lost()
        ended = self._context.ended
        if ended is not None:
            self._device.signaling_ended(ended)
        self._device.changed()

    def channel_opened(self, hello: Hello) -> None:
        self.connections += 1
        self._owner.channel_opened()
        self._device.paths.direct_opened()
        self._device.readings.name_path()
        if not self.opened(hello):
            return
        if self._device.path.told is PeerState.CONNECTED:
            # In place of the connection before: no other state follows that would tell it.
            self._context.services.connected(self._device)
            self._device.changed()
        else:
            self._device.counted()

    def opened(self, hello: Hello) -> bool:
        """The other side's HELLO has come on the path that carries the messages; False when it cannot be used."""
        self.channel = hello.channel or 0
        # What is not of this version is shown too, so that a program may tell; within reason, since it is a stranger's.
        known = [feature for feature in hello.features if len(feature) <= MAX_FEATURE]
        self.features = tuple(known[:MAX_FEATURES])
        if self._device.messages.is_new_program(hello):
            self._owner.heard(self._device)  # a reconnect says nothing of where the user is, a program that starts does
        try:
            restarted = self._device.messages.opened(hello)
        except ProtocolViolation as error:
            self._device.broke(str(error))
            return False
        except StreamRenewed:
            self._device.renewed()
            return False
        if restarted:
            self._device.over(
                PeerConnectionFailed(self._device.user_id, "the other side was started anew"), Ending.RESTARTED
            )
        return True

    def relayed(self) -> None:
        """A session of the relay begins."""
        self._context.services.relayed(self._device)

    def services_connected(self) -> None:
        """What is sent gets through, now or again."""
        self._context.services.connected(self._device)

    def frame_received(self, frame: Chunk | Ack) -> None:
        if self._device.paths.carrier is Carrier.DIRECT:  # else it comes again, on the path that carries the messages
            self.take(frame)

    def take(self, frame: Chunk | Ack) -> None:
        """A frame has come on the path that carries the messages."""
        device = self._device
        messages = device.messages
        is_ack = isinstance(frame, Ack)
        before = messages.queued if is_ack else 0
        if not is_ack:
            self._owner.heard(device)  # first: the application may answer at once
        try:
            messages.received(frame)
        except ProtocolViolation as error:
            device.broke(str(error))
            return
        if isinstance(frame, Chunk):
            self._context.arrived(len(frame.data))
            return
        self._context.services.acknowledged(device)
        if messages.queued != before:
            device.counted()

    def channel_closed(self) -> None:
        self._device.paths.direct_closed()

    def path_found(self) -> None:
        self._context.recovery.path_found()
        self._device.dialer.path_found()

    def writable(self) -> None:
        self._device.messages.pump()

    def refused(self, error: Failure) -> None:
        _log.warning("%s", error)
        self._device.dialer.refused(error)
        if self._device.state is not PeerState.CONNECTED:
            self._device.error = error
        self._device.changed()
