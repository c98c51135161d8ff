"""When a peer is called: a dialer with a target that a test answers, and a clock that it moves."""

from __future__ import annotations

import asyncio

import pytest

from aldis.errors import (
    ConnectionLost,
    PeerConnectionFailed,
    PeerError,
    PeerKeyChanged,
    PeerOffline,
    PeerRefused,
    PeerUnknown,
    ProofInvalid,
    RequestFailed,
    StateError,
)
from aldis.peer.connection import PeerState
from aldis.store.peers.dialer import CROSSED, SETTLED, registered_anew
from support.dial_target import DialTarget, settle

OFFLINE, UNKNOWN = PeerOffline("bob"), PeerUnknown("bob")
KEY_CHANGED = PeerKeyChanged("bob", b"1", b"2")
FAILED = PeerConnectionFailed("bob", "no path")
FORGED = ProofInvalid("bob", "the signature is wrong")


async def test_a_wanted_peer_is_called_once() -> None:
    target = await DialTarget().poked()
    await target.poked()
    assert (target.asked, target.dialled) == (1, 1)
    await target.becomes(PeerState.CONNECTED)
    await target.poked()
    assert (target.asked, target.dialled) == (1, 1)


async def test_a_peer_that_nobody_wants_is_not_called() -> None:
    target = DialTarget()
    target.kept = False
    await target.poked()
    await target.becomes(PeerState.DISCONNECTED)
    await target.becomes(PeerState.FAILED, FAILED)
    await target.wait(100)
    assert target.asked == 0


async def test_nobody_is_called_without_a_server_and_all_when_it_is_back() -> None:
    target = DialTarget()
    target.registered = False
    await target.poked()
    assert target.asked == 0
    target.registered = True
    target.dialer.signaling_returned(resumed=False)
    await settle()
    assert target.dialled == 1


@pytest.mark.parametrize("error", [OFFLINE, UNKNOWN])
async def test_a_peer_that_is_away_is_called_when_it_comes(error: PeerError) -> None:
    target = DialTarget()
    target.found = [error]
    await target.poked()
    await target.wait(1000)
    assert target.asked == 1
    target.dialer.presence_changed(False, anew=False)
    await settle()
    assert target.asked == 1
    target.dialer.presence_changed(True, anew=True)
    await settle()
    assert target.dialled == 1


async def test_a_peer_that_cannot_be_watched_is_asked_for_again_and_again() -> None:
    target = DialTarget()
    target.watched = False
    target.found = [OFFLINE, OFFLINE]
    await target.poked()
    await target.wait(0.5)
    assert target.asked == 2
    await target.wait(1)
    assert target.dialled == 1


async def test_the_pauses_between_failures_grow_and_begin_small_after_a_connection_that_stood() -> None:
    target = await DialTarget().poked()
    for pause in (0.5, 1, 2, 2):
        dialled = target.dialled
        await target.becomes(PeerState.FAILED, FAILED)
        await target.wait(pause - 0.01)
        assert target.dialled == dialled
        await target.wait(0.01)
        assert target.dialled == dialled + 1
    await target.becomes(PeerState.CONNECTED)
    await target.wait(SETTLED)
    await target.becomes(PeerState.DISCONNECTED)
    dialled = target.dialled
    await target.wait(0.5)
    assert target.dialled == dialled + 1
    assert target.errors == [FAILED] * 4


async def test_a_path_that_heals_is_not_called() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    await target.becomes(PeerState.DISCONNECTED)
    await target.becomes(PeerState.CONNECTED)
    await target.wait(100)
    assert target.dialled == 1


async def test_a_lost_path_is_replaced_by_a_call_that_its_healing_ends() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    await target.becomes(PeerState.DISCONNECTED)
    await target.wait(0.5)
    assert target.dialled == 2
    await target.becomes(PeerState.DISCONNECTED)  # told again: no outcome
    await target.becomes(PeerState.CONNECTED)
    await target.wait(100)
    assert target.dialled == 2


async def test_a_peer_that_says_goodbye_is_left_alone_until_it_comes_back() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    await target.becomes(PeerState.CLOSED)
    target.dialer.presence_changed(True, anew=True)  # still, not again
    await target.wait(100)
    assert target.asked == 1
    target.dialer.presence_changed(False, anew=False)
    target.dialer.presence_changed(True, anew=True)
    await settle()
    assert target.dialled == 2


async def test_a_peer_whose_goodbye_comes_behind_the_news_of_its_return_is_called_for_files_that_go_on() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    target.dialer.presence_changed(True, anew=True)
    target.busy = True
    await target.becomes(PeerState.CLOSED)
    await target.wait(1)
    assert target.dialled == 2


