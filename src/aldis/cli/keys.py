"""`aldis keys`: make, show and compare identity keys, and decide about the changed key of a peer."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from aldis.cli.exits import ExitCode, complain, explain
from aldis.cli.home import Home
from aldis.cli.options import add_data, add_key, add_server, fingerprint, user_name
from aldis.cli.parser import Parser, run_command
from aldis.cli.text import safe_line
from aldis.client.address import ServerAddress
from aldis.errors import IdentityError
from aldis.identity.keys import PUBLIC_KEY_BYTES, Identity
from aldis.identity.keys import fingerprint as fingerprint_of
from aldis.protocol.codec import from_base64, to_base64

_HELP: Final = """\
Usage: aldis keys COMMAND [options]

Make, show and compare identity keys.

A name belongs for good to the key that registered it first. `aldis chat` makes
a key for a name on first use. Use these commands to look at keys, to compare
fingerprints, and to accept the new key of a peer. The key file is the only
proof that a name is yours: keep it secret, and copy it to a new machine.

Commands
  new          Make a key. Never overwrites an existing one.
  show         Show a key; without a name, all names with a key here.
  fingerprint  Print the fingerprint of your key, and nothing else.
  peer         Print the fingerprint of the known key of a peer.
  trust        Accept a new key of a peer, in place of the known one.

Options
  -h, --help   Show this text; `aldis keys COMMAND --help` tells more.

Examples
  aldis keys new alice
  aldis keys fingerprint alice    what alice reads to bob on the phone
  aldis keys peer alice           what bob sees, and compares with it

Exit codes
  0    all went well
  2    wrong usage, or a file that cannot be used
"""


class Arguments(argparse.Namespace):
    """The arguments of these commands."""

    name: str | None
    key: Path | None
    data: str | None
    server: ServerAddress
    fingerprint: str | None
    public_key: str | None


def run(arguments: Sequence[str]) -> int:
    """Run `aldis keys` with these arguments and return the exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "new": _new,
        "show": _show,
        "fingerprint": _fingerprint,
        "peer": _peer,
        "trust": _trust,
    }
    return run_command("aldis keys", _HELP, commands, arguments)


# --- the user's own keys ----------------------------------------------------------------------------------------------


def _own(command: str, text: str, examples: str) -> Parser:
    parser = Parser(f"aldis keys {command}", "NAME [options]", text, examples=examples)
    parser.argument("name", "The owner of the key; not needed with --key.", convert=user_name, optional=True)
    add_key(parser)
    add_data(parser)
    parser.add_help_option()
    return parser


def _path(parser: Parser, arguments: Arguments) -> Path:
    if arguments.key is not None:
        return arguments.key
    if arguments.name is None:
        parser.error("give a NAME, or --key FILE")
    home = Home(arguments.data)
    home.require_disk()
    return home.key_path(arguments.name)


def _new(words: Sequence[str]) -> int:
    parser = _own(
        "new",
        "Make a new key and show it. Never overwrites an existing one.",
        "  aldis keys new alice\n  aldis keys new alice@example.com --data ~/work\n  aldis keys new --key alice.pem",
    )
    arguments = parser.parse_args(words, Arguments())
    path = _path(parser, arguments)
    identity = Identity.generate()
    try:
        with Home(arguments.data).with_advice(arguments.key):
            identity.save(path)
    except FileExistsError:
        raise IdentityError(f"there is a key already in {path}; it is left as it is") from None
    _print_key(arguments.name, path, identity)
    return ExitCode.OK


def _show(words: Sequence[str]) -> int:
    parser = _own(
        "show",
        "Show a key: its file, its public key and its fingerprint.\nWithout a name: all names with a key here.",
        "  aldis keys show\n  aldis keys show alice\n  aldis keys show --key alice.pem",
    )
    arguments = parser.parse_args(words, Arguments())
    if arguments.name is None and arguments.key is None:
        return _print_all(Home(arguments.data))
    path = _path(parser, arguments)
    _print_key(arguments.name, path, Identity.load(path))
    return ExitCode.OK


def _fingerprint(words: Sequence[str]) -> int:
    parser = _own(
        "fingerprint",
        "Print the fingerprint of your key and nothing else: to read aloud, or for a\nscript.",
        "  aldis keys fingerprint alice",
    )
    arguments = parser.parse_args(words, Arguments())
    print(Identity.load(_path(parser, arguments)).fingerprint)
    return ExitCode.OK


