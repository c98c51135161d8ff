"""Two programs exchange numbers while all around them dies and comes back: a short run, and what fails one."""

from __future__ import annotations

import re

import pytest
from benchmarks.chaos import judge

from support.benchmark_runs import passes
from support.patience import PATIENCE


def faults(accepted: set[int], tried: set[int], *got: int | tuple[int, str]) -> list[str]:
    """What is wrong when bob gets these numbers, or numbers with the word of his store."""
    lines = [
        f"{each} 0.0 m{each} new" if isinstance(each, int) else f"{each[0]} 0.0 m{each[0]} {each[1]}" for each in got
    ]
    return judge.problems_of("alice", judge.Sent(accepted | tried, accepted), judge.read_got(lines))


def test_what_was_accepted_has_to_arrive_once_and_in_order() -> None:
    assert faults({1, 2, 4}, {3}, 1, 2, 4) == []
    assert faults({1, 2, 4}, {3}, 1, 2, 3, 4) == []  # nobody knows of it
    assert "missing: [2]" in faults({1, 2, 4}, {3}, 1, 4)[0]
    assert "out of order" in faults({1, 2}, set(), 2, 1)[0]
    assert "never sent" in faults({1}, set(), 1, 7)[0]


def test_what_comes_again_has_to_be_told() -> None:
    assert faults({1, 2}, set(), 1, (1, "again"), 2) == []
    assert faults({1, 2}, set(), (1, "again"), 2) == []  # the program was killed before it wrote it down
    assert "without a word of it: [1]" in faults({1, 2}, set(), 1, 1, 2)[0]
    # Another message with the same number.
    twice = [judge.Arrival(1, 0.0, "a", again=False), judge.Arrival(1, 0.0, "b", again=False)]
    assert "twice" in judge.problems_of("alice", judge.Sent({1}, {1}), twice)[0]


def test_what_was_tried_and_not_accepted_is_open() -> None:
    assert judge.read_sent(["try 1", "ok 1", "try 2"]) == judge.Sent({1, 2}, {1})


def stall(times: list[float], fault: judge.Fault, *others: judge.Fault) -> float:
    arrivals = [judge.Arrival(number, when, str(number), again=False) for number, when in enumerate(times)]
    return judge.stall(arrivals, fault, [fault, *others])


def test_a_stall_does_not_count_the_time_of_the_fault_itself() -> None:
    fault = judge.Fault("cut", 10.0, 14.0)
    assert stall([9.9, 10.1, 16.0, 16.1], fault) == pytest.approx(2.0)
    assert stall([9.9, 10.0, 10.1], fault) == 0


def test_a_stall_is_never_cut_off() -> None:
    fault = judge.Fault("cut", 10.0, 14.0)
    assert stall([9.9, 44.0], fault) == pytest.approx(30.1)
    assert stall([9.9, 15.0, 45.0], fault) == pytest.approx(30.0)
    # Nor is it the fault's what another one has cost.
    assert stall([9.9, 15.0, 45.0], fault, judge.Fault("kill", 30.0, 44.0)) == pytest.approx(16.0)


@pytest.mark.timeout(6 * PATIENCE)
@pytest.mark.parametrize("more", [(), ("--browser",)], ids=["python", "browser"])
async def test_numbers_arrive_once_and_in_order_while_everything_dies_and_comes_back(more: tuple[str, ...]) -> None:
    options = ["--seed", "5", "--messages", "250", "--rate", "20", "--pause", "1", *more]
    said = await passes("benchmarks.chaos.run", *options)
    told = re.findall(r"(\d+) accepted, (\d+) tried", said)
    assert [int(accepted) + int(tried) for accepted, tried in told] == [250, 250], said
