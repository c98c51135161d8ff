from __future__ import annotations

from typing import Any

import pytest

from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
    Discovery,
    IceServers,
    OfferReceived,
    PresenceChanged,
    WatchEnded,
)
from aldis.client.machine import ClientMachine
from aldis.client.phases import Phase
from aldis.client.requests import MOST_LOOKUPS
from aldis.errors import ConnectionLost, InvalidAddress, MessageTooLarge, RequestFailed, RequestTimeout, UsageError
from aldis.protocol import messages as m
from aldis.protocol.codec import raw, to_base64
from support.machine_bench import Bench, identity_of

KEY = identity_of("bob").public_key
PROOF = m.Proof("a", "b", "c")


def joined(**more: Any) -> Bench:
    bench = Bench(**more)
    bench.join()
    return bench


# --- replies --------------------------------------------------------------------------------------------------------


def test_of_more_devices_than_a_user_may_have_the_newest_are_told() -> None:
    bench = Bench()
    bench.join()
    bench.do(lambda m, now: m.watch(["bob"], now))
    devices = [{"device": f"d{number}"} for number in range(1000)]
    bench.say(type="presence", userId="bob", online=True, devices=devices)
    assert bench.closed is None
    event = bench.take_events()[-1]
    assert isinstance(event, PresenceChanged)
    assert event.devices == tuple(f"d{number}" for number in range(16))


def test_a_discovery_brings_key_and_devices() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    assert bench.take_one() == {"type": "discover", "userId": "bob", "id": number}
    devices = [{"device": "phone"}, {"device": "main"}]
    bench.say(type="discover-response", userId="bob", online=True, publicKey=to_base64(KEY), devices=devices, re=number)
    assert bench.results[number] == Discovery("bob", online=True, public_key=KEY, devices=("phone", "main"))


@pytest.mark.parametrize("key", ["any string", "", "AAAA", to_base64(KEY)[:-1]])
def test_what_a_classic_client_calls_its_key_is_no_key(key: str) -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.say(type="discover-response", userId="bob", online=True, publicKey=key, re=number)
    assert bench.results[number] == Discovery("bob", online=True, public_key=None, devices=())


def test_replies_find_their_requests_in_any_order() -> None:
    bench = joined()
    numbers = {name: bench.do(lambda m, now, name=name: m.discover(name, now)) for name in ("a", "b", "c")}
    for name in ("c", "a", "b"):
        bench.say(type="discover-response", userId=name, online=False, re=numbers[name])
        assert bench.results[numbers[name]].user_id == name  # type: ignore[union-attr]


def test_few_lookups_go_out_at_a_time_and_the_others_in_their_order() -> None:
    """A server keeps 256 requests while it looks a name up, and sends away for good who sends more."""
    bench = joined()
    numbers = [bench.do(lambda m, now, name=f"user{number}": m.discover(name, now)) for number in range(100)]
    bench.do(lambda m, now: m.watch(["bob"], now))
    sent = [message for message in bench.sent if message["type"] == "discover"]
    assert [message["userId"] for message in sent] == [f"user{number}" for number in range(MOST_LOOKUPS)]
    assert bench.sent[-1]["type"] == "watch"
    bench.say(type="discover-response", userId="user0", online=False, devices=[], re=numbers[0])
    assert bench.sent[-1]["userId"] == f"user{MOST_LOOKUPS}"
    bench.say(type="error", message="no", code="internal", re=numbers[1])
    assert bench.sent[-1]["userId"] == f"user{MOST_LOOKUPS + 1}"
    for count, number in enumerate(numbers[2:], 2):
        bench.say(type="discover-response", userId=f"user{count}", online=False, devices=[], re=number)
    assert [m["userId"] for m in bench.sent if m["type"] == "discover"] == [f"user{number}" for number in range(100)]


