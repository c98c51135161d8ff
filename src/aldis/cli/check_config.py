"""`aldis check-config`: says whether a server could run with these settings. It starts none.

Rules: it changes nothing, and makes no directory. A port is tried and freed again at once.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aldis.cli.exits import ExitCode
from aldis.cli.parser import Parser
from aldis.cli.serve import Arguments, declare_settings
from aldis.cli.text import safe_line
from aldis.errors import ConfigError
from aldis.server.config import MEMORY, ServerConfig, load_config

_TEXT: Final = """\
Say whether a server could run with these settings: whether each has a value
that can be used, the certificate and its key can be read and belong together,
the ports are free, and the directory for names can be written. No server is
started, and nothing is changed.

It takes the options, variables and file of `aldis serve`."""

_EXAMPLES: Final = """\
  aldis check-config --config /etc/aldis.toml
  aldis check-config --config /etc/aldis.toml && systemctl reload aldis"""

_DAY: Final = 86_400
_SOON: Final = 14 * _DAY
_LISTENING: Final = "0A"  # the state of a listening socket in /proc/net/tcp


@dataclass(frozen=True)
class Finding:
    """One line of the report. `mark` is `ok`, `note` or `wrong`."""

    mark: str
    text: str


def run(words: Sequence[str]) -> int:
    """Run `aldis check-config` with these arguments and return the exit code."""
    codes = (ExitCode.OK, ExitCode.USAGE)
    parser = Parser("aldis check-config", "[options]", _TEXT, examples=_EXAMPLES, codes=codes)
    names = declare_settings(parser)
    arguments = parser.parse_args(words, Arguments())
    flags = {name: getattr(arguments, name) for name in names}
    wrong = False
    for finding in check(flags, arguments.config):
        wrong |= finding.mark == "wrong"
        print(f"{finding.mark:<6} {safe_line(finding.text)}", file=sys.stdout)
    return ExitCode.USAGE if wrong else ExitCode.OK


def check(flags: dict[str, object], file: Path | None) -> Iterator[Finding]:
    """Check the settings, then what they name."""
    try:
        config = load_config(flags, os.environ, file)
    except ConfigError as error:
        yield Finding("wrong", str(error))
        return
    yield Finding("ok", f"settings: {file or 'from options and variables'}")
    for warning in config.warnings:
        yield Finding("note", warning)
    yield from _check_certificate(config)
    ports = [("port", config.host, config.port), ("redirect_port", config.host, config.redirect_port)]
    for setting, host, port in (*ports, ("admin_port", config.admin_host, config.admin_port)):
        if port:
            yield _check_port(setting, host, port)
    yield _check_data(config.data)


def _check_certificate(config: ServerConfig) -> Iterator[Finding]:
    if config.tls_cert is None or config.tls_key is None:
        return
    from aldis.server.tls import ServerTls  # slow to import

    try:
        tls = ServerTls(config.tls_cert, config.tls_key)
        names = config.names or tls.names
    except ConfigError as error:
        yield Finding("wrong", str(error))
        return
    expires = tls.expires
    left = _SOON if expires is None else expires.timestamp() - time.time()
    shown = f"tls_cert: {config.tls_cert} for {', '.join(names) or 'no name'}, until {expires or 'nobody knows when'}"
    if left <= 0:
        yield Finding("wrong", f"{shown}: it has expired, and clients refuse it")
    else:
        yield Finding("note" if left < _SOON else "ok", f"{shown}{': it expires soon' if left < _SOON else ''}")
    if not names:
        yield Finding("wrong", "tls_cert: the certificate has no name; say the server's own with --names")


def _check_port(setting: str, host: str, port: int) -> Finding:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        return Finding("wrong", f"{setting.replace('port', 'host')}: {host!r} cannot be resolved: {error}")
    family, _, _, _, address = found[0]
    try:
        # Like a server, it may have a port whose last connections are still closing.
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _in_use(setting, host, port)
        if error.errno in (errno.EACCES, errno.EPERM):
            return Finding("wrong", f"{setting}: this user may not listen on port {port}")
        return Finding("wrong", f"{setting}: cannot listen on {host}:{port}: {error.strerror}")
    return Finding("ok", f"{setting}: {host}:{port} is free")


def _in_use(setting: str, host: str, port: int) -> Finding:
    text = f"{setting}: {host}:{port} is in use"
    holder = holder_of(port)
    if holder is None:
        return Finding("note", f"{text}; this user cannot see by whom")
    pid, command = holder
    if any(Path(word).name == "aldis" or word.startswith("aldis.") for word in command):
        return Finding("note", f"{text} by a running Aldis (process {pid})")
    return Finding("wrong", f"{text} by {command[0] if command else 'another program'} (process {pid})")


def holder_of(port: int) -> tuple[int, list[str]] | None:
    """The process that listens on a TCP port, and its command; None when that cannot be seen (proc(5))."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().decode(errors="replace")
                return int(process.name), [word for word in command.split("\0") if word]
    return None


def _check_data(data: str) -> Finding:
    if data == MEMORY:
        return Finding("note", "data: names are kept in memory, until the server stops")
    folder = Path(data)
    if folder.exists():
        if not folder.is_dir():
            return Finding("wrong", f"data: {data} is no directory")
        unwritable = [file for file in (folder, *folder.glob("*.db*")) if not os.access(file, os.W_OK)]
        if unwritable or not os.access(folder, os.X_OK):
            return Finding("wrong", f"data: this user may not write {unwritable[0] if unwritable else folder}")
        return Finding("ok", f"data: {data} can be written")
    parent = next(parent for parent in folder.absolute().parents if parent.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return Finding("wrong", f"data: this user may not make {data} in {parent}")
    return Finding("ok", f"data: {data} can be made")
