from __future__ import annotations

import pytest

from aldis.client.address import ServerAddress
from aldis.errors import UsageError


@pytest.mark.parametrize(
    ("text", "url", "server"),
    [
        ("ws://signal.example", "ws://signal.example/", "signal.example"),
        ("ws://signal.example:80", "ws://signal.example/", "signal.example"),
        ("ws://signal.example:443", "ws://signal.example:443/", "signal.example:443"),
        ("wss://signal.example:443", "wss://signal.example/", "signal.example"),
        ("wss://signal.example:80", "wss://signal.example:80/", "signal.example:80"),
        ("WSS://Signal.Example:8080/Path?a=b", "wss://signal.example:8080/Path/?a=b", "signal.example:8080"),
        ("http://signal.example:8080", "ws://signal.example:8080/", "signal.example:8080"),
        ("https://signal.example/", "wss://signal.example/", "signal.example"),
        ("https://signal.example/ws", "wss://signal.example/ws", "signal.example"),
        ("https://signal.example/aldis/ws", "wss://signal.example/aldis/ws", "signal.example"),
        ("https://signal.example/ws/", "wss://signal.example/ws/", "signal.example"),
        ("https://signal.example/news", "wss://signal.example/news/", "signal.example"),
        ("https://signal.example/aldis", "wss://signal.example/aldis/", "signal.example"),
        ("signal.example/aldis/", "wss://signal.example/aldis/", "signal.example"),
        ("signal.example", "wss://signal.example/", "signal.example"),
        ("signal.example:8443", "wss://signal.example:8443/", "signal.example:8443"),
        ("localhost:8080", "ws://localhost:8080/", "localhost:8080"),
        ("aldis.localhost", "ws://aldis.localhost/", "aldis.localhost"),
        ("127.0.0.1:8080", "ws://127.0.0.1:8080/", "127.0.0.1:8080"),
        ("10.0.0.1:8080", "wss://10.0.0.1:8080/", "10.0.0.1:8080"),
        ("[::1]:8080", "ws://[::1]:8080/", "[::1]:8080"),
        ("ws://[2001:DB8::0:1]", "ws://[2001:db8::1]/", "[2001:db8::1]"),
        ("wss://bücher.example", "wss://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("wss://signal.example/grüße?q=ü", "wss://signal.example/gr%C3%BC%C3%9Fe/?q=%C3%BC", "signal.example"),
        ("wss://signal.example/a%20b", "wss://signal.example/a%20b/", "signal.example"),
    ],
)
def test_what_people_write_becomes_what_is_dialled_and_signed(text: str, url: str, server: str) -> None:
    address = ServerAddress.parse(text)
    assert (address.url, address.server) == (url, server)
    assert address.secure is url.startswith("wss:")
    assert ServerAddress.parse(address.url) == address


def test_host_and_port_are_those_to_dial() -> None:
    assert (ServerAddress.parse("ws://[::1]:8080").host, ServerAddress.parse("ws://[::1]:8080").port) == ("::1", 8080)
    assert (ServerAddress.parse("wss://signal.example").host, ServerAddress.parse("wss://signal.example").port) == (
        "signal.example",
        443,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ws://",
        "ws:///path",
        "ftp://signal.example",
        "ws://signal.example:0",
        "ws://signal.example:65536",
        "ws://signal.example:port",
        "ws://alice:secret@signal.example",
        "ws://alice@signal.example",
        "ws://signal.example/#here",
        "ws://signal.example/\r\nX: y",
        "ws://signal example",
        "ws://signal.example\x00",
        "ws://[::1",
        "ws://[fe80::1%25eth0]/",
        "ws://[::zz]/",
        "ws://a_b!c/",
        "ws://" + "x" * 300,
        "ws://" + "ü" * 100 + ".example",
        "\ud800",
    ],
)
def test_what_is_no_address_of_a_server_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        ServerAddress.parse(text)