def test_ice_servers_come_with_their_time_to_live() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.ice_servers(now))
    assert bench.take_one() == {"type": "ice-servers", "id": number}
    server = {"urls": ["turn:turn.example"], "username": "u", "credential": "c"}
    bench.say(type="ice-servers", iceServers=[server], ttl=600, re=number)
    assert bench.results[number] == IceServers((m.IceServer(["turn:turn.example"], "u", "c"),), 600)


def test_a_ping_measures_the_round_trip_also_at_the_beginning_of_time() -> None:
    bench = joined()
    bench.now = 0.0
    number = bench.do(lambda m, now: m.ping(now))
    bench.now = 0.25
    bench.say(type="pong", re=number)
    assert bench.results[number] == 0.25


def test_a_ping_needs_no_registration() -> None:
    bench = Bench()
    bench.connect()
    number = bench.do(lambda m, now: m.ping(now))
    bench.say(type="pong", re=number)
    assert bench.results[number] == 0.0


def test_a_ping_between_connections_goes_out_with_the_next_one() -> None:
    bench = Bench()
    bench.connect()
    bench.lose()
    number = bench.do(lambda m, now: m.ping(now))
    bench.redial()
    assert bench.take() == [{"type": "ping", "id": number}]


def test_an_error_reply_carries_all_that_the_server_says() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.say(type="error", message="slow down", code="over-capacity", temporary=True, retryAfter=2.5, re=number)
    error = bench.failures[number]
    assert isinstance(error, RequestFailed)
    assert (error.code, error.message, error.temporary, error.retry_after) == ("over-capacity", "slow down", True, 2.5)


@pytest.mark.parametrize(
    ("code", "temporary"),
    [("timeout", True), ("internal", True), ("forbidden", False), ("a-code-of-tomorrow", False), (None, True)],
)
def test_a_server_that_does_not_say_whether_an_error_is_temporary_is_taken_by_its_code(
    code: str | None, temporary: bool
) -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.say(type="error", message="no", re=number, **({} if code is None else {"code": code}))
    error = bench.failures[number]
    assert isinstance(error, RequestFailed)
    assert error.temporary is temporary
    assert error.retry_after is None


def test_a_negative_retry_after_is_none_to_wait_for() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.say(type="error", message="no", code="internal", retryAfter=-5, re=number)
    assert bench.failures[number].retry_after == 0.0  # type: ignore[attr-defined]


# --- time-outs ------------------------------------------------------------------------------------------------------


def test_each_request_has_its_own_time_out_and_a_late_reply_is_passed_over() -> None:
    bench = joined(request_timeout=10.0)
    first = bench.do(lambda m, now: m.discover("bob", now))
    bench.pass_time(6.0)
    second = bench.do(lambda m, now: m.ice_servers(now))
    bench.pass_time(4.0)
    error = bench.failures[first]
    assert isinstance(error, RequestTimeout)
    assert (error.request, error.seconds) == ("discover", 10.0)
    assert second not in bench.failures
    bench.say(type="discover-response", userId="bob", online=False, re=first)
    assert bench.notes
    assert bench.phase is Phase.REGISTERED
    bench.pass_time(6.0)
    assert second in bench.failures


def relay_to_bob(machine: ClientMachine, now: float) -> int:
    return machine.relay(m.Bye("bob"), now)


def test_a_message_to_another_user_has_the_resume_window_of_the_server_on_top() -> None:
    bench = joined(request_timeout=10.0)
    relayed = bench.do(relay_to_bob)
    bench.pass_time(1.0)
    asked = bench.do(lambda m, now: m.discover("bob", now))
    bench.pass_time(10.0)
    assert list(bench.failures) == [asked]
    bench.pass_time(28.9)
    assert relayed not in bench.failures
    bench.pass_time(0.1)
    error = bench.failures[relayed]
    assert isinstance(error, RequestTimeout)
    assert (error.request, error.seconds) == ("bye", 40.0)


