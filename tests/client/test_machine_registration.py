from __future__ import annotations

from typing import Any

import pytest

from aldis.client.backoff import Backoff
from aldis.client.events import Closed, Connected, Disconnected, Registered, Registration, SignalingState
from aldis.client.phases import Phase
from aldis.errors import ConnectionLost, InvalidAddress, RequestFailed, RequestTimeout, StateError
from aldis.identity import proofs
from aldis.identity.keys import verify
from aldis.protocol.codec import from_base64, to_base64
from support.machine_bench import HOST, LIMITS, NONCE, Bench, identity_of


def test_the_proof_is_made_for_this_host_nonce_name_and_device() -> None:
    bench = Bench("alice", device="phone")
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    assert bench.take_one() == {
        "type": "register",
        "userId": "alice",
        "publicKey": to_base64(bench.identity.public_key),
        "device": "phone",
        "id": number,
    }
    bench.say(type="challenge", nonce=to_base64(NONCE), re=number)
    prove = bench.take_one()
    assert (prove["type"], prove["id"]) == ("prove", number)
    text = proofs.registration(HOST, NONCE, "alice", "phone")
    assert verify(bench.identity.public_key, from_base64(prove["signature"]), text)


def test_the_registration_tells_session_and_limits() -> None:
    bench = Bench()
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    assert bench.machine.state is SignalingState.CONNECTING
    bench.admit(session="s7")
    result = bench.results[number]
    assert isinstance(result, Registration)
    assert (result.session, result.resumed) == ("s7", False)
    assert result.limits is not None
    assert result.limits.max_watches == 10000
    assert bench.events == [Connected(1), Registered(resumed=False, limits=LIMITS)]
    assert bench.machine.state is SignalingState.CONNECTED
    assert bench.machine.identity is bench.identity


def test_a_token_is_shown_when_there_is_one() -> None:
    bench = Bench(token="let me in")
    bench.connect()
    bench.do(lambda m, now: m.register(bench.identity, now))
    assert bench.take_one()["token"] == "let me in"


def test_replies_without_a_number_are_taken_during_the_registration() -> None:
    bench = Bench()
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    bench.say(type="challenge", nonce=to_base64(NONCE))
    bench.say(type="registered", success=True, userId="alice")
    assert bench.results[number] == Registration("", resumed=False, limits=None)


@pytest.mark.parametrize("code", ["key-mismatch", "unauthorized", "bad-signature", "over-capacity"])
def test_a_refused_registration_fails_with_the_servers_code_and_can_be_tried_again(code: str) -> None:
    bench = Bench()
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    bench.say(type="challenge", nonce=to_base64(NONCE), re=number)
    bench.say(type="error", message="no", code=code, temporary=code == "over-capacity", retryAfter=3.5, re=number)
    error = bench.failures[number]
    assert isinstance(error, RequestFailed)
    assert (error.code, error.temporary, error.retry_after) == (code, code == "over-capacity", 3.5)
    assert bench.phase is Phase.OPEN
    assert bench.closed is None
    again = bench.do(lambda m, now: m.register(bench.identity, now))
    bench.admit()
    assert again in bench.results


def test_a_refusal_before_the_challenge_is_a_refusal_too() -> None:
    bench = Bench()
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    bench.say(type="error", message="no", code="unauthorized", re=number)
    assert number in bench.failures
    assert bench.phase is Phase.OPEN


def test_a_name_that_is_refused_in_the_classic_way_is_a_key_mismatch() -> None:
    bench = Bench()
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    bench.say(type="challenge", nonce=to_base64(NONCE), re=number)
    bench.say(type="registered", success=False, userId="alice")
    error = bench.failures[number]
    assert isinstance(error, RequestFailed)
    assert error.code == "key-mismatch"


def test_what_was_held_for_a_registration_that_is_refused_fails_with_it() -> None:
    bench = Bench()
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    held = bench.do(lambda m, now: m.discover("bob", now))
    bench.say(type="error", message="no", code="key-mismatch", re=number)
    assert bench.failures[held] is bench.failures[number]
    assert [message["type"] for message in bench.take()] == ["register"]


