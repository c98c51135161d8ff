"""What each network and each name may do in a period."""

from __future__ import annotations

import pytest

from aldis.hub.allowances import DAY, MAX_KNOWN, Allowances


def test_each_may_use_its_allowance_at_once_and_gets_it_back_evenly() -> None:
    some: Allowances[str] = Allowances(4, 100.0)
    assert [some.take("a", 0.0) for _ in range(5)] == [0, 0, 0, 0, 25.0]
    assert some.take("b", 0.0) == 0
    assert some.wait("a", 10.0) == 15.0
    assert some.take("a", 25.0) == 0
    some.give_back("a")
    assert some.wait("a", 25.0) == 0


def test_an_allowance_of_none_is_no_limit_and_another_one_counts_at_once() -> None:
    some: Allowances[str] = Allowances(0, 100.0)
    assert [some.take("a", 0.0) for _ in range(100)] == [0] * 100
    some.limit(1)
    assert [some.take("a", 0.0) for _ in range(2)] == [0, 100.0]


def test_the_table_is_bounded_and_forgets_those_that_have_all_of_it() -> None:
    some: Allowances[int] = Allowances(1, DAY)
    for number in range(MAX_KNOWN + 100):
        some.take(number, 0.0)
    assert len(some) == MAX_KNOWN
    some.take(-1, DAY)
    assert len(some) == 1


def test_what_was_used_last_is_forgotten_last() -> None:
    some: Allowances[int] = Allowances(1, DAY)
    for number in range(MAX_KNOWN):
        some.take(number, 0.0)
    assert some.take(0, 1.0) == pytest.approx(DAY - 1)
    some.take(-1, 1.0)
    assert some.wait(0, 1.0) > 0
    assert some.wait(1, 1.0) == 0
