from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aldis.client.backoff import Backoff
from aldis.client.events import Closed, Connected, Disconnected, GoingAway, Registered, SignalingState
from aldis.client.phases import TABLE, Phase, Step
from aldis.errors import ConnectionClosed, ConnectionLost, ReconnectGaveUp, StateError
from support.machine_bench import LIMITS, Bench, identity_of

# Close codes after which a client comes back (docs/protocol.md, "Close codes"), and those after which it does not.
COME_BACK = [1000, 1001, 1005, 1006, 1008, 1011, 1012, 1013, 3000, 3999, 4000, 4002, 4003, 4004, 4005, 4006, 4499]
STAY_AWAY = [1002, 1003, 1007, 1009, 4001, 4500, 4501, 4502, 4503, 4999, 65535]


def joined(**more: Any) -> Bench:
    bench = Bench(**more)
    bench.join()
    return bench


def waits(bench: Bench) -> list[float | None]:
    """The waits that the client has announced."""
    return [event.retry_in for event in bench.take_events() if isinstance(event, Disconnected)]


# --- losing and coming back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", COME_BACK)
def test_the_client_comes_back_after_these_codes(code: int) -> None:
    bench = joined(backoff=Backoff(first=2.0))
    bench.lose(code, "why")
    assert bench.take_events() == [Disconnected("why", code, 2.0)]
    assert bench.machine.state is SignalingState.CONNECTING
    bench.pass_time(1.9)
    assert bench.dials == 0
    bench.pass_time(0.2)
    assert bench.dials == 1
    bench.connect()
    bench.admit(session="s2")
    assert bench.take_events() == [Connected(1), Registered(resumed=False, limits=LIMITS)]


@pytest.mark.parametrize("code", STAY_AWAY)
def test_the_client_stays_away_after_those(code: int) -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.lose(code, "why")
    error = bench.machine.error
    assert isinstance(error, ConnectionClosed)
    assert (error.code, error.reason) == (code, "why")
    assert bench.failures[number] is error
    assert bench.take_events() == [Disconnected("why", code, None), Closed(error)]
    assert bench.machine.state is SignalingState.DISCONNECTED
    assert bench.machine.next_deadline is None
    with pytest.raises(ConnectionClosed):
        bench.do(lambda m, now: m.register(identity_of("alice"), now))


def test_a_loss_without_words_is_put_into_some() -> None:
    bench = joined()
    bench.lose(4002, "")
    assert bench.take_events()[0].reason == "the connection was closed with code 4002"  # type: ignore[union-attr]


def test_the_waits_grow_and_are_jittered_in_full() -> None:
    bench = joined(backoff=Backoff(first=1.0, factor=2.0, most=10.0))
    bench.lose()
    for lot in (1.0, 1.0, 1.0, 0.5, 0.0):
        bench.lot = lot
        while bench.phase is Phase.WAITING:
            bench.pass_time(0.5)
        bench.fail_to_connect()
    assert waits(bench) == [1.0, 2.0, 4.0, 8.0, 5.0, 0.0]


def test_a_connection_that_stood_for_a_while_starts_the_waits_anew() -> None:
    bench = joined(backoff=Backoff(first=1.0, settled=10.0))
    for seconds in (5.0, 5.0, 11.0, 5.0):
        bench.reconnect()
        bench.pass_time(seconds)
    bench.lose()
    assert waits(bench) == [1.0, 2.0, 4.0, 1.0, 2.0]


def test_a_server_that_takes_us_in_and_throws_us_out_is_not_hammered() -> None:
    bench = joined(backoff=Backoff(first=1.0, most=8.0))
    for _ in range(6):
        bench.reconnect()
    bench.lose()
    assert waits(bench) == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]


def test_a_connection_that_only_dials_never_counts_as_good() -> None:
    bench = joined(backoff=Backoff(first=1.0, settled=1.0))
    bench.lose()
    bench.redial()
    bench.pass_time(9.0)  # connected, and no word about the registration
    bench.lose()
    assert waits(bench)[-1] == 2.0


