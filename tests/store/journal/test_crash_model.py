"""Programs that are killed at any point, on both sides: what was accepted arrives once and in order.

See `support.crash_world`. Each seed is a world of its own and the same each time; `ALDIS_CRASH_WORLDS=5000` plays more.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aldis.store.journal import device
from support.crash_storage import FileStorage, MemoryStorage
from support.crash_world import World

WORLDS = int(os.environ.get("ALDIS_CRASH_WORLDS", "160"))
STEPS = 60


@pytest.fixture(autouse=True)
def few_reserved_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that numbers for control messages have to be reserved again and again."""
    monkeypatch.setattr(device, "RESERVED", 3)


async def play(world: World) -> None:
    try:
        await world.play(STEPS)
    except Exception as error:
        error.add_note(" ".join(world.log))
        raise


@pytest.mark.parametrize("part", range(4))
async def test_programs_that_keep_their_queues_in_memory(part: int) -> None:
    for seed in range(part, WORLDS, 4):
        await play(World(seed, lambda _: MemoryStorage()))


@pytest.mark.parametrize("part", range(4))
async def test_programs_that_keep_their_queues_in_files(part: int, tmp_path: Path) -> None:
    for seed in range(part, WORLDS // 4, 4):
        await play(World(seed, lambda name, seed=seed: FileStorage(tmp_path / f"{seed}{name}")))
