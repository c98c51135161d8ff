"""Options that several commands share, and what is accepted as a server's address.

An address may be typed as a person would: `example.com`, `127.0.0.1:8080`, `https://example.com/aldis`. Without a
scheme it is `ws` on this machine and `wss` elsewhere, so that nobody sends a name in the clear by leaving out a word.
"""

from __future__ import annotations

import os
from argparse import ArgumentTypeError
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from aldis.cli.parser import Parser
from aldis.protocol.addresses import device_problem, user_id_problem

DEFAULT_SERVER: Final = "ws://127.0.0.1:8080"
_SCHEMES: Final = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}


def add_server(parser: Parser) -> None:
    """Declare `--server`, in the attribute `server`: a WebSocket URL."""
    parser.options.add_argument(
        "-s",
        "--server",
        metavar="URL",
        type=server_url,
        default=os.environ.get("ALDIS_SERVER") or DEFAULT_SERVER,
        help=f"The signaling server [$ALDIS_SERVER or {DEFAULT_SERVER}].",
    )


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
        "--key", metavar="FILE", type=Path, help="Use this key file, instead of the one kept for the name."
    )


def add_ca_file(parser: Parser) -> None:
    """Declare `--ca-file`, in the attribute `ca_file`: the path of a file that exists, or None."""
    parser.options.add_argument(
        "--ca-file",
        metavar="FILE",
        type=existing_file,
        default=os.environ.get("ALDIS_CA_FILE") or None,
        help="Trust the certificate authorities in this PEM file [$ALDIS_CA_FILE]: for wss:// with a certificate of "
        "your own.",
    )


def existing_file(text: str) -> Path:
    """A file that can be opened; for `type=`."""
    path = Path(text).expanduser()
    try:
        path.open("rb").close()
    except OSError as error:
        raise ArgumentTypeError(f"cannot read {text}: {error.strerror or error}") from None
    return path


def user_name(text: str) -> str:
    """A valid user id; for `type=`."""
    problem = user_id_problem(text)
    if problem:
        raise ArgumentTypeError(f"{text!r} cannot be a name: {problem}")
    return text


def device_name(text: str) -> str:
    """A valid device name; for `type=`."""
    problem = device_problem(text)
    if problem:
        raise ArgumentTypeError(f"{text!r}: {problem}")
    return text


def seconds(text: str) -> float:
    """A time of 0 or more seconds; for `type=`."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def is_this_machine(host: str) -> bool:
    """Tell whether a host name or address means this machine, without asking anybody."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761 section 6.3


def server_url(text: str) -> str:
    """The WebSocket URL for what a person typed; for `type=`."""
    text = text.strip()
    parts = _split(text if "://" in text else f"//{text}")
    if parts.scheme and parts.scheme not in _SCHEMES:
        raise ArgumentTypeError(f"{text}: a server's address begins with ws:// or wss://, not {parts.scheme}://")
    if not parts.hostname:
        raise ArgumentTypeError(f"{text or 'an empty text'} names no host; an example is {DEFAULT_SERVER}")
    if parts.username is not None or parts.fragment or any(c.isspace() for c in text):
        raise ArgumentTypeError(f"{text}: only a host, a port and a path belong there; an example is {DEFAULT_SERVER}")
    scheme = _SCHEMES.get(parts.scheme) or ("ws" if is_this_machine(parts.hostname) else "wss")
    return SplitResult(scheme, parts.netloc.lower(), parts.path, parts.query, "").geturl()


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError when it is none
    except ValueError as error:
        raise ArgumentTypeError(f"{text.removeprefix('//')} is no address: {error}") from None
    return parts


def server_name(url: str) -> str:
    """The server as pins know it: host and port as in the Host header (RFC 9110 section 7.2), lower case."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f"{host}:{parts.port}"
