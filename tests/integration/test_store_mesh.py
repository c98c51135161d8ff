"""Many stores of one process that all connect to each other at once: few connections at a time, and none fails."""

from __future__ import annotations

import asyncio

import pytest

from aldis.peer.connection import PeerState
from aldis.peer.engine import EngineChannel, EngineConfig, EngineConnection, EngineListener
from aldis.peer.slots import ANSWERS, MAX_UNANSWERED, AttemptSlots
from support.stores import CountingEngine, new_store, running_server

STORES = 12


class Watched(CountingEngine):
    """Counts the connections in the making: made, and neither closed nor with an open channel."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.most = 0
        self._ready: set[EngineConnection] = set()

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        told = listener.channel_opened

        def opened(channel: EngineChannel) -> None:
            self._ready.add(connection)
            told(channel)

        listener.channel_opened = opened  # type: ignore[method-assign]
        connection = super().create(config, listener)
        self.most = max(self.most, len(self.open - self._ready))
        return connection


@pytest.mark.parametrize("engine", ["wrtc", "aiortc"])
async def test_stores_that_all_connect_at_once_take_turns_and_none_fails(engine: str) -> None:
    # On a machine that has other work, an attempt takes longer than its slot, and then there are more at a time.
    AttemptSlots.of(asyncio.get_running_loop(), seconds=60.0)
    watched = Watched(engine)
    names = [f"store-{number}" for number in range(STORES)]
    async with running_server() as server:
        made = {name: new_store(engine=watched, ice_servers=[]) for name in names}
        try:
            for name, store in made.items():
                await store.connect_to_signaling(server.url, name)
            await asyncio.gather(
                *(store.connect_to_peer(other) for name, store in made.items() for other in names if other != name)
            )
            for name, store in made.items():
                states = {other: view.state for other, view in store.state.peers.items()}
                assert states == dict.fromkeys(set(names) - {name}, PeerState.CONNECTED)
        finally:
            await asyncio.gather(*(store.disconnect() for store in made.values()))
    # Without slots there are more than a hundred.
    assert watched.most <= MAX_UNANSWERED + ANSWERS
    assert watched.open == set()
