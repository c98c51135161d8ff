"""Everything between one signaling client and the peers of its peers.

It turns what the server brings into calls of the peers, makes and forgets peers within the limits, gives them what
they need (`peer.PeerContext`), leads files to `files`, and puts the state together.

Rules: one client, one life; it begins with `start` and ends with `close`. A fault of one peer stays with that peer.
What the application sees of all this is `store.NetworkStore`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from aldis.client.address import ServerAddress, is_this_machine
from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
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
    WatchEnded,
)
from aldis.errors import (
    AldisError,
    ConnectionLost,
    IdentityError,
    PeerConnectionFailed,
    ProtocolViolation,
    SignalingError,
    StateError,
    TooManyPeers,
    UsageError,
)
from aldis.identity.keys import Identity
from aldis.peer.clock import LoopClock
from aldis.peer.connection import PeerConnection, PeerListener, PeerTiming
from aldis.peer.engine import Engine
from aldis.peer.transport import Timers
from aldis.peer.trust import Trust
from aldis.protocol.addresses import check_user_id, split
from aldis.protocol.channel import Hello
from aldis.protocol.codes import RefusalCode
from aldis.protocol.messages import IceServer
from aldis.store.files.service import FileService
from aldis.store.files.transfer import Transfer
from aldis.store.messages.control import decode_control
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.mailbox import Mailbox
from aldis.store.peers.admission import Accept, Admission
from aldis.store.peers.ice import IceServerCache, PeerEvent
from aldis.store.peers.peer import Peer
from aldis.store.peers.pinning import DirectoryPins
from aldis.store.state import PeerView, StoreLimits, StoreState
from aldis.store.subscriptions import Callbacks, StateFeed
from aldis.store.tasks import Tasks

_log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 5.0  # for goodbyes; who cannot be reached by then will find out by itself
_PULSE_SECONDS: Final = 1.0  # how often round-trip times are looked at; the heartbeat is not faster
_STREAM_BYTES: Final = 16
_START_PAUSE: Final = 2.0  # until those call again for whose offers there was no room at the start


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


class PeerManager:
    """The peers of one user of one server. A `peer.PeerContext`, and a `files.Route`."""

    def __init__(self, setup: Setup, client: SignalingClient, mailbox: Mailbox, feed: StateFeed) -> None:
        self.client = client
        self.mailbox = mailbox
        self._setup = setup
        self._feed = feed
        loopback = setup.allow_loopback
        if loopback is None:
            loopback = is_this_machine(ServerAddress.parse(client.url).host)
        self._trust = Trust(setup.identity, client.user_id, client.server, setup.pins)
        self._ice = IceServerCache(client, setup.ice_servers, loopback=loopback)
        self._admission = Admission(client, setup.accept, self.spawn)
        self._unsubscribe = client.subscribe(self._signaling_event)
        self._peers: dict[str, Peer] = {}
        self._views: dict[str, PeerView] = {}
        self._observed: dict[str, bool | None] = {}  # whose presence the application wants to know, and what it is
        self._signaling_error: AldisError | None = None
        self._ended: AldisError | None = None
        self._publishing_soon = False
        self._arriving = 0  # at least what all peers together hold of messages that are not handed over
        self._closed = False
        self._tasks = Tasks()  # of peers: calls, goodbyes
        self._services = Tasks()
        self._keeping: asyncio.Task[None] | None = None  # of the ICE servers
        self.files = FileService(self, setup.on_file)

    async def start(self) -> None:
        """Connect and register. Raises what the client raises, and `StateError` when it was closed meanwhile."""
        self.publish()
        await self.client.connect()
        await self.client.register(self._setup.identity)
        self._check_open()
        self._keep_ice_servers()
        self._services.spawn(self._pulse(), "look at the round-trip times")
        held_back = await self._ice.known()
        self._check_open()
        for event in held_back:
            self._peer_event(event)

    def _keep_ice_servers(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        self._keeping = self._services.spawn(self._ice.keep(), "keep the ICE servers")

    def _check_open(self) -> None:
        if self._closed:
            raise StateError("the store was closed meanwhile")

    async def close(self) -> None:
        """Say goodbye to all, and release everything. To be called once."""
        self._closed = True
        for peer in self._peers.values():
            leaving = peer.close("the other side has left", "the store was closed", StateError("the store was closed"))
            self.spawn(leaving, f"leave {peer.user_id}")
        self._ice.close()
        await self.files.close()
        await self._services.cancel()
        await self._tasks.finish(_CLOSE_SECONDS)
        await self.client.close()
        self._unsubscribe()
        self.publish()

    # --- peers ----------------------------------------------------------------------------------------------------

    @property
    def peers(self) -> Iterable[Peer]:
        """All peers."""
        return self._peers.values()

    def find(self, user_id: str) -> Peer | None:
        """The peer of a peer, if there is one."""
        return self._peers.get(user_id)

    def peer(self, user_id: str, *, stranger: bool = False) -> Peer:
        """The peer of a peer, made if need be; `stranger` when it is they who want one. Raises `InvalidAddress`,
        `UsageError`, `TooManyPeers`."""
        peer = self._peers.get(user_id)
        if peer is None:
            self._check_other(user_id)
            self._make_room(stranger=stranger)
            stream = secrets.token_urlsafe(_STREAM_BYTES)
            peer = Peer(user_id, self, stream, self._observed.get(user_id), stranger=stranger)
            self._peers[user_id] = peer
            self.changed(peer)
        return peer

    def _check_other(self, user_id: str) -> None:
        if check_user_id(user_id) == self.client.user_id:
            raise UsageError("that is our own name")

    def _make_room(self, *, stranger: bool) -> None:
        """See that there may be one more, if need be by forgetting one with whom nothing is going on: strangers first,
        as to each that is forgotten nothing says any more where the messages stood."""
        strangers = [peer for peer in self._peers.values() if peer.stranger]
        if stranger and len(strangers) >= self.limits.callers:
            self._forget_one(strangers, self.limits.callers)
        elif len(self._peers) >= self.limits.peers:
            self._forget_one(self._peers.values(), self.limits.peers)

    def _forget_one(self, peers: Iterable[Peer], limit: int) -> None:
        idle = [peer for peer in peers if peer.idle]
        if not idle:
            raise TooManyPeers(limit)
        peer = min(idle, key=lambda peer: (not peer.stranger, peer.touched))
        peer.hang_up("forgotten")
        self.over(peer, PeerConnectionFailed(peer.user_id, "there are too many peers"))
        del self._peers[peer.user_id]
        self._forget(peer.user_id)
        if peer.watched and peer.user_id not in self._observed:
            self.spawn(self._unwatch(peer.user_id), f"unwatch {peer.user_id}")

    def _forget(self, user_id: str) -> None:
        self._setup.pins.forget(self.client.server, user_id)
        self._views.pop(user_id, None)
        self._show(user_id)

    async def _unwatch(self, user_id: str) -> None:
        try:
            await self.client.unwatch(user_id)
        except (SignalingError, StateError) as error:
            _log.debug("the watch of %s was not ended: %s", user_id, error)

    async def observe(self, user_ids: Sequence[str]) -> None:
        """Have presence in the state. Raises `InvalidAddress`, `UsageError`, `SignalingError`."""
        for user_id in user_ids:
            self._check_other(user_id)
        new = [user_id for user_id in dict.fromkeys(user_ids) if user_id not in self._observed]
        for user_id in new:
            peer = self._peers.get(user_id)
            self._observed[user_id] = None if peer is None else peer.view.online
        try:
            await self.client.watch(*new)
        except BaseException:
            self._unobserve(new)
            raise
        for user_id in new:
            self._show(user_id)

    async def unobserve(self, user_ids: Sequence[str]) -> None:
        """End that. Raises `SignalingError`."""
        unused = [user_id for user_id in self._unobserve(user_ids) if user_id not in self._peers]
        if unused:
            await self.client.unwatch(*unused)

    def _unobserve(self, user_ids: Iterable[str]) -> list[str]:
        ended = [user_id for user_id in dict.fromkeys(user_ids) if user_id in self._observed]
        for user_id in ended:
            del self._observed[user_id]
            peer = self._peers.get(user_id)
            if peer is None:
                self._forget(user_id)
            else:
                peer.watched = True  # the server's watch is the peer's from now on
        self.publish()
        return ended

    def accept_key(self, user_id: str, public_key: bytes) -> None:
        """Pin a key in place of any other. Raises `IdentityError`."""
        known = self._setup.pins.pinned(self.client.server, user_id)
        self._setup.pins.accept(self.client.server, user_id, public_key)
        peer = self._peers.get(user_id)
        if peer is not None:
            peer.accept(changed=known is not None and known != public_key)
        else:
            self._show(user_id)

    def hand_over(self) -> None:
        """The mailbox has room: give it what waits."""
        for peer in list(self._peers.values()):
            if peer.messages.waiting:
                peer.messages.hand_over()

    def unreadable(self, user_id: str, reason: str) -> None:
        """A message of a peer is not what it says it is."""
        peer = self._peers.get(user_id)
        if peer is not None and not self._closed:
            peer.drop(f"it breaks the protocol: {reason}")

    # --- state ----------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Tell how things stand."""
        self._publishing_soon = False
        state = StoreState(
            signaling=self.client.state,
            signaling_error=self._signaling_error,
            user_id=self.client.user_id,
            peers=MappingProxyType(dict(self._views)),
        )
        self._feed.publish(state)

    async def _pulse(self) -> None:
        while True:
            await asyncio.sleep(_PULSE_SECONDS)
            for peer in list(self._peers.values()):
                shown = self._views.get(peer.user_id)
                # A view is not made for each peer each second: nearly all of them would be the same as before.
                if shown is not None and shown.round_trip_time != peer.round_trip_time:
                    self.changed(peer)

    # --- what the server brings -----------------------------------------------------------------------------------

    def _signaling_event(self, event: SignalingEvent) -> None:
        match event:
            case PresenceChanged():
                if event.user_id in self._observed:
                    self._observed[event.user_id] = event.online
                peer = self._peers.get(event.user_id)
                if peer is not None:
                    peer.presence_changed(event)
                else:
                    self._show(event.user_id)
                return
            case OfferReceived() | AnswerReceived() | CandidateReceived() | ByeReceived():
                # Not before it is known through which servers to answer.
                if not self._ice.hold_back(event, self._too_early):
                    self._peer_event(event)
                return
            case WatchEnded():
                self._watch_ended(event)
            case Registered():
                self._signaling_error = None
                if self._keeping is not None and not self._closed:
                    # A machine that has slept has expired credentials and a timer that slept as well; and the server
                    # may name others now. Asked before anything else, it answers before a call can need them.
                    self._keep_ice_servers()
                for peer in list(self._peers.values()):
                    peer.dialer.signaling_returned(resumed=event.resumed)
            case Disconnected():
                self._signaling_error = ConnectionLost(event.reason)
            case Closed():
                self._signaling_error = event.error
                if event.error is not None:
                    self._ended = event.error
                    for peer in list(self._peers.values()):
                        peer.signaling_ended(event.error)
            case _:
                pass
        self.publish()

    def _watch_ended(self, event: WatchEnded) -> None:
        _log.warning("the server does not tell of %d users any more: %s", len(event.user_ids), event.error)
        self._unobserve(event.user_ids)
        for user_id in event.user_ids:
            peer = self._peers.get(user_id)
            if peer is not None:
                peer.watch_ended()

    def _too_early(self, offer: OfferReceived) -> None:
        self._admission.refuse(offer, "still starting", RefusalCode.RATE_LIMITED, _START_PAUSE)

    def _peer_event(self, event: PeerEvent) -> None:
        if self._closed:
            return
        user_id, _ = split(event.sender)
        peer = self._peers.get(user_id)
        if isinstance(event, OfferReceived):
            peer = self._admission.admit(event, user_id, peer, lambda user_id: self.peer(user_id, stranger=True))
        taken = peer is not None and peer.receive(event)
        if isinstance(event, AnswerReceived) and not taken:
            # To an offer of before our program was started, perhaps: whoever has answered it waits in vain.
            self._admission.refuse(event, "this connection is over")

    # --- for the peers (`peer.PeerContext`) ----------------------------------------------------------------------

    @property
    def limits(self) -> StoreLimits:
        return self._setup.limits

    @property
    def backoff(self) -> Backoff:
        return self._setup.backoff

    @property
    def timers(self) -> Timers:
        return LoopClock.of(asyncio.get_running_loop())

    @property
    def registered(self) -> bool:
        return self.client.state is SignalingState.CONNECTED and not self._closed

    @property
    def ended(self) -> AldisError | None:
        return self._ended

    async def watch(self, user_id: str) -> None:
        await self.client.watch(user_id)

    async def discover(self, user_id: str) -> Discovery:
        return await self.client.discover(user_id)

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        return self._setup.pins.expect(self.client.server, user_id, public_key)

    def require(self, user_id: str, fingerprint: str) -> None:
        self._setup.pins.require(self.client.server, user_id, fingerprint)

    def pinned(self, user_id: str) -> bytes | None:
        try:
            return self._setup.pins.pinned(self.client.server, user_id)
        except IdentityError as error:
            # This is only to be shown. Where it decides about something, the fault is told.
            _log.warning("the key of %s is not shown: %s", user_id, error)
            return None

    def connection(self, user_id: str, listener: PeerListener, hello: Callable[[], Hello]) -> PeerConnection:
        return PeerConnection(
            local=self.client.user_id,
            remote=user_id,
            engine=self._setup.engine,
            config=lambda: self._ice.config,
            trust=self._trust,
            signaling=self.client,
            listener=listener,
            hello=hello,
            timing=self._setup.timing,
        )

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        return self._tasks.spawn(work, name)

    def random(self) -> float:
        return random.random()  # noqa: S311 - a pause, no secret

    def changed(self, peer: Peer) -> None:
        if self._peers.get(peer.user_id) is peer:
            self._show(peer.user_id)

    def _show(self, user_id: str) -> None:
        """Tell how things stand with one user, if that has changed."""
        peer = self._peers.get(user_id)
        if peer is not None:
            view = peer.view
        elif user_id in self._observed:
            view = PeerView(user_id, online=self._observed[user_id], public_key=self.pinned(user_id))
        else:
            return
        before = self._views.get(user_id)
        if view == before:
            return
        self._views[user_id] = view
        if before is None or replace(before, queued=view.queued, round_trip_time=view.round_trip_time) != view:
            self.publish()
        elif not self._publishing_soon:
            # Only a number has changed, as one does with every message: once for all that happens now is enough.
            self._publishing_soon = True
            asyncio.get_running_loop().call_soon(self.publish)

    def arrived(self, size: int) -> None:
        # An estimate that is never too low; looked at closely only when it comes to the limit.
        self._arriving += size
        if self._arriving <= self.limits.arriving_size:
            return
        self._arriving = sum(peer.messages.arriving for peer in self._peers.values())
        if self._arriving > self.limits.arriving_size:
            peer = max(self._peers.values(), key=lambda peer: peer.messages.arriving)
            self._arriving -= peer.messages.arriving
            _log.warning("%s has sent more than there is room for", peer.user_id)
            peer.let_go("it has sent more than there is room for; it will be sent again")

    def connected(self, peer: Peer) -> None:
        self.files.connected(peer.user_id)

    def over(self, peer: Peer, error: AldisError, *, restarted: bool = False) -> None:
        if self._peers.get(peer.user_id) is peer:
            self.files.over(peer.user_id, error, restarted=restarted)

    def busy(self, user_id: str) -> bool:
        return self.files.busy(user_id)

    def control_received(self, peer: Peer, data: bytes) -> None:
        if self._closed or self._peers.get(peer.user_id) is not peer:
            return
        try:
            control = decode_control(data)
        except ProtocolViolation as error:
            _log.warning("%s breaks the protocol: %s", peer.user_id, error)
            peer.drop(f"it breaks the protocol: {error}")
            return
        if control is not None:
            self.files.received(peer.user_id, control)

    # --- for files (`files.Route`) ---------------------------------------------------------------------------

    def send_control(self, user_id: str, data: bytes) -> Delivery:
        return self.peer(user_id).send_control(data)

    def features(self, user_id: str) -> Sequence[str] | None:
        peer = self._peers.get(user_id)
        return None if peer is None else peer.features

    def open(self, user_id: str) -> None:
        self.peer(user_id).call()
