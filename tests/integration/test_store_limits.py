"""A server that limits what a store asks: the store goes on by itself, and shows why it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aldis.client.backoff import Backoff
from aldis.client.events import SignalingState
from aldis.errors import OverLimits
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.scripted_server import Line, ScriptedServer

AT_ONCE = Backoff(first=0.01, most=0.05)


@asynccontextmanager
async def registered() -> AsyncIterator[tuple[NetworkStore, Line]]:
    """A registered store, and the server's end of its connection."""
    async with ScriptedServer() as server, NetworkStore(ice_servers=()) as store:
        connecting = asyncio.ensure_future(store.connect_to_signaling(server.url, "alice", backoff=AT_ONCE))
        line = await server.accept()
        await line.admit()
        await connecting
        yield store, line


async def test_a_watch_that_the_server_limits_is_asked_for_again() -> None:
    async with registered() as (store, line):
        watching = asyncio.ensure_future(store.watch("bob"))
        first = await line.receive()
        line.say(type="error", message="slow", code="rate-limited", temporary=True, retryAfter=0.01, re=first["id"])
        again = await line.receive()
        assert again == first
        line.say(type="presence", userId="bob", online=True)
        line.say(type="ack", re=again["id"])
        await watching
        assert store.state.peers["bob"].online is True


async def test_a_store_that_asked_far_too_much_says_why_it_is_not_connected_and_until_when() -> None:
    async with registered() as (store, line):
        line.close(4504, "far too many requests")
        async with asyncio.timeout(PATIENCE):
            async for state in store.states():
                if state.signaling is SignalingState.CONNECTING:
                    break
        error = store.state.signaling_error
        assert isinstance(error, OverLimits)
        assert error.reason == "far too many requests"
        assert error.retry_after >= 60
