"""A peer that is killed, or cut off, is noticed within about 5 s, though idle connections cost next to nothing."""

from __future__ import annotations

import asyncio
import signal

import pytest

from aldis.peer.clock import LoopClock
from aldis.peer.connection import PeerState, PeerTiming
from support.store_program import StoreProcess
from support.stores import running_server, stores, until_peer, until_state

SEED = bytes(range(32))
SILENCE = PeerTiming().silence


# A process that is stopped says nothing at all, like one whose machine has lost the network.
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("engine", ["wrtc", "aiortc"])
async def test_a_peer_that_says_nothing_any_more_is_noticed_in_time(engine: str, number: signal.Signals) -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", engine=engine, timing=PeerTiming()) as (alice,),
        StoreProcess(server.url, "bob", SEED, engine) as bob,
    ):
        await alice.connect_to_peer("bob")
        await until_peer(alice, "bob", lambda view: view.round_trip_time is not None)
        clock = LoopClock.of(asyncio.get_running_loop())
        before = clock.time()
        bob.signal(number)
        await until_state(alice, "bob", PeerState.DISCONNECTED)
        assert clock.time() - before <= SILENCE + 1
