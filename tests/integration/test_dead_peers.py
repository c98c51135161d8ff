"""A peer that is killed, or cut off, is noticed within about 5 s, though idle connections cost next to nothing."""

from __future__ import annotations

import asyncio
import itertools
import signal

from aldis.peer.clock import LoopClock
from aldis.peer.connection import PeerState, PeerTiming
from support.store_program import StoreProcess
from support.stores import running_server, stores, until_peer, until_state

SEED = bytes(range(32))
SILENCE = PeerTiming().silence


# A process that is stopped says nothing at all, like one whose machine has lost the network.
SIGNALS = (signal.SIGKILL, signal.SIGSTOP)
ENGINES = ("wrtc", "aiortc")


async def test_a_peer_that_says_nothing_any_more_is_noticed_in_time() -> None:
    """With each engine. All wait at once: it is the same silence."""
    async with running_server() as server, asyncio.TaskGroup() as group:
        for engine, number in itertools.product(ENGINES, SIGNALS):
            group.create_task(notices(server.url, engine, number))


async def notices(url: str, engine: str, number: signal.Signals) -> None:
    alice_id, bob_id = (f"{name}-{engine}-{number.name}" for name in ("alice", "bob"))
    async with (
        stores(url, alice_id, engine=engine, timing=PeerTiming()) as (alice,),
        StoreProcess(url, bob_id, SEED, engine) as bob,
    ):
        await alice.connect_to_peer(bob_id)
        await until_peer(alice, bob_id, lambda view: view.round_trip_time is not None)
        clock = LoopClock.of(asyncio.get_running_loop())
        before = clock.time()
        bob.signal(number)
        await until_state(alice, bob_id, PeerState.DISCONNECTED)
        assert clock.time() - before <= SILENCE + 1, f"{engine}, {number.name}"