def test_what_is_asked_during_the_registration_is_sent_after_it() -> None:
    bench = Bench()
    bench.connect()
    bench.do(lambda m, now: m.register(bench.identity, now))
    first = bench.do(lambda m, now: m.discover("bob", now))
    second = bench.do(lambda m, now: m.ice_servers(now))
    bench.admit()
    assert [message["id"] for message in bench.take()[2:]] == [first, second]


def test_a_registration_without_an_answer_times_out_and_the_connection_is_given_up() -> None:
    bench = Bench(request_timeout=4.0)
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    held = bench.do(lambda m, now: m.ice_servers(now))
    bench.pass_time(3.9)
    assert number not in bench.failures
    bench.pass_time(0.2)
    assert isinstance(bench.failures[number], RequestTimeout)
    assert isinstance(bench.failures[held], RequestTimeout)
    assert bench.closed is not None
    assert bench.closed[0] == 4004
    bench.lose()
    bench.redial()
    assert bench.phase is Phase.OPEN  # nobody is registered: the application was told, and decides
    assert bench.take() == [
        {
            "type": "register",
            "userId": "alice",
            "publicKey": to_base64(bench.identity.public_key),
            "device": "main",
            "id": 1,
        }
    ]


def test_a_connection_that_is_lost_during_the_registration_fails_it() -> None:
    bench = Bench()
    bench.connect()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    held = bench.do(lambda m, now: m.discover("bob", now))
    pinged = bench.do(lambda m, now: m.ping(now))
    bench.lose()
    assert isinstance(bench.failures[number], ConnectionLost)
    assert isinstance(bench.failures[held], ConnectionLost)
    assert isinstance(bench.failures[pinged], ConnectionLost)
    bench.redial()
    assert bench.phase is Phase.OPEN
    bench.do(lambda m, now: m.register(bench.identity, now))
    bench.admit()
    assert bench.phase is Phase.REGISTERED


def test_a_registration_that_is_asked_for_between_connections_is_made_on_the_next() -> None:
    bench = Bench()
    bench.connect()
    bench.lose()
    number = bench.do(lambda m, now: m.register(bench.identity, now))
    held = bench.do(lambda m, now: m.discover("bob", now))
    assert bench.sent == []
    bench.redial()
    bench.admit()
    assert number in bench.results
    assert bench.sent[-1]["id"] == held


def test_one_registration_at_a_time() -> None:
    bench = Bench()
    bench.connect()
    bench.do(lambda m, now: m.register(bench.identity, now))
    with pytest.raises(StateError, match="already registered"):
        bench.do(lambda m, now: m.register(bench.identity, now))
    bench.admit()
    with pytest.raises(StateError, match="already registered"):
        bench.do(lambda m, now: m.register(bench.identity, now))


def test_nothing_works_before_the_first_connection() -> None:
    bench = Bench()
    for command in _commands():
        with pytest.raises(StateError, match=r"connect\(\)"):
            bench.do(command)
    assert bench.machine.next_deadline is None


def test_most_things_do_not_work_before_the_registration() -> None:
    bench = Bench()
    bench.connect()
    for command in _commands()[2:]:
        with pytest.raises(StateError, match=r"register\(\)"):
            bench.do(command)


def _commands() -> list[Any]:
    return [
        lambda m, now: m.ping(now),
        lambda m, now: m.register(identity_of("alice"), now),
        lambda m, now: m.discover("bob", now),
        lambda m, now: m.watch(["bob"], now),
        lambda m, now: m.unwatch(["bob"], now),
        lambda m, now: m.ice_servers(now),
        lambda m, now: m.rotate(identity_of("new"), now),
        lambda m, now: m.unregister(now),
    ]


