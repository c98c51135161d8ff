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


async def test_somebody_who_comes_and_goes_without_end_takes_one_place() -> None:
    async with Application() as app, hook_to(app, most=100) as (hook, _):
        hook.started()
        hook.changed("alice", True)
        for _ in range(1000):
            hook.changed("flapping", True)
            hook.changed("flapping", False)
        hook.changed("bob", True)
        for number in range(1000):
            hook.changed(f"made up {number}", True)
            hook.changed(f"made up {number}", False)
        assert (len(hook), hook.events["dropped"], hook.events["folded"]) == (3, 0, 4000)
        hook.start()
        events = await app.told(3)
        assert [event.get("user") for event in events] == [None, "alice", "bob"]
        assert [event["sequence"] for event in events] == [1, 2, 3], "what is folded is not lost"


async def test_the_last_state_of_a_user_is_told_in_its_order() -> None:
    async with Application() as app, hook_to(app) as (hook, _):
        hook.changed("alice", False)
        hook.changed("bob", True)
        hook.changed("alice", True)
        hook.start()
        events = await app.told(2)
        assert [(event["user"], event["type"]) for event in events] == [("bob", "online"), ("alice", "online")]


async def test_who_comes_and_goes_in_a_cluster_is_told_of_as_another_node_may_have_told_meanwhile() -> None:
    async with Application() as app, hook_to(app) as (hook, _):
        hook.changed("alice", True, 17)
        hook.changed("alice", False, 20)
        hook.start()
        (event,) = await app.told(1)
        assert (event["type"], event["version"]) == ("offline", 20)


async def test_a_user_whose_going_was_dropped_is_told_of_when_it_comes_and_goes_again() -> None:
    async with Application() as app, hook_to(app, most=2) as (hook, _):
        hook.changed("alice", False)
        hook.changed("bob", True)
        hook.changed("carol", True)
        assert hook.events["dropped"] == 1
        hook.changed("bob", False)
        hook.changed("alice", True)
        hook.changed("alice", False)
        hook.start()
        events = await app.told(2)
        assert [(event["user"], event["type"]) for event in events] == [("carol", "online"), ("alice", "offline")]
        assert events[0]["sequence"] == 2, "the gap"


async def test_a_user_whose_going_is_on_its_way_is_told_of_when_it_comes_and_goes_again() -> None:
    """The application may never take what is on its way."""
    refused: list[Any] = []

    def refuse(content: dict[str, Any]) -> Any:
        if len(refused) < ATTEMPTS:
            refused.append(content)
            return web.Response(status=500)
        return {}

    async with Application(presence=refuse) as app, hook_to(app) as (hook, _):
        hook.changed("alice", False)
        hook.start()
        await app.asked(1)
        hook.changed("alice", True)
        hook.changed("alice", False)
        (event,) = await app.told(1)
        assert (event["type"], event["sequence"]) == ("offline", 2)


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
    hook.changed("bob", True)
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