def _print_key(name: str | None, path: Path, identity: Identity) -> None:
    if name is not None:
        print(f"name         {safe_line(name)}")
    print(f"key file     {safe_line(str(path))}")
    print(f"public key   {to_base64(identity.public_key)}")
    print(f"fingerprint  {identity.fingerprint}")


def _print_all(home: Home) -> int:
    home.require_disk()
    names = home.names()
    if not names:
        complain("there is no key yet; `aldis keys new NAME` makes one, and so does the first `aldis chat`")
        return ExitCode.OK
    width = max(len(name) for name, _ in names)
    code = ExitCode.OK
    for name, path in names:
        try:
            print(f"{safe_line(name):{width}}  {Identity.load(path).fingerprint}")
        except IdentityError as error:
            code = ExitCode.USAGE
            complain(explain(error))
    return code


# --- keys of peers ----------------------------------------------------------------------------------------------------


def _peer(words: Sequence[str]) -> int:
    parser = Parser(
        "aldis keys peer",
        "NAME [options]",
        "Print the fingerprint of the key that this machine knows for a peer: the first\n"
        "key, or the one that you have accepted since.",
        examples="  aldis keys peer bob\n  aldis keys peer bob --server wss://example.com",
    )
    parser.argument("name", "The peer.", convert=user_name)
    add_server(parser)
    add_data(parser)
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())
    home = Home(arguments.data)
    home.require_disk()
    host, name = arguments.server.server, str(arguments.name)
    pins = home.pins()
    try:
        public_key = pins.find(host, name)
    finally:
        pins.close()
    if public_key is None:
        raise IdentityError(f"no key is known for {name} on {host}: you have not met there yet")
    print(fingerprint_of(public_key))
    return ExitCode.OK


def _trust(words: Sequence[str]) -> int:
    parser = Parser(
        "aldis keys trust",
        "NAME (--fingerprint TEXT | --public-key KEY) [options]",
        "Accept a new key of a peer, in place of the known one.\n\n"
        "Do this only after the peer has told you the fingerprint in another way, on the\n"
        "phone or face to face. An attacker between you, or the server, can show you\n"
        "another key, but not one with the fingerprint that you heard.",
        examples="  aldis keys trust bob --fingerprint k3ul-7q2a-...-x4wd\n"
        "      after `aldis chat` has refused bob's new key\n"
        "  aldis keys trust bob --public-key vPpqJmXlPXsY...s2g=\n"
        "      before you first meet; bob sees it in `aldis keys show bob`",
    )
    parser.argument("name", "The peer.", convert=user_name)
    parser.options.add_argument(
        "--fingerprint", metavar="TEXT", type=fingerprint, help="The fingerprint of the key that chat refused."
    )
    parser.options.add_argument("--public-key", metavar="KEY", help="The key itself, as `aldis keys show` prints it.")
    add_server(parser)
    add_data(parser)
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())
    if arguments.fingerprint is None and arguments.public_key is None:
        parser.error("give --fingerprint TEXT or --public-key KEY")
    home = Home(arguments.data)
    home.require_disk()
    host, name = arguments.server.server, str(arguments.name)
    key = _meant(arguments, name, host, home.refused(host, name))
    pins = home.pins()
    try:
        pins.accept(host, name, key)
    finally:
        pins.close()
    home.forget_refused(host, name)
    print(f"{safe_line(name)} on {host} is now known by the key {fingerprint_of(key)}")
    return ExitCode.OK


def _meant(arguments: Arguments, name: str, host: str, refused: bytes | None) -> bytes:
    """The key for `trust`. Raises `IdentityError` when there is no such key, or when it differs from the arguments."""
    if arguments.public_key is not None:
        try:
            key = from_base64(arguments.public_key, PUBLIC_KEY_BYTES)
        except ValueError as error:
            raise IdentityError(f"--public-key is no key: {error}") from None
    elif refused is not None:
        key = refused
    else:
        raise IdentityError(
            f"no key of {name} has been refused on {host}, so a fingerprint is not enough; give --public-key"
        )
    if arguments.fingerprint is not None and arguments.fingerprint != fingerprint_of(key):
        raise IdentityError(
            f"{name} presented a key with another fingerprint, {fingerprint_of(key)}; nothing was changed. "
            "If you gave what the peer told you, somebody may stand between you."
        )
    return key
