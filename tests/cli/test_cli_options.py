"""What is accepted as a server's address, as a time, and as a file."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from aldis.cli.options import authorities, key_file, seconds, server
from support.certificates import make_certificates


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


@pytest.mark.parametrize("typed", ["-1", "nan", "inf", "1e10", "x", ""])
def test_a_time_is_a_number_of_seconds(typed: str) -> None:
    with pytest.raises(ArgumentTypeError):
        seconds(typed)


def test_certificates_are_read_before_a_key_is_made(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    assert authorities(str(files.ca)) == files.ca
    (tmp_path / "text").write_text("hello")
    for name, problem in (("text", "no certificate"), ("key.pem", "no certificate"), ("none", "cannot read")):
        with pytest.raises(ArgumentTypeError, match=problem):
            authorities(str(tmp_path / name))


def test_an_empty_text_is_no_key_file() -> None:
    assert key_file("alice.pem") == Path("alice.pem")
    with pytest.raises(ArgumentTypeError, match="empty"):
        key_file("")
