"""Error and close codes: what a client may do about each."""

from __future__ import annotations

import pytest

from aldis.protocol.codes import TEMPORARY, CloseCode, ErrorCode, may_reconnect


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 4000, 4002, 4003, 4004, 4005, 4007, 4499])
def test_a_client_reconnects_after_what_may_pass(code: int) -> None:
    assert may_reconnect(code)


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1009, 4001, 4500, 4501, 4502, 4503, 4999])
def test_a_client_stays_away_when_a_person_has_to_change_something(code: int) -> None:
    assert not may_reconnect(code)


def test_a_client_comes_back_after_it_was_far_over_the_limits() -> None:
    assert may_reconnect(CloseCode.OVER_LIMITS)


def test_a_replaced_client_stays_away_since_the_two_would_replace_each_other_for_ever() -> None:
    assert not may_reconnect(CloseCode.REPLACED)


def test_only_what_passes_by_itself_is_temporary() -> None:
    assert {"rate-limited", "over-capacity", "timeout", "internal"} == TEMPORARY


def test_codes_are_words_of_the_wire() -> None:
    words = [value for name, value in vars(ErrorCode).items() if not name.startswith("_")]
    assert len(words) == len(set(words)) == 22
    assert all(word == word.lower() and " " not in word for word in words)


def test_a_close_code_is_a_number_that_a_websocket_may_carry() -> None:
    assert all(1000 <= code <= 4999 for code in CloseCode)
