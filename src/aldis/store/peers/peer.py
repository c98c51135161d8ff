"""All that a store keeps of one peer, a user: its devices, the key, and what the server says of it.

Rules of this module:

* Each device has a session of its own (`device`), so two devices of one user do not disturb each other.
* What is sent to the user goes to one device (`choice`). It moves to another one only when its own is gone, and never
  when it was sent to exactly that device.
* A peer outlives its connections, and the login. It knows of no other peer.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived, PresenceChanged
from aldis.errors import (
    AldisError,
    PeerBlocked,
    PeerConnectionFailed,
    PeerKeyChanged,
    PeerOffline,
    PeerRefused,
    TooManyPeers,
)
from aldis.identity.seal_keys import PublishedSealKey
from aldis.peer.connection import PeerState
from aldis.protocol.channel import Content
from aldis.store.messages.delivery import Delivery
from aldis.store.peers.choice import choose, gone
from aldis.store.peers.device import DeviceContext, PeerDevice
from aldis.store.peers.presence import Directory, PeerPresence
from aldis.store.peers.views import PeerViews
from aldis.store.quality import Grade, PeerQuality
from aldis.store.state import DeviceView, PeerStats, PeerView

# A user has at most 16 devices online. The others are those that have left, and may come back with the same program.
MAX_DEVICES: Final = 32


class PeerContext(DeviceContext, Directory, Protocol):
    """What a peer needs of the store that it belongs to."""

    views: PeerViews  # is told when something in `Peer.view` may have changed

    def make_device_room(self, peer: Peer) -> None:
        """See that a peer may have one device more than it has. Raises `TooManyPeers`."""

    def blocks(self, user_id: str) -> bool:
        """Whether our user has blocked another one."""

    def require(self, user_id: str, fingerprint: str) -> None:
        """Refuse all keys with another fingerprint. Raises `FingerprintMismatch` when such a one is pinned, and
        `IdentityError`."""

    def pinned(self, user_id: str) -> bytes | None:
        """The key that is pinned, to be shown; None, too, when that cannot be read."""

    def standing_key(self, user_id: str) -> bytes | None:
        """The key that is pinned, else the one that the directory has told; None, too, when that cannot be read."""


class Peer:
    """One peer, as long as the store knows it."""

    def __init__(self, user_id: str, context: PeerContext, presence: PeerPresence) -> None:
        self.user_id = user_id
        self.presence = presence
        self.known = False  # it is a peer, and takes the place of one; else a user whom the application watches
        self.stranger = True  # they have come by themselves: the application has neither called nor written
        self.admitted: bytes | None = None  # the key with which the application lets the peer in
        self.touched = 0  # when something happened here last, as one of the context's moments
        self.unaccepted: PeerKeyChanged | None = None  # nothing is delivered before a person has accepted the new key
        self._context = context
        self._key = context.pinned(user_id)
        self._connections = 0  # of all devices so far
        self._heard = 0  # counts what was heard, to tell which device was heard from last
        self._devices: dict[str, PeerDevice] = {}
        self._nameless: PeerDevice | None = None  # the device to call, until it is known which one that is
        self._current: PeerDevice | None = None  # the device that was chosen last
        self._chosen = False  # whether `_current` is still the right one

    # --- devices --------------------------------------------------------------------------------------------------

    @property
    def devices(self) -> list[PeerDevice]:
        """All devices, also one whose name is not known yet."""
        return [*self._devices.values(), *([] if self._nameless is None else [self._nameless])]

    def device(self, name: str | None) -> PeerDevice:
        """A device, made if need be; for None the one that gets what is sent to the user. Raises `TooManyPeers`."""
        return self._target() if name is None else self._devices.get(name) or self._add(name)

    def find_device(self, name: str | None) -> PeerDevice | None:
        """A device, if there is one; for None the one that was chosen last for what is sent to the user."""
        return self._current if name is None else self._devices.get(name)

    def _target(self) -> PeerDevice:
        if self._current is None or not self._chosen:
            self._current = self._choose()
            self._chosen = True
        return self._current

    def _choose(self) -> PeerDevice:
        heard = sorted((device for device in self._devices.values() if device.heard), key=lambda each: -each.heard)
        names = [device.name for device in heard if device.name is not None]
        current = None if self._current is None else self._current.name
        if current is None:
            # An earlier run of this program may have sent what waits: nobody else may get it while no other device is
            # there, or it would come twice.
            waiting = [name for name, device in self._devices.items() if device.messages.movable]
            current = waiting[-1] if waiting else None
        name = choose(names, self._listed, self._connected, current)
        if name is None:
            if self._nameless is None:
                self._nameless = PeerDevice(None, self, self._context)
            return self._nameless
        try:
            return self._meet(name)
        except TooManyPeers:
            if self._current is None:
                raise
            return self._current

    def _meet(self, name: str) -> PeerDevice:
        """A device that nobody has asked for by its name. So it may be the one that was meant by the user's."""
        device = self._devices.get(name)
        if device is None:
            device = self._add(name, self._nameless)
            self._nameless = None
        return device

    def _add(self, name: str, device: PeerDevice | None = None) -> PeerDevice:
        if self._devices:
            self._context.make_device_room(self)
        if len(self._devices) >= MAX_DEVICES and not self.forget_device():
            raise TooManyPeers(MAX_DEVICES)
        if device is None:
            device = PeerDevice(name, self, self._context)
        else:
            device.take_name(name)
        self._devices[name] = device
        return device

    def restore(self, name: str | None) -> None:
        """See that there is a device for which messages wait in the journal; None: the one to call."""
        if name is not None:
            self._devices.get(name) or self._add(name)
        elif self._nameless is None:
            self._nameless = PeerDevice(None, self, self._context)

    def forget_device(self) -> bool:
        """Forget a device that is idle, if there is one. Nothing says any more which of its messages have arrived."""
        idle = [each for each in self._devices.values() if each.idle and each is not self._current]
        if not idle:
            return False
        device = min(idle, key=lambda each: (not self._is_gone(each), each.touched))
        assert device.name is not None  # it was in the table  # noqa: S101
        del self._devices[device.name]  # first: what a callback sends goes to a new one
        device.hang_up("forgotten")
        device.paths.drop_relay()
        device.forget()
        device.over(PeerConnectionFailed(self.user_id, "there are too many devices"))
        return True

    @property
    def _listed(self) -> tuple[str, ...] | None:
        """The devices that the server lists now; None while that is not known. None of them counts when the server is
        gone for good: only what is connected can be reached then."""
        if self._context.ended is not None:
            return ()
        presence = self.presence
        return presence.devices if self._context.registered and presence.is_current else None

    @property
    def _connected(self) -> list[str]:
        return [name for name, device in self._devices.items() if device.paths.connected]

    def _is_gone(self, device: PeerDevice) -> bool:
        return device.name is not None and gone(device.name, self._listed, self._connected)

    def _settle(self, *, besides: PeerDevice | None = None) -> None:
        """Move what waits for devices that are gone to one that is there."""
        self._tell_moved(self._move(besides=besides))

    def _move(self, *, besides: PeerDevice | None = None) -> list[tuple[PeerDevice, PeerDevice]]:
        """Move the messages, and return from where to where. Nobody is told of it before all have moved: a message that
        a subscriber sends then must not come before one of them."""
        self._chosen = False
        moves = []
        nameless = self._nameless
        if nameless is not None and nameless is not besides:
            target = self._target()  # the nameless one itself, which may have its name by now
            if target is not nameless:
                self._nameless = None
                moves.append((nameless, target))
        # What was sent to a device that was heard from earlier was sent earlier, as a rule.
        for device in sorted(self._devices.values(), key=lambda each: each.heard):
            if device is not besides and device.movable and self._is_gone(device):
                target = self._target()
                if target is not device and not self._is_gone(target):
                    moves.append((device, target))
        for device, target in moves:
            device.move_to(target)
        return moves

    def _tell_moved(self, moves: list[tuple[PeerDevice, PeerDevice]]) -> None:
        for device, target in moves:
            device.moved_to(target)
        if moves:
            self.counted()

    # --- for the store --------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether there should be a connection."""
        return any(device.wanted for device in self.devices)

    @property
    def idle(self) -> bool:
        """Whether it may be forgotten to make place for another peer."""
        return all(device.idle for device in self.devices)

    @property
    def waiting(self) -> bool:
        """Whether a whole message waits for room in the mailbox."""
        return any(device.messages.waiting for device in self.devices)

    @property
    def round_trip_times(self) -> dict[str, float | None]:
        """By device, in seconds."""
        return {name: device.round_trip_time for name, device in self._devices.items()}

    @property
    def view(self) -> PeerView:
        """The peer as the application sees it."""
        current = self._current
        return PeerView(
            user_id=self.user_id,
            state=PeerState.NEW if current is None else current.paths.told,
            path=None if current is None else current.paths.in_use,
            online=self.presence.online,
            round_trip_time=None if current is None else current.round_trip_time,
            public_key=self._key,
            queued=sum(device.messages.queued for device in self.devices),
            error=self.unaccepted or (None if current is None else current.error),
            connections=self._connections,
            features=() if current is None else current.features or (),
            blocked=self._context.blocks(self.user_id),
            devices=self._device_views(),
        )

    def _device_views(self) -> Mapping[str, DeviceView]:
        presence = self.presence
        known = presence.online is not None
        shown = [*presence.devices, *(name for name, device in self._devices.items() if device.shown)]
        views = {}
        for name in dict.fromkeys(shown):
            online = name in presence.devices if known else None
            device = self._devices.get(name)
            views[name] = DeviceView(name, online=online) if device is None else device.view(name, online=online)
        return MappingProxyType(views)

    def load_pin(self) -> None:
        """It is known now whose directory counts: show the key that is pinned there."""
        self._key = self._context.pinned(self.user_id)
        self._context.views.changed(self)

    async def stats(self, name: str | None) -> PeerStats | None:
        """The path and the traffic of a device; None when there is no path."""
        device = self.find_device(name)
        return None if device is None else await device.readings.stats()

    async def quality(self, name: str | None) -> PeerQuality:
        """A reading of the connection with a device."""
        device = self.find_device(name)
        return PeerQuality(Grade.LOST, "no-path") if device is None else await device.readings.quality()

    async def connect(self, name: str | None, seconds: float, fingerprint: str | None) -> None:
        """Return when the device is connected, or for None the one that the choice falls on. Raises `PeerError`,
        `IdentityError`, `StateError`, `TooManyPeers`, and why the server is gone for good."""
        device = self.device(name)
        self.check(device)
        self.contacted()
        if fingerprint is not None:
            self._context.require(self.user_id, fingerprint)
        began = self._context.timers.time()
        left = seconds
        while True:
            try:
                await device.connect(left, addressed=name is not None)
                break
            except PeerOffline:
                before, device = device, self.device(name)
                if device is before:
                    raise
                self.check(device)  # much may have happened since
                left = max(began + seconds - self._context.timers.time(), 0.0)
        self._settle()  # the device may be gone by now, and the wish with it

    def send(self, name: str | None, content: Content, data: bytes) -> Delivery:
        """Queue a message for a device, or for None the one that the choice falls on. Raises `QueueFull`,
        `TooManyPeers`, `PeerKeyChanged` until the new key is accepted, and why the server is gone for good where it
        would be needed."""
        device = self.device(name)
        self.check(device)
        self.contacted()
        return device.send(content, data, addressed=name is not None)

    def receive(self, event: OfferReceived | AnswerReceived | CandidateReceived | ByeReceived, name: str) -> bool:
        """Take in what a device says through the server; False when it is meant for a connection that is gone. Raises
        `TooManyPeers` for an offer."""
        device = self._meet(name) if isinstance(event, OfferReceived) else self._devices.get(name)
        if device is None:
            return False
        self._current = self._current or device
        return device.receive(event)

    def delayed(self, name: str | None, error: PeerRefused) -> None:
        """The server takes no more messages to a device for a while."""
        device = self._current if name is None else self._devices.get(name)
        if device is not None:
            device.delayed(error)

    def presence_changed(self, event: PresenceChanged) -> None:
        """The server has said which devices are online."""
        anew = self.presence.changed(event)
        listed = self.presence.devices
        for device in self.devices:
            if device.name not in listed:
                device.left()
        moves = self._move()  # first: a dialer that ends a call has that told
        newest = listed[0] if listed else None
        in_vain = self._is_called_with_another_key(event)
        for device in self.devices:
            online = event.online if device.name is None else device.name in listed
            if in_vain:
                device.dialer.presence_changed(False, anew=False)  # as if it had gone: the next attempt sees the key
            device.presence_changed(online, anew=anew and device.name in (None, newest))
        self._tell_moved(moves)
        self.changed()

    def _is_called_with_another_key(self, event: PresenceChanged) -> bool:
        """Whether an attempt is under way for a peer who has got another key meanwhile: nobody will answer it."""
        called = any(each.path.state in (PeerState.CONNECTING, PeerState.DISCONNECTED) for each in self.devices)
        if not called or event.public_key is None or self.unaccepted is not None:
            return False
        return self._context.standing_key(self.user_id) not in (None, event.public_key)

    def watch_ended(self) -> None:
        """The server does not say any more which devices are online: it has to be asked."""
        self.presence.watch_ended()
        self._chosen = False
        for device in self.devices:
            device.dialer.poke(now=True)
        self.changed()

    def signaling_returned(self, *, resumed: bool) -> None:
        """We are registered again. Unless `resumed`, something may have been missed."""
        if not resumed:
            self.presence.is_current = False
        self._settle()
        for device in self.devices:
            device.signaling_returned(resumed=resumed)

    def accept(self, *, changed: bool) -> None:
        """The application has accepted a key; `changed` when another one was pinned before."""
        self._key = self._context.pinned(self.user_id)
        self.unaccepted = None
        for device in self.devices:
            device.accepted(changed=changed)
        self.changed()

    def path_changed(self) -> None:
        """Other paths may be used from now on."""
        for device in self.devices:
            device.path_changed()

    def hang_up(self, reason: str) -> None:
        """End all attempts and connections, for good."""
        for device in self.devices:
            device.hang_up(reason)
            device.paths.drop_relay()

    def forget(self) -> None:
        """The store forgets the peer; a journal does not."""
        for device in self.devices:
            device.forget()

    def expire(self, age: float) -> None:
        """Give up messages that wait for longer than so many seconds."""
        for device in self.devices:
            if device.messages.expire(age):
                device.counted()

    def clock_was_set(self, step: float) -> None:
        """See `MessageStream`."""
        for device in self.devices:
            device.messages.clock_was_set(step)

    def over(self, error: AldisError) -> None:
        """What is under way beyond messages will not get any further."""
        for device in self.devices:
            device.over(error)

    def signaling_ended(self, error: AldisError) -> None:
        """The server will never be there again: what needs it is over, what is connected goes on."""
        self._settle()
        for device in self.devices:
            device.signaling_ended(error)

    # --- for the devices (`device.DeviceOwner`) ---------------------------------------------------------------------

    @property
    def watched(self) -> bool:
        return self.presence.watched

    def check(self, device: PeerDevice) -> None:
        if self._context.blocks(self.user_id):
            raise PeerBlocked(self.user_id)
        if self.unaccepted is not None:
            raise PeerKeyChanged(self.user_id, self.unaccepted.pinned, self.unaccepted.offered)
        ended = self._context.ended
        if ended is not None and not device.path.connected:
            raise ended

    def contacted(self) -> None:
        self.stranger = False

    def published_key(self, device: PeerDevice) -> tuple[PublishedSealKey, bytes] | None:
        published = None if device.name is None else self.presence.seal_keys.get(device.name)
        key = None if published is None else self._context.standing_key(self.user_id)
        return None if published is None or key is None else (published, key)

    def relayed(self, name: str) -> PeerDevice:
        """The device that begins a session of the relay. Raises `TooManyPeers`."""
        device = self._meet(name)
        self._current = self._current or device
        return device

    async def find(self, device: PeerDevice) -> None:
        await self.presence.find(self._context)
        # Not the device that asks: its own dialer would be stopped in the midst of it. It is told by the error.
        self._settle(besides=device)
        if device.name is None:
            self._meet(self.presence.devices[0])  # it takes this name, unless that is the name of another one
        if device.name is None or self._is_gone(device):
            raise PeerOffline(device.address)
        self._forget_snapshot()

    def connected(self, device: PeerDevice) -> None:
        self._key = self._context.pinned(self.user_id)
        self._settle()

    def channel_opened(self) -> None:
        self._connections += 1

    def heard(self, device: PeerDevice) -> None:
        if device is self._current and device.heard == self._heard > 0:
            return
        self._heard += 1
        device.heard = self._heard
        self._current, self._chosen = device, False
        if self._nameless is not None:
            self._settle()
        # Later, and once for all that comes in together: two devices that both send change the choice with each frame,
        # and no callback may come between here and the frame.
        self.counted()

    def key_changed(self, device: PeerDevice, error: PeerKeyChanged) -> None:
        if self._connected:
            # A device that is connected has proved the pinned key, whatever the server says: it goes on.
            device.give_up(error)
            return
        self.unaccepted = error
        for each in self.devices:
            if each is not device:
                each.dialer.stop(error)
            each.give_up(error)

    def lost(self) -> None:
        self._settle()
        self._forget_snapshot()

    def _forget_snapshot(self) -> None:
        """Unless the server tells of changes, what it has said is true only in the moment in which it was asked."""
        if not self.presence.watched:
            self.presence.is_current = False

    def changed(self) -> None:
        self._chosen = False
        self._touch()
        self._context.views.changed(self)

    def counted(self) -> None:
        self._touch()
        self._context.views.counted(self)

    def _touch(self) -> None:
        self.touched = next(self._context.moments)
