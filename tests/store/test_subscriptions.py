from __future__ import annotations

import asyncio

import pytest

from aldis.store.state import StoreState
from aldis.store.subscriptions import StateFeed, States

A, B, C = (StoreState(user_id=name) for name in "abc")


def test_a_subscriber_is_told_the_state_at_once_and_each_change_until_it_ends() -> None:
    feed, seen = StateFeed(), list[StoreState]()
    feed.publish(A)
    unsubscribe = feed.subscribe(seen.append)
    feed.publish(B)
    feed.publish(B)
    unsubscribe()
    unsubscribe()
    feed.publish(C)
    assert seen == [A, B]


def test_a_subscriber_that_raises_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    feed, seen = StateFeed(), list[StoreState]()

    def raises(_: StoreState) -> None:
        raise ValueError("a fault of the application")

    feed.subscribe(raises)
    feed.subscribe(seen.append)
    feed.publish(A)
    assert seen == [StoreState(), A]


def test_a_change_that_a_subscriber_sets_off_is_told_to_all_after_the_one_before() -> None:
    feed, first, second = StateFeed(), list[StoreState](), list[StoreState]()

    def moves_on(state: StoreState) -> None:
        first.append(state)
        if state == A:
            feed.publish(B)

    feed.subscribe(moves_on)
    feed.subscribe(second.append)
    feed.publish(A)
    assert first == second == [StoreState(), A, B]


def test_a_subscriber_may_end_another_from_within_its_callback() -> None:
    feed, seen = StateFeed(), list[StoreState]()
    ends = list[object]()

    def end_the_other(state: StoreState) -> None:
        if state == A:
            unsubscribe()
            ends.append(state)

    feed.subscribe(end_the_other)
    unsubscribe = feed.subscribe(seen.append)
    feed.publish(A)
    assert seen == [StoreState()]
    assert ends == [A]


async def test_who_iterates_slowly_sees_the_newest_state_and_the_last_one() -> None:
    feed = StateFeed()
    states = States(feed)
    assert await anext(states) == StoreState()
    feed.publish(A)
    feed.publish(B)
    assert await anext(states) == B
    waiting = asyncio.create_task(anext(states))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.publish(C)
    assert await waiting == C
    feed.publish(A)
    feed.close()
    assert [state async for state in states] == [A]


async def test_waiting_for_a_state_can_be_cancelled() -> None:
    feed = StateFeed()
    states = States(feed)
    await anext(states)
    waiting = asyncio.create_task(anext(states))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    feed.publish(A)
    assert await anext(states) == A


async def test_an_end_wakes_who_waits_for_a_state() -> None:
    feed = StateFeed()
    states = States(feed)
    await anext(states)
    waiting = asyncio.create_task(anext(states))
    await asyncio.sleep(0)
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
