"""What is accepted as a server's address, and what is a time."""

from argparse import ArgumentTypeError

import pytest

from aldis.cli.options import seconds, server


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/"),
        ("http://127.0.0.1:8080/", "ws://127.0.0.1:8080/"),
        ("https://Example.com/aldis", "wss://example.com/aldis/"),
        ("WSS://example.com", "wss://example.com/"),
        ("localhost:8080", "ws://localhost:8080/"),
        ("127.0.0.1", "ws://127.0.0.1/"),
        ("[::1]:8080", "ws://[::1]:8080/"),
        ("192.168.1.5:8080", "wss://192.168.1.5:8080/"),
        (" example.com ", "wss://example.com/"),
    ],
)
def test_an_address_may_be_typed_as_people_do(typed: str, url: str) -> None:
    assert server(typed).url == url


@pytest.mark.parametrize(
    "typed",
    ["", "ws://", "ftp://example.com", "ws://example.com:99999", "ws://example.com:x", "ws://[::1", "ws://a@b", "a b"],
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(ArgumentTypeError):
        server(typed)


@pytest.mark.parametrize("typed", ["-1", "nan", "inf", "x", ""])
def test_a_time_is_a_number_of_seconds(typed: str) -> None:
    with pytest.raises(ArgumentTypeError):
        seconds(typed)
