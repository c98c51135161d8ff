"""Work that may come together in great number: how much of it one turn of the loop does."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aldis.server.in_turn import InTurn


def fault(error: Exception) -> None:
    raise error


async def test_one_of_those_that_wait_goes_on_in_each_turn_of_the_loop() -> None:
    turns, went_on = InTurn(fault), list[int]()

    async def one(number: int) -> None:
        await turns.turn()
        went_on.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    before = 0
    while len(went_on) < 5:
        await asyncio.sleep(0)
        assert len(went_on) - before <= 1
        before = len(went_on)
    assert went_on == [0, 1, 2, 3, 4]
    await asyncio.gather(*tasks)


async def test_one_that_has_given_up_keeps_nobody_waiting_and_at_the_end_nobody_waits() -> None:
    turns = InTurn(fault)
    first, second, third = (asyncio.create_task(turns.turn()) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    last = asyncio.create_task(turns.turn())
    await asyncio.sleep(0)
    turns.close()
    with suppress(asyncio.CancelledError):
        await last
    assert last.cancelled()
