"""Codes of words: what they look like, and what their exchange holds against."""

from __future__ import annotations

import pytest

from aldis.cli.codes import Exchange, new_code, read, read_code, recipient_name, sender_name, sender_names, words, write
from aldis.errors import UsageError
from aldis.protocol.addresses import check_user_id

ALICE, BOB, MALLORY = b"a" * 32, b"b" * 32, b"m" * 32
CODE = "42-acorn-acid"


def test_the_words_are_many_short_and_different() -> None:
    known = words()
    assert len(known) == len(set(known)) == 1295
    assert all(word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 5 for word in known)


def test_a_code_is_read_as_it_was_made_and_as_people_type_it() -> None:
    for attempt in range(6):
        code = new_code(attempt)
        assert read_code(code) == code
    for typed in ("42 acorn acid", " 42-Acorn_ACID\n", "42--acorn  acid"):
        assert read_code(typed) == CODE
    assert int(new_code(0).split("-")[0]) <= 999


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("acorn-acid", "is no code"),
        ("42-acorn", "is no code"),
        ("042-acorn-acid", "is no code"),
        ("42-acorn-acid-acid", "is no code"),
        ("42-acorn-zzzzz", "'zzzzz' is no word of a code"),
        ("42-akorn-acid", "did you mean 'acorn'"),
    ],
)
def test_a_slip_is_told_before_it_counts(typed: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        read_code(typed)


def test_names_on_the_server_tell_the_number_and_nothing_of_the_words() -> None:
    now = 1_800_000_000.0
    name = sender_name(CODE, now)
    assert check_user_id(name) == "code-20833-42"
    assert name in sender_names(CODE, now + 80_000)
    assert name in sender_names(CODE, now - 80_000)
    assert recipient_name() != recipient_name()


def exchange(
    code: str, other: str, keys: tuple[bytes, bytes] = (ALICE, BOB), seen: tuple[bytes, bytes] = (ALICE, BOB)
) -> tuple[bool, bool]:
    """Whether the sender trusts the recipient, and the recipient the sender."""
    sender, recipient = Exchange(code, *keys, sending=True), Exchange(other, *seen, sending=False)
    assert sender.received(recipient.message)
    assert recipient.received(sender.message)
    return sender.check(recipient.proof), recipient.check(sender.proof)


def test_two_that_know_the_code_trust_each_other() -> None:
    assert exchange(CODE, CODE) == (True, True)


@pytest.mark.parametrize("other", ["42-acorn-acre", "43-acorn-acid", "42-acid-acorn"])
def test_two_with_different_codes_do_not(other: str) -> None:
    assert exchange(CODE, other) == (False, False)


def test_somebody_in_between_who_passes_everything_on_is_noticed() -> None:
    # The recipient has a connection with Mallory's key, and Mallory one with the sender.
    assert exchange(CODE, CODE, keys=(ALICE, MALLORY), seen=(MALLORY, BOB)) == (False, False)


def test_what_is_sent_back_or_broken_is_no_proof() -> None:
    sender = Exchange(CODE, ALICE, BOB, sending=True)
    assert not sender.check(b"")
    assert not sender.received(sender.message)
    for message in (b"", b"B", b"B" + bytes(32), b"B" + b"\xff" * 32, b"X" * 33):
        assert not Exchange(CODE, ALICE, BOB, sending=True).received(message)
    recipient = Exchange(CODE, ALICE, BOB, sending=False)
    other = Exchange(CODE, ALICE, BOB, sending=True)
    assert other.received(recipient.message)
    assert not other.check(other.proof)
    assert not other.check(bytes(32))


def test_messages_of_the_exchange_are_read_or_ignored() -> None:
    assert read(write(proof=bytes(32)), "proof") == bytes(32)
    for content in (None, "text", {}, {"aldis": "code"}, {"proof": "AAAA"}, {"aldis": "code", "proof": "AAAA"}):
        assert read(content, "proof") is None
    assert read(write(proof=bytes(32)), "pake") is None
