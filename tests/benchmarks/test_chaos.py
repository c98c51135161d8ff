"""Two programs exchange numbers while all around them dies and comes back: a short run, and what fails one."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from benchmarks.chaos import run as chaos

from support.patience import PATIENCE

ROOT = Path(__file__).parents[2]


class World:
    """What alice has sent, and bob has got."""

    def __init__(self, accepted: set[int], unknown: set[int], got: list[int]) -> None:
        self._sent = accepted, unknown
        self._got = got

    def accepted(self, who: str) -> tuple[set[int], set[int]]:
        return self._sent

    def got(self, who: str) -> list[tuple[int, float]]:
        return [(number, 0.0) for number in self._got]


def faults(accepted: set[int], unknown: set[int], got: list[int]) -> list[str]:
    return chaos.faults_of("alice", cast(Any, World(accepted, unknown, got)))


def test_what_was_accepted_has_to_arrive_once_and_in_order() -> None:
    assert faults({1, 2, 4}, {3}, [1, 2, 4]) == []
    assert faults({1, 2, 4}, {3}, [1, 2, 3, 4]) == []  # nobody knows of it
    assert "missing: [2]" in faults({1, 2, 4}, {3}, [1, 4])[0]
    assert "twice" in faults({1, 2}, set(), [1, 1, 2])[0]
    assert "out of order" in faults({1, 2}, set(), [2, 1])[0]
    assert "never sent" in faults({1}, set(), [1, 7])[0]


def test_a_stall_does_not_count_the_time_of_the_fault_itself() -> None:
    fault = chaos.Fault("cut", 10.0, 14.0)
    assert chaos.stall([(1, 9.9), (2, 10.1), (3, 16.0), (4, 16.1)], fault) == pytest.approx(2.0)
    assert chaos.stall([(1, 9.9), (2, 10.0), (3, 10.1)], fault) == 0


@pytest.mark.timeout(6 * PATIENCE)
async def test_numbers_arrive_once_and_in_order_while_everything_dies_and_comes_back() -> None:
    options = ["--seed", "5", "--messages", "250", "--rate", "20", "--pause", "1"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.chaos.run", *options),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, said.decode()
    told = re.findall(rb"(\d+) accepted, (\d+) tried", said)
    assert [int(accepted) + int(tried) for accepted, tried in told] == [250, 250], said.decode()