@pytest.mark.parametrize(("window", "seconds"), [(0.0, 10.0), (-5.0, 10.0), (1e9, 130.0)])
def test_a_server_that_says_that_it_keeps_messages_for_ever_is_not_waited_for_so_long(
    window: float, seconds: float
) -> None:
    bench = Bench(request_timeout=10.0)
    bench.join(limits={"maxMessageBytes": 65536, "maxWatches": 1, "resumeWindow": window})
    relayed = bench.do(relay_to_bob)
    bench.pass_time(seconds - 0.1)
    assert relayed not in bench.failures
    bench.pass_time(0.1)
    assert isinstance(bench.failures[relayed], RequestTimeout)


def test_while_we_are_not_registered_ourselves_it_waits_no_longer_than_others() -> None:
    bench = joined(request_timeout=10.0)
    bench.lose()
    relayed = bench.do(relay_to_bob)
    while bench.now < 1000.0 + 10.0:
        bench.pass_time(0.5)
        if bench.phase is Phase.DIALING:
            bench.fail_to_connect()
    assert isinstance(bench.failures[relayed], RequestTimeout)


def test_a_request_in_flight_fails_when_the_connection_is_lost() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.lose(1006, "the cable was cut")
    error = bench.failures[number]
    assert isinstance(error, ConnectionLost)
    assert error.temporary
    assert "the cable was cut" in str(error)


def test_a_request_made_while_reconnecting_waits_for_the_registration() -> None:
    bench = joined()
    bench.lose()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.redial()
    assert [message["type"] for message in bench.sent] == ["register"]
    bench.admit()
    assert bench.sent[-1] == {"type": "discover", "userId": "bob", "id": number}


def test_it_waits_over_several_attempts_but_not_beyond_its_time_out() -> None:
    bench = joined(request_timeout=10.0)
    bench.lose()
    number = bench.do(lambda m, now: m.discover("bob", now))
    for _ in range(3):
        bench.pass_time(3.0)
        if bench.phase is Phase.DIALING:
            bench.fail_to_connect()
    assert number not in bench.failures
    bench.pass_time(1.5)
    assert isinstance(bench.failures[number], RequestTimeout)


def test_a_reply_to_a_request_that_was_not_sent_yet_is_passed_over() -> None:
    bench = joined()
    bench.lose()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.redial()
    bench.say(type="discover-response", userId="bob", online=False, re=number)
    bench.say(type="error", message="no", code="forbidden", re=number)
    assert number not in bench.results
    assert number not in bench.failures


# --- relaying -------------------------------------------------------------------------------------------------------


def test_a_relayed_message_is_completed_by_its_ack() -> None:
    bench = joined()
    offer = m.Offer("bob/phone", raw(m.Description("offer", "v=0")), connection="c1", proof=raw(PROOF))
    number = bench.do(lambda m, now: m.relay(offer, now))
    assert bench.take_one() == {
        "type": "offer",
        "to": "bob/phone",
        "offer": {"type": "offer", "sdp": "v=0"},
        "connection": "c1",
        "proof": {"publicKey": "a", "nonce": "b", "signature": "c"},
        "id": number,
    }
    bench.say(type="ack", re=number)
    assert bench.results[number] is None


def test_a_relayed_message_to_somebody_who_is_away_fails() -> None:
    bench = joined()
    number = bench.do(lambda machine, now: machine.relay(m.Bye("bob"), now))
    bench.say(type="error", message="User bob is not online", code="not-online", temporary=False, re=number)
    assert bench.failures[number].code == "not-online"  # type: ignore[attr-defined]


@pytest.mark.parametrize("to", ["", "a b", "/phone", "bob/", "bob/a b", "bob/x/y"])
def test_an_address_that_cannot_be_is_refused_at_once(to: str) -> None:
    bench = joined()
    with pytest.raises(InvalidAddress):
        bench.do(lambda machine, now: machine.relay(m.Bye(to), now))
    assert bench.take() == []


def test_a_message_that_the_server_would_not_take_is_refused_at_once() -> None:
    bench = joined()
    big = m.Offer("bob", raw(m.Description("offer", "x" * 70_000)))
    with pytest.raises(MessageTooLarge) as caught:
        bench.do(lambda m, now: m.relay(big, now))
    assert caught.value.limit == 65536
    assert caught.value.size > 70_000
    assert bench.take() == []
    assert bench.machine.next_deadline == bench.now + 25.0  # no request was left behind