def test_the_client_gives_up_after_the_last_attempt() -> None:
    bench = joined(backoff=Backoff(first=1.0, attempts=3))
    held: list[int] = []
    bench.lose()
    for _ in range(3):
        held.append(bench.do(lambda m, now: m.ping(now)))
        while bench.phase is Phase.WAITING:
            bench.pass_time(0.5)
        bench.fail_to_connect("nobody is there")
    error = bench.machine.error
    assert isinstance(error, ReconnectGaveUp)
    assert (error.attempts, error.last) == (3, "nobody is there")
    assert bench.dials == 3
    assert bench.failures[held[-1]] is error
    assert bench.take_events()[-2:] == [Disconnected("nobody is there", 1006, None), Closed(error)]


def test_with_no_attempts_allowed_the_first_loss_is_the_end() -> None:
    bench = joined(backoff=Backoff(attempts=0))
    bench.lose()
    assert isinstance(bench.machine.error, ReconnectGaveUp)
    assert bench.dials == 0


def test_losses_are_counted_from_one_in_connected() -> None:
    bench = joined(backoff=Backoff(first=1.0))
    bench.lose()
    bench.redial()
    bench.lose()
    bench.redial()
    assert [event for event in bench.take_events() if isinstance(event, Connected)] == [Connected(1), Connected(2)]


def test_a_connection_without_a_name_comes_back_without_one() -> None:
    bench = Bench()
    bench.connect()
    bench.lose(4004, "not registered in time")
    bench.redial()
    assert bench.take() == []
    assert bench.phase is Phase.OPEN


# --- going away -----------------------------------------------------------------------------------------------------


def test_a_server_that_goes_away_is_visited_again_when_it_says() -> None:
    bench = joined()
    bench.say(type="going-away", reconnectIn=3.25)
    bench.pass_time(0.25)
    bench.lose(4000, "restart")
    assert bench.take_events() == [GoingAway(3.25), Disconnected("restart", 4000, 3.0)]
    bench.pass_time(2.9)
    assert bench.dials == 0
    bench.pass_time(0.2)
    assert bench.dials == 1


def test_if_it_is_not_up_again_by_then_the_usual_waits_follow() -> None:
    bench = joined(backoff=Backoff(first=1.0))
    bench.say(type="going-away", reconnectIn=1.0)
    bench.lose(4000)
    bench.pass_time(1.0)
    bench.fail_to_connect()
    assert waits(bench) == [1.0, 2.0]


def test_a_server_that_asks_us_to_go_and_does_not_close_is_left_in_time() -> None:
    bench = joined()
    bench.say(type="going-away", reconnectIn=3.0)
    bench.pass_time(3.0)
    assert bench.closed == (4000, "the server is going away")
    bench.lose(1006)
    assert waits(bench) == [0.0]


def test_a_server_that_always_goes_away_at_once_is_not_hammered() -> None:
    bench = joined(backoff=Backoff(first=1.0, most=8.0))
    for _ in range(5):
        bench.say(type="going-away", reconnectIn=0)
        bench.lose(4000)
        bench.redial()
        bench.admit(session="next")
    assert waits(bench) == [0.0, 2.0, 4.0, 8.0, 8.0]


@pytest.mark.parametrize(("asked", "meant"), [(-5, 0.0), (1e300, 300.0), (10**15, 300.0)])
def test_an_absurd_time_to_stay_away_is_brought_to_reason(asked: float, meant: float) -> None:
    bench = joined()
    bench.say(type="going-away", reconnectIn=asked)
    assert bench.take_events() == [GoingAway(meant)]


def test_going_away_is_forgotten_with_the_next_connection() -> None:
    bench = joined()
    bench.say(type="going-away", reconnectIn=5.0)
    bench.lose(4000)
    bench.redial()
    bench.admit()
    bench.pass_time(20.0)
    assert bench.closed is None


# --- is anybody there -----------------------------------------------------------------------------------------------


def test_silence_is_asked_about_and_then_taken_for_death() -> None:
    bench = joined()
    bench.pass_time(24.9)
    assert bench.take() == []
    bench.pass_time(0.1)
    assert bench.take() == [{"type": "ping"}]
    bench.pass_time(9.9)
    assert bench.closed is None
    bench.pass_time(0.1)
    assert bench.closed is not None
    assert bench.closed[0] == 4003
    bench.lose(1006)
    gone = bench.take_events()[-1]
    assert isinstance(gone, Disconnected)
    assert "35 s" in gone.reason