async def test_a_peer_that_says_goodbye_is_called_for_a_message() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    await target.becomes(PeerState.CLOSED)
    target.queued = 1
    target.dialer.queued()
    await settle()
    assert target.dialled == 2


async def test_a_peer_that_hangs_up_while_messages_wait_is_called_again() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    target.queued = 1
    await target.becomes(PeerState.CLOSED)
    await target.wait(0.5)
    assert target.dialled == 2


async def test_a_server_that_forgets_us_may_have_missed_a_return() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    await target.becomes(PeerState.CLOSED)
    target.dialer.signaling_returned(resumed=True)
    await settle()
    assert target.asked == 1
    target.dialer.signaling_returned(resumed=False)
    await settle()
    assert target.asked == 2


async def test_an_attempt_that_began_before_the_peer_came_back_is_replaced() -> None:
    target = await DialTarget().poked()
    waiting = await target.connect()
    target.dialer.presence_changed(False, anew=False)
    assert target.state is PeerState.CONNECTING
    target.dialer.presence_changed(True, anew=True)
    await settle()
    assert (len(target.hung_up), target.dialled) == (1, 2)
    assert target.tasks[0].cancelled()
    await target.becomes(PeerState.CONNECTED)
    await waiting


async def test_a_lost_path_is_replaced_at_once_when_the_server_has_news_of_the_peer() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    await target.becomes(PeerState.DISCONNECTED)
    target.dialer.presence_changed(True, anew=True)
    await settle()
    assert (len(target.hung_up), target.dialled) == (1, 2)


async def test_a_path_that_is_being_healed_is_left_alone_when_the_server_only_says_how_things_stand() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    await target.becomes(PeerState.DISCONNECTED)
    target.dialer.presence_changed(True, anew=False)
    await settle()
    assert target.hung_up == []
    target.dialer.presence_changed(False, anew=False)
    target.dialer.presence_changed(True, anew=False)  # it was offline: that is a return, whoever tells it
    await settle()
    assert len(target.hung_up) == 1


@pytest.mark.parametrize(
    ("before", "now", "anew"),
    [
        ("", "a", True),
        ("a", "a", True),  # registered once more, without resuming
        ("a", "ba", True),
        ("ba", "ab", True),
        ("cba", "bca", True),
        ("ba", "a", False),
        ("ba", "b", False),
        ("cba", "ca", False),
        ("ba", "", False),
        ("ba", "c", True),
    ],
)
def test_a_device_that_registers_is_told_from_one_that_leaves(before: str, now: str, anew: bool) -> None:
    assert registered_anew(tuple(before), tuple(now)) is anew


async def test_who_waits_gets_the_reason() -> None:
    for found, expected in (([OFFLINE], PeerOffline), ([UNKNOWN], PeerUnknown), ([KEY_CHANGED], PeerKeyChanged)):
        target = DialTarget()
        target.found = list(found)
        with pytest.raises(expected):
            await target.dialer.connected(5)
    target = DialTarget()
    waiting = [await target.connect(), await target.connect()]
    await target.wait(CROSSED)
    await target.becomes(PeerState.FAILED, FAILED)
    for task in waiting:
        with pytest.raises(PeerConnectionFailed, match="no path"):
            await task
    assert target.dialled == 1


async def test_who_waits_for_a_connected_peer_does_not_wait() -> None:
    target = await DialTarget().poked()
    await target.becomes(PeerState.CONNECTED)
    await target.dialer.connected(0)


async def test_a_connection_that_is_there_but_not_told_yet_is_waited_for() -> None:
    target = DialTarget()
    target.state = PeerState.CONNECTED
    waiting = await target.connect()
    assert not waiting.done()
    await target.becomes(PeerState.CONNECTED)
    await waiting
    assert target.asked == 0


async def test_an_attempt_that_was_ended_at_once_is_made_once_more_for_who_waits() -> None:
    target = DialTarget()
    waiting = await target.connect()
    await target.becomes(PeerState.FAILED, FAILED)
    assert target.dialled == 2
    await target.becomes(PeerState.CONNECTED)
    await waiting
    assert target.asked == 1


async def test_a_peer_that_hangs_up_during_the_attempt_is_a_failure() -> None:
    target = DialTarget()
    waiting = await target.connect()
    await target.becomes(PeerState.CLOSED)
    assert not waiting.done()
    await target.becomes(PeerState.CLOSED)
    with pytest.raises(PeerConnectionFailed, match="hung up"):
        await waiting