def test_the_servers_own_limit_counts() -> None:
    bench = Bench()
    bench.join(limits={"maxMessageBytes": 1000, "maxWatches": 10, "resumeWindow": 30.0})
    with pytest.raises(MessageTooLarge):
        bench.do(lambda machine, now: machine.relay(m.Bye("bob", reason="x" * 1000), now))


def test_text_that_is_no_unicode_is_refused_at_once() -> None:
    bench = joined()
    with pytest.raises(UsageError):
        bench.do(lambda machine, now: machine.relay(m.Bye("bob", reason="\ud800"), now))


# --- what comes from others -----------------------------------------------------------------------------------------


def test_an_offer_arrives_with_its_proof_and_capabilities() -> None:
    bench = joined()
    bench.say(
        type="offer",
        to="alice",
        offer={"type": "offer", "sdp": "v=0"},
        connection="c1",
        proof={"publicKey": "a", "nonce": "b", "signature": "c"},
        capabilities={"trickle": False},
        **{"from": "bob/phone"},
    )
    description = m.Description("offer", "v=0")
    assert bench.take_events() == [
        OfferReceived("bob/phone", description, "c1", PROOF, m.Capabilities(trickle=False, restart=True))
    ]


def test_an_answer_a_candidate_the_end_of_candidates_and_a_bye_arrive() -> None:
    bench = joined()
    bench.say(type="answer", to="alice", answer={"type": "answer", "sdp": "v=0"}, **{"from": "bob"})
    bench.say(
        type="ice-candidate",
        to="alice",
        candidate={"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0},
        connection="c1",
        **{"from": "bob"},
    )
    bench.say(type="ice-candidate", to="alice", candidate=None, **{"from": "bob"})
    bench.say(type="bye", to="alice", reason="enough", **{"from": "bob"})
    assert bench.take_events() == [
        AnswerReceived("bob", m.Description("answer", "v=0"), None, None, m.Capabilities()),
        CandidateReceived("bob", m.Candidate("candidate:1", "0", 0), "c1"),
        CandidateReceived("bob", None, None),
        ByeReceived("bob", None, "enough"),
    ]


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("\x1b[2J\u202egnihsihp\n" * 200, ("[2Jgnihsihp" * 200)[:200]),
        ("\u200b\r\n", None),
        ("", None),
    ],
)
def test_the_reason_of_a_bye_is_a_line_for_people(reason: str, line: str | None) -> None:
    bench = joined()
    bench.say(type="bye", to="alice", reason=reason, **{"from": "bob"})
    assert bench.take_events() == [ByeReceived("bob", None, line)]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "offer", "offer": {"type": "offer"}},
        {"type": "offer", "offer": {"type": "answer", "sdp": "v=0"}},
        {"type": "offer", "offer": "v=0"},
        {"type": "offer", "offer": {"type": "offer", "sdp": 7}},
        {"type": "offer", "offer": {"type": "offer", "sdp": "v=0"}, "proof": None},
        {"type": "offer", "offer": {"type": "offer", "sdp": "v=0"}, "proof": {"publicKey": "a"}},
        {"type": "answer", "answer": {"type": "rollback", "sdp": ""}},
        {"type": "ice-candidate", "candidate": {"candidate": 5}},
        {"type": "ice-candidate", "candidate": [[[]]]},
    ],
)
def test_what_a_peer_has_garbled_is_dropped_and_counted_and_the_connection_stays(message: dict[str, Any]) -> None:
    bench = joined()
    bench.say(to="alice", **{"from": "mallory"}, **message)
    assert bench.take_events() == []
    assert "mallory" in bench.notes[-1]
    assert bench.phase is Phase.REGISTERED
    bench.pass_time(5.0)
    assert bench.take() == [{"type": "received", "count": 1}]


