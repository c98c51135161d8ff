"""The address of a client behind proxies."""

from __future__ import annotations

import socket
import struct

import pytest

from aldis.hub.bans import read_ban
from aldis.server import proxies
from aldis.server.proxies import BadProxyHeader, TrustedProxies

TRUSTED = TrustedProxies(("10.0.0.0/8", "2001:db8:1::/48", "127.0.0.1/32"))
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.7, 10.9.9.9,127.0.0.1"], "192.0.2.7"),
        ("10.0.0.1", ["6.6.6.6, 10.0.0.3, 192.0.2.7"], "192.0.2.7"),
        ("::ffff:10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("2001:db8:1::5", ["2001:db8:2::7"], "2001:db8:2::7"),
        ("10.0.0.1", ["[2001:db8:2::7]:4711"], "2001:db8:2::7"),
        ("10.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, _hidden, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["192.0.2.7, 10.0.0.2" + ", 10.0.0.2" * 5000], "10.0.0.2"),
        # Nobody else is believed.
        ("192.0.2.1", ["192.0.2.7"], "192.0.2.1"),
        ("2001:db8:2::1", ["10.0.0.1"], "2001:db8:2::1"),
        ("", ["192.0.2.7"], ""),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(peer: str, forwarded: list[str], client: str) -> None:
    assert TRUSTED.client(peer, forwarded) == client


def test_an_ipv4_mapped_network_of_proxies_is_one_of_ipv4() -> None:
    proxies = TrustedProxies(("::ffff:10.0.0.0/104",))
    assert proxies.trusts("10.1.2.3")
    assert proxies.trusts("::ffff:10.1.2.3")
    assert not proxies.trusts("11.0.0.1")
    assert proxies.inside("0.0.0.0/0") == "10.0.0.0/8"
    assert proxies.around("10.1.0.0/16") == "10.0.0.0/8"


def test_a_ban_of_an_ipv4_mapped_network_is_seen_to_hold_a_proxy() -> None:
    assert TRUSTED.inside(read_ban("network", "::ffff:127.0.0.1").value) == "127.0.0.1/32"


def test_by_default_nobody_is_trusted() -> None:
    assert TrustedProxies().client("127.0.0.1", ["192.0.2.7"]) == "127.0.0.1"


def header(command: int, family: int, body: bytes) -> tuple[bytes, bytes]:
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family << 4 | 1, len(body)), body


IPV4 = socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4711, 443)
IPV6 = b"".join(socket.inet_pton(socket.AF_INET6, text) for text in ("2001:db8::7", "2001:db8::1")) + IPV4[-4:]


@pytest.mark.parametrize(
    ("command", "family", "body", "client"),
    [
        (1, 1, IPV4, "192.0.2.7"),
        (1, 1, IPV4 + b"\x04\x00\x01x", "192.0.2.7"),  # with an extension
        (1, 2, IPV6, "2001:db8::7"),
        (1, 3, bytes(216), None),  # a Unix socket
        (1, 0, b"", None),
        (0, 0, b"", None),
        (0, 1, IPV4, None),
    ],
)
def test_a_proxy_header_names_the_client(command: int, family: int, body: bytes, client: str | None) -> None:
    head, body = header(command, family, body)
    assert len(head) == proxies.HEAD
    assert proxies.body_size(head) == len(body)
    assert proxies.source(head, body) == client


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0",
        SIGNATURE + b"\x11\x11\x00\x0c",  # another version
        SIGNATURE + b"\x22\x11\x00\x0c",  # another command
        SIGNATURE + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_proxy_header_is_refused(head: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        proxies.body_size(head)


def test_a_proxy_header_without_its_addresses_is_refused() -> None:
    with pytest.raises(BadProxyHeader):
        proxies.source(*header(1, 2, IPV4))
