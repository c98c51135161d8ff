"""How events wait, are repeated and dropped, against a real application; pauses take no time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from aldis.cluster.status import ClusterPresence
from aldis.server.hooks import SignedPosts
from aldis.server.http_calls import HttpCalls
from aldis.server.logs import get_logger
from aldis.server.presence_hook import ATTEMPTS, MAX_BATCH, PresenceHook
from support.application import SECRET, Application

LOG = get_logger("aldis.test")


@asynccontextmanager
async def hook_to(app: Application, most: int = 10_000) -> AsyncIterator[tuple[PresenceHook, list[float]]]:
    """A hook, and the pauses that it has made."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    calls = HttpCalls()
    hook = PresenceHook(SignedPosts(calls, app.url("/presence"), SECRET), LOG, most=most, pause=pause)
    try:
        yield hook, pauses
    finally:
        await hook.close()
        await calls.close()


async def test_many_events_come_in_few_requests_and_in_order() -> None:
    async with Application() as app, hook_to(app) as (hook, pauses):
        for number in range(250):
            hook.changed(f"user{number}", True)
        hook.start()
        events = await app.told(250)
        assert [event["sequence"] for event in events] == list(range(1, 251))
        assert [len(content["events"]) for _, content in app.requests] == [MAX_BATCH, MAX_BATCH, 50]
        assert pauses == []


async def test_events_that_the_application_never_takes_are_dropped_and_those_behind_go_on() -> None:
    refused: list[Any] = []

    def refuse(content: dict[str, Any]) -> Any:
        if len(refused) < ATTEMPTS:
            refused.append(content)
            return web.Response(status=500)
        return {}

    async with Application(presence=refuse) as app, hook_to(app) as (hook, pauses):
        hook.changed("alice", True)
        hook.start()
        await app.asked(1)
        hook.changed("bob", True)
        (event,) = await app.told(1)
        assert (event["user"], event["sequence"]) == ("bob", 2)
        assert hook.events["dropped"] == 1
        assert all(content == refused[0] for content in refused)
        assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


async def test_the_oldest_events_are_dropped_when_too_many_wait() -> None:
    async with Application() as app, hook_to(app, most=100) as (hook, _):
        for number in range(150):
            hook.changed(f"user{number}", True)
        assert (len(hook), hook.events["dropped"]) == (100, 50)
        hook.start()
        events = await app.told(100)
        assert [events[0]["sequence"], events[-1]["sequence"]] == [51, 150]


async def test_what_cannot_be_delivered_at_the_end_is_dropped_and_counted() -> None:
    app = Application()  # nothing listens
    tried = asyncio.Event()

    async def pause(seconds: float) -> None:
        tried.set()
        await asyncio.Event().wait()

    calls = HttpCalls()
    hook = PresenceHook(SignedPosts(calls, app.url("/presence"), SECRET), LOG, most=100, pause=pause)
    hook.changed("alice", True)
    hook.start()
    await tried.wait()
    hook.changed("alice", False)
    await hook.close()
    assert hook.events["dropped"] == 2
    await calls.close()


async def test_events_of_a_cluster_have_versions_and_name_lost_nodes() -> None:
    async with Application() as app, hook_to(app) as (hook, _):
        told: ClusterPresence = hook
        told.changed("alice", True, 17)
        told.lost("n1")
        hook.start()
        first, second = await app.told(2)
        assert (first["type"], first["user"], first["version"]) == ("online", "alice", 17)
        assert (second["type"], second["node"]) == ("lost", "n1")
