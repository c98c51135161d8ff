"""STUN and TURN: nothing by default, and credentials that a TURN server can check by itself."""

from __future__ import annotations

import base64
import hashlib
import hmac

from aldis.protocol.messages import IceServer
from aldis.server.turn import TTL, ConfiguredIceServers


def test_nothing_is_told_where_nothing_is_configured() -> None:
    assert ConfiguredIceServers((), (), "").servers("alice", 0.0)[0] == []


def test_a_stun_server_needs_no_credentials() -> None:
    servers, _ = ConfiguredIceServers(("stun:a.example", "stun:b.example"), (), "").servers("alice", 0.0)
    assert servers == [IceServer(["stun:a.example", "stun:b.example"])]


def test_turn_credentials_are_those_that_coturn_computes() -> None:
    # coturn's own example of its shared-secret mechanism: the HMAC-SHA1 of "expiry:user" under the secret.
    source = ConfiguredIceServers((), ("turn:t.example",), "north", ttl=600)
    servers, ttl = source.servers("gorst", 1433895918.506 - 600)
    assert ttl == 600
    assert servers[0].username == "1433895918:gorst"
    assert (
        servers[0].credential
        == base64.b64encode(hmac.new(b"north", b"1433895918:gorst", hashlib.sha1).digest()).decode()
    )


def test_credentials_differ_by_user_and_end_after_four_hours() -> None:
    source = ConfiguredIceServers((), ("turn:t.example",), "s")
    alice, ttl = source.servers("alice", 1000.9)
    bob, _ = source.servers("bob", 1000.9)
    assert ttl == TTL == 14_400
    assert alice[0].username == "15400:alice"
    assert alice[0].credential != bob[0].credential
