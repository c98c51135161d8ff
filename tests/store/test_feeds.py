from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aldis.protocol.channel import Content
from aldis.store.feeds import Letter, Mailbox, StateFeed, States
from aldis.store.state import StoreState

A, B, C = (StoreState(user_id=name) for name in "abc")


def letter(number: int, size: int = 1) -> Letter:
    return Letter("bob", Content.BYTES, bytes(size), number)


def box(messages: int = 3, size: int = 100) -> tuple[Mailbox, list[None]]:
    """A mailbox, and how often it has said that there is room again."""
    emptied: list[None] = []
    return Mailbox(messages, size, emptier=lambda: emptied.append(None)), emptied


# --- state ------------------------------------------------------------------------------------------------------------


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
    waiting = asyncio.create_task(anext(states))  # type: ignore[arg-type]
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
    waiting = asyncio.create_task(anext(states))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    feed.publish(A)
    assert await anext(states) == A


async def test_an_end_wakes_who_waits_for_a_state() -> None:
    feed = StateFeed()
    states = States(feed)
    await anext(states)
    waiting = asyncio.create_task(anext(states))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_messages_wait_in_order_and_end_after_the_last() -> None:
    mailbox, _ = box()
    for number in range(3):
        mailbox.put(letter(number))
    mailbox.close()
    read = [await mailbox.next() for _ in range(4)]
    assert [item and item.sequence for item in read] == [0, 1, 2, None]
    assert not mailbox.has_room


@pytest.mark.parametrize(("messages", "size"), [(2, 100), (9, 2)])
async def test_a_full_box_says_when_there_is_room_again(messages: int, size: int) -> None:
    mailbox, emptied = box(messages, size)
    mailbox.put(letter(1))
    assert mailbox.has_room
    mailbox.put(letter(2))
    assert not mailbox.has_room
    assert not emptied
    await mailbox.next()
    assert mailbox.has_room
    assert len(emptied) == 1
    await mailbox.next()
    assert len(emptied) == 1


async def test_each_message_goes_to_one_of_those_who_wait() -> None:
    mailbox, _ = box()
    readers = [asyncio.create_task(mailbox.next()) for _ in range(2)]
    await asyncio.sleep(0)
    mailbox.put(letter(1))
    mailbox.put(letter(2))
    assert sorted(item.sequence for item in await asyncio.gather(*readers) if item) == [1, 2]


async def test_a_message_for_one_who_has_given_up_goes_to_the_next() -> None:
    mailbox, _ = box()
    first, second = (asyncio.create_task(mailbox.next()) for _ in range(2))
    await asyncio.sleep(0)
    mailbox.put(letter(1))  # wakes the first, which is cancelled before it runs
    first.cancel()
    item = await asyncio.wait_for(second, 1)
    assert item is not None
    assert first.cancelled()


async def test_a_reader_who_has_given_up_is_passed_over() -> None:
    mailbox, _ = box()
    first, second = (asyncio.create_task(mailbox.next()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    mailbox.put(letter(1))
    assert await asyncio.wait_for(second, 1) is not None


async def test_closing_wakes_all_who_wait() -> None:
    mailbox, _ = box()
    readers = [asyncio.create_task(mailbox.next()) for _ in range(2)]
    await asyncio.sleep(0)
    mailbox.close()
    assert await asyncio.gather(*readers) == [None, None]


async def test_a_callback_gets_what_waits_first_and_then_all_that_comes() -> None:
    mailbox, emptied = box(messages=1)
    mailbox.put(letter(1))
    seen: list[int] = []
    end = mailbox.on_letter(lambda item: seen.append(item.sequence))
    assert seen == [1]
    assert emptied
    for number in range(2, 5):
        assert mailbox.has_room
        mailbox.put(letter(number))
    end()
    mailbox.put(letter(5))
    assert not mailbox.has_room
    assert seen == [1, 2, 3, 4]
    last = await mailbox.next()
    assert last is not None
    assert last.sequence == 5


async def test_a_callback_that_ends_itself_leaves_the_rest_in_the_box() -> None:
    mailbox, _ = box()
    seen: list[int] = []
    ends: list[Callable[[], None]] = []

    def once(item: Letter) -> None:
        seen.append(item.sequence)
        mailbox.put(letter(2))  # comes while the callback is there, and is due after it has gone
        ends.pop()()

    ends.append(mailbox.on_letter(once))
    mailbox.put(letter(1))
    mailbox.put(letter(3))
    assert seen == [1]
    left = [await mailbox.next(), await mailbox.next()]
    assert [item and item.sequence for item in left] == [2, 3]


def test_messages_that_come_while_a_callback_runs_come_after_it() -> None:
    mailbox, _ = box()
    seen: list[int] = []

    def echo(item: Letter) -> None:
        if item.sequence < 3:
            mailbox.put(letter(item.sequence + 1))
        seen.append(item.sequence)

    mailbox.on_letter(echo)
    mailbox.put(letter(1))
    assert seen == [1, 2, 3]
