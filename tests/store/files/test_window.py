from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.errors import ProtocolViolation
from aldis.store.files.window import AT_ONCE, CONFIRM, WINDOW, ReceiveWindow, SendWindow, share
from aldis.store.messages.control import MAX_PIECE


@pytest.mark.parametrize("size", [0, 1, MAX_PIECE, CONFIRM, WINDOW, WINDOW + 1, 5 * WINDOW + 77])
@pytest.mark.parametrize("running", range(1, AT_ONCE + 2))
def test_a_file_gets_through_whatever_share_of_the_window_it_has(size: int, running: int) -> None:
    out, into = SendWindow(size), ReceiveWindow(size)
    while into.written < size:
        room = out.room(share(0, running))
        assert room > 0
        assert out.sent + room - out.confirmed <= WINDOW
        into.arrive(out.sent, room)
        out.sent += room
        assert out.room(share(0, running)) == 0
        assert into.is_due, "the sender waits"
        due = into.wrote(room)
        if due is not None:
            assert not out.received(due)
    assert out.sent == size
    assert out.received(size)


def test_nothing_goes_beyond_the_window_and_only_whole_pieces_but_the_last() -> None:
    out = SendWindow(2 * WINDOW)
    assert out.room(WINDOW) == WINDOW
    out.sent = WINDOW
    assert out.room(WINDOW) == 0
    assert not out.received(MAX_PIECE - 1)
    assert out.room(WINDOW) == 0
    assert not out.received(MAX_PIECE)
    assert out.room(WINDOW) == MAX_PIECE
    assert out.room(CONFIRM) == 0
    out.sent = 2 * WINDOW - 5
    assert not out.received(WINDOW + MAX_PIECE)
    assert out.room(WINDOW) == 5


def test_files_share_the_window_and_only_some_have_their_turn() -> None:
    assert [share(0, running) for running in (1, 2, 4, 9)] == [WINDOW, WINDOW // 2, CONFIRM, CONFIRM]
    assert share(AT_ONCE - 1, 9) == CONFIRM
    assert share(AT_ONCE, 9) == 0


@pytest.mark.parametrize("count", [-1, 99, 201])
def test_a_confirmation_of_what_was_not_sent_or_that_goes_back_is_a_violation(count: int) -> None:
    out = SendWindow(1000)
    out.sent = 200
    assert not out.received(100)
    assert not out.received(100)
    with pytest.raises(ProtocolViolation):
        out.received(count)


@pytest.mark.parametrize(
    ("offset", "size", "problem"),
    [(11, 1, "came where"), (9, 2, "came where"), (10, 3 * WINDOW, "on offer"), (10, WINDOW - 9, "window")],
)
def test_a_piece_that_must_not_come_is_a_violation(offset: int, size: int, problem: str) -> None:
    into = ReceiveWindow(2 * WINDOW)
    into.arrive(0, 10)
    with pytest.raises(ProtocolViolation, match=problem):
        into.arrive(offset, size)
    into.arrive(10, WINDOW - 10)


def test_it_is_time_to_write_when_the_sender_may_wait_for_that() -> None:
    into = ReceiveWindow(3 * CONFIRM)
    into.arrive(0, CONFIRM - 1)
    assert not into.is_due
    into.arrive(CONFIRM - 1, 1)
    assert into.is_due
    assert into.wrote(CONFIRM) == CONFIRM
    assert not into.is_due
    into.arrive(CONFIRM, CONFIRM)
    assert into.wrote(CONFIRM) == 2 * CONFIRM
    into.arrive(2 * CONFIRM, CONFIRM - 1)
    assert not into.is_due
    into.arrive(3 * CONFIRM - 1, 1)
    assert into.is_due, "it is the end"


def test_what_arrives_while_that_is_written_has_a_time_of_its_own() -> None:
    into = ReceiveWindow(9 * CONFIRM)
    into.arrive(0, CONFIRM + 5)
    into.write()
    into.arrive(CONFIRM + 5, CONFIRM - 1)
    assert not into.is_due
    assert into.wrote(CONFIRM + 5) == CONFIRM + 5
    assert not into.is_due
    into.arrive(2 * CONFIRM + 4, 1)
    assert into.is_due
    into.write()
    assert into.wrote(CONFIRM) == 2 * CONFIRM + 5
    into.arrive(2 * CONFIRM + 5, 10)
    into.write()  # nothing more had come for a while
    into.arrive(2 * CONFIRM + 15, CONFIRM - 10)
    assert into.is_due


def test_of_a_stream_it_is_time_one_piece_earlier() -> None:
    into = ReceiveWindow(None)
    into.arrive(0, CONFIRM - MAX_PIECE)
    assert not into.is_due
    into.arrive(CONFIRM - MAX_PIECE, 1)
    assert into.is_due
    assert into.wrote(CONFIRM - MAX_PIECE + 1) == CONFIRM - MAX_PIECE
    assert not into.is_due
    into.ends(CONFIRM - MAX_PIECE + 1)
    assert into.is_due


def test_a_piece_that_has_come_before_is_skipped() -> None:
    into = ReceiveWindow(100)
    assert into.arrive(0, 10)
    assert into.arrive(10, 10)
    for offset, size in ((0, 10), (10, 10), (0, 20)):
        assert not into.arrive(offset, size)
    assert into.arrived == 20


def test_what_is_written_is_confirmed_now_and_then_but_not_at_the_end() -> None:
    into = ReceiveWindow(2 * CONFIRM)
    into.arrive(0, 2 * CONFIRM)
    assert into.wrote(CONFIRM - 1) is None
    assert into.wrote(1) == CONFIRM
    assert into.wrote(CONFIRM) is None


@given(st.integers(0, 2**53 - 1), st.lists(st.tuples(st.integers(0, 2**53 - 1), st.integers(1, MAX_PIECE))))
def test_whatever_comes_no_more_is_kept_than_the_window(size: int, pieces: list[tuple[int, int]]) -> None:
    into = ReceiveWindow(size)
    for offset, length in pieces:
        try:
            into.arrive(offset, length)
        except ProtocolViolation:
            return
        assert into.arrived - into.written <= WINDOW
        assert into.arrived <= size
