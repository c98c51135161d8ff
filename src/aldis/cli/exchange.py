"""What `aldis send` and `aldis receive` have in common: a store of one's own name, or of a name for a code."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aldis.cli.exits import complain
from aldis.cli.home import Home
from aldis.cli.options import (
    add_ca_file,
    add_data,
    add_key,
    add_path,
    add_server,
    add_token,
    device_name,
    seconds,
    token_of,
)
from aldis.cli.options import user_name as user_name_option
from aldis.cli.parser import Parser
from aldis.cli.text import safe_line
from aldis.client.address import ServerAddress
from aldis.errors import PeerKeyChanged

if TYPE_CHECKING:
    from aldis.cli.talk import Plan
    from aldis.store.peers.admission import Accept
    from aldis.store.store import NetworkStore


class ExchangeArguments(argparse.Namespace):
    """The arguments that both commands have."""

    me: str | None
    server: ServerAddress
    key: Path | None
    data: str | None
    device: str
    timeout: float | None
    engine: str
    path: str
    ca_file: Path | None
    token_file: Callable[[], str] | None
    quiet: bool
    verbose: bool


def check_code(parser: Parser, arguments: ExchangeArguments) -> None:
    """End with an error for options that do not go with a code."""
    if arguments.path != "auto":
        parser.error("--path goes with --as ME; with a code, the words are checked before a path is chosen")


def add_exchange(parser: Parser, timeout: str) -> None:
    """Declare the options that both commands have; `timeout` is the help of `--timeout`."""
    add = parser.options.add_argument
    add("--as", dest="me", metavar="ME", type=user_name_option, help="Your own name; without it, a code is used.")
    add_server(parser)
    add_key(parser)
    add_data(parser)
    add_ca_file(parser)
    add_token(parser)
    add("--device", metavar="NAME", type=device_name, default="main", help="The name of this device of yours [main].")
    add("--timeout", metavar="SECS", type=seconds, help=timeout)
    add(
        "--engine",
        metavar="NAME",
        choices=("wrtc", "aiortc"),
        default="wrtc",
        help="The WebRTC engine: wrtc or aiortc [wrtc].",
    )
    add_path(
        parser,
        "How files may go, with --as: auto, direct (never sealed through the server), or turn or relay (the other side "
        "learns no address of yours) [auto].",
    )
    add("-q", "--quiet", action="store_true", help="Print problems only.")
    add("-v", "--verbose", action="store_true", help="Log more on stderr.")
    parser.add_help_option()


@asynccontextmanager
async def named_store(
    arguments: ExchangeArguments, peer: str | None, accept: Accept
) -> AsyncIterator[tuple[NetworkStore, bool]]:
    """A store that is registered as `--as`, and whether no key of `peer` is known yet. Explains a key that has
    changed."""
    from aldis.store.store import NetworkStore

    assert arguments.me is not None  # noqa: S101 - the caller has looked
    home = Home(arguments.data)
    identity, path, made = home.identity(arguments.me, arguments.key)
    if made and path is not None:
        complain(f"made a new key for {safe_line(arguments.me)}, in {safe_line(str(path))}")
    pins = home.pins()
    server = arguments.server.server
    try:
        store = NetworkStore(identity, pins=pins, engine=arguments.engine, accept=accept, path=arguments.path)
        async with store:
            await store.connect_to_signaling(
                arguments.server.url,
                arguments.me,
                device=arguments.device,
                token=token_of(arguments.token_file),
                ca_file=arguments.ca_file,
            )
            yield store, peer is not None and pins.find(server, peer) is None
    except PeerKeyChanged as error:
        home.remember_refused(server, error.user_id, error.offered)
        raise
    finally:
        pins.close()


async def code_store(arguments: ExchangeArguments, user_id: str, accept: Accept) -> NetworkStore:
    """A store with a fresh key that is registered as `user_id`. Uses the relay alone where the server has one, so that
    nobody learns an address before the words are checked. Raises as `connect_to_signaling`."""
    from aldis.store.store import NetworkStore

    for path in ("relay", "auto"):
        store = NetworkStore(engine=arguments.engine, accept=accept, path=path)
        try:
            await store.connect_to_signaling(
                arguments.server.url,
                user_id,
                token=token_of(arguments.token_file),
                ca_file=arguments.ca_file,
            )
        except BaseException:
            await store.disconnect()
            raise
        if path == "auto" or store.has_relay:
            break
        await store.disconnect()
    return store


def plan(arguments: ExchangeArguments, me: str, peer: str, *, first_contact: bool, wait: bool = True) -> Plan:
    """How to meet a peer for files."""
    from aldis.cli.talk import Plan

    return Plan(
        me=me,
        peer=peer,
        server=arguments.server.server,
        first_contact=first_contact,
        wait=wait,
        timeout=arguments.timeout or None,
        listen=False,
        keep_listening=False,
        json=False,
    )