def test_a_sealed_message_is_counted_though_this_version_does_not_use_it() -> None:
    bench = joined()
    bench.say(type="relay", to="alice", sealed="xyz", **{"from": "bob"})
    assert bench.take_events() == []
    bench.pass_time(5.0)
    assert bench.take() == [{"type": "received", "count": 1}]


# --- presence -------------------------------------------------------------------------------------------------------


def test_a_watch_brings_presence_now_and_later_and_ends() -> None:
    bench = joined()
    (number,) = bench.do(lambda m, now: m.watch(["bob", "carol", "bob"], now))
    assert bench.take_one() == {"type": "watch", "userIds": ["bob", "carol"], "id": number}
    bench.say(type="presence", userId="bob", online=False)
    bench.say(type="presence", userId="carol", online=True, publicKey=to_base64(KEY), devices=[{"device": "x"}])
    bench.say(type="ack", re=number)
    assert number in bench.results
    bench.say(type="presence", userId="bob", online=True)
    assert bench.take_events() == [
        PresenceChanged("bob", online=False, public_key=None, devices=(), initial=True),
        PresenceChanged("carol", online=True, public_key=KEY, devices=("x",), initial=True),
        PresenceChanged("bob", online=True, public_key=None, devices=()),
    ]
    (number,) = bench.do(lambda m, now: m.unwatch(["bob", "nobody"], now))
    bench.say(type="presence", userId="bob", online=False)  # was on its way
    bench.say(type="ack", re=number)
    assert bench.take_events() == []


def test_watching_nobody_asks_nothing() -> None:
    bench = joined()
    assert bench.do(lambda m, now: m.watch([], now)) == []
    assert bench.take() == []


def test_many_watches_go_out_in_messages_that_the_server_takes() -> None:
    bench = joined()
    names = [f"user-{n}" for n in range(2500)]
    numbers = bench.do(lambda m, now: m.watch(names, now))
    sent = bench.take()
    assert [len(message["userIds"]) for message in sent] == [1000, 1000, 500]
    assert [name for message in sent for name in message["userIds"]] == names
    assert [message["id"] for message in sent] == numbers


def test_long_names_are_split_by_their_bytes() -> None:
    bench = joined()
    names = [f"{n:03}" + "\U0001f600" * 120 for n in range(300)]
    bench.do(lambda m, now: m.watch(names, now))
    assert sum(len(message["userIds"]) for message in bench.take()) == 300


def test_a_watch_that_was_refused_is_not_restored_but_those_before_it_are() -> None:
    bench = joined()
    bench.do(lambda m, now: m.watch(["bob"], now))
    (number,) = bench.do(lambda m, now: m.watch(["bob", "carol"], now))
    bench.say(type="error", message="too many", code="too-large", re=number)
    assert isinstance(bench.failures[number], RequestFailed)
    bench.say(type="ack", re=number - 1)
    bench.forget()
    bench.reconnect(session="s2")
    assert [message["userIds"] for message in bench.take() if message["type"] == "watch"] == [["bob"]]


def test_watches_are_restored_when_the_session_is_not_resumed() -> None:
    bench = joined()
    (number,) = bench.do(lambda m, now: m.watch(["bob", "carol"], now))
    bench.say(type="ack", re=number)
    (number,) = bench.do(lambda m, now: m.unwatch(["carol"], now))
    bench.say(type="ack", re=number)
    bench.forget()
    bench.reconnect(session="s2")
    watch = bench.sent[-1]
    assert watch["userIds"] == ["bob"]
    bench.say(type="presence", userId="bob", online=True)
    assert isinstance(bench.events[-1], PresenceChanged)
    bench.say(type="ack", re=watch["id"])
    assert bench.phase is Phase.REGISTERED


