"""Addresses: which names are names, and how a device's address is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.errors import InvalidAddress, UsageError
from aldis.protocol.addresses import (
    are_user_ids,
    check_device,
    check_user_id,
    device_problem,
    join,
    split,
    user_id_problem,
)


@pytest.mark.parametrize(
    "user_id",
    ["a", "alice@example.com", "Ålice", "\U0001f600", "a" * 128, "\U0001f600" * 128, "..", "-", '"'],
)
def test_a_user_id_may_have_any_visible_characters(user_id: str) -> None:
    assert check_user_id(user_id) == user_id


@pytest.mark.parametrize(
    ("user_id", "problem"),
    [
        ("", "it is empty"),
        ("a" * 129, "it has more than 128 characters"),
        ("alice/phone", "it contains '/'"),
        ("alice smith", "it contains white space"),
        ("alice\n", "it contains white space"),
        ("alice\u00a0", "it contains white space"),
        ("\u3000", "it contains white space"),
        ("\u2028", "it contains white space"),
        ("a\x00b", "it contains a control character"),
        ("\x7f", "it contains a control character"),
        ("\x9b", "it contains a control character"),
        ("\ud800", "it contains a control character"),
    ],
)
def test_a_user_id_that_breaks_the_rules_is_refused_in_words(user_id: str, problem: str) -> None:
    assert user_id_problem(user_id) == problem
    with pytest.raises(InvalidAddress) as caught:
        check_user_id(user_id)
    assert (caught.value.value, caught.value.problem) == (user_id, problem)
    assert isinstance(caught.value, UsageError)


def test_names_that_look_alike_are_different_names() -> None:
    composed, decomposed = "Å", "A\u030a"
    assert check_user_id(composed) != check_user_id(decomposed)


@pytest.mark.parametrize("device", ["main", "a", "Phone-2_x.y", "." * 64])
def test_a_device_has_letters_digits_and_three_signs(device: str) -> None:
    assert check_device(device) == device
    assert device_problem(device) is None


@pytest.mark.parametrize("device", ["", "a" * 65, "a b", "a/b", "é", "main\n", "٣", "a\x00"])
def test_any_other_device_is_refused(device: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        check_device(device)
    assert caught.value.value == device


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("alice", ("alice", None)),
        ("alice/phone", ("alice", "phone")),
        ("alice/", ("alice", "")),
        ("a/b/c", ("a", "b/c")),
    ],
)
def test_an_address_is_split_at_its_first_slash(address: str, parts: tuple[str, str | None]) -> None:
    assert split(address) == parts


def test_the_default_device_is_not_written() -> None:
    assert join("alice", "main") == "alice"
    assert join("alice", "phone") == "alice/phone"


@given(
    st.lists(st.text(max_size=4) | st.text(st.sampled_from("a/ \n\x7f\x80\xa0é😀"), max_size=3)),
    st.integers(0, 130),
)
def test_many_names_are_valid_when_each_of_them_is(user_ids: list[str], length: int) -> None:
    valid = not any(map(user_id_problem, user_ids))
    assert are_user_ids(user_ids) == valid
    assert are_user_ids([*user_ids, "é" * length]) == (valid and 1 <= length <= 128)
    assert are_user_ids([*user_ids, "e" * length]) == (valid and 1 <= length <= 128)


USER_IDS = st.text(min_size=1, max_size=128).filter(lambda text: user_id_problem(text) is None)
DEVICES = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)


@given(USER_IDS, DEVICES)
def test_what_is_joined_can_be_split_again(user_id: str, device: str) -> None:
    name, found = split(join(user_id, device))
    assert (name, found or "main") == (user_id, device)


@given(st.text())
def test_a_valid_user_id_can_be_put_into_a_proof_and_a_line_of_text(text: str) -> None:
    if user_id_problem(text) is None:
        assert b"\x00" not in text.encode()
        assert len(text.splitlines()) == 1