@pytest.mark.parametrize("sign", ["pong", "anything", "a WebSocket ping"])
def test_any_sign_of_life_ends_the_silence(sign: str) -> None:
    bench = joined()
    bench.pass_time(30.0)
    assert bench.take() == [{"type": "ping"}]
    match sign:
        case "pong":
            bench.say(type="pong")
        case "anything":
            bench.say(type="something new")
        case _:
            bench.do(lambda m, now: m.heard(now))
    bench.pass_time(24.0)
    assert bench.take() == []
    bench.pass_time(1.0)
    assert bench.take() == [{"type": "ping"}]
    assert bench.closed is None


def test_silence_is_noticed_before_the_registration_too() -> None:
    bench = Bench()
    bench.connect()
    bench.pass_time(40.0)
    assert bench.closed is not None


def sleep(bench: Bench, seconds: float) -> None:
    """Let time pass without a look at the clock, as in a process that is stopped; then look."""
    bench.now += seconds
    bench.do(lambda m, now: m.tick(now))


def test_a_process_that_was_stopped_asks_first_since_the_answer_may_lie_unread() -> None:
    bench = joined()
    sleep(bench, 3600)
    assert bench.take() == [{"type": "ping"}]
    assert bench.closed is None
    bench.say(type="pong")
    bench.pass_time(20)
    assert bench.closed is None


def test_a_process_that_was_stopped_with_a_question_open_asks_once_more_and_then_goes() -> None:
    bench = joined()
    bench.pass_time(25)
    sleep(bench, 3600)
    assert bench.take() == [{"type": "ping"}, {"type": "ping"}]
    assert bench.closed is None
    sleep(bench, 3600)
    assert bench.closed is not None
    assert bench.closed[0] == 4003


# --- resuming -------------------------------------------------------------------------------------------------------


def bye(bench: Bench, times: int = 1) -> None:
    for _ in range(times):
        bench.say(type="bye", to="alice", **{"from": "bob"})


def test_the_ticket_names_session_secret_and_all_that_was_received() -> None:
    bench = joined()
    bye(bench, 3)
    bench.lose()
    bench.forget()
    bench.redial()
    assert bench.take_one()["resume"] == {"session": "s1", "secret": "secret of s1", "received": 3}


def test_the_count_goes_on_in_a_resumed_session_and_starts_anew_in_a_new_one() -> None:
    bench = joined()
    bye(bench, 3)
    bench.reconnect(resumed=True)
    assert bench.events[-1] == Registered(resumed=True, limits=LIMITS)
    bye(bench, 2)
    bench.lose()
    bench.redial()
    assert bench.sent[-1]["resume"]["received"] == 5
    bench.admit(session="s2")
    assert bench.events[-1] == Registered(resumed=False, limits=LIMITS)
    bye(bench)
    bench.lose()
    bench.redial()
    assert bench.sent[-1]["resume"] == {"session": "s2", "secret": "secret of s2", "received": 1}


def test_what_is_replayed_counts() -> None:
    bench = joined()
    bench.reconnect(resumed=True)
    bye(bench, 4)
    bench.pass_time(2.0)
    assert bench.sent[-1] == {"type": "received", "count": 4}


def test_a_session_that_the_server_calls_lost_is_not_asked_for_again() -> None:
    bench = joined()
    bench.lose(4005, "too much was missed")
    bench.redial()
    assert "resume" not in bench.sent[-1]


def test_a_server_that_gives_no_secret_is_not_asked_to_resume() -> None:
    bench = Bench()
    bench.join(session="", secret="")
    bench.lose()
    bench.redial()
    assert "resume" not in bench.sent[-1]


def test_a_few_messages_are_confirmed_two_seconds_after_the_first() -> None:
    bench = joined()
    bye(bench)
    bench.pass_time(1.5)
    bye(bench, 2)
    assert bench.take() == []
    bench.pass_time(0.5)
    assert bench.take() == [{"type": "received", "count": 3}]
    bench.pass_time(20.0)
    assert bench.take() == []


