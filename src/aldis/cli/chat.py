"""`aldis chat`: its arguments, its signals, and its end. `typed.py` or `piped.py` runs the conversation."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aldis.cli.exits import MEANINGS, ExitCode, complain
from aldis.cli.hints import typed
from aldis.cli.home import MEMORY, Home
from aldis.cli.options import (
    DEFAULT_SERVER,
    add_ca_file,
    add_data,
    add_key,
    add_path,
    add_server,
    add_token,
    device_name,
    seconds,
    token_of,
    user_name,
)
from aldis.cli.parser import Parser
from aldis.cli.text import safe_line
from aldis.client.address import ServerAddress
from aldis.errors import PeerError, PeerKeyChanged
from aldis.identity.keys import fingerprint

if TYPE_CHECKING:
    from aldis.cli.piped import Pipeline
    from aldis.cli.talk import Talk
    from aldis.cli.typed import Screen
    from aldis.identity.keys import Identity
    from aldis.identity.pins import Pins

_TEXT: Final = """\
Talk to NAME, directly and privately. Either of you may start first.

At a terminal: type a line and press Enter. The messages of NAME appear above,
and the bar at the bottom shows the state of the connection. Ctrl-D leaves when
all messages are delivered.

In a pipeline (input or output is not a terminal): the command sends each line
of the input, and prints each arriving message as `NAME: text`. Line ends and
control characters in the text become escapes such as \\n; --json prints the
exact text. At the end of the input the command waits until NAME has confirmed
all messages, then leaves.

A name belongs to a key, which is made on first use. The command remembers the
key of NAME when you first connect. If the key changes later, nothing is sent."""

_EXAMPLES: Final = """\
  aldis chat bob --as alice
  aldis chat bob@example.com --as alice@example.com --server wss://example.com
  echo hello | aldis chat bob --as alice
      ends when bob has it, with exit code 0
  aldis chat alice --as bob --listen < /dev/null > heard.txt
      listens until alice leaves
  tail -f app.log | aldis chat bob --as alice --no-wait
      fails at once when bob is not there"""

_WAIT: Final = 60.0  # seconds: time to walk over to the other terminal


class Arguments(argparse.Namespace):
    """The arguments of `aldis chat`."""

    name: str
    me: str
    server: ServerAddress
    key: Path | None
    data: str | None
    device: str
    wait: bool
    listen: bool
    keep_listening: bool
    timeout: float | None
    json: bool
    engine: str
    path: str
    journal: str | None
    ca_file: Path | None
    token_file: Callable[[], str] | None
    verbose: bool


def run(words: Sequence[str]) -> int:
    """Run `aldis chat` with these arguments and return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(words, Arguments())
    if arguments.name == arguments.me:
        parser.error(f"NAME and --as are both {arguments.me!r}: take another name for yourself")
    import asyncio

    from aldis.cli.logs import log_to_stderr  # --help needs none of these
    from aldis.cli.signals import until_signal

    log_to_stderr(verbose=arguments.verbose)
    return asyncio.run(until_signal(_talk(arguments)))


def _parser() -> Parser:
    codes = [code for code in MEANINGS if code is not ExitCode.BROKEN_PIPE]
    parser = Parser("aldis chat", "NAME --as ME [options]", _TEXT, examples=_EXAMPLES, codes=codes)
    parser.argument("name", "The name of the peer.", convert=user_name)
    add = parser.options.add_argument
    add("--as", dest="me", metavar="ME", type=user_name, required=True, help="Your own name.")
    add_server(parser)
    add_key(parser)
    add_data(parser)
    add_ca_file(parser)
    add_token(parser)
    add("--device", metavar="NAME", type=device_name, default="main", help="The name of this device of yours [main].")
    add("--no-wait", dest="wait", action="store_false", help="Fail at once when NAME is not online.")
    add(
        "--timeout",
        metavar="SECS",
        type=seconds,
        help="How long to wait until NAME comes (in a pipeline), and until NAME has confirmed all messages; 0 means "
        "no limit [60; no limit with --listen].",
    )
    add("-l", "--listen", action="store_true", help="In a pipeline, stay after the end of the input until NAME leaves.")
    add("-k", "--keep-listening", action="store_true", help="Like --listen, but also stay when NAME leaves.")
    add("--json", action="store_true", help="Print messages as JSON lines: from, and text, base64 or json.")
    add(
        "--engine",
        metavar="NAME",
        choices=("wrtc", "aiortc"),
        default="wrtc",
        help="The WebRTC engine: wrtc or aiortc [wrtc].",
    )
    add_path(
        parser,
        "How messages may go: auto, direct (never sealed through the server), or turn or relay (NAME learns no address "
        "of yours) [auto].",
    )
    add(
        "--journal",
        metavar="FILE",
        help="Where messages are kept until they are delivered or shown, also when the command ends before that [in "
        "--data, a file for each NAME; nowhere with --no-wait]; `:memory:` keeps none.",
    )
    add("-v", "--verbose", action="store_true", help="Log more on stderr.")
    parser.add_help_option()
    return parser


