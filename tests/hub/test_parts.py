"""The small parts of the hub, each by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aldis.hub.limits import TokenBucket
from aldis.hub.resume import Replay
from aldis.hub.stats import Histogram
from aldis.hub.timers import TimerQueue


def test_a_fault_budget_allows_a_burst_and_drains_with_time() -> None:
    budget = TokenBucket(2, 0.5, 0.0)
    assert [budget.spend(0.0), budget.spend(0.0), budget.spend(0.0)] == [True, True, False]
    assert budget.spend(4.0)


@given(st.lists(st.tuples(st.sampled_from(["add", "confirm"]), st.integers(0, 12)), max_size=60))
def test_a_replay_gives_all_that_came_after_or_nothing(steps: list[tuple[str, int]]) -> None:
    replay = Replay(max_messages=8, max_bytes=60)
    sent: list[bytearray] = []
    for step, number in steps:
        if step == "add":
            sent.append(bytearray([len(sent)]) * number)
            replay.add(sent[-1])
        else:
            assert replay.confirm(number) == (number <= len(sent))
        assert replay.count == len(sent)
        for received in range(len(sent) + 2):
            missed = replay.since(received)
            assert missed is None or missed == sent[received:]


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0, 5), max_size=60))
def test_a_timer_queue_brings_each_thing_once_never_early_and_at_most_a_second_late(
    whens: list[float], steps: list[float]
) -> None:
    table: TimerQueue[int] = TimerQueue()
    for index, when in enumerate(whens):
        table.put(index, when)
    now, seen = 0.0, []
    for step in [*steps, 200.0]:
        before, now = now, now + step
        for index in table.due(now):
            assert whens[index] <= now
            assert whens[index] + 1 >= before
            seen.append(index)
    assert sorted(seen) == list(range(len(whens)))


def test_a_timer_queue_survives_a_long_pause() -> None:
    table: TimerQueue[str] = TimerQueue()
    assert table.due(5.0) == []
    table.put("a", 10.0)
    table.put("b", 1_000_000.0)
    assert table.due(2_000_000.0) == ["a", "b"]
    table.put("late", 3.0)
    assert table.due(2_000_000.5) == []
    assert table.due(2_000_001.0) == ["late"]


def test_a_histogram_counts_by_upper_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(seconds)
    assert histogram.counts == [2, 1, 1]
    assert histogram.total == 12.0
