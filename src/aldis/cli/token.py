"""`aldis token`: a token of an account for a trial, and a key that signs tokens."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aldis.cli.exits import ExitCode
from aldis.cli.options import device_name, existing_file, time_span, user_name, utf8
from aldis.cli.parser import Parser
from aldis.environment import expand
from aldis.errors import UsageError

if TYPE_CHECKING:
    from aldis.server.config import ServerConfig

_TEXT: Final = """\
Print a token of the account NAME, to try a server that wants one (`aldis serve
--auth token`). It is signed by the first private key in the server's JWKS
file, and has the audience, issuer and claims that the settings ask for.

With --new-key, make such a file: a JWKS with one private key, which only you
may read. With --public, print the public keys of a file, which is what your
application shows to servers.

A real application makes its own tokens, and no server knows its private key."""

_EXAMPLES: Final = """\
  aldis token --new-key /etc/aldis/keys.json
  aldis serve --auth token --jwks /etc/aldis/keys.json
  ALDIS_TOKEN=$(aldis token alice --key /etc/aldis/keys.json) \\
      aldis chat bob --as alice
  aldis token alice --config /etc/aldis.toml --for 7d"""

_HOUR: Final = 3600.0


class Arguments(Namespace):
    """The arguments of `aldis token`."""

    name: str | None
    new_key: Path | None
    algorithm: str
    public: bool
    key: Path | None
    seconds: float
    device: str | None
    config: Path | None


def run(words: Sequence[str]) -> int:
    """Run `aldis token` with these arguments and return the exit code."""
    parser = Parser(
        "aldis token",
        "(NAME | --new-key FILE | --public) [options]",
        _TEXT,
        examples=_EXAMPLES,
        codes=(ExitCode.OK, ExitCode.USAGE),
    )
    parser.argument("name", "The user that the token names.", convert=user_name, optional=True)
    parser.options.add_argument("--new-key", metavar="FILE", type=expand, help="Make a key in this new file.")
    parser.options.add_argument(
        "--algorithm", metavar="NAME", type=utf8, default="EdDSA", help="Of --new-key: EdDSA, ES256, RS256, HS256."
    )
    parser.options.add_argument("--public", action="store_true", help="Print the public keys.")
    parser.options.add_argument(
        "--key", metavar="FILE", type=existing_file, help="The file of the private key [jwks in the settings]."
    )
    parser.options.add_argument(
        "--for", dest="seconds", metavar="TIME", type=time_span, default=_HOUR, help="How long it holds [1h]."
    )
    parser.options.add_argument("--device", metavar="DEVICE", type=device_name, help="The only device that it is for.")
    parser.options.add_argument(
        "--config",
        metavar="FILE",
        type=existing_file,
        default=os.environ.get("ALDIS_CONFIG") or None,
        help="The server's settings file [$ALDIS_CONFIG].",
    )
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())
    asked = (arguments.name is not None) + (arguments.new_key is not None) + arguments.public
    if asked != 1:
        parser.error("give a NAME, --new-key FILE or --public")
    if arguments.new_key is not None:
        return _new_key(arguments.new_key, arguments.algorithm)
    return _public(arguments) if arguments.public else _token(arguments)


def _new_key(path: Path, algorithm: str) -> int:
    from aldis.server.token_keys import make_key, write_key  # slow to import

    jwk = make_key(algorithm)
    write_key(path, jwk)
    print(f"{path}: a new {algorithm} key, {jwk['kid']}")
    return ExitCode.OK


def _public(arguments: Arguments) -> int:
    import json

    from aldis.server.token_keys import public_part, read_keys

    path = _file(arguments, None if arguments.key is not None else _settings(arguments))
    keys = [public for key in read_keys(path) if (public := public_part(key)) is not None]
    if not keys:
        raise UsageError(f"{path} has secrets only (HS256), and those are for nobody else")
    print(json.dumps({"keys": keys}, indent=1))
    return ExitCode.OK


def _token(arguments: Arguments) -> int:
    from aldis.server.token_keys import sign_token

    config = _settings(arguments)
    now = int(time.time())
    claims: dict[str, Any] = {config.token_claim: arguments.name, "iat": now, "exp": int(now + arguments.seconds)}
    if config.token_audience:
        claims["aud"] = config.token_audience
    if config.token_issuer:
        claims["iss"] = config.token_issuer
    if arguments.device is not None:
        if not config.token_device_claim:
            raise UsageError("the settings have no token_device_claim, so a server would not look at --device")
        claims[config.token_device_claim] = arguments.device
    print(sign_token(_file(arguments, config), claims))
    return ExitCode.OK


def _settings(arguments: Arguments) -> ServerConfig:
    """The settings of the server, as far as they are given."""
    from aldis.server.config import SETTINGS, load_config

    # With a key of its own, the command needs no settings of a server that wants tokens.
    flags = {} if arguments.key is None else {"auth": "token", "jwks": str(arguments.key)}
    # Other settings may need secrets that are not here.
    ours = [name for name in SETTINGS if name in ("auth", "jwks") or name.startswith("token_")]
    return load_config(flags, os.environ, arguments.config, only=ours)


def _file(arguments: Arguments, config: ServerConfig | None) -> Path:
    if arguments.key is not None:
        return arguments.key
    if config is not None and isinstance(config.jwks, Path):
        return config.jwks
    raise UsageError("which key? Name its file with --key, or the server's settings with --config")
