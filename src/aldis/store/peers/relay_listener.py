"""What the relay tells a device, and what comes of it: `listener` is the same for the direct connection.

Rules: the messages of a session are taken only while the session carries them. A device that breaks the protocol loses
the session, and nothing else.
"""

from __future__ import annotations

import logging
from typing import Generic, Protocol, TypeVar

from aldis.errors import AldisError, PeerConnectionFailed, PeerRefused
from aldis.identity.seal_keys import PublishedSealKey, checked_seal_key
from aldis.peer.connection import Failure, PeerState
from aldis.protocol.channel import Ack, Chunk, Hello
from aldis.store.files.job import Ending
from aldis.store.peers.listener import DeviceListener, ListenedDevice, ListenerOwner
from aldis.store.peers.paths import Carrier

_log = logging.getLogger(__name__)


def is_older(hello: Hello, stream: str | None, channel: int) -> bool:
    """Whether a HELLO was made before the one of that stream and number. Programs that do not count theirs are
    believed."""
    return hello.stream == stream and hello.channel is not None and hello.channel < channel


class RelayListenedDevice(ListenedDevice, Protocol):
    """What a listener works with: a `device.PeerDevice`."""

    @property
    def address(self) -> str:
        """As messages are addressed."""

    async def find(self) -> None:
        """Ask the server for the device. Raises as `Dialer`'s `DialTarget.find`."""

    def hang_up(self, reason: str) -> None:
        """End an attempt or a connection, for good."""

    def gone(self) -> None:
        """The server says that the device is not online, while the relay carries the messages."""


D = TypeVar("D", bound=RelayListenedDevice)
D_contra = TypeVar("D_contra", bound=RelayListenedDevice, contravariant=True)


class RelayListenerOwner(ListenerOwner[D_contra], Protocol[D_contra]):
    """The user."""

    def check(self, device: D_contra) -> None:
        """Raise why nothing may be sent to the device."""

    def changed(self) -> None:
        """Something in a view may have changed."""

    def published_key(self, device: D_contra) -> tuple[PublishedSealKey, bytes] | None:
        """The seal key that the device has published, and the identity key that counts for the user."""


class RelayListener(Generic[D]):
    """The `RelayPathOwner` of one device."""

    def __init__(self, device: D, owner: RelayListenerOwner[D], listener: DeviceListener[D]) -> None:
        self._device = device
        self._owner = owner
        self._listener = listener
        self._checked: tuple[tuple[PublishedSealKey, bytes], bytes | None] | None = None

    @property
    def user_id(self) -> str:
        return self._device.user_id

    @property
    def name(self) -> str | None:
        return self._device.name

    @property
    def address(self) -> str:
        return self._device.address

    @property
    def has_unacknowledged(self) -> bool:
        return self._device.messages.queued > 0

    @property
    def direct_opens(self) -> bool:
        connection = self._device.path.connection
        return connection is not None and connection.opening

    def seal_key(self) -> tuple[bytes, bytes] | None:
        published = self._owner.published_key(self._device)
        if published is None or self._device.name is None:
            return None
        if self._checked is None or self._checked[0] != published:
            key = checked_seal_key(*published, self._device.user_id, self._device.name)
            if key is None:
                _log.warning("the seal key of %s is not signed by its identity key", self._device.address)
            self._checked = (published, key)
        found = self._checked[1]
        return None if found is None else (found, published[1])

    @property
    def may_be_reached(self) -> bool:
        try:
            self._owner.check(self._device)
        except AldisError:
            return False
        return True

    def relay_dropped(self) -> None:
        self._owner.changed()

    def relay_hello(self, *, early: bool) -> Hello:
        self._listener.relayed()
        return self._device.paths.relay_hello(early=early)

    def relay_is_late(self, hello: Hello) -> bool:
        device = self._device
        return (
            device.paths.carrier is Carrier.DIRECT
            and device.path.state is PeerState.CONNECTED
            and is_older(hello, device.messages.their_stream, self._listener.channel)
        )

    def relay_opened(self, hello: Hello) -> None:
        self._device.error, self._device.has_left = None, False
        self._device.paths.had_relay = True
        self._owner.connected(self._device)
        if self._listener.opened(hello):
            self._listener.services_connected()
            if self._device.paths.relay_only:
                self._device.dialer.state_changed(PeerState.CONNECTED, None)
            self._device.changed()

    def relay_frame(self, frame: Chunk | Ack) -> None:
        self._listener.take(frame)

    def relay_pump(self) -> None:
        self._device.messages.pump()

    def relay_closed(self, error: PeerConnectionFailed, *, by_them: bool) -> None:
        if not self._device.paths.relay_closed():
            return
        if by_them:
            self._device.over(PeerConnectionFailed(self._device.user_id, "the other side has hung up"), Ending.LEFT)
            self._device.hang_up("the other side has hung up")
            self._device.has_left, self._device.path.told = True, PeerState.CLOSED
            self._device.paths.had_relay = False
            self._device.dialer.dismissed()
        else:
            if not self._device.wanted or isinstance(error, PeerRefused):
                self._device.paths.had_relay = False  # nothing repairs it now
            repaired = self._device.paths.had_relay or self._device.paths.connected
            if not repaired and (self._device.error is None or self._device.paths.relay_only):
                self._device.error = error  # what an attempt at a direct connection has said stands
            if self._device.paths.relay_only:
                self._device.path.told = PeerState.FAILED
                self._device.dialer.state_changed(PeerState.FAILED, error)
        self._owner.lost()
        self._device.changed()

    def relay_gone(self) -> None:
        self._device.gone()

    async def relay_find(self) -> None:
        try:
            await self._device.find()
        except AldisError as error:
            _log.debug("%s cannot be found: %s", self._device.address, error)

    def relay_due(self) -> None:
        if self._device.wanted and not self._device.dialer.hushed:
            self._device.paths.want_relay()

    def relay_violated(self, reason: str) -> None:
        self._device.broke(reason)

    def relay_untrusted(self, error: Failure) -> None:
        self._listener.refused(error)
