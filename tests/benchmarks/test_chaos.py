"""Two programs exchange numbers while all around them dies and comes back: a short run, and what fails one."""

from __future__ import annotations

import re

import pytest
from benchmarks.chaos import judge

from support.benchmark_runs import passes
from support.failing_disk import need_failing_disks
from support.patience import PATIENCE


def faults(accepted: set[int], tried: set[int], *got: int | tuple[int, str]) -> list[str]:
    """What is wrong when bob gets these numbers, or numbers with the word of his store."""
    lines = [
        f"{each} 0.0 m{each} new" if isinstance(each, int) else f"{each[0]} 0.0 m{each[0]} {each[1]}" for each in got
    ]
    return judge.problems_of("alice", judge.Sent(accepted | tried, accepted, {}), judge.read_got(lines))


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
    assert "twice" in judge.problems_of("alice", judge.Sent({1}, {1}, {}), twice)[0]


def test_what_was_tried_and_neither_accepted_nor_refused_is_open() -> None:
    sent = judge.read_sent(["try 1", "ok 1", "try 2", "no 2 7.5 JournalDiskFull", "try 3"])
    assert sent == judge.Sent({1, 2, 3}, {1}, {2: judge.Refusal(7.5, "JournalDiskFull")})
    assert sent.unknown == {3}


FULL = judge.DiskFault(frozenset({"JournalDiskFull"}), 10.0, 20.0)


def refused(when: float, error: str, got: list[str] | None = None) -> list[str]:
    """What is wrong when alice's number 1 was refused, and bob has these."""
    sent = judge.Sent({1}, set(), {1: judge.Refusal(when, error)})
    return judge.problems_of("alice", sent, judge.read_got(got or []), [FULL])


def test_a_message_may_be_refused_with_the_error_of_its_disk_and_must_not_arrive_then() -> None:
    assert refused(12.0, "JournalDiskFull") == []
    assert refused(20.0 + judge.AFTER, "JournalDiskFull") == []
    assert "without a cause" in refused(9.0, "JournalDiskFull")[0]
    assert "without a cause: [(1, 'NoneType')]" in refused(12.0, "NoneType")[0]
    assert "were refused, and have come: [1]" in refused(12.0, "JournalDiskFull", ["1 13.0 m1 new"])[0]


def test_what_a_failed_disk_has_lost_may_come_again_without_a_word_of_it() -> None:
    sent, got = judge.Sent({1}, {1}, {}), judge.read_got(["1 5.0 m1 new", "1 21.0 m1 new"])
    failed = judge.DiskFault(frozenset(), 10.0, 20.0, loses=True)
    assert judge.problems_of("alice", sent, got, (), [failed]) == []
    assert "without a word" in judge.problems_of("alice", sent, got, (), [FULL])[0]
    assert "without a word" in judge.problems_of("alice", sent, got, [failed], ())[0]
    # The disk had it before.
    failed = judge.DiskFault(frozenset(), 6.0 + judge.UNSYNCED, 60.0, loses=True)
    late = judge.read_got(["1 5.0 m1 new", "1 61.0 m1 new"])
    assert "without a word" in judge.problems_of("alice", sent, late, (), [failed])[0]


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
@pytest.mark.parametrize("faults_of", ["world", "disks"])
async def test_numbers_arrive_once_and_in_order_while_everything_dies_and_comes_back(
    more: tuple[str, ...], faults_of: str
) -> None:
    if faults_of == "disks":
        need_failing_disks()
    options = ["--seed", "5", "--messages", "250", "--rate", "20", "--pause", "1", "--faults", faults_of, *more]
    said = await passes("benchmarks.chaos.run", *options)
    told = re.findall(r"(\d+) accepted, (\d+) refused.*, (\d+) tried", said)
    assert [sum(map(int, numbers)) for numbers in told] == [250, 250], said
