"""A store as a peer sees it: a server that a test answers for, and connections that come to the states it says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterator
from typing import cast

from aldis.client.backoff import Backoff
from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
    Discovery,
    OfferReceived,
    PresenceChanged,
)
from aldis.errors import AldisError, RequestFailed
from aldis.peer.connection import PeerConnection, PeerListener, PeerState, PeerTiming
from aldis.peer.engine import EngineStats
from aldis.protocol.channel import VERSION, Content, Hello
from aldis.protocol.messages import Capabilities, Description
from aldis.store.files.transfer import Transfer
from aldis.store.journal.writer import JournalWriter
from aldis.store.messages.delivery import Delivery
from aldis.store.messages.mailbox import Mailbox
from aldis.store.peers.device import PeerDevice
from aldis.store.peers.paths import PathMode
from aldis.store.peers.peer import Peer
from aldis.store.peers.presence import PeerPresence
from aldis.store.peers.recovery import Recovery
from aldis.store.peers.relay_login import RelayLogin
from aldis.store.peers.views import PeerViews
from aldis.store.services import PeerServices
from aldis.store.state import StoreLimits, StoreState
from aldis.store.subscriptions import Callbacks, StateFeed
from support.dial_target import settle
from support.peers import FakeTimers

KEY = bytes(32)


class Connection:
    """The connection with one device."""

    def __init__(self, device: str | None, listener: PeerListener) -> None:
        self.device = device
        self.state = PeerState.NEW
        self.clock_from: float | None = 0.0
        self.opening = False
        self.round_trip_time: float | None = None
        self.closed: list[str] = []
        self.frames: list[bytes] = []
        self._listener = listener

    def connect(self) -> None:
        if self.state is not PeerState.CONNECTED:
            self.state = PeerState.CONNECTING

    def receive(self, event: OfferReceived | AnswerReceived | CandidateReceived | ByeReceived) -> None:
        self.connect()

    def knows(self, name: str | None) -> bool:
        return True

    def send_frame(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return True

    def silence(self) -> None:
        pass

    def leave(self) -> None:
        if self.state is PeerState.CONNECTED:
            self.becomes(PeerState.DISCONNECTED)

    async def stats(self) -> EngineStats | None:
        return None

    async def close(self, reason: str = "") -> None:
        self.closed.append(reason)

    def opens(self, stream: str, features: tuple[str, ...] = ()) -> None:
        """The channel opens; `stream` names the run of the program at the other end."""
        self._listener.channel_opened(Hello(VERSION, stream, 1, list(features)))
        self.becomes(PeerState.CONNECTED)

    def becomes(self, state: PeerState) -> None:
        """Another state, which is told."""
        if state is not PeerState.CONNECTED:
            self._listener.channel_closed()
        self.state = state
        self._listener.state_changed(state, None)


class PeerWorld:
    """One peer, bob, and all that it needs of its store."""

    def __init__(self) -> None:
        self.limits = StoreLimits()
        self.backoff = Backoff(first=1, factor=2, most=4)
        self.timers = FakeTimers()
        self.timing = PeerTiming()
        self.relay: RelayLogin | None = None
        self.registered = True
        self.ended: AldisError | None = None
        self.transfers: list[Transfer] = []  # what was offered to us
        on_file = Callbacks[Transfer]()
        on_file.add(self.transfers.append)
        self.services = PeerServices(on_file)
        self.moments: Iterator[int] = itertools.count(1)
        self.recovery = Recovery(lambda: None, list)
        self.feed = StateFeed()
        self.views = PeerViews(self.feed, StoreState)
        self.journal: JournalWriter | None = None
        self.mailbox = Mailbox(100, 10**6, on_room=lambda: None)
        self.online: tuple[str, ...] = ()  # what the server lists
        self.watchable = True
        self.asked = 0
        self.their_key, self.pinned_key = KEY, KEY
        self.connections: dict[str | None, Connection] = {}  # the last one with each device
        self.tasks: list[asyncio.Task[None]] = []
        self.hold: asyncio.Event | None = None
        self.peer = Peer("bob", self, PeerPresence("bob"))
        self.views.add(self.peer)

    # --- what the peer asks for -------------------------------------------------------------------------------------

    def blocks(self, user_id: str) -> bool:
        return False

    async def watch(self, user_id: str) -> None:
        if not self.watchable:
            raise RequestFailed("too-many-watches", "no more", temporary=False)

    async def discover(self, user_id: str) -> Discovery:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        return Discovery(user_id, bool(self.online), self.their_key, self.online)

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        return self.pinned_key

    def make_device_room(self, peer: Peer) -> None:
        pass

    def require(self, user_id: str, fingerprint: str) -> None:
        pass

    def pinned(self, user_id: str) -> bytes | None:
        return self.pinned_key

    def standing_key(self, user_id: str) -> bytes | None:
        return self.pinned_key

    def path_mode(self, user_id: str) -> PathMode:
        return PathMode.AUTO

    def polite(self, user_id: str) -> bool:
        return True

    def random(self) -> float:
        return 0.5

    def arrived(self, size: int) -> None:
        pass

    def control_received(self, device: PeerDevice, data: bytes) -> None:
        pass

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self.tasks.append(task)
        return task

    def prepare(self, user_id: str) -> None:
        pass

    def connection(
        self, user_id: str, device: str | None, listener: PeerListener, hello: Callable[[], Hello]
    ) -> PeerConnection:
        made = self.connections[device] = Connection(device, listener)
        return cast(PeerConnection, made)

    # --- what a test does -------------------------------------------------------------------------------------------

    def lists(self, *devices: str, initial: bool = False) -> None:
        """The server says which devices are online."""
        self.online = devices
        self.peer.presence_changed(PresenceChanged("bob", bool(devices), self.their_key, devices, initial))

    def send(self, text: str, device: str | None = None) -> Delivery:
        """A message to the user, or to a device."""
        return self.peer.send(device, Content.TEXT, text.encode())

    def offered(self, device: str) -> bool:
        """A device calls."""
        offer = OfferReceived(f"bob/{device}", Description("offer", "v=0"), "a connection", None, Capabilities())
        return self.peer.receive(offer, device)

    def queued(self) -> dict[str | None, int]:
        """How many messages wait for each device."""
        return {device.name: device.messages.queued for device in self.peer.devices if device.messages.queued}

    async def opens(self, device: str, stream: str | None = None) -> Connection:
        """The connection with a device that is called opens."""
        await settle()
        connection = self.connections[device]
        connection.opens(stream or f"stream of {device}", ("files",))
        await settle()
        return connection
