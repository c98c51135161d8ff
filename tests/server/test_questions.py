"""Answers to the hub are handled in order, by some in each turn of the loop."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from aldis.hub.hub import Hub
from aldis.server import in_turn as module
from aldis.server.accounts import Accounts
from aldis.server.logs import get_logger
from aldis.server.questions import Questions


class Waiting:
    """As much of a hub as waits for answers."""

    pending = 0


def of(hub: Waiting, faults: list[Exception]) -> Questions:
    return Questions(
        lambda: cast(Hub, hub), cast(Accounts, None), cast(Any, faults.append), get_logger("aldis.directory")
    )


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_answers_that_come_together_have_a_turn_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    faults: list[Exception] = []
    asked, handled = of(Waiting(), faults), list[int]()
    for number in range(4):
        asked.in_turn(lambda number=number: handled.append(number))
    assert handled == []
    progress = []
    for _ in range(5):
        await turns(1)
        progress.append(len(handled))
    assert progress == [1, 2, 3, 4, 4]
    assert handled == [0, 1, 2, 3]
    assert not faults


async def test_one_turn_handles_as_many_as_its_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 60.0)
    asked, handled = of(Waiting(), []), list[int]()
    for number in range(100):
        asked.in_turn(lambda number=number: handled.append(number))
    await turns(1)
    assert handled == list(range(100))


async def test_an_answer_that_fails_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    faults: list[Exception] = []
    asked, handled = of(Waiting(), faults), list[int]()

    def fail() -> None:
        raise RuntimeError("a bug")

    asked.in_turn(fail)
    asked.in_turn(lambda: handled.append(1))
    asked.in_turn(lambda: asked.in_turn(lambda: handled.append(2)))
    await turns(5)
    assert handled == [1, 2]
    assert [str(fault) for fault in faults] == ["a bug"]


async def test_who_waits_for_all_answers_waits_for_those_whose_turn_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    hub = Waiting()
    asked = of(hub, [])
    hub.pending = 3

    def handle() -> None:
        hub.pending -= 1

    for _ in range(3):
        asked.in_turn(handle)
    async with asyncio.timeout(5):
        await asked.answered()
    assert hub.pending == 0
