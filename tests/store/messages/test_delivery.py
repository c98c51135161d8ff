from __future__ import annotations

import asyncio
import gc

import pytest

from aldis.errors import DeliveryFailed
from aldis.store.messages.delivery import Delivery


async def outcome(delivery: Delivery) -> None:
    await delivery


async def test_everybody_who_waits_is_told_and_so_is_who_asks_later() -> None:
    delivery = Delivery("bob", 1)
    waiting = [asyncio.create_task(outcome(delivery)) for _ in range(3)]
    await asyncio.sleep(0)
    assert (delivery.done, delivery.delivered) == (False, False)
    delivery.succeed()
    await asyncio.gather(*waiting)
    await delivery
    assert (delivery.done, delivery.delivered) == (True, True)


async def test_a_failure_names_the_message_and_the_reason() -> None:
    delivery = Delivery("bob", 7)
    waiting = asyncio.create_task(outcome(delivery))
    await asyncio.sleep(0)
    delivery.fail("the store is closed")
    for wait in (waiting, outcome(delivery)):
        with pytest.raises(DeliveryFailed) as caught:
            await wait
        assert (caught.value.user_id, caught.value.sequence, caught.value.reason) == ("bob", 7, "the store is closed")
    assert (delivery.done, delivery.delivered) == (True, False)


async def test_cancelling_one_wait_leaves_the_others() -> None:
    delivery = Delivery("bob", 1)
    cancelled, waiting = (asyncio.create_task(outcome(delivery)) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    delivery.succeed()
    await waiting
    assert cancelled.cancelled()


async def test_who_looks_again_and_again_whether_it_has_arrived_leaves_nothing_behind() -> None:
    delivery = Delivery("bob", 1)
    waits = [asyncio.create_task(wait) for _ in range(50) for wait in (outcome(delivery), delivery.when_sent())]
    await asyncio.sleep(0)
    for wait in waits:
        wait.cancel()
    await asyncio.wait(waits)
    assert not delivery._waiters


async def test_a_failure_that_nobody_asks_for_is_silent() -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    Delivery("bob", 1).fail("nobody cares")
    gc.collect()
    await asyncio.sleep(0)
    assert not faults


def test_it_can_be_read_in_a_log() -> None:
    delivery = Delivery("bob", 3)
    assert repr(delivery) == "<Delivery 3 to bob: pending>"
    delivery.succeed()
    assert repr(delivery) == "<Delivery 3 to bob: delivered>"
    failed = Delivery("bob", 3)
    failed.fail("x")
    assert repr(failed) == "<Delivery 3 to bob: failed>"
