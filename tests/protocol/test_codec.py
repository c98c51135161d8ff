"""The codec: what is a message, what is not, and which error says so."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.errors import ProtocolViolation
from aldis.protocol import messages as m
from aldis.protocol.codec import (
    DecodeFailed,
    decode_client_message,
    decode_server_message,
    encode,
    encode_into,
    encode_text,
    from_base64,
    is_object,
    is_object_or_null,
    raw,
    read_candidate,
    read_capabilities,
    read_description,
    read_proof,
    to_base64,
    to_base64url,
)
from aldis.protocol.codes import ErrorCode

pytestmark = pytest.mark.usefixtures("no_collection")

SAFE = 2**53 - 1


def failure(text: str) -> DecodeFailed:
    with pytest.raises(DecodeFailed) as caught:
        decode_client_message(text)
    return caught.value


# --- what is a message ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type":"ping"}', m.Ping()),
        (' \n{"type" : "ping"}\t', m.Ping()),
        ('{"\\u0074ype":"pi\\u006eg"}', m.Ping()),
        ('{"type":"prove","signature":"s","id":"a"}', m.Prove("s", "a")),
        ('{"id":0,"type":"discover","userId":"bob"}', m.Discover("bob", 0)),
        ('{"type":"watch","userIds":[]}', m.Watch([])),
        ('{"type":"bye","to":"bob/phone","reason":""}', m.Bye("bob/phone", reason="")),
        ('{"type":"rotate","newPublicKey":"k","signature":"s"}', m.Rotate("k", "s")),
        ('{"type":"ice-servers"}', m.IceServersRequest()),
        ('{"type":"register","userId":"\\ud83d\\ude00","publicKey":"k"}', m.Register("\U0001f600", "k")),
    ],
)
def test_a_valid_frame_is_its_message(text: str, message: msgspec.Struct) -> None:
    assert decode_client_message(text) == message


def test_unknown_fields_are_ignored_and_not_passed_on() -> None:
    message = decode_client_message('{"type":"ping","id":1,"colour":{"deep":[1,2,{"type":"x"}]},"user_id":5}')
    assert encode_text(message) == '{"type":"ping","id":1}'


def test_an_unknown_field_may_hold_a_number_of_any_size() -> None:
    assert decode_client_message('{"type":"ping","x":' + "9" * 20_000 + "}") == m.Ping()
    assert decode_client_message('{"type":"ping","x":1e999}') == m.Ping()


def test_of_a_field_that_stands_twice_the_last_counts() -> None:
    assert decode_client_message('{"type":"ping","id":1,"id":2}') == m.Ping(2)


@pytest.mark.parametrize("request_id", [0, -1, SAFE, -SAFE, "", "x", "x" * 64, "é\u2028"])
def test_a_request_id_is_a_short_string_or_an_exact_integer(request_id: str | int) -> None:
    text = encode_text(m.Ping(request_id))
    assert decode_client_message(text) == m.Ping(request_id)


def test_what_peers_say_to_each_other_is_kept_to_the_byte() -> None:
    offer = '{ "sdp":"v=0\\r\\n\\u00e9", "x":1.0, "x":[1e0,9999999999999999999999] }'
    message = decode_client_message('{"type":"offer","to":"bob","offer":   ' + offer + '  ,"proof":  3 }')
    assert isinstance(message, m.Offer)
    assert bytes(message.offer) == offer.encode()
    assert encode_text(message) == '{"type":"offer","to":"bob","offer":' + offer + ',"proof":3}'


def test_a_relayed_message_is_encoded_as_sent_with_from_and_without_id() -> None:
    message = decode_client_message('{"type":"answer","to":"b","answer":{"a":1},"from":"eve","id":7,"connection":"c"}')
    assert isinstance(message, m.Answer)
    message.from_ = "alice/phone"
    message.id = msgspec.UNSET
    assert encode_text(message) == '{"type":"answer","to":"b","answer":{"a":1},"from":"alice/phone","connection":"c"}'


def test_a_message_can_be_written_behind_the_room_for_a_header() -> None:
    buffer = bytearray(b"header")
    encode_into(m.Pong(5), buffer, 6)
    assert buffer == b'header{"type":"pong","re":5}'


# --- what is not, and why -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        '{"type":"ping"',
        '{"type":"ping"} x',
        '{"type":"ping"}{}',
        '{"type":"ping",}',
        "{'type':'ping'}",
        '{"type":"ping","x":01}',
        '{"type":"ping","x":NaN}',
        '{"type":"ping","x":"\x01"}',
        '{"type":"ping","x":"\\q"}',
        '\ufeff{"type":"ping"}',
        "null",
        "5",
        '"ping"',
        '["ping"]',
        "{}",
        '{"id":4}',
        '{"type":null}',
        '{"type":1}',
        '{"type":["ping"]}',
        '{"Type":"ping"}',
    ],
)
def test_no_json_no_object_or_no_type_is_an_invalid_message(text: str) -> None:
    assert failure(text).code == ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("depth", [10_000, 100_000])
@pytest.mark.parametrize("field", ["x", "offer"])
def test_deep_nesting_is_an_invalid_message_and_no_crash(depth: int, field: str) -> None:
    text = f'{{"type":"offer","to":"b","{field}":' + "[" * depth + "]" * depth + "}"
    assert failure(text).code == ErrorCode.INVALID_MESSAGE
    assert failure("[" * depth).code == ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("escape", ["\\ud800", "\\udc00", "\\ud800\\ud800", "\\udc00\\ud800", "\\ud800x"])
@pytest.mark.parametrize("frame", ['{"type":"ping","id":"%s"}', '{"type":"offer","to":"b","offer":{"sdp":"%s"}}'])
def test_a_lone_surrogate_is_an_invalid_message_wherever_it_stands(frame: str, escape: str) -> None:
    # What UTF-8 cannot carry must not get as far as an encoder: it would fail there, in the middle of the server.
    assert failure(frame % escape).code == ErrorCode.INVALID_MESSAGE


@pytest.mark.parametrize("kind", ["", "PING", "nope", "challenge", "registered", "error", "ack", "pong", "x" * 5000])
def test_a_type_that_no_client_sends_is_an_unknown_type(kind: str) -> None:
    caught = failure(f'{{"type":"{kind}","id":"a"}}')
    assert caught.code == ErrorCode.UNKNOWN_TYPE
    assert caught.re == "a"
    assert len(caught.text) < 100


def test_an_unknown_type_is_named_whatever_else_the_frame_holds() -> None:
    assert failure('{"type":"nope","x":' + "9" * 20_000 + "}").code == ErrorCode.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"type":"register"}', "userId, publicKey"),
        ('{"type":"register","userId":"","publicKey":"k"}', "userId"),
        ('{"type":"register","userId":null,"publicKey":5}', "userId, publicKey"),
        ('{"type":"register","userId":"a","device":5}', "publicKey"),
        ('{"type":"discover","userId":["a"]}', "userId"),
        ('{"type":"discover","user_id":"a"}', "userId"),
        ('{"type":"prove","signature":""}', "signature"),
        ('{"type":"offer","to":"b"}', "offer"),
        ('{"type":"offer","offer":{}}', "to"),
        ('{"type":"offer","to":"","offer":{}}', "to"),
        ('{"type":"ice-candidate","to":"b"}', "candidate"),
        ('{"type":"relay","to":"b","sealed":{}}', "sealed"),
        ('{"type":"watch","userIds":"a"}', "userIds"),
        ('{"type":"watch","userIds":["a",1]}', "userIds"),
        ('{"type":"received","count":"1"}', "count"),
        ('{"type":"received","count":1.5}', "count"),
        ('{"type":"rotate","newPublicKey":"k"}', "signature"),
    ],
)
def test_a_required_field_that_is_absent_empty_or_of_a_wrong_type_is_a_missing_field(text: str, fields: str) -> None:
    caught = failure(text)
    assert (caught.code, caught.text) == (ErrorCode.MISSING_FIELDS, f"missing or wrong: {fields}")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"type":"register","userId":"a","publicKey":"k","device":5}', "device"),
        ('{"type":"register","userId":"a","publicKey":"k","device":null,"token":1}', "device, token"),
        ('{"type":"register","userId":"a","publicKey":"k","resume":{"session":"s","secret":"x"}}', "resume"),
        (
            '{"type":"register","userId":"a","publicKey":"k","resume":{"session":"s","secret":"x","received":-1}}',
            "resume",
        ),
        ('{"type":"register","userId":"a","publicKey":"k","sealKey":{"publicKey":"","signature":"s"}}', "sealKey"),
        ('{"type":"bye","to":"b","connection":5}', "connection"),
        ('{"type":"offer","to":"' + "b" * 194 + '","offer":{}}', "to"),
        ('{"type":"received","count":-1}', "count"),
        ('{"type":"received","count":9007199254740992}', "count"),
        ('{"type":"ping","id":null}', "id"),
        ('{"type":"ping","id":true}', "id"),
        ('{"type":"ping","id":1.0}', "id"),
        ('{"type":"ping","id":1e3}', "id"),
        ('{"type":"ping","id":{}}', "id"),
        ('{"type":"ping","id":9007199254740992}', "id"),
        ('{"type":"ping","id":-9007199254740992}', "id"),
        ('{"type":"ping","id":' + "9" * 20_000 + "}", "id"),
        ('{"type":"ping","id":"' + "x" * 65 + '"}', "id"),
    ],
)
def test_an_optional_field_of_a_wrong_type_or_a_value_beyond_its_limit_is_an_invalid_field(
    text: str, fields: str
) -> None:
    caught = failure(text)
    assert (caught.code, caught.text) == (ErrorCode.INVALID_FIELD, f"not valid: {fields}")


@pytest.mark.parametrize(
    ("text", "re"),
    [
        ('{"type":"nope","id":"a"}', "a"),
        ('{"type":"nope","id":-3}', -3),
        ('{"id":9007199254740991}', SAFE),
        ('{"type":"discover","id":""}', ""),
        ('{"type":"discover","userId":"a","id":true}', msgspec.UNSET),
        ('{"type":"discover","id":9007199254740992}', msgspec.UNSET),
        ('{"type":"discover","id":"' + "x" * 65 + '"}', msgspec.UNSET),
        ('{"type":"discover","id":[1]}', msgspec.UNSET),
        ('{"type":"discover"}', msgspec.UNSET),
        ('{"type":"discover","id":1', msgspec.UNSET),
    ],
)
def test_the_error_carries_the_id_of_the_request_if_it_had_a_valid_one(text: str, re: object) -> None:
    assert failure(text).re == re


def test_two_types_in_one_frame_are_refused_unless_one_message_has_them_both() -> None:
    assert failure('{"type":"ping","type":"discover"}').code == ErrorCode.MISSING_FIELDS
    assert failure('{"type":"discover","type":"ping"}').code == ErrorCode.INVALID_FIELD


KEYS = st.sampled_from(["type", "id", "userId", "publicKey", "to", "offer", "candidate", "userIds", "count", "resume"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["ping", "offer", "register"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


DOCUMENTED = {
    ErrorCode.INVALID_MESSAGE,
    ErrorCode.UNKNOWN_TYPE,
    ErrorCode.MISSING_FIELDS,
    ErrorCode.INVALID_FIELD,
}


@given(st.text() | st.dictionaries(KEYS, VALUES).map(lambda value: msgspec.json.encode(value).decode()))
def test_any_text_is_a_message_or_a_documented_error(text: str) -> None:
    for decode in (decode_client_message, decode_server_message):
        code = None
        try:
            message = decode(text)
        except DecodeFailed as caught:
            code = caught.code
        if code is None:
            assert message is None or decode(encode_text(message)) == message
        else:
            assert code in DOCUMENTED


# --- the client's side ----------------------------------------------------------------------------------------------


def test_a_message_of_a_newer_server_is_skipped() -> None:
    assert decode_server_message('{"type":"weather","sky":"blue"}') is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", ErrorCode.INVALID_MESSAGE),
        ("[]", ErrorCode.INVALID_MESSAGE),
        ('{"type":"challenge"}', ErrorCode.MISSING_FIELDS),
        ('{"type":"presence","userId":"a","online":"yes"}', ErrorCode.MISSING_FIELDS),
        ('{"type":"error","message":"m","retryAfter":"soon"}', ErrorCode.INVALID_FIELD),
    ],
)
def test_a_broken_message_of_the_server_is_a_violation(text: str, code: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        decode_server_message(text)
    assert isinstance(caught.value, DecodeFailed)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "message",
    [
        m.Challenge("n", 1),
        m.Registered(True, "a", "main", "s", "x", False, 1.5, m.Limits(65536, 10000, 30.0), "r"),
        m.Registered(False, "a"),
        m.Rotated("k", 2),
        m.DiscoverResponse("a", True, "k", [m.Device("main"), m.Device("phone", m.SealKey("k", "s"))], 3),
        m.PresenceMessage("a", False),
        m.Error("text", "rate-limited", True, 2.5, 4),
        m.Ack("x"),
        m.Pong(),
        m.Unregistered(5),
        m.IceServers([m.IceServer(["stun:host"]), m.IceServer(["turn:host"], "u", "c")], 600, 6),
        m.GoingAway(1.25),
        m.Offer("b", raw(m.Description("offer", "v=0")), "a", "c", raw(m.Proof("k", "n", "s")), raw(m.Capabilities())),
        m.IceCandidate("b", raw(None), "a"),
        m.Relay("b", "box", "a"),
    ],
)
def test_what_the_server_says_is_what_the_client_reads(message: m.ServerMessage) -> None:
    assert decode_server_message(encode_text(message)) == message
    assert encode(message) == encode_text(message).encode()


def test_what_is_not_set_is_not_on_the_wire() -> None:
    assert encode_text(m.Registered(True, "a")) == '{"type":"registered","success":true,"userId":"a"}'
    assert encode_text(m.IceServers([m.IceServer(["stun:h"])], 5)) == (
        '{"type":"ice-servers","iceServers":[{"urls":["stun:h"]}],"ttl":5}'
    )


# --- opaque fields --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ['{"a":1}', '{ "a":1}', '{\n\t"":null}'])
def test_an_object_with_something_in_it_is_an_object(value: str) -> None:
    assert is_object(msgspec.Raw(value))
    assert is_object_or_null(msgspec.Raw(value))


@pytest.mark.parametrize("value", ["{}", "{ }", "{\r\n\t }", "[]", "[1]", '"{1}"', "5", "true"])
def test_an_empty_object_or_anything_else_is_none(value: str) -> None:
    assert not is_object(msgspec.Raw(value))
    assert not is_object_or_null(msgspec.Raw(value))


def test_null_is_no_object_but_an_object_or_null() -> None:
    assert not is_object(msgspec.Raw(b"null"))
    assert is_object_or_null(msgspec.Raw(b"null"))


def test_no_value_at_all_is_no_object() -> None:
    assert not is_object(msgspec.Raw())


def test_a_description_a_candidate_and_a_proof_come_back_as_they_were() -> None:
    description = m.Description("offer", "v=0\r\n")
    candidate = m.Candidate("candidate:1", "0", 0, "frag")
    proof = m.Proof("k", "n", "s")
    assert read_description(raw(description)) == description
    assert read_candidate(raw(candidate)) == candidate
    assert read_candidate(raw(None)) is None
    assert read_proof(raw(proof)) == proof


def test_a_candidate_has_the_names_that_browsers_use() -> None:
    text = '{"candidate":"candidate:1","sdpMid":null,"sdpMLineIndex":2,"usernameFragment":"f"}'
    assert read_candidate(msgspec.Raw(text)) == m.Candidate("candidate:1", None, 2, "f")
    assert bytes(raw(m.Candidate("c", "0", 0))) == b'{"candidate":"c","sdpMid":"0","sdpMLineIndex":0}'


@pytest.mark.parametrize("character", ["x", "\U0001f526"])
def test_what_is_kept_of_a_stranger_has_bounds(character: str) -> None:
    def candidate(text: int = 0, mid: int = 0, fragment: int = 0) -> msgspec.Raw:
        return raw(m.Candidate(character * text, character * mid, 0, character * fragment))

    for longest in (candidate(1024), candidate(mid=256), candidate(fragment=256)):
        assert raw(read_candidate(longest)) == longest
    for longer in (candidate(1025), candidate(mid=257), candidate(fragment=257)):
        with pytest.raises(ProtocolViolation):
            read_candidate(longer)
    for fields in (("x" * 257, "", ""), ("", "x" * 257, ""), ("", "", "x" * 257)):
        with pytest.raises(ProtocolViolation):
            read_proof(raw(m.Proof(*fields)))


@pytest.mark.parametrize("read", [read_description, read_candidate, read_proof])
@pytest.mark.parametrize("value", ["5", "[]", "{}", '{"type":1}', '{"a":' + "[" * 50_000 + "]" * 50_000 + "}"])
def test_an_unreadable_opaque_field_is_a_violation(read: Callable[[msgspec.Raw], object], value: str) -> None:
    with pytest.raises(ProtocolViolation):
        read(msgspec.Raw(value))


@pytest.mark.parametrize(
    ("value", "capabilities"),
    [
        (msgspec.UNSET, m.Capabilities(True, True)),
        (msgspec.Raw(b"{}"), m.Capabilities(True, True)),
        (msgspec.Raw(b'{"trickle":false}'), m.Capabilities(False, True)),
        (msgspec.Raw(b'{"restart":false,"later":1}'), m.Capabilities(True, False)),
        (msgspec.Raw(b"null"), m.Capabilities(True, True)),
        (msgspec.Raw(b'{"trickle":"no"}'), m.Capabilities(True, True)),
    ],
)
def test_capabilities_that_are_absent_or_unreadable_mean_can_do_all(
    value: msgspec.Raw | msgspec.UnsetType, capabilities: m.Capabilities
) -> None:
    assert read_capabilities(value) == capabilities


# --- base64 ---------------------------------------------------------------------------------------------------------


@given(st.binary())
def test_bytes_survive_base64(data: bytes) -> None:
    assert from_base64(to_base64(data)) == data
    assert from_base64(to_base64(data), len(data)) == data


@pytest.mark.parametrize(
    "text",
    ["A", "AA", "AA=", "AAA", "AA==\n", " AA==", "A-A=", "_w==", "AA==AA==", "AB==", "AAB=", "é", "====", "AAAA="],
)
def test_only_strict_and_canonical_base64_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="base64"):
        from_base64(text)


def test_base64_of_a_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="not 32 bytes but 31"):
        from_base64(to_base64(bytes(31)), 32)


def test_base64url_has_no_padding_and_no_character_that_a_url_or_a_proof_minds() -> None:
    assert to_base64url(b"\xfb\xff\xfe\x00") == "-__-AA"
    assert to_base64url(b"") == ""