async def _talk(arguments: Arguments) -> ExitCode:
    home = Home(arguments.data)
    identity, path, made = home.identity(arguments.me, arguments.key)
    if made and path is not None:
        complain(f"made a new key for {safe_line(arguments.me)}, in {safe_line(str(path))}")
    pins = home.pins()
    try:
        return await _hold(arguments, identity, pins, _journal(arguments, home))
    except PeerKeyChanged as error:
        home.remember_refused(arguments.server.server, error.user_id, error.offered)
        complain(_key_changed(error, arguments))
        return ExitCode.KEY_CHANGED
    finally:
        pins.close()


def _journal(arguments: Arguments, home: Home) -> str | None:
    if arguments.journal is not None:
        return arguments.journal
    if not arguments.wait:
        return None  # what fails at once must not be sent later
    path = home.journal(arguments.server.server, arguments.me, arguments.device, arguments.name)
    return None if path is None else str(path)


async def _hold(arguments: Arguments, identity: Identity, pins: Pins, journal: str | None) -> ExitCode:
    """Register, and run the conversation for a terminal or a pipeline."""
    import asyncio

    from aldis.cli.talk import Plan, Talk
    from aldis.store.store import NetworkStore

    at_terminal = _at_terminal()
    plan = Plan(
        me=arguments.me,
        peer=arguments.name,
        server=arguments.server.server,
        first_contact=pins.find(arguments.server.server, arguments.name) is None,
        wait=arguments.wait,
        timeout=_timeout(arguments),
        listen=arguments.listen,
        keep_listening=arguments.keep_listening,
        json=arguments.json,
        keeps=journal not in (None, MEMORY),
    )
    # Admit only this peer, because the conversation has two sides.
    store = NetworkStore(
        identity,
        pins=pins,
        engine=arguments.engine,
        accept=lambda user_id, _: user_id == arguments.name,
        path=arguments.path,
        journal=journal,
    )
    async with store:
        await store.connect_to_signaling(
            arguments.server.url,
            arguments.me,
            device=arguments.device,
            token=token_of(arguments.token_file),
            ca_file=arguments.ca_file,
        )
        form: Screen | Pipeline
        if at_terminal:
            from aldis.cli.typed import Screen, notice

            form = Screen(talk := Talk(store, plan, notice, chatty=True))
        else:
            from aldis.cli.piped import Pipeline

            form = Pipeline(talk := Talk(store, plan, complain, chatty=arguments.verbose))
        try:
            code = await form.run()
        except asyncio.CancelledError:
            _tell_undelivered(talk)
            raise
        except PeerError:
            if plan.keeps:
                _tell_undelivered(talk)
            raise
        if code is ExitCode.INTERRUPTED:
            _tell_undelivered(talk)
        return code


def _tell_undelivered(talk: Talk) -> None:
    """Report after an interrupt which messages have not arrived."""
    if talk.view.queued:
        complain(f"not delivered: {talk.view.queued} message{'s' * (talk.view.queued > 1)}{talk.afterwards}")


def _at_terminal() -> bool:
    """Whether both streams are a terminal, so that a person can use a line editor."""
    streams = (sys.stdin, sys.stdout)
    return all(stream is not None and stream.isatty() for stream in streams) and os.environ.get("TERM") != "dumb"


def _timeout(arguments: Arguments) -> float | None:
    if arguments.timeout is None:
        return None if arguments.listen or arguments.keep_listening else _WAIT
    return arguments.timeout or None


def _key_changed(error: PeerKeyChanged, arguments: Arguments) -> str:
    name, new = safe_line(error.user_id), fingerprint(error.offered)
    options = (
        []
        if arguments.server.server == ServerAddress.parse(DEFAULT_SERVER).server
        else ["--server", arguments.server.url]
    )
    options += [] if arguments.data == (os.environ.get("ALDIS_DATA") or None) else ["--data", str(arguments.data)]
    return f"""\
the key of {name} has changed; nothing was said to them.

  known since you met  {fingerprint(error.pinned)}
  presented now        {new}

Either {name} has a new key (a new machine, a lost file), or somebody else answers
in their name. Ask {name}, on the phone or face to face, what this prints there:

  aldis keys fingerprint {name}

If it is the second one, accept it with the next line. If not, stay away.

  {typed("keys", "trust", error.user_id, "--fingerprint", new, *options)}"""
