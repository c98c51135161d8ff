"""A server that means harm, or is only broken: the client may leave it, and must not crash, hang or believe it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aldis.client.events import Disconnected
from aldis.client.phases import Phase
from aldis.errors import ConnectionClosed, ConnectionLost
from aldis.protocol.codec import to_base64
from support.machine_bench import NONCE, Bench, identity_of

pytestmark = pytest.mark.usefixtures("no_collection")


def joined() -> Bench:
    bench = Bench()
    bench.join()
    return bench


def left(bench: Bench) -> None:
    """The machine has closed the connection as broken, and comes back as after a lost one."""
    assert bench.closed is not None
    assert bench.closed[0] == 4000
    assert bench.phase is Phase.CLOSING
    bench.lose(4000, "")  # the server answers the CLOSE frame with the same code, which is no verdict of its own
    gone = bench.events[-1]
    assert isinstance(gone, Disconnected)
    assert gone.retry_in is not None
    assert "broke the protocol" in gone.reason
    bench.redial()
    bench.admit()
    assert bench.phase is Phase.REGISTERED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "7",
        '"presence"',
        "{",
        "{}",
        '{"type":7}',
        '{"type":null}',
        '{"type":"presence"}',
        '{"type":"presence","userId":7,"online":true}',
        '{"type":"presence","userId":"bob","online":"yes"}',
        '{"type":"ack"}',
        '{"type":"ack","re":true}',
        '{"type":"ack","re":1.5}',
        '{"type":"ack","re":1e400}',
        '{"type":"ack","re":99999999999999999999}',
        '{"type":"error"}',
        '{"type":"error","message":{}}',
        '{"type":"error","message":"no","retryAfter":1e400}',
        '{"type":"challenge"}',
        '{"type":"challenge","nonce":7}',
        '{"type":"registered"}',
        '{"type":"going-away"}',
        '{"type":"going-away","reconnectIn":"soon"}',
        '{"type":"ice-servers","iceServers":{},"ttl":1}',
        '{"type":"offer","to":"alice","offer":{}}',
        '{"type":"offer","to":"alice","from":"","offer":{}}',
        '{"type":"offer","to":"alice","from":"a b","offer":{}}',
        '{"type":"offer","to":"alice","from":"a/b/c","offer":{}}',
        '{"type":"bye","to":"alice","from":7}',
        '{"type":"\\ud800"}',
        "[" * 100_000,
        '{"type":"pong","x":' + "[" * 50_000 + "]" * 50_000 + "}",
        "\x00",
        "\ufeff{}",
    ],
)
def test_a_frame_that_may_not_be_ends_the_connection_cleanly(text: str) -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.say_text(text)
    left(bench)
    assert isinstance(bench.failures[number], ConnectionLost)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "a message of tomorrow", "x": [1, 2, 3]},
        {"type": "ack", "re": "nobody's"},
        {"type": "ack", "re": 999},
        {"type": "pong"},
        {"type": "pong", "re": -1},
        {"type": "discover-response", "userId": "bob", "online": True},
        {"type": "discover-response", "userId": "bob", "online": True, "re": 999},
        {"type": "unregistered"},
        {"type": "rotated", "publicKey": "x"},
        {"type": "error", "message": "something happened"},
        {"type": "error", "message": "no", "code": "internal", "re": "x" * 64},
        {"type": "challenge", "nonce": to_base64(NONCE)},
        {"type": "registered", "success": True, "userId": "alice"},
        {"type": "registered", "success": False, "userId": "alice"},
        {"type": "registered", "success": True, "userId": "mallory", "resumed": True},
        {"type": "presence", "userId": "nobody we watch", "online": True},
    ],
)
def test_what_was_not_asked_for_is_passed_over(message: dict[str, Any]) -> None:
    bench = joined()
    bench.say(**message)
    assert bench.phase is Phase.REGISTERED
    assert bench.closed is None
    assert bench.take_events() == []
    assert bench.take() == []


@pytest.mark.parametrize("length", [128, 129])
def test_a_peer_whose_connection_has_too_long_a_name_is_passed_over(length: int) -> None:
    bench = joined()
    for message in (
        {"type": "ice-candidate", "candidate": None},
        {"type": "bye"},
        {"type": "offer", "offer": {"type": "offer", "sdp": ""}},
        {"type": "answer", "answer": {"type": "answer", "sdp": ""}},
    ):
        bench.say(**message, to="alice", **{"from": "bob"}, connection="c" * length)
        assert len(bench.take_events()) == (1 if length == 128 else 0)
    assert bench.closed is None


@pytest.mark.parametrize("kind", ["offer", "answer", "ice-candidate"])
def test_a_peer_that_nests_deeper_than_we_can_read_costs_no_connection_and_is_counted(kind: str) -> None:
    bench = joined()
    field = "candidate" if kind == "ice-candidate" else kind
    deep = '{"a":' + "[" * 50_000 + "]" * 50_000 + "}"
    bench.say_text(f'{{"type":"{kind}","to":"alice","{field}":{deep},"from":"bob"}}')
    assert bench.phase is Phase.REGISTERED
    assert bench.closed is None
    assert bench.take() == [{"type": "received", "count": 1}]


def test_presence_before_the_registration_is_not_counted() -> None:
    bench = Bench()
    bench.connect()
    bench.say(type="presence", userId="bob", online=True)
    assert bench.take_events()[1:] == []
    bench.do(lambda m, now: m.register(bench.identity, now))
    bench.admit()
    bench.forget()
    bench.pass_time(5.0)
    assert bench.take() == []


# --- the handshake --------------------------------------------------------------------------------------------------


def registering() -> tuple[Bench, int]:
    bench = Bench()
    bench.connect()
    return bench, bench.do(lambda m, now: m.register(bench.identity, now))


@pytest.mark.parametrize(
    "nonce",
    ["", "AAAA", to_base64(bytes(31)), to_base64(bytes(33)), to_base64(bytes(40_000)), "!" * 44, "é" * 44],
)
def test_nothing_but_32_bytes_is_signed(nonce: str) -> None:
    bench, number = registering()
    bench.say(type="challenge", nonce=nonce, re=number)
    assert [message["type"] for message in bench.sent] == ["register"]
    assert bench.closed is not None
    bench.lose()
    assert isinstance(bench.failures[number], ConnectionLost)


def test_one_registration_signs_one_nonce() -> None:
    bench, number = registering()
    for _ in range(5):
        bench.say(type="challenge", nonce=to_base64(NONCE), re=number)
    assert [message["type"] for message in bench.sent] == ["register", "prove"]


def test_a_challenge_for_another_request_is_not_signed() -> None:
    bench, _ = registering()
    bench.say(type="challenge", nonce=to_base64(NONCE), re="another")
    assert [message["type"] for message in bench.sent] == ["register"]


@pytest.mark.parametrize(
    "reply", [{"type": "ack"}, {"type": "pong"}, {"type": "rotated", "publicKey": "x"}, {"type": "unregistered"}]
)
def test_no_other_reply_ends_a_registration(reply: dict[str, Any]) -> None:
    bench, number = registering()
    bench.say(re=number, **reply)
    assert number not in bench.results
    assert bench.closed is not None
    bench.lose()
    assert isinstance(bench.failures[number], ConnectionLost)


@pytest.mark.parametrize(
    "registered",
    [
        {"userId": "mallory"},
        {"userId": "alice", "device": "phone"},
        {"userId": "alice", "resumed": True},
    ],
)
def test_a_registration_as_something_else_is_not_believed(registered: dict[str, Any]) -> None:
    bench, number = registering()
    bench.say(type="challenge", nonce=to_base64(NONCE), re=number)
    bench.say(type="registered", success=True, re=number, **registered)
    assert bench.closed is not None
    assert number not in bench.results


def test_a_registration_without_a_proof_is_not_believed() -> None:
    bench, number = registering()
    bench.say(type="registered", success=True, userId="alice", re=number)
    assert bench.closed is not None
    assert number not in bench.results


def test_the_same_reply_counts_once() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    for _ in range(3):
        bench.say(type="discover-response", userId="bob", online=True, re=number)
    assert number in bench.results
    assert bench.phase is Phase.REGISTERED


@pytest.mark.parametrize(
    "reply",
    [
        {"type": "pong"},
        {"type": "ack"},
        {"type": "unregistered"},
        {"type": "rotated", "publicKey": "x"},
        {"type": "ice-servers", "iceServers": [], "ttl": 1},
        {"type": "discover-response", "userId": "mallory", "online": True},
    ],
)
def test_a_reply_to_something_else_ends_the_connection(reply: dict[str, Any]) -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.discover("bob", now))
    bench.say(re=number, **reply)
    left(bench)
    assert number not in bench.results


def test_a_rotation_to_another_key_is_not_believed() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.rotate(identity_of("new"), now))
    bench.say(type="rotated", publicKey=to_base64(identity_of("mallory").public_key), re=number)
    assert bench.closed is not None
    assert bench.machine.identity is bench.identity


def test_a_time_to_live_below_zero_is_none() -> None:
    bench = joined()
    number = bench.do(lambda m, now: m.ice_servers(now))
    bench.say(type="ice-servers", iceServers=[], ttl=-7, re=number)
    assert bench.results[number].ttl == 0  # type: ignore[union-attr]


def test_what_comes_after_we_have_hung_up_is_not_listened_to() -> None:
    bench = joined()
    bench.say_text("this is no JSON")
    bench.forget()
    bench.say(type="going-away", reconnectIn=1)
    bench.say_text("nor is this")
    assert bench.take_events() == []


def test_a_final_code_that_crosses_our_own_close_is_the_servers_word() -> None:
    bench = joined()
    bench.say_text("this is no JSON")
    bench.lose(4503, "banned")
    assert isinstance(bench.machine.error, ConnectionClosed)


def test_a_server_that_breaks_the_protocol_each_time_is_visited_less_and_less() -> None:
    bench = joined()
    for _ in range(8):
        bench.say_text("{")
        bench.lose()
        bench.redial()
        bench.admit(session="again")
    delays = [event.retry_in for event in bench.events if isinstance(event, Disconnected)]
    assert delays == [0.5, 1, 2, 4, 8, 10, 10, 10]


# --- anything at all ------------------------------------------------------------------------------------------------

NUMBERS = st.integers(-2, 12) | st.floats() | st.integers()
IDS = st.integers(0, 12) | st.text(max_size=70) | st.booleans() | st.none()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
TYPES = st.sampled_from(
    [
        "challenge",
        "registered",
        "rotated",
        "discover-response",
        "presence",
        "error",
        "ack",
        "pong",
        "unregistered",
        "ice-servers",
        "going-away",
        "offer",
        "answer",
        "ice-candidate",
        "bye",
        "relay",
        "of tomorrow",
    ]
)
# Fields that fit, fields that do not, and fields that are missing.
FRAMES = st.fixed_dictionaries(
    {"type": TYPES},
    optional={
        "re": IDS,
        "nonce": st.sampled_from([to_base64(NONCE), "AAAA"]) | JSON,
        "success": st.booleans() | JSON,
        "userId": st.sampled_from(["alice", "bob"]) | JSON,
        "device": st.just("main") | JSON,
        "session": st.text(max_size=5) | JSON,
        "secret": st.text(max_size=5) | JSON,
        "resumed": st.booleans() | JSON,
        "online": st.booleans() | JSON,
        "publicKey": st.just(to_base64(identity_of("new").public_key)) | JSON,
        "devices": st.lists(st.fixed_dictionaries({"device": st.text(max_size=5)}), max_size=3) | JSON,
        "message": st.text(max_size=10) | JSON,
        "code": st.sampled_from(["internal", "key-mismatch", "not-online"]) | JSON,
        "temporary": st.booleans() | JSON,
        "retryAfter": NUMBERS,
        "reconnectIn": NUMBERS,
        "iceServers": st.just([{"urls": ["stun:x"]}]) | JSON,
        "ttl": NUMBERS,
        "to": st.just("alice") | JSON,
        "from": st.sampled_from(["bob", "bob/phone"]) | JSON,
        "offer": st.just({"type": "offer", "sdp": "v=0"}) | JSON,
        "answer": st.just({"type": "answer", "sdp": "v=0"}) | JSON,
        "candidate": st.just(None) | JSON,
        "sealed": st.text(max_size=5) | JSON,
        "connection": st.text(max_size=5) | JSON,
    },
)
COMMANDS = st.sampled_from(["register", "discover", "watch", "unwatch", "ping", "rotate", "unregister", "ice"])
STEPS = st.lists(
    st.tuples(st.just("say"), FRAMES)
    | st.tuples(st.just("text"), st.text(max_size=40))
    | st.tuples(st.just("time"), st.floats(0, 40))
    | st.tuples(st.just("lose"), st.sampled_from([1000, 1006, 4000, 4005, 4001]))
    | st.tuples(st.just("connect"), st.booleans())
    | st.tuples(st.just("do"), COMMANDS),
    max_size=30,
)


def _command(bench: Bench, name: str) -> None:
    match name:
        case "register" if bench.phase is Phase.OPEN and bench.machine.identity is None:
            bench.do(lambda m, now: m.register(bench.identity, now))
        case "ping" if bench.phase not in (Phase.IDLE, Phase.ENDED):
            bench.do(lambda m, now: m.ping(now))
        case _ if bench.machine.identity is not None and bench.phase is not Phase.ENDED:
            match name:
                case "discover":
                    bench.do(lambda m, now: m.discover("bob", now))
                case "watch":
                    bench.do(lambda m, now: m.watch(["bob"], now))
                case "unwatch":
                    bench.do(lambda m, now: m.unwatch(["bob"], now))
                case "rotate":
                    bench.do(lambda m, now: m.rotate(identity_of("new"), now))
                case "unregister":
                    bench.do(lambda m, now: m.unregister(now))
                case "ice":
                    bench.do(lambda m, now: m.ice_servers(now))


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_whatever_the_server_says_the_client_keeps_its_promises(steps: list[tuple[str, Any]]) -> None:
    """The bench checks them: no crash, no request that ends twice, nothing sent into the void, no busy loop."""
    bench = Bench()
    asked = 0
    bench.connect()
    for step, value in steps:
        attached = bench.phase not in (Phase.IDLE, Phase.WAITING, Phase.DIALING, Phase.ENDED)
        match step:
            case "say" if attached:
                bench.say_text(json.dumps(value))
            case "text" if attached:
                bench.say_text(value)
            case "time":
                bench.pass_time(value)
            case "lose" if attached:
                bench.lose(value)
            case "connect" if bench.phase is Phase.DIALING:
                bench.connect() if value else bench.fail_to_connect()
            case "do":
                _command(bench, value)
    # Whatever has happened: every request ends in the end.
    asked = bench.machine._requests._last
    if bench.phase is Phase.DIALING:
        bench.fail_to_connect()
    bench.pass_time(11.0)
    ended = len(bench.results) + len(bench.failures)
    internal = asked - ended
    assert internal >= 0
    assert bench.machine._requests.all() == [] or all(r.internal for r in bench.machine._requests.all())


@settings(max_examples=80, deadline=None)
@given(st.lists(FRAMES, max_size=12))
def test_frames_at_random_to_a_registered_client_do_not_bring_it_down(frames: list[dict[str, Any]]) -> None:
    bench = joined()
    for _ in range(3):
        bench.do(lambda m, now: m.discover("bob", now))
    for frame in frames:
        bench.say_text(json.dumps(frame))
    bench.pass_time(60.0)
    assert {2, 3, 4} <= set(bench.results) | set(bench.failures)