@pytest.mark.parametrize("user_id", ["", "a b", "a/b", "x" * 129, "\x00"])
def test_a_name_that_cannot_be_registered_is_refused_at_once(user_id: str) -> None:
    with pytest.raises(InvalidAddress):
        Bench(user_id or "")
    bench = Bench()
    bench.join()
    with pytest.raises(InvalidAddress):
        bench.do(lambda m, now: m.discover(user_id, now))
    with pytest.raises(InvalidAddress):
        bench.do(lambda m, now: m.watch(["bob", user_id], now))
    assert bench.take() == []


def test_a_device_name_is_checked_too() -> None:
    with pytest.raises(InvalidAddress):
        Bench(device="a phone")


# --- leaving and coming again ---------------------------------------------------------------------------------------


def test_unregistering_gives_the_name_up_and_keeps_the_connection() -> None:
    bench = Bench()
    bench.join()
    bench.do(lambda m, now: m.watch(["bob"], now))
    number = bench.do(lambda m, now: m.unregister(now))
    bench.say(type="unregistered", re=number)
    assert number in bench.results
    assert bench.phase is Phase.OPEN
    assert bench.machine.identity is None
    assert bench.machine.state is SignalingState.CONNECTING
    with pytest.raises(StateError):
        bench.do(lambda m, now: m.discover("bob", now))
    bench.lose()
    bench.forget()
    bench.redial()
    assert bench.take() == []  # neither the name nor the watch comes back by itself


def test_a_new_registration_on_the_same_connection_has_a_new_numbering() -> None:
    bench = Bench()
    bench.join()
    bench.do(lambda m, now: m.watch(["bob"], now))
    bench.say(type="presence", userId="bob", online=True)
    number = bench.do(lambda m, now: m.unregister(now))
    bench.say(type="unregistered", re=number)
    bench.forget()
    bench.do(lambda m, now: m.register(bench.identity, now))
    assert "resume" not in bench.sent[-1]
    bench.admit(session="s2")
    bench.forget()
    bench.say(type="bye", to="alice", **{"from": "bob"})
    bench.pass_time(5.0)
    assert bench.take() == [{"type": "received", "count": 1}]


def test_a_second_unregister_that_crosses_the_first_does_no_harm() -> None:
    bench = Bench()
    bench.join()
    first = bench.do(lambda m, now: m.unregister(now))
    second = bench.do(lambda m, now: m.unregister(now))
    bench.say(type="unregistered", re=first)
    bench.say(type="unregistered", re=second)
    assert {first, second} <= set(bench.results)
    assert bench.phase is Phase.OPEN


# --- rotation -------------------------------------------------------------------------------------------------------


def test_a_rotation_is_signed_with_the_old_key_and_the_new_one_is_used_from_then_on() -> None:
    bench = Bench()
    bench.join()
    new = identity_of("new")
    number = bench.do(lambda m, now: m.rotate(new, now))
    rotate = bench.take_one()
    assert rotate["newPublicKey"] == to_base64(new.public_key)
    text = proofs.rotation("alice", new.public_key)
    assert verify(bench.identity.public_key, from_base64(rotate["signature"]), text)
    bench.say(type="rotated", publicKey=to_base64(new.public_key), re=number)
    assert number in bench.results
    assert bench.machine.identity is new
    bench.lose()
    bench.redial()
    assert bench.take_one()["publicKey"] == to_base64(new.public_key)


def test_a_refused_rotation_leaves_the_old_key() -> None:
    bench = Bench()
    bench.join()
    number = bench.do(lambda m, now: m.rotate(identity_of("new"), now))
    bench.say(type="error", message="no", code="key-mismatch", re=number)
    assert number in bench.failures
    bench.lose()
    bench.redial()
    refused = bench.sent[-1]["id"]
    bench.say(type="error", message="no", code="key-mismatch", re=refused)
    assert bench.phase is Phase.ENDED  # there is no other key to try


