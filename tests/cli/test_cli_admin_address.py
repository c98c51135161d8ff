"""Where `aldis admin` and `aldis top` send the admin token: the address that was typed, and nowhere else."""

from __future__ import annotations

import threading
from argparse import ArgumentTypeError
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aldis.cli.admin_client import admin_address
from support.commands import aldis


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://127.0.0.1:9080/", "http://127.0.0.1:9080"),
        ("https://example.com/admin", "https://example.com/admin"),
        ("localhost:9080", "http://localhost:9080"),
        ("127.0.0.1:9080/", "http://127.0.0.1:9080"),
        ("[::1]:9080", "http://[::1]:9080"),
        (" localhost:9080 ", "http://localhost:9080"),
        ("10.0.0.1:9080", "https://10.0.0.1:9080"),  # as `--server` has it: nothing goes to others in the clear
    ],
)
def test_an_address_may_be_typed_as_that_of_a_server(typed: str, url: str) -> None:
    assert admin_address(typed) == url


@pytest.mark.parametrize(
    "typed", ["", "localhost", "ftp://localhost:1", "localhost:0", "localhost:x", "localhost:99999", ":9080", "a b:1"]
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(ArgumentTypeError):
        admin_address(typed)


class _Redirecting(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(302)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is that of http.server
        pass


@pytest.fixture
def redirecting() -> Iterator[ThreadingHTTPServer]:
    _Redirecting.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_token_does_not_follow_a_redirect(redirecting: ThreadingHTTPServer, tmp_path: Path) -> None:
    address = f"127.0.0.1:{redirecting.server_port}"
    done = aldis("admin", "stats", "--admin", address, home=tmp_path, extra={"ALDIS_ADMIN_TOKEN": "secret"})
    assert done.returncode == 4
    assert done.stderr == (
        f"aldis: http://{address} answers with a redirect to '/elsewhere', and the token is not sent on; name the "
        "admin port itself with --admin\n"
    )
    assert _Redirecting.asked == ["/api/v1/statistics"]
