"""What `aldis admin` and `aldis top` share: how they reach the admin API of a server, and say what is wrong.

Rules: the token is read from a file or the environment, never from an argument, which other users of the machine can
read. Text from the server is made safe before it is printed.
"""

from __future__ import annotations

import json
import os
import re
from argparse import ArgumentTypeError, Namespace
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from aldis.cli.exits import AdminUnreachable
from aldis.cli.options import existing_file
from aldis.cli.parser import Parser
from aldis.environment import data_directory, expand
from aldis.errors import AldisError, UsageError
from aldis.protocol.hosts import is_this_machine

DEFAULT_ADMIN: Final = "http://127.0.0.1:9080"
TOKEN_FILE: Final = "admin-token"  # noqa: S105 - the name of a file
# A server that listens on all addresses is asked on this machine's own.
_TO_DIAL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_TIMEOUT: Final = 10.0
# What leads to the admin port of a server; its other settings may need secrets that are not here.
_SETTINGS: Final = ("host", "port", "admin_host", "admin_port", "admin_token", "data")
# A list of a thousand users has some 100 KiB.
_MAX_REPLY: Final = 16 * 1024 * 1024


class AdminRefused(AldisError):
    """The admin API refuses a request. Attribute: `status`, that of HTTP."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class AdminArguments(Namespace):
    """The arguments that these commands share."""

    admin: str | None
    token_file: Path | None
    data: str | None
    config: Path | None


def add_admin(parser: Parser) -> None:
    """Declare `--admin`, `--token-file`, `--data` and `--config`."""
    parser.options.add_argument(
        "--admin",
        metavar="URL",
        type=admin_address,
        default=os.environ.get("ALDIS_ADMIN") or None,
        help=f"The admin port of the server [$ALDIS_ADMIN, that of --config, or {DEFAULT_ADMIN}].",
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
        help="The data directory of the server [$ALDIS_DATA, that of --config, or your data directory].",
    )
    parser.options.add_argument(
        "--config",
        metavar="FILE",
        type=existing_file,
        default=os.environ.get("ALDIS_CONFIG") or None,
        help="The server's settings file, on the same machine [$ALDIS_CONFIG].",
    )


def admin_address(text: str) -> str:
    """The URL of an admin port as a person types it; for `type=`. Without a scheme it is as that of a server: the
    token goes to other machines over TLS only."""
    url = text.strip().rstrip("/")
    try:
        if "://" not in url:
            host = urlsplit(f"//{url}")
            local = host.port is not None and is_this_machine(host.hostname or "")
            url = f"{'http' if local else 'https'}://{url}" if host.port else ""
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        raise ArgumentTypeError(f"{text!r} is not the URL of an admin port; an example is {DEFAULT_ADMIN}")
    return url


class _NoRedirect(HTTPRedirectHandler):
    """The token is for one server: it is not sent to where that, or whoever answers in its place, points."""

    def redirect_request(self, *_: object) -> None:
        """Follow none."""


class AdminClient:
    """Asks the admin API of one server."""

    def __init__(self, arguments: AdminArguments) -> None:
        """Raises `UsageError` when there is no token, `ConfigError` when a settings file is no such file."""
        self._url, self._token, self._source = _from_config(arguments)
        # The admin port is on this machine, or reached by a tunnel: never by way of a proxy for the web.
        self._opener = build_opener(ProxyHandler({}), _NoRedirect())

    def ask(
        self, method: str, path: str, *, query: dict[str, str] | None = None, body: object = None
    ) -> dict[str, Any]:
        """The answer to one request. Raises `AdminRefused`, `AdminUnreachable`."""
        url = f"{self._url}/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = Request(url, data, headers, method=method)  # noqa: S310 - http or https, see `admin_address`
        try:
            with self._opener.open(request, timeout=_TIMEOUT) as reply:
                answer: dict[str, Any] = json.loads(reply.read(_MAX_REPLY))
                return answer
        except HTTPError as error:
            raise AdminRefused(error.code, self._why(error)) from None
        except (URLError, OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise AdminUnreachable(self._url, getattr(reason, "strerror", None) or str(reason)) from None

    def _why(self, error: HTTPError) -> str:
        if error.code == HTTPStatus.UNAUTHORIZED:
            return (
                f"the server at {self._url} has another admin token than {self._source}; name its data directory with "
                "--data, its settings with --config, or a file that has its token with --token-file"
            )
        if 300 <= error.code < 400:
            return (
                f"{self._url} answers with a redirect to {error.headers.get('Location', '')!r}, and the token is not "
                "sent on; name the admin port itself with --admin"
            )
        return _why(error)


def _from_config(arguments: AdminArguments) -> tuple[str, str, str]:
    """The URL of the admin port, the token, and where that is from, as the server with these settings has them."""
    if arguments.config is None:
        return arguments.admin or DEFAULT_ADMIN, *_token(arguments, "", arguments.data)

    from aldis.server.config import load_config  # takes a while, and most calls need none

    config = load_config({"data": arguments.data}, os.environ, arguments.config, only=_SETTINGS)
    if not arguments.admin and not config.admin_port:
        raise UsageError(f"{arguments.config} does not say where the admin port is; name its URL with --admin")
    host = _TO_DIAL.get(config.admin_host, config.admin_host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{config.admin_port}"
    return arguments.admin or url, *_token(arguments, config.admin_token, config.data)


def _token(arguments: AdminArguments, password: str, data: str | None) -> tuple[str, str]:
    """The token, and where it is from. `password` is that of the settings, which have the environment's too."""
    if arguments.token_file is None and (from_environment := os.environ.get("ALDIS_ADMIN_TOKEN", "").strip()):
        return _checked(from_environment), "ALDIS_ADMIN_TOKEN"
    if arguments.token_file is None and password:
        return _checked(password), str(arguments.config)
    path = arguments.token_file or (expand(data) if data else data_directory()) / TOKEN_FILE
    try:
        return _checked(path.read_text(encoding="ascii").strip()), str(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {reason}"
        raise UsageError(
            f"the admin token {path} {why}; a server makes it in its data directory: name that with --data "
            "or --config, or the file with --token-file"
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