def test_a_restored_watch_that_the_server_refuses_is_told_and_not_asked_for_again() -> None:
    bench = joined()
    (number,) = bench.do(lambda m, now: m.watch(["bob", "carol"], now))
    bench.say(type="ack", re=number)
    bench.reconnect(session="s2")
    bench.take_events()
    bench.say(type="error", message="too many", code="too-large", re=bench.sent[-1]["id"])
    (ended,) = bench.take_events()
    assert isinstance(ended, WatchEnded)
    assert ended.user_ids == ("bob", "carol")
    assert isinstance(ended.error, RequestFailed)
    assert ended.error.code == "too-large"
    assert bench.failures == {}  # nobody is told of a request that they did not make
    bench.say(type="presence", userId="bob", online=True)
    assert bench.take_events() == []
    bench.forget()
    bench.reconnect(session="s3")
    assert [message["type"] for message in bench.take()] == ["register", "prove"]


ENDED = {"message": "too many watchers", "code": "over-capacity", "temporary": True, "retryAfter": 60}


def test_a_watch_that_the_server_ends_is_told_and_not_asked_for_again() -> None:
    bench = joined()
    (number,) = bench.do(lambda m, now: m.watch(["bob", "carol"], now))
    bench.say(type="ack", re=number)
    bench.take_events()
    bench.say(type="presence", userId="bob", online=True, ended=ENDED)
    (ended,) = bench.take_events()
    assert isinstance(ended, WatchEnded)
    assert isinstance(ended.error, RequestFailed)
    assert (ended.user_ids, ended.error.code, ended.error.retry_after) == (("bob",), "over-capacity", 60)
    bench.say(type="presence", userId="bob", online=False)
    bench.say(type="presence", userId="bob", online=False, ended=ENDED)
    assert bench.take_events() == []
    bench.reconnect(session="s2")
    assert bench.sent[-1]["userIds"] == ["carol"]


@pytest.mark.parametrize("answer", ["ack", "error", "unwatch"])
def test_a_watch_that_the_server_ends_while_it_is_asked_for_again(answer: str) -> None:
    bench = joined()
    (number,) = bench.do(lambda m, now: m.watch(["bob", "carol"], now))
    for name in ("bob", "carol"):
        bench.say(type="presence", userId=name, online=False)
    bench.say(type="ack", re=number)
    (again,) = bench.do(lambda m, now: m.watch(["bob"], now))
    if answer == "unwatch":
        bench.do(lambda m, now: m.unwatch(["bob"], now))
    bench.take_events()
    bench.say(type="presence", userId="bob", online=True, ended=ENDED)
    assert bench.take_events() == []
    if answer == "error":
        bench.say(type="error", message="too many", code="over-capacity", re=again)
    else:
        bench.say(type="presence", userId="bob", online=True)
        bench.say(type="ack", re=again)
    bench.take_events()
    bench.say(type="presence", userId="bob", online=False)
    assert len(bench.take_events()) == (answer == "ack")
    bench.reconnect(session="s2")
    assert bench.sent[-1]["userIds"] == (["carol", "bob"] if answer == "ack" else ["carol"])


def test_a_restored_watch_whose_connection_is_lost_is_restored_with_the_next() -> None:
    bench = joined()
    (number,) = bench.do(lambda m, now: m.watch(["bob"], now))
    bench.say(type="ack", re=number)
    bench.reconnect(session="s2")
    bench.reconnect(session="s3")
    assert bench.sent[-1]["userIds"] == ["bob"]
    assert not any(isinstance(event, WatchEnded) for event in bench.events)


def test_watches_are_not_sent_again_when_the_session_goes_on() -> None:
    bench = joined()
    (number,) = bench.do(lambda m, now: m.watch(["bob"], now))
    bench.say(type="ack", re=number)
    bench.forget()
    bench.reconnect(resumed=True)
    assert [message["type"] for message in bench.take()] == ["register", "prove"]
    bench.say(type="presence", userId="bob", online=True)
    assert isinstance(bench.events[-1], PresenceChanged)


def test_a_watch_made_while_away_is_made_once() -> None:
    bench = joined()
    bench.lose()
    bench.do(lambda m, now: m.watch(["bob"], now))
    bench.redial()
    bench.admit(session="s2")
    assert [message["userIds"] for message in bench.take() if message["type"] == "watch"] == [["bob"]]
