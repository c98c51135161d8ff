"""Stores on a real server with real engines, and ways to wait for what they tell. Nothing sleeps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

# Before anything makes a wrtc connection; the other way (`allow_loopback`) comes too late once somebody has.
os.environ["WRTC_ALLOW_LOOPBACK"] = "1"

from aldis.client.backoff import Backoff
from aldis.identity.keys import Identity
from aldis.peer.connection import PeerState, PeerTiming
from aldis.peer.engine import EngineConfig, EngineConnection, EngineListener
from aldis.peer.engines.catalog import load_engine
from aldis.protocol.addresses import DEFAULT_DEVICE, parse
from aldis.protocol.messages import Capabilities
from aldis.server.app import SignalingServer
from aldis.store.messages.content import Received
from aldis.store.peers.device import PeerDevice
from aldis.store.state import Message, PeerView, StoreState
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.settings import config

# Where no path is lost, a silence says only that the machine is busy, or that aiortc has to send something again.
STEADY = PeerTiming(attempt=30.0, heal=15.0, heartbeat=0.2, silence=10.0, probe=1.0, linger=0.5)
# Where one is lost, and the test waits until that is noticed.
QUICK = PeerTiming(attempt=5.0, heal=2.0, heartbeat=0.2, silence=1.0, probe=0.3, linger=0.5)
SHORT = Backoff(first=0.1, most=1.0)


@asynccontextmanager
async def running_server(**settings: Any) -> AsyncIterator[SignalingServer]:
    """A server of this process."""
    async with SignalingServer(config(**settings)) as server:
        yield server


def new_store(**options: Any) -> NetworkStore:
    """A store that is not connected, with short pauses; `timing=QUICK` for tests that lose paths."""
    return NetworkStore(options.pop("identity", None), **{"timing": STEADY, "backoff": SHORT, **options})


@asynccontextmanager
async def stores(url: str, *names: str, **options: Any) -> AsyncIterator[list[NetworkStore]]:
    """A store for each name or address, connected to the server at `url`."""
    async with AsyncExitStack() as stack:
        made = []
        for name in names:
            store = await stack.enter_async_context(new_store(**options))
            user_id, device = parse(name)
            await store.connect_to_signaling(url, user_id, device=device or DEFAULT_DEVICE, backoff=SHORT)
            made.append(store)
        yield made


async def until(
    store: NetworkStore, holds: Callable[[StoreState], bool], what: str = "the condition", seconds: float = PATIENCE
) -> StoreState:
    """Wait for a state of which `holds` is true."""
    try:
        async with asyncio.timeout(seconds):
            async for state in store.states():
                if holds(state):
                    return state
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {seconds:g} s: {store.state}") from None
    raise AssertionError(f"the store ended before {what}: {store.state}")


async def until_peer(
    store: NetworkStore, user_id: str, holds: Callable[[PeerView], bool], what: str = "the condition"
) -> PeerView:
    """Wait for a state of one peer."""
    state = await until(
        store, lambda state: user_id in state.peers and holds(state.peers[user_id]), f"{what} of {user_id}"
    )
    return state.peers[user_id]


async def until_state(store: NetworkStore, user_id: str, *states: PeerState) -> PeerView:
    """Wait until a peer is in one of these states."""
    return await until_peer(store, user_id, lambda view: view.state in states, f"state {states}")


class Readable(Protocol):
    """A store, in whatever language."""

    def messages(self) -> AsyncIterator[Message]: ...


async def read(store: Readable, count: int, seconds: float = PATIENCE) -> list[Message]:
    """The next messages."""
    messages: list[Message] = []
    try:
        async with asyncio.timeout(seconds):
            iterator = store.messages()
            while len(messages) < count:
                messages.append(await anext(iterator))
    except TimeoutError:
        raise AssertionError(f"only {len(messages)} of {count} messages came: {str(messages)[:500]}") from None
    return messages


async def contents(store: Readable, count: int, seconds: float = PATIENCE) -> list[Received]:
    """What the next messages say."""
    return [message.content for message in await read(store, count, seconds)]


def device_of(store: NetworkStore, user_id: str) -> PeerDevice:
    """A user's only device, or the one that messages go to."""
    return store._manager.peer(user_id).device(None)


async def round_trip(store: NetworkStore) -> None:
    """Ask the server something, and wait for its answer: what it said before has come."""
    await store._manager._client.discover("nobody")


def identities(*names: str) -> dict[str, Identity]:
    """A key for each name."""
    return {name: Identity.generate() for name in names}


class CountingEngine:
    """A real engine that counts what it has open."""

    def __init__(self, name: str = "wrtc") -> None:
        self._engine = load_engine(name)
        self.created = 0
        self.open: set[EngineConnection] = set()
        self.configs: list[EngineConfig] = []

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        connection = self._engine.create(config, listener)
        self.created += 1
        self.configs.append(config)
        self.open.add(connection)
        close = connection.close

        async def closed() -> None:
            self.open.discard(connection)
            await close()

        connection.close = closed  # type: ignore[method-assign]
        return connection
