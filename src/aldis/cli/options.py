"""Options that several commands share, and the readers of their values.

Rules: an error names the option and comes before the command has done anything. So every reader raises
`ArgumentTypeError`.
"""

from __future__ import annotations

import os
import re
import ssl
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aldis.cli.parser import Parser
from aldis.client.address import ServerAddress
from aldis.environment import decoded, expand
from aldis.errors import ConfigError, UsageError
from aldis.identity.keys import check_fingerprint
from aldis.protocol.addresses import device_problem, user_id_problem
from aldis.settings import LONGEST_SECONDS

DEFAULT_SERVER: Final = "ws://127.0.0.1:8080"
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
"""The units of a time, in seconds."""


def add_server(parser: Parser) -> None:
    """Declare `--server`, in the attribute `server`: a `ServerAddress`."""
    parser.options.add_argument(
        "-s",
        "--server",
        metavar="URL",
        type=server,
        default=os.environ.get("ALDIS_SERVER") or DEFAULT_SERVER,
        help=f"The signaling server [$ALDIS_SERVER or {DEFAULT_SERVER}].",
    )


def add_path(parser: Parser, text: str) -> None:
    """Declare `--path`, in the attribute `path`; `text` is its help."""
    choices = ("auto", "direct", "turn", "relay")
    parser.options.add_argument("--path", metavar="PATH", choices=choices, default="auto", help=text)


def add_data(parser: Parser) -> None:
    """Declare `--data`, in the attribute `data`: a directory, or None for the default."""
    parser.options.add_argument(
        "--data",
        metavar="DIR",
        default=os.environ.get("ALDIS_DATA") or None,
        help="Where keys are kept [$ALDIS_DATA or your data directory]; `:memory:` keeps nothing.",
    )


def add_key(parser: Parser) -> None:
    """Declare `--key`, in the attribute `key`: a path or None."""
    parser.options.add_argument(
        "--key", metavar="FILE", type=key_file, help="Use this key file, and not the one kept for the name."
    )


def add_ca_file(parser: Parser) -> None:
    """Declare `--ca-file`, in the attribute `ca_file`: the path of a file with certificates, or None."""
    parser.options.add_argument(
        "--ca-file",
        metavar="FILE",
        type=authorities,
        default=os.environ.get("ALDIS_CA_FILE") or None,
        help="Trust the certificate authorities in this PEM file [$ALDIS_CA_FILE], for wss:// with your own "
        "certificate.",
    )


def existing_file(text: str) -> Path:
    """A file that can be opened; for `type=`."""
    try:
        path = expand(text)
        path.open("rb").close()
    except ConfigError as error:
        raise ArgumentTypeError(str(error)) from None
    except OSError as error:
        raise ArgumentTypeError(f"cannot read {text}: {error.strerror or error}") from None
    return path


def authorities(text: str) -> Path:
    """A file with certificates in PEM form; for `type=`."""
    path = existing_file(text)
    try:
        ssl.create_default_context(cafile=path)
    except (ssl.SSLError, OSError):
        raise ArgumentTypeError(f"{text} holds no certificate in PEM form") from None
    return path


def key_file(text: str) -> Path:
    """The path of a key file, which need not exist; for `type=`."""
    if not text:
        raise ArgumentTypeError("an empty text is not a file")
    return Path(text)


def utf8(text: str) -> str:
    """The typed text, also if the locale has no such letters; for `type=`."""
    try:
        return decoded(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} cannot be used: {error}") from None


def names_action(text: str) -> str:
    """What to do with the list of names that may register; for `type=`."""
    if text not in ("list", "add", "remove"):
        raise ArgumentTypeError(f"{text!r} is none of list, add and remove")
    return text


def check_names(parser: Parser, action: str, name: str | None) -> None:
    """End with an error unless there is a name where one is needed, and only there."""
    if (action == "list") != (name is None):
        parser.error("list takes no NAME" if action == "list" else f"{action} needs a NAME")


def add_token(parser: Parser) -> None:
    """Declare `--token-file`, in the attribute `token_file`; see `token_of`."""
    parser.options.add_argument(
        "--token-file",
        metavar="FILE",
        type=token_file,
        help="The token of your account, if the server wants one [$ALDIS_TOKEN]. The file is read before each login.",
    )


def token_of(given: Callable[[], str] | None) -> str | Callable[[], str] | None:
    """What `SignalingClient` takes: the file of `--token-file`, else the text in the environment, else nothing."""
    return given or os.environ.get("ALDIS_TOKEN") or None


def token_file(text: str) -> Callable[[], str]:
    """A function that reads the token in a file; for `type=`."""
    path = existing_file(text)
    return lambda: path.read_text(encoding="ascii").strip()


def user_name(text: str) -> str:
    """A valid user id; for `type=`."""
    text = utf8(text)
    problem = user_id_problem(text)
    if problem:
        raise ArgumentTypeError(f"{text!r} cannot be a name: {problem}")
    return text


def device_name(text: str) -> str:
    """A valid device name; for `type=`."""
    text = utf8(text)
    problem = device_problem(text)
    if problem:
        raise ArgumentTypeError(f"{text!r}: {problem}")
    return text


def fingerprint(text: str) -> str:
    """A fingerprint as a person types it, in the usual spelling; for `type=`."""
    try:
        return check_fingerprint(utf8(text))
    except UsageError:
        raise ArgumentTypeError(f"{text!r} is no fingerprint: eight groups of four letters and digits") from None


def seconds(text: str) -> float:
    """A time of 0 or more seconds; for `type=`."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= LONGEST_SECONDS:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def server(text: str) -> ServerAddress:
    """A server's address as a person types it; for `type=`."""
    try:
        return ServerAddress.parse(utf8(text).strip())
    except ConfigError as error:
        raise ArgumentTypeError(f"{error.problem}; an example is {DEFAULT_SERVER}") from None


def time_span(text: str) -> float:
    """A time such as 90s, 15m, 2h or 7d, in seconds; for `type=`."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", text)
    if match is None or float(match[1]) == 0:
        raise ArgumentTypeError(f"{text!r} is no time; expected a number and a unit, such as 90s, 15m, 2h or 7d")
    return float(match[1]) * UNITS[match[2]]
