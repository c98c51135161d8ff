from __future__ import annotations

import asyncio

import pytest

from aldis.client.events import GoingAway
from aldis.client.stream import EventStream
from aldis.errors import StateError


async def test_events_come_in_order_and_the_stream_ends() -> None:
    stream = EventStream()
    for n in range(3):
        stream.put(GoingAway(n))
    stream.end()
    stream.put(GoingAway(99))
    assert [event async for event in stream] == [GoingAway(0), GoingAway(1), GoingAway(2)]
    assert [event async for event in stream] == []


async def test_a_reader_that_waits_is_woken() -> None:
    stream = EventStream()
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    assert not reading.done()
    stream.put(GoingAway(1))
    assert await reading == GoingAway(1)
    reading = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)
    stream.end()
    assert await reading is None


async def test_a_reader_that_falls_behind_is_told_and_nothing_is_left_out_silently() -> None:
    stream = EventStream(limit=3)
    for n in range(3):
        stream.put(GoingAway(n))
    assert await anext(stream) == GoingAway(0)
    for n in range(50):
        stream.put(GoingAway(n))
    with pytest.raises(StateError, match="more than 3"):
        await anext(stream)
    assert [event async for event in stream] == []
