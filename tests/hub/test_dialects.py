"""Dialects, one by one: what each reads, writes and admits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import UNSET, Struct

from aldis.hub.dialects import CLASSIC, V1, Dialect, chosen
from aldis.protocol import messages as m
from aldis.protocol.codec import UNREADABLE
from aldis.protocol.codes import ErrorCode

KEY = m.SealKey("key", "signature")
DEVICES = [m.Device("phone", KEY)]


def written(dialect: Dialect, message: Struct) -> dict[str, Any]:
    buffer = bytearray(b"head")
    dialect.encode(message, buffer, 4)
    return json.loads(buffer[4:])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("offered", "dialect"),
    [([], CLASSIC), (["x"], CLASSIC), (["ALDIS.V1"], CLASSIC), (["x", "aldis.v1"], V1), (["", "aldis.v1"], V1)],
)
def test_the_first_sub_protocol_that_is_known_chooses_the_dialect(offered: list[str], dialect: Dialect) -> None:
    assert chosen(offered) is dialect


def test_each_dialect_admits_its_own_messages_before_a_registration() -> None:
    kinds: list[type[Struct]] = [m.Register, m.Prove, m.Ping, m.Discover, m.Offer, m.Rotate]
    assert [kind for kind in kinds if V1.admits(kind)] == [m.Register, m.Prove, m.Ping]
    assert [kind for kind in kinds if CLASSIC.admits(kind)] == [m.Register, m.Ping, m.Discover]


@pytest.mark.parametrize("text", ['{"type":"prove","signature":"x"}', '{"type":"received","count":1}'])
def test_the_classic_dialect_does_not_know_proofs_and_resume(text: str) -> None:
    V1.decode(text)
    with pytest.raises(UNREADABLE):
        CLASSIC.decode(text)
    assert CLASSIC.why_not(text).code == ErrorCode.UNKNOWN_TYPE


def test_an_id_means_nothing_in_the_classic_dialect() -> None:
    assert V1.decode('{"type":"ping","id":7}').id == 7
    assert CLASSIC.decode('{"type":"ping","id":7}').id is UNSET
    assert (V1.why_not('{"type":"x","id":7}').re, CLASSIC.why_not('{"type":"x","id":7}').re) == (7, UNSET)


@pytest.mark.parametrize(
    ("message", "classic"),
    [
        (m.Error("no", ErrorCode.MISSING_FIELDS, False), {"type": "error", "message": "Missing required fields"}),
        (m.Error("not here", ErrorCode.NOT_ONLINE, False), {"type": "error", "message": "not here"}),
        (m.Error("why"), {"type": "error", "message": "why"}),
        (
            m.PresenceMessage("bob", True, "key", DEVICES),
            {"type": "presence", "userId": "bob", "online": True, "publicKey": "key"},
        ),
        (
            m.DiscoverResponse("bob", True, "key", DEVICES),
            {"type": "discover-response", "userId": "bob", "online": True, "publicKey": "key"},
        ),
        (m.Registered(True, "bob", "main", "s"), {"type": "registered", "success": True, "userId": "bob"}),
        (m.Pong(), {"type": "pong"}),
    ],
)
def test_the_classic_dialect_leaves_out_what_it_does_not_know(message: Struct, classic: dict[str, Any]) -> None:
    assert written(CLASSIC, message) == classic
    assert written(V1, message).keys() >= classic.keys()


def test_a_dialect_says_its_name() -> None:
    assert (repr(V1), repr(CLASSIC)) == ("<Dialect aldis.v1>", "<Dialect classic>")
