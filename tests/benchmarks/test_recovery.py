"""The figures of the recovery benchmark, and what fails a run; the lab itself needs a quarter of an hour."""

from __future__ import annotations

from typing import Any, cast

import pytest
from benchmarks.recovery import run as recovery


class Party:
    def __init__(self, numbers: list[int]) -> None:
        self.got = [(number, float(number)) for number in numbers]


def test_the_longest_time_without_a_number_counts_from_the_fault_or_the_return() -> None:
    got = [(0, 9.0), (1, 10.0), (2, 10.1), (3, 14.1), (4, 14.2), (5, 15.7)]
    assert recovery.stall(got, 10.0, None) == pytest.approx(4.0)
    assert recovery.stall(got, 10.0, 13.0) == pytest.approx(1.5)  # longer than until the first number
    assert recovery.stall(got, 10.0, 12.0) == pytest.approx(2.1)
    assert recovery.stall([], 10.0, None) == recovery.LONGEST


@pytest.mark.parametrize("numbers", [[0, 2, 1], [0, 1, 1, 2], [0, 1, 3]])
async def test_a_number_that_is_missing_doubled_or_out_of_order_fails_the_run(numbers: list[int]) -> None:
    await recovery.complete(cast(Any, Party([0, 1, 2])), 3)
    with pytest.raises(RuntimeError, match="3 numbers were sent"):
        await recovery.complete(cast(Any, Party(numbers)), 3)


def test_every_case_has_a_target_and_a_title_of_its_own() -> None:
    titles = [case.title for case in recovery.CASES.values()]
    assert len(set(titles)) == len(titles)
    assert all(case.target <= 5 for case in recovery.CASES.values())