async def test_what_was_wrong_with_an_answer_is_why_an_attempt_failed_or_took_too_long() -> None:
    target = DialTarget()
    waiting = await target.connect()
    target.dialer.refused(FORGED)
    await target.becomes(PeerState.FAILED, FAILED)
    with pytest.raises(ProofInvalid):
        await waiting
    target = DialTarget()
    waiting = await target.connect(5)
    target.dialer.refused(FORGED)
    await target.wait(5)
    with pytest.raises(ProofInvalid):
        await waiting


async def test_taking_too_long_is_told_with_what_is_known() -> None:
    for registered, words in ((True, "not there after 5 s"), (False, "server cannot be reached")):
        target = DialTarget()
        target.registered = registered
        waiting = await target.connect(5)
        await target.wait(4.9)
        assert not waiting.done()
        await target.wait(0.1)
        with pytest.raises(PeerConnectionFailed, match=words):
            await waiting


async def test_the_time_to_connect_begins_with_the_turn_of_the_attempt() -> None:
    target = DialTarget()
    target.clock_from = None
    waiting = await target.connect(5)
    await target.wait(42)
    target.clock_from = target.timers.time()
    await target.wait(4.9)
    assert not waiting.done()
    await target.wait(0.1)
    with pytest.raises(PeerConnectionFailed, match="not there after 5 s"):
        await waiting


async def test_losing_the_server_during_a_call_is_no_outcome() -> None:
    for error in (ConnectionLost("gone"), StateError("not connected")):
        target = DialTarget()
        target.found = [error]
        waiting = await target.connect()
        assert not waiting.done()
        await target.wait(0.5)
        await target.becomes(PeerState.CONNECTED)
        await waiting
        assert target.asked == 2


async def test_a_refusal_of_the_server_is_told_and_tried_again_only_if_it_may_pass_and_not_too_soon() -> None:
    target = DialTarget()
    target.found = [RequestFailed("rate-limited", "too fast", temporary=True, retry_after=7)]
    waiting = await target.connect()
    with pytest.raises(PeerConnectionFailed, match="too fast"):
        await waiting
    await target.wait(7)  # and not all who were told so at the same time
    assert target.asked == 1
    await target.wait(0.5)
    assert target.asked == 2
    target = DialTarget()
    target.found = [RequestFailed("forbidden", "no")]
    await target.poked()
    await target.wait(1000)
    assert target.asked == 1


async def test_a_peer_that_refuses_for_now_is_called_again_when_it_says() -> None:
    target = DialTarget()
    target.queued = 1
    waiting = await target.connect()
    await target.becomes(PeerState.FAILED, PeerRefused("bob", "too many peers", "too-many-peers", retry_after=30))
    with pytest.raises(PeerRefused, match="too many peers"):
        await waiting
    assert (target.dialled, target.errors) == (
        1,
        [waiting.exception()],
    )  # not once more at once, although somebody waits
    await target.wait(30)
    assert target.dialled == 1
    await target.wait(0.5)
    assert target.dialled == 2


async def test_a_peer_that_refuses_for_good_is_left_alone_until_there_is_a_reason() -> None:
    target = DialTarget()
    target.queued = 1
    waiting = await target.connect()
    await target.becomes(PeerState.FAILED, PeerRefused("bob", "no", "not-accepted", temporary=False))
    with pytest.raises(PeerRefused) as caught:
        await waiting
    assert not caught.value.temporary
    await target.wait(10_000)
    assert (target.dialled, target.queued) == (1, 1)
    target.dialer.presence_changed(True, anew=True)  # no return: it was there
    await settle()
    assert target.dialled == 1
    target.dialer.queued()
    await settle()
    assert target.dialled == 2


async def test_a_refusal_of_a_call_that_nobody_waits_for_is_heeded_too() -> None:
    target = DialTarget()
    target.kept = False
    target.queued = 1
    await target.becomes(PeerState.FAILED, PeerRefused("bob", "later", "rate-limited", retry_after=5))
    await target.wait(5)
    assert target.dialled == 0
    await target.wait(0.5)
    assert target.dialled == 1


async def test_a_changed_key_blocks_until_it_is_accepted() -> None:
    target = DialTarget()
    target.found = [KEY_CHANGED]
    await target.poked()
    assert target.unaccepted == KEY_CHANGED
    target.dialer.presence_changed(False, anew=False)
    target.dialer.presence_changed(True, anew=True)
    await target.wait(1000)
    assert target.asked == 1
    target.unaccepted = None
    target.dialer.accepted()
    await settle()
    assert target.dialled == 1


async def test_a_connection_that_is_lost_in_the_very_moment_in_which_it_opened_is_made_again() -> None:
    target = await DialTarget().poked()
    target.state = PeerState.CONNECTED
    target.dialer.state_changed(PeerState.CONNECTED, None)
    target.state = PeerState.FAILED
    target.dialer.state_changed(PeerState.FAILED, FAILED)
    await settle()
    await target.wait(0.5)
    assert target.dialled == 2


