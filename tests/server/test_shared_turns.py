"""Turns that are shared out: who gets how many, and who is next."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

import pytest

from aldis.server.shared_turns import SharedTurns


class Holders:
    """Tasks that hold a turn until they are told to end."""

    def __init__(self, most: int) -> None:
        self.turns = SharedTurns(most)
        self.holding: list[tuple[Hashable, asyncio.Task[None]]] = []

    async def come(self, who: Hashable, count: int = 1) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._hold(who)) for _ in range(count)]
        await settle()
        return tasks

    async def _hold(self, who: Hashable) -> None:
        async with self.turns.turn(who if isinstance(who, tuple) else (who,)):
            task = asyncio.current_task()
            assert task is not None
            self.holding.append((who, task))
            try:
                await asyncio.Event().wait()
            finally:
                self.holding.remove((who, task))

    async def end_one(self, who: Hashable) -> None:
        next(task for each, task in self.holding if each == who).cancel()
        await settle()

    def count(self, who: Hashable) -> int:
        return [each for each, _ in self.holding].count(who)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("most", "counts"), [(32, [16, 8, 4, 2, 1, 1, 0]), (3, [2, 1, 0]), (1, [1, 0])])
async def test_each_has_half_of_what_the_others_leave(most: int, counts: list[int]) -> None:
    holders = Holders(most)
    tasks = [task for who in range(len(counts)) for task in await holders.come(who, 40)]
    assert [holders.count(who) for who in range(len(counts))] == counts
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await holders.come("afterwards", 1)
    assert holders.count("afterwards") == 1


async def test_many_parts_of_one_have_no_more_than_one_at_each_step() -> None:
    holders = Holders(32)
    flood = [("new", town, house) for town in range(25) for house in range(2)]
    for who in flood:
        await holders.come(who, 4)
    assert len(holders.holding) == 16, "half of all is for those of another kind"
    # A town may have 8 of 16, and the next one 5 of the other 10.
    assert [holders.count(who) for who in flood[:4]] == [4, 2, 3, 1]
    await holders.come(("known", "one"), 6)
    await holders.come(("known", "other"), 6)
    assert [holders.count(("known", who)) for who in ("one", "other")] == [4, 2]
    assert holders.count(flood[-1]) == 0


async def test_towns_take_turns_and_so_do_the_houses_of_each() -> None:
    holders = Holders(1)
    await holders.come("first")
    for house in (1, 1, 2, 3):
        await holders.come(("town", house))
    await holders.come(("village", 1), 2)
    served = []
    for who in ["first", *[None] * 6]:
        await holders.end_one(who or served[-1])
        served += [each for each, _ in holders.holding]
    assert served == [("town", 1), ("village", 1), ("town", 2), ("village", 1), ("town", 3), ("town", 1)]


async def test_nothing_is_left_of_those_that_have_gone() -> None:
    holders = Holders(4)
    paths: list[Hashable] = [("new", town, house) for town in range(3) for house in range(3)] + ["alone"]
    tasks = [task for who in paths for task in await holders.come(who, 3)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (holders.turns._of, bool(holders.turns._all)) == ({}, False)


async def test_the_others_come_first_when_a_turn_is_free_again() -> None:
    holders = Holders(4)
    await holders.come("greedy", 10)
    await holders.come("second", 1)
    await holders.come("third", 1)
    await holders.come("late", 1)
    assert [holders.count(who) for who in ("greedy", "second", "third", "late")] == [2, 1, 1, 0]
    await holders.end_one("greedy")
    assert [holders.count(who) for who in ("greedy", "second", "third", "late")] == [1, 1, 1, 1]


async def test_who_gives_up_waiting_takes_no_turn() -> None:
    holders = Holders(1)
    await holders.come("first")
    waiting = await holders.come("second") + await holders.come("third")
    waiting[0].cancel()
    await settle()
    await holders.end_one("first")
    assert (holders.count("second"), holders.count("third")) == (0, 1)


async def test_who_gives_up_when_its_turn_comes_leaves_it_to_the_next() -> None:
    holders = Holders(1)
    await holders.come("first")
    waiting = await holders.come("second") + await holders.come("third")
    next(task for _, task in holders.holding).cancel()
    while not holders.turns._of["second",]:  # noqa: ASYNC110 - until it is granted, and before it begins
        await asyncio.sleep(0)
    waiting[0].cancel()
    await settle()
    assert holders.count("third") == 1
