"""What `aldis admin` and `aldis top` share: how they reach the admin API of a server, and say what is wrong.

Rules: the token is read from a file or the environment, never from an argument, which other users of the machine can
read. Text from the server is made safe before it is printed.
"""

from __future__ import annotations

import json
import os
from argparse import ArgumentTypeError, Namespace
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from aldis.cli.options import existing_file
from aldis.cli.parser import Parser
from aldis.environment import data_directory, expand
from aldis.errors import AldisError, ServerUnreachable, UsageError

DEFAULT_ADMIN: Final = "http://127.0.0.1:9080"
TOKEN_FILE: Final = "admin-token"  # noqa: S105 - the name of a file
_TIMEOUT: Final = 10.0
# A list of a thousand users has some 100 KiB.
_MAX_REPLY: Final = 16 * 1024 * 1024


class AdminRefused(AldisError):
    """The admin API refuses a request. Attribute: `status`, that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class AdminArguments(Namespace):
    """The arguments that these commands share."""

    admin: str
    token_file: Path | None
    data: str | None


def add_admin(parser: Parser) -> None:
    """Declare `--admin`, `--token-file` and `--data`."""
    parser.options.add_argument(
        "--admin",
        metavar="URL",
        type=_address,
        default=os.environ.get("ALDIS_ADMIN") or DEFAULT_ADMIN,
        help=f"The admin port of the server [$ALDIS_ADMIN or {DEFAULT_ADMIN}].",
    )
    parser.options.add_argument(
        "--token-file",
        metavar="FILE",
        type=existing_file,
        help="A file with the admin token [$ALDIS_ADMIN_TOKEN, or admin-token in the data directory].",
    )
    parser.options.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("ALDIS_DATA") or None,
        help="The data directory of the server [$ALDIS_DATA or your data directory].",
    )


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ArgumentTypeError(f"{text!r} is not the URL of an admin port; an example is {DEFAULT_ADMIN}")
    return text.rstrip("/")


class AdminClient:
    """Asks the admin API of one server."""

    def __init__(self, arguments: AdminArguments) -> None:
        """Raises `UsageError` when there is no token."""
        self._url = arguments.admin
        self._token = _token(arguments)
        # The admin port is on this machine, or reached by a tunnel: never by way of a proxy for the web.
        self._opener = build_opener(ProxyHandler({}))

    def ask(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: object = None
    ) -> dict[str, Any]:
        """The answer to one request. Raises `AdminRefused`, `ServerUnreachable`."""
        url = f"{self._url}/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = Request(url, data, headers, method=method)  # noqa: S310 - http or https, see `_address`
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as reply:
                answer: dict[str, Any] = json.loads(reply.read(_MAX_REPLY))
                return answer
        except HTTPError as error:
            raise AdminRefused(error.code, _why(error)) from None
        except (URLError, OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise ServerUnreachable(self._url, str(reason)) from None


def _token(arguments: AdminArguments) -> str:
    if arguments.token_file is None and os.environ.get("ALDIS_ADMIN_TOKEN"):
        return _checked(os.environ["ALDIS_ADMIN_TOKEN"].strip())
    path = arguments.token_file
    if path is None:
        path = (expand(arguments.data) if arguments.data else data_directory()) / TOKEN_FILE
    try:
        return _checked(path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError) as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise UsageError(
            f"the admin token {path} {why}; a server makes it in its data directory: name that with --data, "
            "or the file with --token-file"
        ) from None


def _checked(token: str) -> str:
    if not token.isascii() or not token.isprintable() or not token:
        raise UsageError("the admin token is one line of printable ASCII")
    return token


def _why(error: HTTPError) -> str:
    try:
        text = json.loads(error.read(_MAX_REPLY))["error"]
    except (OSError, ValueError, TypeError, KeyError, HTTPException):
        text = ""
    if error.code == 404 and not text:
        return "there is no admin API at this address; is it the admin port of `aldis serve`?"
    return str(text) or f"the server answers with status {error.code}"