def test_a_rotation_of_unknown_outcome_is_found_out_at_the_next_registration() -> None:
    bench = Bench()
    bench.join()
    new = identity_of("new")
    number = bench.do(lambda m, now: m.rotate(new, now))
    bench.lose()
    assert isinstance(bench.failures[number], ConnectionLost)
    bench.redial()
    first = bench.sent[-1]
    assert first["publicKey"] == to_base64(bench.identity.public_key)
    bench.say(type="challenge", nonce=to_base64(NONCE), re=first["id"])
    bench.say(type="error", message="the name belongs to another key", code="key-mismatch", re=first["id"])
    assert bench.sent[-1]["publicKey"] == to_base64(new.public_key)
    bench.admit()
    assert bench.machine.identity is new
    assert bench.phase is Phase.REGISTERED


def test_a_rotation_that_failed_for_now_may_have_taken_place() -> None:
    bench = Bench()
    bench.join()
    new = identity_of("new")
    number = bench.do(lambda m, now: m.rotate(new, now))
    bench.say(type="error", message="the server cannot look up names now", code="internal", re=number)
    bench.lose()
    bench.redial()
    bench.say(type="error", message="the name belongs to another key", code="key-mismatch", re=bench.sent[-1]["id"])
    assert bench.sent[-1]["publicKey"] == to_base64(new.public_key)
    bench.admit()
    assert bench.machine.identity is new


def test_a_rotation_that_never_took_place_leaves_the_old_key_for_good() -> None:
    bench = Bench()
    bench.join()
    bench.do(lambda m, now: m.rotate(identity_of("new"), now))
    bench.reconnect()
    assert bench.machine.identity is bench.identity
    bench.lose()
    bench.redial()
    bench.say(type="error", message="no", code="key-mismatch", re=bench.sent[-1]["id"])
    assert bench.phase is Phase.ENDED


def test_rotating_before_the_first_registration_is_done_makes_no_sense() -> None:
    bench = Bench()
    bench.connect()
    bench.do(lambda m, now: m.register(bench.identity, now))
    with pytest.raises(StateError):
        bench.do(lambda m, now: m.rotate(identity_of("new"), now))


# --- registering again by itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["key-mismatch", "unauthorized", "bad-signature", "forbidden", "invalid-field"])
def test_a_final_refusal_after_a_reconnection_ends_the_client_with_the_servers_error(code: str) -> None:
    bench = Bench()
    bench.join()
    bench.lose()
    held = bench.do(lambda m, now: m.discover("bob", now))
    bench.redial()
    bench.say(type="error", message="no", code=code, re=bench.sent[-1]["id"])
    assert bench.phase is Phase.ENDED
    assert bench.closed == (1000, "")
    error = bench.machine.error
    assert isinstance(error, RequestFailed)
    assert error.code == code
    assert bench.failures[held] is error
    assert bench.events[-1] == Closed(error)
    with pytest.raises(RequestFailed) as caught:
        bench.do(lambda m, now: m.ping(now))
    assert caught.value is error
    bench.lose(1000)
    assert bench.events[-1] == Closed(error)
    assert bench.machine.next_deadline is None


def test_a_temporary_refusal_after_a_reconnection_is_tried_again_when_the_server_says() -> None:
    bench = Bench(backoff=Backoff(first=1.0))
    bench.join()
    bench.lose()
    bench.redial()
    bench.say(
        type="error", message="full", code="over-capacity", temporary=True, retryAfter=17.0, re=bench.sent[-1]["id"]
    )
    assert bench.closed is not None
    assert bench.closed[0] == 4000
    bench.lose(1006)
    gone = bench.events[-1]
    assert isinstance(gone, Disconnected)
    assert gone.retry_in == 17.0 + 2.0
    assert "full" in gone.reason
    bench.redial()
    bench.admit()
    assert bench.phase is Phase.REGISTERED


def test_a_registration_after_a_reconnection_that_gets_no_answer_is_given_up_and_tried_again() -> None:
    bench = Bench(request_timeout=5.0)
    bench.join()
    bench.lose()
    bench.redial()
    bench.pass_time(5.0)
    assert bench.closed is not None
    assert bench.closed[0] == 4004
    assert bench.failures == {}  # nobody had asked for it
    bench.lose()
    bench.redial()
    bench.admit()
    assert bench.phase is Phase.REGISTERED
