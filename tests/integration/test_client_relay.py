"""Seal keys and sealed messages of `SignalingClient`, over a real server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest

from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
from aldis.client.events import Disconnected, PresenceChanged, Registered, RelayReceived, SignalingEvent
from aldis.errors import RequestFailed, StateError, UsageError
from aldis.identity import seal_keys
from aldis.identity.keys import Identity
from aldis.identity.seal_keys import PublishedSealKey, SealKeys, checked_seal_key
from aldis.server.app import SignalingServer
from support.patience import PATIENCE
from support.settings import config

E = TypeVar("E", bound=SignalingEvent)


@pytest.fixture
async def server() -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config()) as server:
        yield server


def client(server: SignalingServer, user_id: str, *, sealed: bool = True) -> SignalingClient:
    keys = SealKeys(user_id, "main") if sealed else None
    return SignalingClient(server.url, user_id, backoff=Backoff(first=0.02, most=0.1), seal_keys=keys)


class Told:
    """The events of a client, taken out in order."""

    def __init__(self, client: SignalingClient) -> None:
        self._events: asyncio.Queue[SignalingEvent] = asyncio.Queue()
        client.subscribe(self._events.put_nowait)

    async def until(self, kind: type[E], fits: Callable[[E], bool] = lambda _: True) -> E:
        async with asyncio.timeout(PATIENCE):
            while True:
                event = await self._events.get()
                if isinstance(event, kind) and fits(event):
                    return event


def checked(found: PublishedSealKey | None, identity: Identity) -> bytes | None:
    return checked_seal_key(found, identity.public_key, "alice", "main")


async def test_a_registered_client_is_sent_sealed_messages_by_whoever_finds_its_key(server: SignalingServer) -> None:
    identity = Identity.generate()
    async with client(server, "alice") as alice, client(server, "bob", sealed=False) as bob:
        told = Told(alice)
        await alice.register(identity)
        await bob.register(Identity.generate())
        registered = await told.until(Registered)
        assert registered.limits is not None
        assert (registered.limits.relay, registered.limits.max_relay_file_bytes) == (True, 1024 * 1024)
        found = await bob.discover("alice")
        assert alice.seal_keys is not None
        assert alice.seal_keys.current is not None
        assert checked(found.seal_keys["main"], identity) == alice.seal_keys.current.public_key
        sealed = bytes(range(256)) * 128  # 32 KiB
        await bob.relay("alice", sealed)
        assert await told.until(RelayReceived) == RelayReceived("bob", sealed)
        assert (await alice.discover("bob")).seal_keys == {}
        with pytest.raises(RequestFailed) as caught:
            await bob.relay("carol", b"\x01\x02")
        assert caught.value.code == "not-online"


async def test_watchers_are_told_of_another_key_and_a_resumed_session_keeps_it(server: SignalingServer) -> None:
    identity = Identity.generate()
    async with client(server, "alice") as alice, client(server, "bob", sealed=False) as bob:
        registrations, told = Told(alice), Told(bob)
        await alice.register(identity)
        await registrations.until(Registered)
        await bob.register(Identity.generate())
        await bob.watch("alice")
        first = (await told.until(PresenceChanged)).seal_keys["main"]
        await alice.renew_seal_key()
        second = (await told.until(PresenceChanged)).seal_keys["main"]
        assert checked(first, identity) != checked(second, identity)
        assert alice.seal_keys is not None
        assert alice.seal_keys.current is not None
        assert alice.seal_keys.current.public_key == checked(second, identity)
        server.hub.sessions("alice")[0].connection.close(4003, "gone")  # type: ignore[union-attr]
        assert (await registrations.until(Registered)).resumed
        assert (await bob.discover("alice")).seal_keys["main"].public_key == second.public_key


async def test_after_a_rotation_another_key_is_published_by_itself(server: SignalingServer) -> None:
    async with client(server, "alice") as alice, client(server, "bob", sealed=False) as bob:
        told = Told(bob)
        await alice.register(Identity.generate())
        await bob.register(Identity.generate())
        await bob.watch("alice")
        first = (await told.until(PresenceChanged)).seal_keys["main"]
        new = Identity.generate()
        await alice.rotate(new)
        changed = await told.until(
            PresenceChanged, lambda event: event.public_key == new.public_key and bool(event.seal_keys)
        )
        key = checked(changed.seal_keys["main"], new)
        assert key is not None
        assert key != first.public_key


class NotingSealKeys(SealKeys):
    """Says when keys were forgotten by time."""

    def __init__(self, user_id: str, device: str) -> None:
        super().__init__(user_id, device)
        self.purged = asyncio.Event()

    def purge(self, now: float) -> None:
        super().purge(now)
        if self.next_expiry is None:
            self.purged.set()


@pytest.mark.parametrize("connected", [True, False])
async def test_an_earlier_key_is_forgotten_in_time_though_nothing_comes(
    server: SignalingServer, monkeypatch: pytest.MonkeyPatch, connected: bool
) -> None:
    monkeypatch.setattr(seal_keys, "OLD_KEY_SECONDS", 0.05)
    keys = NotingSealKeys("alice", "main")
    async with SignalingClient(server.url, "alice", backoff=Backoff(first=60, most=60), seal_keys=keys) as alice:
        told = Told(alice)
        await alice.register(Identity.generate())
        first = keys.current
        assert first is not None
        await alice.renew_seal_key()
        if not connected:
            server.hub.sessions("alice")[0].connection.close(4003, "gone")  # type: ignore[union-attr]
            await told.until(Disconnected)
        async with asyncio.timeout(PATIENCE):
            await keys.purged.wait()
        assert keys.find(first.public_key, 0.0) is None
        assert keys.current is not None
    assert keys.current is None  # the client is closed


async def test_a_client_without_keys_says_so(server: SignalingServer) -> None:
    async with client(server, "alice", sealed=False) as alice:
        with pytest.raises(StateError):
            await alice.renew_seal_key()
    async with client(server, "alice") as alice:
        with pytest.raises(StateError):
            await alice.renew_seal_key()
        with pytest.raises(UsageError):
            await alice.relay("bob", b"")
