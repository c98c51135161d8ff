from __future__ import annotations

import asyncio

import pytest

from aldis.client.events import GoingAway, OfferReceived
from aldis.client.stream import EventStream
from aldis.errors import StateError
from aldis.protocol.messages import Capabilities, Description


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
    last = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)
    stream.end()
    assert await last is None


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


async def test_a_reader_that_leaves_long_offers_unread_is_told_before_they_fill_the_memory() -> None:
    def offer(size: int) -> OfferReceived:
        return OfferReceived("bob", Description("offer", "x" * size), "c", None, Capabilities())

    stream = EventStream(size=3000)
    for _ in range(20):
        stream.put(offer(1000))
        assert await anext(stream) == offer(1000), "what was read does not count"
    for _ in range(2):
        stream.put(offer(1000))
    stream.put(GoingAway(1))
    stream.put(offer(1000))
    with pytest.raises(StateError, match="of 3000 bytes"):
        await anext(stream)
    # A str keeps four bytes a character when one of them needs that.
    stream = EventStream(size=3000)
    stream.put(OfferReceived("bob", Description("offer", "x" * 1000 + "\U0001f526"), "c", None, Capabilities()))
    with pytest.raises(StateError):
        await anext(stream)
