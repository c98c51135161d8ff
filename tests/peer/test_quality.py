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
