"""The mailbox: order, room, readers that wait and readers that give up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from aldis.protocol.channel import Content
from aldis.store.journal.rows import HandedOver
from aldis.store.messages.mailbox import Mailbox, QueuedMessage, Reader


def message(number: int, size: int = 1) -> QueuedMessage:
    return QueuedMessage("bob", "main", Content.BYTES, bytes(size), number)


def box(messages: int = 3, size: int = 100) -> tuple[Mailbox, list[None]]:
    """A mailbox, and how often it has said that there is room again."""
    emptied: list[None] = []
    return Mailbox(messages, size, on_room=lambda: emptied.append(None)), emptied


async def test_messages_wait_in_order_and_end_after_the_last() -> None:
    mailbox, _ = box()
    for number in range(3):
        mailbox.put(message(number))
    mailbox.close()
    read = [await mailbox.next(Reader(mailbox)) for _ in range(4)]
    assert [item and item.sequence for item in read] == [0, 1, 2, None]
    assert not mailbox.has_room


@pytest.mark.parametrize(("messages", "size"), [(2, 100), (9, 2)])
async def test_a_full_box_says_when_there_is_room_again(messages: int, size: int) -> None:
    mailbox, emptied = box(messages, size)
    mailbox.put(message(1))
    assert mailbox.has_room
    mailbox.put(message(2))
    assert not mailbox.has_room
    assert not emptied
    await mailbox.next(Reader(mailbox))
    assert mailbox.has_room
    assert len(emptied) == 1
    await mailbox.next(Reader(mailbox))
    assert len(emptied) == 1


async def test_each_message_goes_to_one_of_those_who_wait() -> None:
    mailbox, _ = box()
    readers = [asyncio.create_task(mailbox.next(Reader(mailbox))) for _ in range(2)]
    await asyncio.sleep(0)
    mailbox.put(message(1))
    mailbox.put(message(2))
    assert sorted(item.sequence for item in await asyncio.gather(*readers) if item) == [1, 2]


async def test_a_message_for_one_who_has_given_up_goes_to_the_next() -> None:
    mailbox, _ = box()
    first, second = (asyncio.create_task(mailbox.next(Reader(mailbox))) for _ in range(2))
    await asyncio.sleep(0)
    mailbox.put(message(1))  # wakes the first, which is cancelled before it runs
    first.cancel()
    item = await asyncio.wait_for(second, 1)
    assert item is not None
    assert first.cancelled()


async def test_a_reader_who_has_given_up_is_passed_over() -> None:
    mailbox, _ = box()
    first, second = (asyncio.create_task(mailbox.next(Reader(mailbox))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    mailbox.put(message(1))
    assert await asyncio.wait_for(second, 1) is not None


async def test_who_looks_again_and_again_for_a_message_leaves_nothing_behind() -> None:
    mailbox, _ = box()
    readers = [asyncio.create_task(mailbox.next(Reader(mailbox))) for _ in range(50)]
    await asyncio.sleep(0)
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)
    assert not mailbox._waiters


async def test_closing_wakes_all_who_wait() -> None:
    mailbox, _ = box()
    readers = [asyncio.create_task(mailbox.next(Reader(mailbox))) for _ in range(2)]
    await asyncio.sleep(0)
    mailbox.close()
    assert await asyncio.gather(*readers) == [None, None]


async def test_a_callback_gets_what_waits_first_and_then_all_that_comes() -> None:
    mailbox, emptied = box(messages=1)
    mailbox.put(message(1))
    seen: list[int] = []
    end = mailbox.on_message(lambda item: seen.append(item.sequence))
    assert seen == [1]
    assert emptied
    for number in range(2, 5):
        assert mailbox.has_room
        mailbox.put(message(number))
    end()
    mailbox.put(message(5))
    assert not mailbox.has_room
    assert seen == [1, 2, 3, 4]
    last = await mailbox.next(Reader(mailbox))
    assert last is not None
    assert last.sequence == 5


async def test_a_callback_that_ends_itself_leaves_the_rest_in_the_box() -> None:
    mailbox, _ = box()
    seen: list[int] = []
    ends: list[Callable[[], None]] = []

    def once(item: QueuedMessage) -> None:
        seen.append(item.sequence)
        mailbox.put(message(2))  # comes while the callback is there, and is due after it has gone
        ends.pop()()

    ends.append(mailbox.on_message(once))
    mailbox.put(message(1))
    mailbox.put(message(3))
    assert seen == [1]
    left = [await mailbox.next(Reader(mailbox)), await mailbox.next(Reader(mailbox))]
    assert [item and item.sequence for item in left] == [2, 3]


def test_messages_that_come_while_a_callback_runs_come_after_it() -> None:
    mailbox, _ = box()
    seen: list[int] = []

    def echo(item: QueuedMessage) -> None:
        if item.sequence < 3:
            mailbox.put(message(item.sequence + 1))
        seen.append(item.sequence)

    mailbox.on_message(echo)
    mailbox.put(message(1))
    assert seen == [1, 2, 3]


class RecordedHands:
    """Hands that keep what they are told."""

    handed_over = HandedOver()

    def __init__(self) -> None:
        self.told: list[tuple[int, ...]] = []

    def give(self, reader: int, place: int) -> None:
        self.told.append((reader, place))

    def release(self, reader: int) -> None:
        self.told.append((reader,))

    def check(self) -> None:
        pass  # they can always be told


def test_a_callback_has_one_message_at_a_time_and_the_last_one_no_longer_than_it_runs() -> None:
    mailbox, _ = box()
    hands = RecordedHands()
    mailbox.bind(hands, ())
    hands.told.clear()
    had: list[list[tuple[int, ...]]] = []
    mailbox.on_message(lambda item: had.append(list(hands.told)))
    hands.told.clear()
    together = [QueuedMessage("bob", "main", Content.BYTES, b"x", number, place=number + 10) for number in range(3)]
    for item in together:
        mailbox.reserve(len(item.data))
    mailbox.put(*together)
    assert had == [[(0, 10)], [(0, 10), (0, 11)], [(0, 10), (0, 11), (0, 12)]]
    assert hands.told == [(0, 10), (0, 11), (0, 12), (0,)]


async def test_messages_that_come_together_wake_as_many_readers() -> None:
    mailbox, _ = box()
    readers = [asyncio.create_task(mailbox.next(Reader(mailbox))) for _ in range(3)]
    await asyncio.sleep(0)
    mailbox.put(message(1), message(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in readers] == [True, True, False]
    mailbox.put(message(3))
    assert [item and item.sequence for item in await asyncio.gather(*readers)] == [1, 2, 3]
