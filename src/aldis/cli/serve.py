"""`aldis serve`: the settings as options, and the text for people when the server listens."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aldis.cli.exits import ExitCode
from aldis.cli.hints import typed
from aldis.cli.options import DEFAULT_SERVER, existing_file
from aldis.cli.parser import Parser
from aldis.protocol.hosts import is_this_machine
from aldis.server.config import ServerConfig, help_of, load_config
from aldis.server.dialled import dialled_url

if TYPE_CHECKING:
    from aldis.server.app import SignalingServer
    from aldis.server.supervisor import Served

_TEXT: Final = """\
Run a signaling server. It keeps names and their keys, reports which users are
online, and introduces two programs to each other. What they then say does not
pass through it. On Ctrl-C or SIGTERM it tells its clients when to come back,
and stops.

Each setting can also be an environment variable (ALDIS_PORT=8080) or a line in
a TOML file (port = 8080; --config names the file). An option wins over a
variable, and a variable over the file."""

_EXAMPLES: Final = """\
  aldis serve
      for this machine only: a page at http://localhost:8080/, and ws://
  aldis serve --host 0.0.0.0 --port 443 --tls-cert cert.pem --tls-key key.pem
      for everyone; or put a proxy with TLS in front of it
  aldis serve --host :: --port 443 --redirect-port 80 \\
              --acme-domain signal.example.com --acme-agree-tos
      the same, with a certificate that it gets and renews by itself
  aldis serve --data :memory: --port 0 --admin-port none
      for a test: keeps nothing, takes a free port
  aldis serve --config /etc/aldis.toml --log-format json"""

_SWITCH: Final = ""
# The settings in the help: the heading, and the name of each value.
_LAYOUT: Final[dict[str, dict[str, str]]] = {
    "Options": {
        "host": "ADDRESS",
        "port": "PORT",
        "auth": "MODE",
        "data": "DIR",
        "directory": "URL",
        "web": _SWITCH,
        "watchdog_seconds": "SECS",
    },
    "Redis, and several servers that act as one": {
        "redis": "URL",
        "redis_prefix": "TEXT",
        "redis_password_file": "FILE",
        "workers": "N",
    },
    "TLS and admission": {
        "tls_cert": "FILE",
        "tls_key": "FILE",
        "acme_domain": "DOMAIN",
        "acme_agree_tos": _SWITCH,
        "acme_email": "ADDRESS",
        "acme_directory": "URL",
        "acme_ca_file": "FILE",
        "redirect_port": "PORT",
        "hsts": _SWITCH,
        "names": "HOST,...",
        "base_path": "PATH",
        "origins": "URL,...",
        "trusted_proxies": "NETWORK,...",
        "proxy_protocol": _SWITCH,
    },
    "Accounts": {
        "name_policy": "POLICY",
        "jwks": "FILE|URL",
        "jwks_refresh": "SECS",
        "token_audience": "TEXT",
        "token_issuer": "TEXT",
        "token_claim": "CLAIM",
        "token_device_claim": "CLAIM",
        "token_leeway": "SECS",
        "token_grace": "SECS",
        "hook_url": "URL",
        "hook_secret": "TEXT",
        "hook_timeout": "SECS",
        "hook_cache": "SECS",
        "hook_concurrency": "N",
        "hook_failure": "WORD",
        "presence_url": "URL",
        "presence_queue": "N",
    },
    "STUN, TURN and relay, for peers in different networks": {
        "stun": "URL,...",
        "stun_port": "PORT",
        "stun_address": "ADDRESS",
        "turn": "URL,...",
        "turn_secret": "TEXT",
        "turn_check": "URL,...",
        "turn_credential_lifetime": "SECS",
        "turn_server": _SWITCH,
        "turn_address": "ADDRESS",
        "turn_port": "PORT",
        "turn_tls_port": "PORT",
        "turn_relay_ports": "FIRST-LAST",
        "relay": _SWITCH,
    },
    "Admin port and log": {
        "admin_host": "ADDRESS",
        "admin_port": "PORT",
        "admin_token": "TEXT",
        "log_format": "FORMAT",
        "log_level": "LEVEL,...",
        "log_addresses": "HOW",
    },
    "Limits": {
        "max_connections": "N",
        "handshakes": "N",
        "connections_per_address": "N",
        "connects_per_address": "N",
        "connects_per_second": "N",
        "handshake_timeout": "SECS",
        "tls_handshakes": "N",
        "partial_requests_bytes": "BYTES",
        "registration_timeout": "SECS",
        "stun_per_second": "N",
        "stun_per_address": "N",
        "messages_per_second": "N",
        "bytes_per_second": "BYTES",
        "user_messages_per_second": "N",
        "user_bytes_per_second": "BYTES",
        "user_relayed_bytes_per_second": "BYTES",
        "user_discovers_per_second": "N",
        "user_sealed_bytes_per_second": "BYTES",
        "pair_sealed_bytes_per_second": "BYTES",
        "max_relay_file_bytes": "BYTES",
        "max_message_bytes": "N",
        "new_names_per_address": "N",
        "failed_proofs_per_address": "N",
        "failed_proofs_per_name": "N",
        "failed_proofs_per_connection": "N",
        "devices_per_user": "N",
        "watches_per_session": "N",
        "watches_per_user": "N",
        "watchers_per_user": "N",
        "watches_bytes": "BYTES",
        "privacy_bytes": "BYTES",
        "privacy_names_per_user": "N",
        "memory_budget": "BYTES",
        "presence_interval": "SECS",
        "resume_window": "SECS",
        "detached_bytes": "BYTES",
        "detached_bytes_per_user": "BYTES",
        "outgoing_queue_bytes": "BYTES",
        "ping_interval": "SECS",
        "drain_seconds": "SECS",
    },
}
# Options that may be given several times.
_REPEATED: Final = frozenset({"acme_domain"})
_DEFAULTS: Final = {"data": "your data directory"}
_ANY_ADDRESS: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


class Arguments(argparse.Namespace):
    """The arguments of `aldis serve` other than the settings."""

    config: Path | None


def run(words: Sequence[str]) -> int:
    """Run `aldis serve` with these arguments and return the exit code."""
    codes = (ExitCode.OK, ExitCode.FAULT, ExitCode.USAGE)
    parser = Parser("aldis serve", "[options]", _TEXT, examples=_EXAMPLES, codes=codes)
    names = declare_settings(parser)
    arguments = parser.parse_args(words, Arguments())
    flags = {name: getattr(arguments, name) for name in names}

    def read() -> ServerConfig:
        return load_config(flags, os.environ, arguments.config)

    config = read()

    from aldis.server.process import run as serve  # slow to import, and --help does not need it

    # A log in JSON is for machines.
    return serve(config, _welcome if config.log_format == "console" else None, reread=read)


def declare_settings(parser: Parser) -> list[str]:
    """Declare all settings as options; return their names."""
    for heading, settings in _LAYOUT.items():
        group = parser.options if heading == "Options" else parser.add_argument_group(heading)
        for name, metavar in settings.items():
            flag = f"--{name.replace('_', '-')}"
            if metavar is _SWITCH:
                group.add_argument(flag, action=argparse.BooleanOptionalAction, help=_help(name))
            elif name in _REPEATED:
                group.add_argument(flag, metavar=metavar, action="extend", type=_several, help=_help(name))
            else:
                group.add_argument(flag, metavar=metavar, help=_help(name))
    parser.options.add_argument(
        "--config",
        metavar="FILE",
        type=existing_file,
        default=os.environ.get("ALDIS_CONFIG") or None,
        help="A TOML file with settings [$ALDIS_CONFIG].",
    )
    parser.add_help_option()
    return [name for settings in _LAYOUT.values() for name in settings]


def _several(text: str) -> list[str]:
    return text.split(",")


def _help(name: str) -> str:
    """The purpose of a setting, and its default."""
    text = help_of(name).replace("%", "%%")  # argparse formats it
    default = _DEFAULTS.get(name) or ServerConfig.__dataclass_fields__[name].default
    if default in (None, "", ()):
        return text
    if default is False:
        return text
    if isinstance(default, tuple):
        default = "-".join(map(str, default))
    shown = (
        "yes"
        if default is True
        else "no"
        if default is False
        else f"{default:g}"
        if isinstance(default, float)
        else default
    )
    return f"{text.removesuffix('.')} [{shown}]."


def _welcome(server: SignalingServer | Served) -> None:
    """Print where the server listens and what to do next, with addresses and commands that work as they are."""
    url = _dialled(server)
    where = [] if url == DEFAULT_SERVER else ["--server", url]
    lines = [
        *_for_browsers(server),
        f"Aldis listens at {server.url}{', for this machine alone' if is_this_machine(server.config.host) else ''}"
        f"{f', with {server.config.workers} processes' if server.config.workers > 1 else ''}.",
        *_from_elsewhere(server),
        f"In two terminals, two people can talk like this{_what_they_need(server.config)}:\n",
        f"    {typed('chat', 'bob', '--as', 'alice', *where)}",
        f"    {typed('chat', 'alice', '--as', 'bob', *where)}\n",
        "Ctrl-C stops the server.\n",
    ]
    with suppress(OSError):
        print("\n" + "\n".join(lines), file=sys.stderr, flush=True)


def _what_they_need(config: ServerConfig) -> str:
    """What a registration needs beside a name and a key."""
    token = ", each with a token in ALDIS_TOKEN (`aldis token --help`)" if config.auth == "token" else ""
    closed = config.name_policy == "closed"
    return f"{token}{', once `aldis admin names add` has listed both names' if closed else ''}"


def _dialled(server: SignalingServer | Served) -> str:
    """The address that clients dial."""
    return _named(server) or server.url


def _named(server: SignalingServer | Served) -> str | None:
    """The address with a name of the server, if it has one."""
    from aldis.server.tls import certified_names  # slow to import, and loaded by now

    return dialled_url(server.config, server.port, certified_names(server.config))


def _for_browsers(server: SignalingServer | Served) -> list[str]:
    """Where the page is, and where it will not work."""
    page = server.page_url
    if page is None:
        return []
    config = server.config
    if _named(server) is not None or config.secure or is_this_machine(config.host):
        return [f"Open {page} in a browser.\n"]
    # W3C Secure Contexts, section 3.1: a page over plain HTTP from another machine has no WebCrypto and no camera.
    only = (
        "Browsers allow keys and cameras on https:// and localhost only: for others, --acme-domain, or --tls-cert and "
        "--tls-key."
    )
    where = f"Open {page} in a browser" if config.host in _ANY_ADDRESS else f"The page is at {page}"
    return [f"{where}.", f"{only}\n"]


def _from_elsewhere(server: SignalingServer | Served) -> list[str]:
    """The address for other machines, when the server listens on all addresses."""
    config = server.config
    if _named(server) is not None:
        return [f"It is dialled as {_dialled(server)}, on this machine too."]
    if config.host not in _ANY_ADDRESS:
        return []
    scheme = server.url.partition(":")[0]
    address = _own_address()
    return [f"For others in this network it is {scheme}://{address}:{server.port}."] if address else []


def _own_address() -> str | None:
    """The address of this machine in its network; None without a network."""
    # Connecting a UDP socket sends nothing. TEST-NET-2 (RFC 5737) is in no network of ours.
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        return str(probe.getsockname()[0])
    return None