def test_many_messages_are_confirmed_by_their_number() -> None:
    bench = joined()
    bye(bench, 100)
    assert bench.take() == [{"type": "received", "count": n} for n in (32, 64, 96)]


def test_large_messages_are_confirmed_by_their_size() -> None:
    bench = joined()
    for _ in range(4):
        bench.say(type="offer", to="alice", offer={"type": "offer", "sdp": "x" * 20_000}, **{"from": "bob"})
    assert [message["count"] for message in bench.take()] == [2, 4]


def test_nothing_is_confirmed_between_connections() -> None:
    bench = joined(backoff=Backoff(first=20.0, most=20.0))
    bye(bench)
    bench.lose()
    bench.pass_time(10.0)
    assert bench.take() == []


def test_replies_are_not_counted() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.ping(now))
    bench.say(type="pong", re=number)
    bench.say(type="error", message="no", code="internal")
    bench.forget()
    bench.pass_time(5.0)
    assert bench.take() == []


# --- closing --------------------------------------------------------------------------------------------------------


def in_phase(phase: Phase) -> Bench:
    """A client that stands in this phase."""
    bench = Bench()
    match phase:
        case Phase.IDLE:
            pass
        case Phase.OPEN:
            bench.connect()
        case Phase.REGISTERING | Phase.PROVING:
            bench.connect()
            bench.do(lambda m, now: m.register(bench.identity, now))
            if phase is Phase.PROVING:
                bench.say(type="challenge", nonce="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
        case Phase.REGISTERED:
            bench.join()
        case Phase.CLOSING:
            bench.join()
            bench.say_text("this is no JSON")
        case Phase.WAITING | Phase.DIALING:
            bench.join()
            bench.lose()
            if phase is Phase.DIALING:
                bench.pass_time(1.0)
        case Phase.ENDED:
            bench.join()
            bench.lose(4503, "banned")
    assert bench.phase is phase
    return bench


@pytest.mark.parametrize("phase", list(Phase))
def test_the_client_can_be_closed_in_every_phase_and_again(phase: Phase) -> None:
    bench = in_phase(phase)
    attached = phase in (Phase.OPEN, Phase.REGISTERING, Phase.PROVING, Phase.REGISTERED)
    bench.do(lambda m, now: m.close())
    bench.do(lambda m, now: m.close())
    assert bench.phase is Phase.ENDED
    assert [event for event in bench.events if isinstance(event, Closed)] == [Closed(bench.machine.error)]
    assert (bench.closed == (1000, "")) is attached
    assert bench.machine.next_deadline is None
    bench.say(type="presence", userId="bob", online=True)
    bench.lose(4500)
    bench.fail_to_connect()
    bench.pass_time(100.0)
    assert isinstance(bench.events[-1], Closed)
    assert bench.dials <= 1


@pytest.mark.parametrize("phase", list(Phase))
def test_every_call_of_the_transport_is_safe_in_every_phase(phase: Phase) -> None:
    calls: tuple[Callable[[Bench], object], ...] = (
        lambda b: b.say_text("{}"),
        lambda b: b.say(type="pong"),
        lambda b: b.do(lambda m, now: m.heard(now)),
        lambda b: b.do(lambda m, now: m.tick(now)),
        lambda b: b.fail_to_connect(),
        lambda b: b.lose(),
    )
    for call in calls:
        call(in_phase(phase))


def test_a_closed_client_says_so() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.do(lambda m, now: m.close())
    assert isinstance(bench.failures[number], ConnectionLost)
    with pytest.raises(StateError, match="closed"):
        bench.do(lambda m, now: m.discover("bob", now))


def test_a_connection_that_comes_after_the_end_is_closed() -> None:
    bench = Bench()
    bench.do(lambda m, now: m.close())
    bench.connect()
    assert bench.closed == (1000, "")


def test_the_table_of_phases_has_a_way_out_of_each_and_none_out_of_the_end() -> None:
    assert set(TABLE) == set(Phase)
    for phase, ways in TABLE.items():
        assert (Step.ENDED in ways) is (phase is not Phase.ENDED)
    reached = {phase for ways in TABLE.values() for phase in ways.values()}
    assert reached == set(Phase) - {Phase.IDLE}
