"""STUN and TURN: nothing by default, and credentials that a TURN server can check by itself."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from aldis.protocol.ice import read_server
from aldis.protocol.messages import IceServer
from aldis.server.config import ServerConfig
from aldis.server.turn import ConfiguredIceServers

HOURS = 4 * 3600


def test_nothing_is_told_where_nothing_is_configured() -> None:
    assert ConfiguredIceServers((), (), "", HOURS).servers("alice", 0.0)[0] == []


def test_a_stun_server_needs_no_credentials() -> None:
    servers, _ = ConfiguredIceServers(("stun:a.example", "stun:b.example"), (), "", HOURS).servers("alice", 0.0)
    assert servers == [IceServer(["stun:a.example", "stun:b.example"])]


def test_turn_credentials_are_those_that_coturn_computes() -> None:
    # coturn's own example of its shared-secret mechanism: the HMAC-SHA1 of "expiry:user" under the secret.
    source = ConfiguredIceServers((), ("turn:t.example",), "north", 600)
    servers, ttl = source.servers("gorst", 1433895918.506 - 600)
    assert ttl == 600
    assert servers[0].username == "1433895918:gorst"
    assert (
        servers[0].credential
        == base64.b64encode(hmac.new(b"north", b"1433895918:gorst", hashlib.sha1).digest()).decode()
    )


def test_credentials_differ_by_user_and_end_after_the_lifetime_in_the_settings() -> None:
    source = ConfiguredIceServers((), ("turn:t.example",), "s", HOURS)
    alice, ttl = source.servers("alice", 1000.9)
    bob, _ = source.servers("bob", 1000.9)
    assert ttl == ServerConfig().turn_credential_lifetime == HOURS
    assert alice[0].username == "15400:alice"
    assert alice[0].credential != bob[0].credential
    source.lifetime = 600
    (later,), ttl = source.servers("alice", 1000.9)
    assert (later.username, ttl) == ("1600:alice", 600)


def inside(host: str, address: str, *, stun_address: str = "", proxied: bool = False) -> list[IceServer]:
    """What a client from `address` that has dialled `host` is told by a server with a STUN port."""
    source = ConfiguredIceServers((), (), "", HOURS, proxied=proxied)
    source.replace((), (), "", stun_address)
    source.stun_port = 3478
    return source.servers("alice", 0.0, host=host, address=address)[0]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("signal.example", "stun:signal.example:3478"),
        ("signal.example:8080", "stun:signal.example:3478"),
        ("192.0.2.1:8080", "stun:192.0.2.1:3478"),
        ("[2001:db8::1]:8080", "stun:[2001:db8::1]:3478"),
    ],
)
def test_clients_are_told_of_our_stun_port_at_the_host_that_they_have_dialled(host: str, url: str) -> None:
    assert inside(host, "192.0.2.7") == [IceServer([url])]
    assert all(read_server(server) for server in inside(host, "192.0.2.7"))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("localhost:8080", "127.0.0.1"),  # a program on this machine
        ("127.0.0.1:8080", "192.0.2.7"),
        ("[::1]:8080", "::1"),
        ("signal.example", "127.0.0.1"),  # a proxy on this machine, which does not say for whom
        ("not a host", "192.0.2.7"),
    ],
)
def test_a_client_that_may_not_reach_our_stun_port_is_not_told_of_it(host: str, address: str) -> None:
    assert inside(host, address) == []


def test_behind_a_proxy_our_stun_port_is_told_only_by_an_address_in_the_settings() -> None:
    assert inside("signal.example", "192.0.2.7", proxied=True) == []
    told = inside("signal.example", "192.0.2.7", proxied=True, stun_address="2001:db8::1")
    assert told == [IceServer(["stun:[2001:db8::1]:3478"])]


def test_our_stun_port_is_not_told_beside_others_or_when_it_is_closed() -> None:
    source = ConfiguredIceServers(("stun:a.example",), ("turn:t.example",), "s", HOURS)
    source.stun_port = 3478
    servers, _ = source.servers("alice", 0.0, host="signal.example", address="192.0.2.7")
    assert [server.urls for server in servers] == [["stun:a.example"], ["turn:t.example"]]
    source.replace((), ("turn:t.example",), "s")
    servers, _ = source.servers("alice", 0.0, host="signal.example", address="192.0.2.7")
    assert [server.urls for server in servers] == [["stun:signal.example:3478"], ["turn:t.example"]]
    source.stun_port = 0
    servers, _ = source.servers("alice", 0.0, host="signal.example", address="192.0.2.7")
    assert [server.urls for server in servers] == [["turn:t.example"]]
