"""Another attempt to connect, which ends early when the network changes."""

from __future__ import annotations

import asyncio

import pytest

from aldis.client import redialling
from aldis.client.redialling import TCP_SECONDS, Redialling
from aldis.errors import ServerUnreachable


async def test_what_comes_of_an_attempt_is_passed_on() -> None:
    given: list[float] = []

    async def dial(seconds: float) -> None:
        given.append(seconds)
        if len(given) > 1:
            raise ServerUnreachable("ws://gone", "refused")

    again = Redialling("ws://here")
    await again.attempt(dial)
    with pytest.raises(ServerUnreachable, match="refused"):
        await again.attempt(dial)
    assert given == [TCP_SECONDS, TCP_SECONDS]
    again.network_changed()  # nothing is under way


async def test_another_network_ends_an_attempt_unless_it_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def dial(seconds: float) -> None:
        begun.set()
        await asyncio.Event().wait()

    again = Redialling("ws://here")
    attempt = asyncio.create_task(again.attempt(dial))
    await begun.wait()
    again.network_changed()
    await asyncio.sleep(0)
    assert not attempt.done()
    monkeypatch.setattr(redialling, "FRESH_SECONDS", 0.0)
    again.network_changed()
    with pytest.raises(ServerUnreachable, match="the network may have changed"):
        await attempt


async def test_who_gives_up_an_attempt_ends_it() -> None:
    begun = asyncio.Event()
    ended = asyncio.Event()

    async def dial(seconds: float) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    attempt = asyncio.create_task(Redialling("ws://here").attempt(dial))
    await begun.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert ended.is_set()