async def test_a_call_with_another_key_ends_when_the_new_one_is_accepted() -> None:
    target = await DialTarget().poked()
    target.state = PeerState.CLOSED  # the peer has hung up
    target.dialer.accepted(changed=True)
    await settle()
    assert target.tasks[0].cancelled()
    assert (target.dialled, target.hung_up) == (2, [])


async def test_no_pause_begins_while_a_call_is_under_way() -> None:
    target = DialTarget()
    target.hold = asyncio.Event()
    await target.poked()
    await target.becomes(PeerState.FAILED, FAILED)  # a connection of theirs
    await target.wait(0.4)
    target.hold.set()
    await settle()
    assert (target.asked, target.dialled) == (1, 1)
    await target.becomes(PeerState.FAILED, FAILED)
    await target.wait(0.45)
    assert target.asked == 1
    await target.wait(0.1)
    assert target.asked == 2


async def test_whatever_the_server_says_a_peer_that_has_connected_meanwhile_is_there() -> None:
    for error in (KEY_CHANGED, OFFLINE):
        target = DialTarget()
        target.hold = asyncio.Event()
        target.found = [error]
        waiting = await target.connect()
        await target.becomes(PeerState.CONNECTED)
        await waiting
        target.hold.set()
        await settle()
        assert target.unaccepted is None
        assert not target.errors
        assert target.dialled == 0
    target = DialTarget()
    target.hold = asyncio.Event()
    await target.poked()
    await target.becomes(PeerState.CONNECTED)
    target.hold.set()
    await settle()
    assert target.tasks[0].done()


async def test_an_attempt_ends_when_nobody_wants_it_any_more() -> None:
    target = await DialTarget().poked()
    target.dialer.reconsider()
    assert not target.hung_up
    target.kept = False
    target.dialer.reconsider()
    assert target.hung_up == ["it is not wanted any more"]
    await settle()
    assert target.tasks[0].cancelled()
    target.dialer.reconsider()
    assert target.timers.waiting == 0


async def test_stopping_tells_who_waits() -> None:
    target = DialTarget()
    waiting = await target.connect()
    target.dialer.stop(StateError("the store is closed"))
    with pytest.raises(StateError):
        await waiting
    await settle()
    assert all(task.done() for task in target.tasks)
    assert target.timers.waiting == 0


async def test_a_fault_of_the_program_is_told_and_raised() -> None:
    target = DialTarget()
    target.found = [ZeroDivisionError()]
    waiting = await target.connect()
    with pytest.raises(PeerConnectionFailed, match="internal error"):
        await waiting
    with pytest.raises(ZeroDivisionError):
        await target.tasks[0]
    await target.wait(0.5)
    assert target.dialled == 1


async def test_an_error_that_is_none_of_the_known_ones_is_an_outcome() -> None:
    target = DialTarget()
    target.found = [FORGED]
    waiting = await target.connect()
    with pytest.raises(ProofInvalid):
        await waiting


async def test_a_refusal_beside_a_connection_that_is_lost_is_heard_at_once() -> None:
    """aiortc cannot restart ICE: a new connection is tried while the old one may still come back."""
    target = DialTarget()
    await target.becomes(PeerState.CONNECTED)
    await target.becomes(PeerState.DISCONNECTED)
    task = await target.connect()
    assert target.dialled == 1
    await target.becomes(PeerState.DISCONNECTED, PeerRefused("bob", "busy", "busy", retry_after=5))
    with pytest.raises(PeerRefused):
        await task
    await target.wait(4.9)
    assert target.dialled == 1
    await target.wait(2.1)
    assert target.dialled == 2


async def test_a_peer_that_comes_and_goes_does_not_put_off_the_time_out_for_ever() -> None:
    target = DialTarget()
    task = await target.connect(5.0)
    for _ in range(5):  # each time the attempt is made anew, and its clock with it
        await target.wait(2.0)
        target.dialer.presence_changed(False, anew=False)
        target.dialer.presence_changed(True, anew=True)
        await settle()
        target.clock_from = target.timers.time()
    assert task.done()
    with pytest.raises(PeerConnectionFailed):
        await task


async def test_no_server_silences_a_peer_for_longer_than_five_minutes() -> None:
    target = DialTarget()
    target.found = [RequestFailed("rate-limited", "never", temporary=True, retry_after=1e308)]
    await target.poked()
    assert target.asked == 1
    await target.wait(299)
    assert target.asked == 1
    await target.wait(2)
    assert target.asked == 2
