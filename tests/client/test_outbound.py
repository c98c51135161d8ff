"""What a program says, as the messages carry it."""

from __future__ import annotations

import json

import pytest

from aldis.client import outbound
from aldis.errors import InvalidAddress, UsageError
from aldis.protocol.codec import encode
from aldis.protocol.messages import Candidate, Capabilities, Proof
from aldis.protocol.privacy import PrivacyChange

PROOF = Proof("k", "n", "s")


def test_descriptions_carry_what_is_given_and_leave_out_the_rest() -> None:
    offer = outbound.offer("bob", "v=0", "c", PROOF, Capabilities(trickle=False))
    assert json.loads(encode(offer)) == {
        "type": "offer",
        "to": "bob",
        "offer": {"type": "offer", "sdp": "v=0"},
        "connection": "c",
        "proof": {"publicKey": "k", "nonce": "n", "signature": "s"},
        "capabilities": {"trickle": False, "restart": True},
    }
    answer = outbound.answer("bob", "v=0", None, None, None)
    assert json.loads(encode(answer)) == {"type": "answer", "to": "bob", "answer": {"type": "answer", "sdp": "v=0"}}


def test_candidates_end_with_null() -> None:
    some = outbound.ice_candidate("bob", Candidate("candidate:1", "0", 0), "c")
    assert json.loads(encode(some))["candidate"] == {"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0}
    assert json.loads(encode(outbound.ice_candidate("bob", None, None))) == {
        "type": "ice-candidate",
        "to": "bob",
        "candidate": None,
    }


def test_a_bye_says_why_and_for_how_long() -> None:
    assert json.loads(encode(outbound.bye("bob", "c", "busy", "busy", 5.0))) == {
        "type": "bye",
        "to": "bob",
        "connection": "c",
        "reason": "busy",
        "code": "busy",
        "retryAfter": 5.0,
    }
    assert json.loads(encode(outbound.bye("bob", None, None, None, None))) == {"type": "bye", "to": "bob"}


def test_a_sealed_message_is_in_base64_and_not_empty() -> None:
    assert json.loads(encode(outbound.relay("bob", b"\x01\x02"))) == {"type": "relay", "to": "bob", "sealed": "AQI="}
    with pytest.raises(UsageError):
        outbound.relay("bob", b"")


def test_a_change_of_the_privacy_names_users_in_order_and_checks_them() -> None:
    change = PrivacyChange("contacts", None, add_contacts=frozenset({"carol", "bob"}))
    assert json.loads(encode(outbound.privacy_request(change))) == {
        "type": "privacy",
        "presence": "contacts",
        "addContacts": ["bob", "carol"],
    }
    with pytest.raises(InvalidAddress):
        outbound.privacy_request(PrivacyChange(None, None, block=frozenset({"a b"})))


def test_text_that_utf_8_cannot_carry_is_a_mistake_of_the_program() -> None:
    with pytest.raises(UsageError):
        outbound.offer("bob", "\ud800", None, None, None)
