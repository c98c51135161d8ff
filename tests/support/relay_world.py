"""Two programs that have only the sealed relay, over a wire in memory, at a time that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from aldis.client.client import SignalingClient
from aldis.client.events import ByeReceived, Discovery, PresenceChanged, RelayReceived
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.identity.seal_keys import PublishedSealKey, SealKeys
from aldis.peer.sealing import HANDSHAKE
from aldis.peer.trust import Trust
from aldis.protocol.messages import Limits
from aldis.store.peers import relay_login
from aldis.store.peers.device import PeerDevice
from aldis.store.peers.paths import PathMode
from aldis.store.peers.peer import Peer
from aldis.store.peers.presence import PeerPresence
from aldis.store.peers.relay import RelayPath
from aldis.store.peers.relay_login import Call, RelayLogin
from support.dial_target import settle
from support.peer_context import PeerWorld
from support.peers import SERVER, FakeTimers

_LIMITS = Limits(64 * 1024, 1000, 30.0, relay=True)
_DEVICE = "main"


class RelayWorld(PeerWorld):
    """One of the two, and its only peer."""

    def __init__(self, wire: Wire, user_id: str, other: str) -> None:
        super().__init__()
        self.timers = wire.timers
        self.user_id = user_id
        self.identity = Identity.generate()
        self.seal_keys = SealKeys(user_id, _DEVICE)
        self.published = self.seal_keys.to_register(self.identity, resuming=False)
        self.seal_keys.registered(self.timers.time())
        self.wire = wire
        self.other: RelayWorld
        self.got: list[str] = []  # the messages that have arrived
        self.mailbox.on_message(lambda message: self.got.append(message.data.decode()))
        keys = self.seal_keys
        client = SimpleNamespace(
            user_id=user_id, device=_DEVICE, seal_keys=keys, relay=self._relayed, suspect=self.suspect
        )
        trust = Trust(self.identity, user_id, SERVER, MemoryPins())
        login = RelayLogin(cast(SignalingClient, client), self.identity, trust, self, self.spawn)
        login.registered(_LIMITS)
        login.started()
        self.relay = login
        self.peer = Peer(other, self, PeerPresence(other))

    # --- for a test -------------------------------------------------------------------------------------------------

    @property
    def device(self) -> PeerDevice:
        return self.peer.device(_DEVICE)

    @property
    def path(self) -> RelayPath:
        return self.device.paths.relay

    def publish_another_key(self) -> None:
        """As after an hour. The other side is not told."""
        pair, self.published = self.seal_keys.to_publish(self.identity)
        self.seal_keys.published(pair, self.timers.time())

    def see(self, seal_key: PublishedSealKey) -> None:
        """The server says that the other side is online, with this seal key."""
        keys = {_DEVICE: seal_key}
        event = PresenceChanged(self.other.user_id, True, self.other.identity.public_key, (_DEVICE,), seal_keys=keys)
        self.peer.presence_changed(event)

    # --- for the peer -----------------------------------------------------------------------------------------------

    async def discover(self, user_id: str) -> Discovery:
        self.asked += 1
        keys = {_DEVICE: self.other.published}
        return Discovery(user_id, True, self.other.identity.public_key, (_DEVICE,), keys)

    def path_mode(self, user_id: str) -> PathMode:
        return PathMode.RELAY

    def polite(self, user_id: str) -> bool:
        return self.user_id < user_id

    def standing_key(self, user_id: str) -> bytes | None:
        return self.other.identity.public_key

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        return public_key

    # --- for the login ----------------------------------------------------------------------------------------------

    async def _relayed(self, to: str, sealed: bytes) -> None:
        if sealed[1] == HANDSHAKE:
            self.wire.handshakes += 1
        event = RelayReceived(f"{self.user_id}/{_DEVICE}", sealed)
        self.wire.put(lambda: self.other.login.received(event))

    def suspect(self) -> None:
        raise AssertionError("the server takes everything at once")

    @property
    def login(self) -> RelayLogin:
        assert self.relay is not None
        return self.relay

    def relays(self, user_id: str) -> bool:
        return True

    def relayed_device(self, user_id: str, device: str) -> RelayPath | None:
        found = self.peer.find_device(device)
        return None if found is None else found.paths.relay

    def admit_call(self, call: Call, user_id: str, device: str, public_key: bytes) -> RelayPath | None:
        return self.peer.relayed(device).paths.relay

    def refuse(self, call: Call, reason: str, code: str | None = None, retry_after: float | None = None) -> None:
        self.wire.byes.append(code)
        event = ByeReceived(f"{self.user_id}/{_DEVICE}", call.connection, reason, code, retry_after)
        self.wire.put(lambda: self.other.peer.receive(event, _DEVICE))


class Wire:
    """What is on its way between the two, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.timers = FakeTimers()
        monkeypatch.setattr(relay_login, "asyncio", SimpleNamespace(get_running_loop=lambda: self.timers))
        self.byes: list[str | None] = []  # the codes of all
        self.handshakes = 0
        self._under_way: list[Callable[[], object]] = []
        self.alice, self.bob = RelayWorld(self, "alice", "bob"), RelayWorld(self, "bob", "alice")
        self.alice.other, self.bob.other = self.bob, self.alice
        for world in (self.alice, self.bob):
            world.see(world.other.published)

    def put(self, arrival: Callable[[], object]) -> None:
        self._under_way.append(arrival)

    async def arrive(self) -> None:
        """What is on its way arrives, and what that leads to is on its way."""
        await settle()
        under_way, self._under_way = self._under_way, []
        for arrival in under_way:
            arrival()
        await settle()

    async def calm(self) -> None:
        """All arrives, until nothing is on its way."""
        await settle()
        while self._under_way:
            await self.arrive()

    async def pass_time(self, seconds: float, step: float = 0.5) -> None:
        """Time passes, and what is said meanwhile arrives."""
        end = self.timers.time() + seconds
        while (left := end - self.timers.time()) > 0:
            self.timers.advance(min(step, left))
            await self.calm()
