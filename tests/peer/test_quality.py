"""Round-trip time and silence, by numbers."""

from __future__ import annotations

import pytest

from aldis.peer.quality import Quality


def test_a_slow_start_is_soon_forgotten_and_one_late_pong_does_not_show() -> None:
    quality = Quality(10.0, 5.0)
    assert quality.round_trip_time is None
    shown = []
    for second, measured in enumerate([0.5, 0.1, 0.1, 0.9, 0.1, 0.2, 0.2, 0.2], start=10):
        quality.ponged(quality.ping(second), second + measured)
        shown.append(quality.round_trip_time)
    assert shown == pytest.approx([0.5, 0.3, 0.1, 0.3, 0.1, 0.1, 0.2, 0.2])


def test_the_token_is_the_clock_in_microseconds() -> None:
    assert Quality(0.0, 5.0).ping(12.345678) == 12_345_678


def test_a_pong_counts_once_and_only_for_a_ping_of_ours() -> None:
    quality = Quality(0.0, 5.0)
    quality.ponged(1, 1.0)
    assert quality.round_trip_time is None
    token = quality.ping(1.0)
    quality.ponged(token, 1.5)
    quality.ponged(token, 9.0)
    assert quality.round_trip_time == pytest.approx(0.5)


def test_pings_that_are_never_answered_are_forgotten() -> None:
    quality = Quality(0.0, 5.0)
    first = quality.ping(1.0)
    for number in range(100):
        quality.ping(2.0 + number)
    quality.ponged(first, 200.0)
    assert quality.round_trip_time is None


def test_silence_begins_with_the_last_sign_of_life() -> None:
    quality = Quality(10.0, 5.0)
    assert not quality.silent(14.9)
    assert quality.silent_in(14.0) == pytest.approx(1.0)
    assert quality.silent(15.0)
    quality.heard(15.0)
    assert not quality.silent(19.9)
    assert quality.silent(20.0)
    assert quality.silent_in(99.0) == 0


def idle(seconds: float, delay: float, silence: float = 5.0) -> tuple[list[Quality], list[list[float]]]:
    """Two sides that say nothing but PING and PONG, which take `delay`; and when each sent a PING."""
    sides = [Quality(0.0, silence), Quality(0.0, silence)]
    pings: list[list[float]] = [[], []]
    under_way: list[tuple[float, int, str, int]] = []  # when, to whom, what, token
    now, step = 0.0, 1 / 128
    while now < seconds:
        for event in [event for event in under_way if event[0] <= now]:
            under_way.remove(event)
            _, to, kind, token = event
            assert not sides[to].silent(now)
            sides[to].heard(now)
            if kind == "ping":
                sides[to].pinged(token)
                under_way.append((now + delay, 1 - to, "pong", token))
            else:
                sides[to].ponged(token, now)
        for number, side in enumerate(sides):
            if side.ping_in(now) == 0:
                pings[number].append(now)
                under_way.append((now + delay, 1 - number, "ping", side.ping(now + number / 1000)))
        now += step
    return sides, pings


def test_two_idle_sides_take_turns_with_few_pings_and_both_know_the_round_trip_time() -> None:
    sides, pings = idle(120, 0.02)
    assert sum(map(len, pings)) < 120 / 3.3 + 3
    assert abs(len(pings[0]) - len(pings[1])) <= 2
    for side in sides:
        assert side.round_trip_time == pytest.approx(0.04, abs=0.02)


@pytest.mark.parametrize("delay", [0.02, 0.3, 0.8])
def test_a_path_on_which_all_arrives_is_never_silent(delay: float) -> None:
    _, pings = idle(120, delay)  # asserts it at each frame
    # There is time to send a PING once more after a second, and for its way back, where that is possible at all.
    spare = [later - sooner for sooner, later in zip(pings[0], pings[0][1:], strict=False)]
    assert max(spare) <= 30.1


def test_a_ping_is_due_early_where_pongs_come_late_and_never_too_often() -> None:
    quality = Quality(0.0, 5.0)
    assert quality.ping_in(0.0) == 0
    quality.ponged(quality.ping(0.0), 0.1)
    quality.heard(0.1)
    assert quality.ping_in(0.1) == pytest.approx(3.375 - 0.1 + 0.4)
    quality.pinged(7)
    assert quality.ping_in(0.1) == pytest.approx(3.375 - 0.1)
    quality.ponged(quality.ping(1.0), 2.0)
    quality.heard(2.0)
    quality.pinged(7)
    assert quality.ping_in(2.0) == pytest.approx(3.375 - 2.0)  # the last multiple of 1.125 before 2 + 3.75 - 3 * 0.55
    quality.ping(9.0)  # nothing comes any more
    assert quality.ping_in(9.5) == pytest.approx(1.0)


@pytest.mark.parametrize("heard_at", [1000.0, 1000.3, 1000.9, 1001.7])
def test_pings_of_many_connections_are_due_at_the_same_moments(heard_at: float) -> None:
    quality = Quality(0.0, 5.0)
    quality.ponged(quality.ping(heard_at - 0.05), heard_at)
    quality.heard(heard_at)
    quality.pinged(0)
    due = heard_at + quality.ping_in(heard_at)
    assert due % 1.125 == pytest.approx(0.0)
    assert 3.75 - 3 * 0.05 - 1.125 < due - heard_at <= 3.75 - 3 * 0.05


def test_the_round_trip_time_is_measured_also_beside_other_traffic() -> None:
    quality = Quality(0.0, 5.0)
    quality.ponged(quality.ping(0.0), 0.1)
    for second in range(1, 30):
        quality.heard(float(second))
        assert quality.ping_in(float(second)) > 0
    quality.heard(30.0)
    assert quality.ping_in(30.0) == 0


def answering_engine(until: int) -> Quality:
    """A side that has got one PONG, and then only signs of life of the engine, one each second."""
    quality = Quality(0.0, 5.0)
    quality.ponged(quality.ping(0.0), 0.1)
    quality.heard(0.1)
    for second in range(1, until):
        quality.alive(float(second))
        assert not quality.silent(second + 0.9)
        assert quality.ping_in(float(second)) > 0
    return quality


def test_an_engine_that_answers_needs_no_pings_but_to_measure() -> None:
    quality = answering_engine(30)
    assert quality.ping_in(30.0) == 0


def test_an_engine_that_falls_silent_is_noticed_like_a_channel() -> None:
    quality = answering_engine(20)  # the last sign came at 19
    assert quality.ping_in(19.0) == pytest.approx(3.75 - 0.3 + 0.4)
    quality.ping(22.75)
    assert not quality.silent(23.9)
    assert quality.silent(24.0)


def test_a_program_that_hangs_behind_an_engine_that_answers_is_noticed_by_the_next_ping() -> None:
    quality = answering_engine(30)
    quality.ping(30.0)
    for second in range(30, 35):
        quality.alive(second + 0.5)
        assert not quality.silent(second + 0.9)
    assert quality.silent(35.0)
    quality.heard(35.5)  # it only slept
    assert not quality.silent(36.0)
