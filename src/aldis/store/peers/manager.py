"""The peers of one store: made and forgotten within the limits, and given what they need (`peer.PeerContext`).

Rules: it lives as long as the store, with one login at a time (`signaling`): what is queued waits for the first one. A
fault of one peer stays with that peer. What the application sees of all this is `store.NetworkStore`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
from aldis.client.events import Discovery
from aldis.errors import (
    AldisError,
    IdentityError,
    PeerBlocked,
    PeerConnectionFailed,
    RequestFailed,
    SignalingError,
    StateError,
    TooManyPeers,
    UsageError,
)
from aldis.identity.keys import Identity
from aldis.peer.clock import LoopClock
from aldis.peer.connection import PeerConnection, PeerListener, PeerTiming
from aldis.peer.engine import Engine
from aldis.peer.transport import Timer, Timers
from aldis.protocol.addresses import check_user_id
from aldis.protocol.channel import Hello
from aldis.protocol.codes import ErrorCode
from aldis.protocol.messages import IceServer
from aldis.protocol.privacy import Privacy, Visibility
from aldis.store.files.kept import KeptTransfers
from aldis.store.files.transfer import Transfer
from aldis.store.journal.journal import Journal
from aldis.store.journal.rows import Owner
from aldis.store.journal.writer import JournalWriter
from aldis.store.messages.control import decode_control
from aldis.store.messages.mailbox import Mailbox
from aldis.store.peers.admission import Accept
from aldis.store.peers.blocking import Blocking
from aldis.store.peers.device import PeerDevice
from aldis.store.peers.expiry import Expiry
from aldis.store.peers.paths import PathMode
from aldis.store.peers.peer import Peer
from aldis.store.peers.pinning import DirectoryPins
from aldis.store.peers.presence import PeerPresence
from aldis.store.peers.recovery import Recovery
from aldis.store.peers.relay_login import RelayLogin
from aldis.store.peers.signaling import PeerSignaling
from aldis.store.peers.views import PeerViews
from aldis.store.services import PeerServices
from aldis.store.state import StoreLimits, StoreState
from aldis.store.subscriptions import Callbacks, StateFeed
from aldis.store.tasks import Tasks

_log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 5.0  # for goodbyes; a peer that cannot be reached by then will find out by itself
_PULSE_SECONDS: Final = 1.0  # how often round-trip times are looked at; the heartbeat is not faster
_OURSELVES: Final = "that is our own name"


@dataclass(frozen=True, slots=True)
class Setup:
    """What the application has chosen; see `NetworkStore`."""

    identity: Identity
    pins: DirectoryPins
    engine: Engine
    ice_servers: tuple[IceServer, ...] | None
    allow_loopback: bool | None
    accept: Accept | None
    limits: StoreLimits
    backoff: Backoff
    timing: PeerTiming | None
    on_file: Callbacks[Transfer]
    on_resumed_file: Callbacks[Transfer]
    path: PathMode
    journal: Journal | None


class PeerManager:
    """All peers of one store."""

    def __init__(self, setup: Setup, mailbox: Mailbox, feed: StateFeed) -> None:
        self.mailbox = mailbox
        self.limits = setup.limits
        self.backoff = setup.backoff
        self.moments: Iterator[int] = itertools.count(1)
        self.journal = (
            None
            if setup.journal is None
            else JournalWriter(setup.journal, setup.limits, on_error=self._journal_error_changed)
        )
        kept = None if self.journal is None else KeptTransfers(self.journal.files, setup.limits.journal_files)
        self.services = PeerServices(setup.on_file, setup.on_resumed_file, kept)
        self.views = PeerViews(feed, self._server)
        self.signaling: PeerSignaling | None = None  # the login, also while it is tried
        self._blocking = Blocking()
        self._modes: dict[str, PathMode] = {}  # of users for whom the application has chosen another one
        self._setup = setup
        self._peers: dict[str, Peer] = {}  # watched users included
        self._arriving = 0  # at least what all peers together hold of messages that are not handed over
        self._closed = False
        self._tasks = Tasks()  # of peers: calls, goodbyes
        self._pulse_timer: Timer | None = None
        self._timers: Timers | None = None
        self._expiry = Expiry(lambda: [*self.peers, self.services.files], setup.limits.queue_age)
        self.recovery = Recovery(self._usable_client, lambda: self._devices)

    # --- the login ------------------------------------------------------------------------------------------------

    async def start(self, client: SignalingClient) -> None:
        """Connect and register. Raises what the client raises, and may be called again then; and `StateError` when it
        was closed meanwhile."""
        signaling = self.signaling = PeerSignaling(self._setup, client, self)
        try:
            await self._bind_journal(client)
            for peer in self.peers:
                peer.load_pin()
            await signaling.start()
        except BaseException:
            if not self._closed:
                self.signaling = None
                await signaling.close(_CLOSE_SECONDS)
                for peer in self.peers:
                    peer.load_pin()  # no key of that server is shown from now on
                self.publish()
            raise
        self._pulse_soon()
        self.recovery.start()

    async def _bind_journal(self, client: SignalingClient) -> None:
        """Know what the journal keeps for this user of this server. Raises `JournalError`, `StateError`."""
        journal = self.journal
        if journal is None:
            return
        owner = Owner(client.server, client.user_id, client.device)
        if journal.bound:
            journal.check_owner(owner)
            return
        unread = await journal.bind(owner)
        self._check_open()
        for device in self._devices:
            journal.attach(device.messages, device.user_id, device.name)
        for user_id, name in journal.waiting:
            peer = self._meet(user_id)
            peer.known, peer.stranger = True, False
            try:
                peer.restore(name)
            except TooManyPeers as error:
                # It goes on when the device is met, or in another run.
                _log.warning("what waits for %s/%s stays in the journal: %s", user_id, name, error)
        self.services.files.restore(self._restored)
        self._expiry.look()
        self.mailbox.bind(journal, unread)

    def _journal_error_changed(self) -> None:
        if self.journal is not None and self.journal.error is None:
            self.mailbox.try_again()
        self.publish()

    def _restored(self, user_id: str, name: str | None) -> PeerDevice:
        """The device for which a file waits in the journal. Raises `TooManyPeers`."""
        peer = self._meet(user_id)
        peer.known, peer.stranger = True, False
        return peer.device(name)

    def named(self, user_id: str) -> None:
        """We have this name. Something may have been sent to it before it was ours."""
        peer = self._peers.get(user_id)
        if peer is not None:
            self.leave(peer, "", _OURSELVES, UsageError(_OURSELVES))
            self._forget(peer)
            self.publish()

    async def close(self) -> None:
        """Say goodbye to all, and release everything. To be called once."""
        self._expiry.note_clock()
        self._closed = True
        self.recovery.close()
        if self.signaling is not None:
            self.signaling.stop()
        for peer in self._peers.values():
            error = StateError("the store was closed")
            self.leave(peer, "the other side has left", "the store was closed", error, keep=True)
        await self.services.close()
        if self._pulse_timer is not None:
            self._pulse_timer.cancel()
        await self._tasks.finish(_CLOSE_SECONDS)
        if self.signaling is not None:
            await self.signaling.close(_CLOSE_SECONDS)
        self.publish()

    def leave(
        self,
        peer: Peer,
        farewell: str,
        reason: str,
        error: AldisError,
        device: str | None = None,
        *,
        keep: bool = False,
    ) -> list[asyncio.Task[None]]:
        """End everything with a peer, or a device of it: it is told `farewell`, what waits for it fails for `reason`,
        and calls that wait get `error`. With `keep` a journal keeps what waits. Returns the tasks that say goodbye."""
        found = peer.devices if device is None else [each for each in peer.devices if each.name == device]
        return [self.spawn(each.close(farewell, reason, error, keep=keep), f"leave {each.address}") for each in found]

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the store was closed meanwhile")

    # --- peers ----------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> list[Peer]:
        """All peers, and the users that are watched."""
        return list(self._peers.values())

    def find(self, user_id: str) -> Peer | None:
        """A peer or a watched user, if there is one."""
        return self._peers.get(user_id)

    def peer(self, user_id: str, *, stranger: bool = False) -> Peer:
        """A peer, made if need be; `stranger` when it is they who want one. Raises `InvalidAddress`, `UsageError`,
        `TooManyPeers`, and `StateError` when the store is being closed."""
        self._check_open()
        self._expiry.note_clock()
        peer = self._peers.get(user_id)
        if peer is None or not peer.known:
            self._check_other(user_id)
            self._make_room(stranger=stranger)
            peer = self._meet(user_id)
            peer.known, peer.stranger = True, stranger
        return peer

    def _check_other(self, user_id: str) -> None:
        if check_user_id(user_id) == self._user_id:
            raise UsageError(_OURSELVES)

    @property
    def _user_id(self) -> str | None:
        return None if self.signaling is None else self.signaling.client.user_id

    def _meet(self, user_id: str, presence: PeerPresence | None = None) -> Peer:
        """A peer, made if need be, that takes no place among the peers yet."""
        peer = self._peers.get(user_id)
        if peer is None:
            peer = self._peers[user_id] = Peer(user_id, self, presence or PeerPresence(user_id))
            self.views.add(peer)
        return peer

    def _make_room(self, *, stranger: bool) -> None:
        """See that there may be one more, if need be by forgetting an idle one: strangers first, as nothing says any
        more which messages of a peer have arrived that is forgotten."""
        known = [peer for peer in self._peers.values() if peer.known]
        strangers = [peer for peer in known if peer.stranger]
        if stranger and len(strangers) >= self.limits.callers:
            self._forget_one(strangers, self.limits.callers)
        elif len(known) >= self.limits.peers:
            self._forget_one(known, self.limits.peers)

    def _forget_one(self, peers: Iterable[Peer], limit: int) -> None:
        idle = [peer for peer in peers if peer.idle]
        if not idle:
            raise TooManyPeers(limit)
        peer = min(idle, key=lambda peer: (not peer.stranger, peer.touched))
        self._forget(peer)  # first: what a callback sends from now on goes to a new one
        presence = peer.presence
        if presence.shown:
            self._meet(peer.user_id, presence)
        elif presence.is_or_will_be_watched:
            self.spawn(self._unwatch(peer.user_id), f"unwatch {peer.user_id}")
        peer.hang_up("forgotten")
        peer.over(PeerConnectionFailed(peer.user_id, "there are too many peers"))

    def make_device_room(self, peer: Peer) -> None:
        """See that a peer may have one device more than it has. All strangers together may have as many as there may
        be strangers, besides the first of each: a device is a connection. Raises `TooManyPeers`."""
        strangers = [each for each in self._peers.values() if each.known and each.stranger]
        if peer not in strangers or sum(max(len(each.devices) - 1, 0) for each in strangers) < self.limits.callers:
            return
        if not any(each.forget_device() for each in strangers if len(each.devices) > 1):
            raise TooManyPeers(self.limits.callers)

    def _forget(self, peer: Peer) -> None:
        del self._peers[peer.user_id]
        peer.forget()
        self.views.remove(peer)
        if self.signaling is not None:
            self._setup.pins.forget(self.signaling.client.server, peer.user_id)

    async def _unwatch(self, user_id: str) -> None:
        try:
            await self._client.unwatch(user_id)
        except (SignalingError, StateError) as error:
            _log.debug("the watch of %s was not ended: %s", user_id, error)

    async def watch_all(self, user_ids: Sequence[str]) -> None:
        """Have presence shown. Raises `InvalidAddress`, `UsageError`, `SignalingError`."""
        for user_id in user_ids:
            self._check_other(user_id)
        fresh = [user_id for user_id in dict.fromkeys(user_ids) if not self._is_shown(user_id)]
        # First: the server tells how they stand before it says that it will.
        shown = [self._meet(user_id).presence for user_id in fresh]
        for presence in shown:
            presence.shown = True
        try:
            await self._client.watch(*fresh)
        except BaseException:
            self._ignore(fresh)
            raise
        for presence in shown:
            presence.watched = True

    async def unwatch_all(self, user_ids: Sequence[str]) -> None:
        """End that. Raises `SignalingError`."""
        unused = self._ignore(user_ids)
        if unused:
            await self._client.unwatch(*unused)

    def watch_ended(self, user_ids: Iterable[str]) -> None:
        """The server does not tell of these users any more."""
        self._ignore(user_ids)
        for user_id in user_ids:
            peer = self._peers.get(user_id)
            if peer is not None:
                peer.watch_ended()

    def _is_shown(self, user_id: str) -> bool:
        peer = self._peers.get(user_id)
        return peer is not None and peer.presence.shown

    def _ignore(self, user_ids: Iterable[str]) -> list[str]:
        """The application does not watch these any more; returns those that nothing else needs to be watched for."""
        unused = []
        for user_id in dict.fromkeys(user_ids):
            peer = self._peers.get(user_id)
            if peer is None or not peer.presence.shown:
                continue
            peer.presence.shown = False
            if not peer.known:
                self._forget(peer)
                unused.append(user_id)
        self.publish()
        return unused

    def accept_key(self, user_id: str, public_key: bytes) -> None:
        """Pin a key in place of any other. Raises `IdentityError`."""
        known = self._setup.pins.pinned(self._client.server, user_id)
        self._setup.pins.accept(self._client.server, user_id, public_key)
        peer = self._peers.get(user_id)
        if peer is not None:
            peer.accept(changed=known is not None and known != public_key)

    async def change_privacy(
        self,
        *,
        presence: Visibility | None = None,
        offers: Visibility | None = None,
        add_contacts: Sequence[str] = (),
        remove_contacts: Sequence[str] = (),
    ) -> None:
        """Change who may see and call our user. Raises `InvalidAddress`, `UsageError`, `SignalingError`."""
        await self._client.change_privacy(
            presence=presence, offers=offers, add_contacts=add_contacts, remove_contacts=remove_contacts
        )

    async def block(self, user_ids: Sequence[str]) -> None:
        """Have nothing to do with some users any more: here at once, then by the server. Raises `InvalidAddress`,
        `UsageError` for ourselves, `SignalingError`."""
        for user_id in user_ids:
            self._check_other(user_id)
        client = self._client
        goodbyes = self._end_blocked(self._blocking.block(user_ids))
        try:
            await client.change_privacy(block=user_ids)
        finally:
            await asyncio.gather(*(asyncio.shield(goodbye) for goodbye in goodbyes))

    async def unblock(self, user_ids: Sequence[str]) -> None:
        """End that. Raises `InvalidAddress`, `SignalingError`."""
        for user_id in user_ids:
            check_user_id(user_id)
        client = self._client
        self._blocking.unblock(user_ids)
        self._privacy_told()
        try:
            await client.change_privacy(unblock=user_ids)
        except RequestFailed as error:
            # An older server keeps no blocks: those that held here have ended.
            if error.code != ErrorCode.UNKNOWN_TYPE:
                raise

    def registered_again(self) -> None:
        if self._blocking.here:
            self.spawn(self._tell_blocked(), "tell the server who is blocked")

    async def _tell_blocked(self) -> None:
        """Tell the server of blocks that it could not be told of before."""
        try:
            await self._client.change_privacy(block=self._blocking.here)
        except AldisError as error:
            _log.debug("the server does not keep who is blocked, so it holds in this store alone: %s", error)

    def blocks(self, user_id: str) -> bool:
        return self._blocking.blocks(user_id)

    def privacy_changed(self, privacy: Privacy) -> None:
        """The server has said who may see and call our user, and who is blocked."""
        self._end_blocked(self._blocking.told(privacy))

    def _end_blocked(self, user_ids: Iterable[str]) -> list[asyncio.Task[None]]:
        """End everything with users that are blocked from now on; returns the tasks that say goodbye."""
        goodbyes = []
        for user_id in user_ids:
            peer = self._peers.get(user_id)
            if peer is not None:
                error = PeerBlocked(user_id)
                goodbyes += self.leave(peer, "the other side has hung up", str(error), error)
            self.services.files.forget_accepted(user_id)
        self._privacy_told()
        return goodbyes

    def _privacy_told(self) -> None:
        for peer in self.peers:
            self.views.changed(peer)
        self.publish()

    def hand_over(self) -> None:
        """The mailbox has room: give it what waits."""
        for device in self._devices:
            if device.messages.waiting:
                device.messages.hand_over()

    @property
    def _devices(self) -> list[PeerDevice]:
        return [device for peer in self.peers for device in peer.devices]

    def unreadable(self, user_id: str, device: str, reason: str) -> None:
        """A message of a device is not what it says it is."""
        peer = self._peers.get(user_id)
        found = None if peer is None else peer.find_device(device)
        if found is not None and not self._closed:
            found.broke(reason)

    # --- state ----------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Tell how things stand."""
        self.views.publish()

    def _server(self) -> StoreState:
        privacy = self._blocking.privacy
        journal_error = None if self.journal is None else self.journal.error
        if self.signaling is None:
            return StoreState(privacy=privacy, journal_error=journal_error)
        client = self.signaling.client
        return StoreState(client.state, self.signaling.error, client.user_id, privacy, journal_error)

    def _pulse(self) -> None:
        for peer in list(self.peers):
            self.views.measured(peer)
        self._expiry.pulse(self.timers.time())
        self._pulse_soon()

    def _pulse_soon(self) -> None:
        # All stores of a process at the same moment: to wake up costs more than to look.
        delay = _PULSE_SECONDS - self.timers.time() % _PULSE_SECONDS
        self._pulse_timer = self.timers.call_later(delay, self._pulse)

    # --- for the peers (`peer.PeerContext`) -----------------------------------------------------------------------

    @property
    def _client(self) -> SignalingClient:
        if self.signaling is None:
            raise StateError("connect_to_signaling comes first")
        return self.signaling.client

    def _usable_client(self) -> SignalingClient | None:
        return None if self.signaling is None or self._closed else self.signaling.client

    @property
    def timers(self) -> Timers:
        if self._timers is None:
            self._timers = LoopClock.of(asyncio.get_running_loop())
        return self._timers

    @property
    def registered(self) -> bool:
        return self.signaling is not None and self.signaling.registered and not self._closed

    @property
    def ended(self) -> AldisError | None:
        return None if self.signaling is None else self.signaling.ended

    async def watch(self, user_id: str) -> None:
        await self._client.watch(user_id)

    async def discover(self, user_id: str) -> Discovery:
        return await self._client.discover(user_id)

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        return self._setup.pins.expect(self._client.server, user_id, public_key)

    def require(self, user_id: str, fingerprint: str) -> None:
        self._setup.pins.require(self._client.server, user_id, fingerprint)

    @property
    def relay(self) -> RelayLogin | None:
        return None if self.signaling is None else self.signaling.usable_relay

    @property
    def timing(self) -> PeerTiming:
        return self._setup.timing or PeerTiming()

    def polite(self, user_id: str) -> bool:
        ours = self._user_id
        return ours is not None and ours.encode() < user_id.encode()

    def path_mode(self, user_id: str) -> PathMode:
        return self._modes.get(user_id, self._setup.path)

    def set_path(self, user_id: str, mode: PathMode | None) -> None:
        """Choose the paths that may be used with a user; None for those of the store."""
        before = self.path_mode(user_id)
        if mode is None:
            self._modes.pop(user_id, None)
        else:
            self._modes[user_id] = mode
        peer = self._peers.get(user_id)
        if peer is not None and self.path_mode(user_id) is not before:
            peer.path_changed()

    def standing_key(self, user_id: str) -> bytes | None:
        if self.signaling is None:
            return None
        try:
            return self._setup.pins.find(self.signaling.client.server, user_id)
        except IdentityError as error:
            _log.warning("the relay is not used with %s: %s", user_id, error)
            return None

    def pinned(self, user_id: str) -> bytes | None:
        if self.signaling is None:
            return None
        try:
            return self._setup.pins.pinned(self.signaling.client.server, user_id)
        except IdentityError as error:
            # This is only to be shown. Where it decides about something, the fault is told.
            _log.warning("the key of %s is not shown: %s", user_id, error)
            return None

    def connection(
        self, user_id: str, device: str | None, listener: PeerListener, hello: Callable[[], Hello]
    ) -> PeerConnection:
        if self.signaling is None:
            raise StateError("connect_to_signaling comes first")
        return self.signaling.connection(user_id, device, listener, hello)

    def prepare(self, user_id: str) -> None:
        if self.signaling is not None:
            self.signaling.prepare(user_id)

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        return self._tasks.spawn(work, name)

    def random(self) -> float:
        return random.random()  # noqa: S311 - a pause, no secret

    def arrived(self, size: int) -> None:
        # An estimate that is never too low; looked at closely only when it comes to the limit.
        self._arriving += size
        if self._arriving <= self.limits.arriving_size:
            return
        devices = self._devices
        self._arriving = sum(device.messages.arriving for device in devices)
        if self._arriving > self.limits.arriving_size:
            most = max(devices, key=lambda device: device.messages.arriving)
            self._arriving -= most.messages.arriving
            _log.warning("%s has sent more than there is room for", most.address)
            most.let_go("it has sent more than there is room for; it will be sent again")

    def control_received(self, device: PeerDevice, data: bytes) -> None:
        control = None if self._closed else decode_control(data)
        peer = self._peers.get(device.user_id)
        if control is not None and peer is not None and peer.find_device(device.name) is device:
            self.services.received(device, control)
