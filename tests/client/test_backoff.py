from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.client.backoff import CALLS, Backoff, Retries
from aldis.errors import ConfigError

BACKOFFS = st.builds(
    Backoff,
    first=st.floats(0, 10),
    factor=st.floats(1, 1e6),
    most=st.floats(10, 1e6),
    attempts=st.none() | st.integers(0, 50),
    settled=st.floats(0, 100),
)


def test_the_ceiling_doubles_from_half_a_second_to_ten_and_to_thirty_between_calls() -> None:
    assert [Backoff().ceiling(n) for n in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]
    assert [CALLS.ceiling(n) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_the_whole_of_the_wait_is_jitter() -> None:
    backoff = Backoff(first=1.0, factor=3.0, most=100.0)
    assert backoff.delay(3, 0.0) == 0.0
    assert backoff.delay(3, 0.5) == 4.5
    assert backoff.delay(3, 1.0) == 9.0


@given(BACKOFFS, st.integers(1, 10**9), st.floats(0, 1))
def test_no_wait_is_negative_or_above_the_bound(backoff: Backoff, attempt: int, random: float) -> None:
    assert 0 <= backoff.delay(attempt, random) <= backoff.ceiling(attempt) <= backoff.most


@given(BACKOFFS, st.integers(1, 1000))
def test_the_ceiling_never_shrinks(backoff: Backoff, attempt: int) -> None:
    assert backoff.ceiling(attempt) <= backoff.ceiling(attempt + 1)


def test_a_number_of_attempts_that_overflows_a_float_is_at_the_bound() -> None:
    assert Backoff(factor=1e300).ceiling(10**6) == 10.0


@pytest.mark.parametrize(
    ("values", "setting"),
    [
        ({"first": -1.0}, "backoff.first"),
        ({"first": float("nan")}, "backoff.first"),
        ({"first": float("inf")}, "backoff.first"),
        ({"factor": 0.5}, "backoff.factor"),
        ({"factor": float("nan")}, "backoff.factor"),
        ({"first": 2.0, "most": 1.0}, "backoff.most"),
        ({"most": float("inf")}, "backoff.most"),
        ({"attempts": -1}, "backoff.attempts"),
        ({"settled": -1.0}, "backoff.settled"),
    ],
)
def test_values_that_make_no_sense_are_named(values: dict[str, float], setting: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Backoff(**values)  # type: ignore[arg-type]
    assert caught.value.setting == setting


def test_attempts_are_counted_and_end() -> None:
    retries = Retries(Backoff(attempts=2))
    assert not retries.exhausted
    retries.schedule(0.0, 1.0, invited=None)
    retries.schedule(0.0, 1.0, invited=None)
    assert retries.exhausted
    assert Retries(Backoff(attempts=0)).exhausted


def test_only_a_connection_that_stood_long_enough_starts_the_count_anew() -> None:
    retries = Retries(Backoff(first=1.0, factor=2.0, settled=10.0))
    retries.schedule(0.0, 1.0, invited=None)
    retries.stood(9.9)
    assert retries.schedule(0.0, 1.0, invited=None) == 2.0
    retries.stood(10.0)
    assert retries.schedule(0.0, 1.0, invited=None) == 1.0


def test_a_server_that_invites_is_taken_at_its_word_once() -> None:
    retries = Retries(Backoff(first=100.0, most=100.0))
    assert retries.schedule(50.0, 1.0, invited=53.0) == 3.0
    assert retries.due == 53.0
    # It was not up yet, or went away again at once: from here on as usual.
    assert retries.schedule(60.0, 1.0, invited=60.0) == 100.0


def test_an_invitation_in_the_past_is_for_now() -> None:
    assert Retries(Backoff()).schedule(50.0, 1.0, invited=40.0) == 0.0


def test_a_server_that_wants_to_be_left_alone_is() -> None:
    retries = Retries(Backoff(first=1.0))
    retries.not_before = 70.0
    assert retries.schedule(50.0, 0.5, invited=None) == 20.5
    retries.not_before = 0.0
    assert retries.schedule(50.0, 0.5, invited=None) == 1.0


def test_a_client_that_asks_far_too_much_stays_away_longer_each_time() -> None:
    retries = Retries(Backoff(first=0.0, most=0.0))
    waits = []
    for _ in range(6):
        retries.offended(1000.0, 0.0)
        waits.append(retries.schedule(1000.0, 0.0, invited=None))
        retries.stood(599.0)
    assert waits == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]
    retries.stood(600.0)
    retries.offended(1000.0, 1.0)
    assert retries.schedule(1000.0, 0.0, invited=None) == 90.0


def test_somebody_who_waits_makes_the_next_attempt_come_earlier_and_a_second_one_does_not() -> None:
    retries = Retries(Backoff(first=100.0, most=100.0))
    assert retries.schedule(0.0, 1.0, invited=None) == 100.0
    retries.hurry(0.0, 1.0)
    first = retries.due
    assert 0.0 < first < 100.0
    retries.hurry(0.0, 0.0)
    assert retries.due == first
