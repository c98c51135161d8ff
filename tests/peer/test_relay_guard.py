"""What one program takes from those who begin sealed sessions with it."""

from __future__ import annotations

from aldis.peer.relay_guard import (
    ANSWER_SECONDS,
    MAX_ANSWERS,
    MAX_HANDSHAKES,
    MAX_KEYS,
    MAX_SENDERS,
    MAX_SESSIONS,
    MAX_USER_BYTES,
    MAX_WAITING_BYTES,
    MESSAGE_COST,
    WINDOW_SECONDS,
    RelayGuard,
)

KEY, OTHER = b"k" * 32, b"o" * 32


def session(number: int) -> bytes:
    return number.to_bytes(16)


def test_a_sender_has_so_many_handshakes_in_a_window() -> None:
    guard = RelayGuard()
    assert [guard.pause("bob", 100.0) for _ in range(MAX_HANDSHAKES)] == [0.0] * MAX_HANDSHAKES
    assert guard.pause("bob", 103.0) == WINDOW_SECONDS - 3.0
    assert guard.pause("bob/phone", 103.0) == 0.0
    assert guard.pause("bob", 100.0 + WINDOW_SECONDS) == 0.0


def test_a_sender_is_told_once_a_second_that_a_session_could_not_be_opened() -> None:
    guard = RelayGuard()
    assert guard.may_answer("bob", session(1), 5.0)
    assert not guard.may_answer("bob", session(1), 5.0 + ANSWER_SECONDS / 2)
    assert guard.may_answer("carol", session(1), 5.0)
    assert guard.may_answer("bob", session(1), 5.0 + ANSWER_SECONDS)


def test_a_sender_is_told_of_few_sessions_a_second() -> None:
    guard = RelayGuard()
    told = [guard.may_answer("bob", session(number), 5.0) for number in range(1000)]
    assert told == [True] * MAX_ANSWERS + [False] * (1000 - MAX_ANSWERS)
    assert guard.may_answer("bob", session(1000), 5.0 + ANSWER_SECONDS)


def test_what_waits_of_one_user_leaves_room_for_the_others() -> None:
    guard = RelayGuard()
    half = MAX_USER_BYTES // 2 - MESSAGE_COST
    assert [guard.hold("bob", half) for _ in range(3)] == [True, True, False]
    assert not guard.hold("bob", 0)
    assert guard.hold("carol", half)
    guard.release("bob", half)
    assert guard.hold("bob", half)


def test_what_waits_of_all_users_has_a_limit() -> None:
    guard = RelayGuard()
    users = [f"user {number}" for number in range(MAX_WAITING_BYTES // MAX_USER_BYTES)]
    assert all(guard.hold(user, MAX_USER_BYTES - MESSAGE_COST) for user in users)
    assert not guard.hold("bob", 0)
    guard.release(users[0], MAX_USER_BYTES - MESSAGE_COST)
    assert guard.hold("bob", 0)


def test_a_message_larger_than_the_room_of_a_user_waits_alone() -> None:
    guard = RelayGuard()
    assert guard.hold("bob", 2 * MAX_USER_BYTES)
    assert not guard.hold("bob", 0)
    assert not guard.hold("carol", MAX_WAITING_BYTES)


def test_a_session_is_taken_once_for_each_key() -> None:
    guard = RelayGuard()
    assert not guard.seen(KEY, session(1))
    guard.take(KEY, session(1))
    assert guard.seen(KEY, session(1))
    assert not guard.seen(KEY, session(2))
    assert not guard.seen(OTHER, session(1))


def test_the_table_of_a_key_fills_and_no_session_is_forgotten() -> None:
    guard = RelayGuard()
    for number in range(MAX_SESSIONS):
        assert not guard.full(KEY)
        guard.take(KEY, session(number))
    assert guard.full(KEY)
    assert not guard.full(OTHER)
    assert guard.seen(KEY, session(0))


def test_only_the_tables_of_the_newest_keys_are_kept() -> None:
    guard = RelayGuard()
    for number in range(MAX_KEYS + 1):
        guard.take(bytes([number]) * 32, session(1))
    assert not guard.seen(bytes([0]) * 32, session(1))
    assert all(guard.seen(bytes([number]) * 32, session(1)) for number in range(1, MAX_KEYS + 1))


def test_the_senders_heard_from_last_are_remembered() -> None:
    guard = RelayGuard()
    for number in range(MAX_SENDERS):
        assert guard.may_answer(f"user{number}", session(1), 1.0)
    assert not guard.may_answer("user0", session(1), 1.0)  # and it is the one heard from last now
    assert guard.may_answer("one more", session(1), 1.0)
    assert not guard.may_answer("user0", session(1), 1.0)
    assert guard.may_answer("user1", session(1), 1.0)  # forgotten
