"""`aldis check-config`: says whether a server could run with these settings. It starts none.

Rules: it changes nothing. A port is tried and freed again at once, and a file or folder that is made to try is removed
again. A database is asked, and nothing is written there.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aldis.backends.base import DirectoryUnavailable
from aldis.backends.directory_url import sqlite_path, without_password
from aldis.backends.sqlite_file import FILE_NAME, check_present
from aldis.cli.exits import ExitCode
from aldis.cli.parser import Parser
from aldis.cli.serve import Arguments, declare_settings
from aldis.cli.text import safe_line
from aldis.errors import ConfigError
from aldis.protocol.hosts import is_this_machine
from aldis.server.admin_token import FILE_NAME as TOKEN_NAME
from aldis.server.admin_token import readable_by_others
from aldis.server.ban_file import FILE_NAME as BANS_NAME
from aldis.server.ban_file import BanFile
from aldis.server.config import MEMORY, RELOADABLE, SETTINGS, STUN_PORT, ServerConfig, load_config
from aldis.server.machine import default_budget
from aldis.server.worker_settings import FIXED

_TEXT: Final = """\
Say whether a server could run with these settings: whether each has a value
that can be used, the certificate and its key can be read and belong together,
the ports are free, the keys of tokens can be read, the directory for names can
be written, and is of no newer release, and a Redis or PostgreSQL answers. No server is started, and nothing
is changed. Run it as the user that the server has.

It takes the options, variables and file of `aldis serve`. Secrets that the
service has in its environment have to be in yours."""

_EXAMPLES: Final = """\
  aldis check-config --config /etc/aldis.toml
  aldis check-config --config /etc/aldis.toml && systemctl reload aldis"""

_DAY: Final = 86_400
_PAGE: Final = 4096  # bytes: what SQLite writes at least
_NARROW: Final = 30  # columns: on a terminal that is narrower still, lines are longer than it
_HTTP: Final = 80
_HTTPS: Final = 443
_DATABASE_SECONDS: Final = 8  # longer than a backend waits for a connection
# The state of a socket in a table of /proc/net that takes what comes.
_OPEN: Final = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
_TCP: Final = ("tcp", "tcp6")
_UDP: Final = ("udp", "udp6")


@dataclass(frozen=True)
class Finding:
    """One line of the report. `mark` is `ok`, `note`, `WARN` (clients cannot connect as things are) or `wrong`."""

    mark: str
    text: str


class CheckArguments(Arguments):
    """The arguments of this command."""

    offline: bool


def run(words: Sequence[str]) -> int:
    """Run `aldis check-config` with these arguments and return the exit code."""
    codes = (ExitCode.OK, ExitCode.USAGE)
    parser = Parser("aldis check-config", "[options]", _TEXT, examples=_EXAMPLES, codes=codes)
    names = declare_settings(parser)
    parser.options.add_argument(
        "--offline",
        action="store_true",
        help="Ask no other machine: for a reload, which need not wait until a database answers.",
    )
    arguments = parser.parse_args(words, CheckArguments())
    flags = {name: getattr(arguments, name) for name in names}
    wrong = False
    for finding in check(flags, arguments.config, offline=arguments.offline):
        wrong |= finding.mark == "wrong"
        print(_shown(finding, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    return ExitCode.USAGE if wrong else ExitCode.OK


def _shown(finding: Finding, columns: int | None) -> str:
    """A finding as it is printed: one line for programs, several of whole words at a terminal of so many columns."""
    line = f"{finding.mark:<6} {safe_line(finding.text)}"
    if columns is None:
        return line
    return textwrap.fill(line, max(columns, _NARROW), subsequent_indent=" " * 7, break_on_hyphens=False)


def check(flags: dict[str, object], file: Path | None, *, offline: bool = False) -> Iterator[Finding]:
    """Check the settings, then what they name. `offline`: no other machine is asked."""
    try:
        config = load_config(flags, os.environ, file)
    except ConfigError as error:
        for each in (error, *error.others):
            yield Finding("wrong", str(each))
        return
    yield Finding("ok", f"settings: {file or 'from options and variables'}")
    for warning in config.warnings:
        yield Finding("note", warning)
    several = config.workers > 1
    fixed = ", ".join(name for name in SETTINGS if (name in FIXED if several else name not in RELOADABLE))
    how = "replaces the workers one by one, and changes" if several else "takes over"
    yield Finding("ok", f"reload: SIGHUP {how} all settings but {fixed}")
    if not config.memory_budget:
        yield Finding("ok", f"memory_budget: {default_budget() // 1024**2} MiB, half of what this machine has")
    if several:
        yield _check_workers(config)
    yield from _check_certificate(config, offline=offline)
    ports = [("port", config.host, config.port), ("redirect_port", config.host, config.redirect_port)]
    admin = range(config.admin_port, config.admin_port + config.workers) if config.admin_port else ()
    for setting, host, port in (*ports, *(("admin_port", config.admin_host, each) for each in admin)):
        if port:
            yield _check_port(setting, host, port)
    if config.admin_port is not None and not is_this_machine(config.admin_host):
        text = "other machines reach the admin port, whose metrics need no password"
        yield Finding(
            "note", f"admin_host: {config.admin_host}: {text}; let a firewall keep others away, or use 127.0.0.1"
        )
    yield from _check_proxied(config)
    yield from _check_stun(config)
    yield from _check_turn(config)
    yield from _check_accounts(config, offline=offline)
    yield _check_data("data", config.data)
    if config.directory:
        path = sqlite_path(config.directory)
        if path is None:
            yield from _check_database("directory", config.directory, config, offline=offline)
        elif config.directory != MEMORY:
            yield _check_data("directory", str(path.parent), path.name)
    yield from _check_files(config)
    if config.redis:
        yield from _check_database("redis", config.redis, config, offline=offline)


def _check_workers(config: ServerConfig) -> Finding:
    each = f"{-(-config.max_connections // config.workers)} of the {config.max_connections} connections each"
    cores = os.cpu_count() or 1
    if config.workers > cores:
        return Finding("note", f"workers: {config.workers}, {each}; this machine has {cores} cores for them")
    return Finding("ok", f"workers: {config.workers}, {each}")


def _check_certificate(config: ServerConfig, *, offline: bool) -> Iterator[Finding]:
    from aldis.server.tls import ServerTls, certificate_files, check_authorities, expires_soon  # slow to import

    if config.acme_domain and not offline:
        yield from _check_domains(config)
    try:
        check_authorities(config)
        files = certificate_files(config)
        if files is None:
            if config.acme_domain:
                yield Finding("note", "acme_domain: there is no certificate yet; the server orders one at its start")
            return
        tls = ServerTls(files)
        names = config.names or tls.names
    except ConfigError as error:
        yield Finding("wrong", str(error))
        return
    expires = tls.expires
    now, leaf = time.time(), tls.leaf
    soon = leaf is not None and expires_soon(
        leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp(), now
    )
    setting = "acme_domain" if config.acme_domain else "tls_cert"
    shown = f"{setting}: {files[0]} for {', '.join(names) or 'no name'}, until {expires or 'nobody knows when'}"
    if problem := tls.validity_problem(now):
        # The server runs with it, and says so. Were it wrong, a reload would be refused, and what it is for with it.
        yield Finding("note" if config.acme_domain else "WARN", f"{shown}: it {problem}")  # acme: another is ordered
    else:
        yield Finding("note" if soon else "ok", f"{shown}{': it expires soon' if soon else ''}")
    if not names:
        yield Finding("wrong", "tls_cert: the certificate has no name; say the server's own with --names")


def _check_domains(config: ServerConfig) -> Iterator[Finding]:
    """See what a certificate authority needs: that the domains lead here, at its ports."""
    for domain in config.acme_domain:
        try:
            found = socket.getaddrinfo(domain, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            yield Finding("note", f"acme_domain: {domain} has no address here; the authority needs one in the DNS")
        else:
            addresses = ", ".join(dict.fromkeys(str(address[0]) for *_, address in found))
            yield Finding("ok", f"acme_domain: {domain} leads to {addresses}")
    if config.port != _HTTPS and config.redirect_port != _HTTP:
        text = f"acme_domain: the authority asks the ports {_HTTP} (redirect_port) or {_HTTPS} (port) of the domain"
        yield Finding("note", f"{text}; one of them has to lead here")


def _check_accounts(config: ServerConfig, *, offline: bool) -> Iterator[Finding]:
    """The keys of tokens are read, at their URL too. The operator's application is not asked: it may act on it."""
    if config.jwks and not (offline and "://" in str(config.jwks)):
        yield from _check_keys(config.jwks)
    if config.name_policy == "closed" and config.directory_url == MEMORY:
        yield Finding("note", "name_policy: the list of names that may register is empty at each start")
    for name, url in (("hook_url", config.hook_url), ("presence_url", config.presence_url)):
        if url:
            yield Finding("ok", f"{name}: {url} (not asked)")


def _check_keys(jwks: str | Path) -> Iterator[Finding]:
    import asyncio

    from aldis.server.http_calls import CallFailed, HttpCalls
    from aldis.server.key_source import FETCH_TIMEOUT
    from aldis.server.tokens import MAX_KEY_SET, KeySetUnusable, read_key_set

    async def fetch(url: str) -> bytes:
        calls = HttpCalls()
        try:
            return await calls.get(url, most=MAX_KEY_SET, seconds=FETCH_TIMEOUT)
        finally:
            await calls.close()

    try:
        text = jwks.read_bytes() if isinstance(jwks, Path) else asyncio.run(fetch(jwks))
        found = read_key_set(text, secrets=isinstance(jwks, Path))
    except (OSError, CallFailed, KeySetUnusable) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        yield Finding("wrong", f"jwks: {jwks} cannot be used: {reason}")
        return
    keys = ", ".join(f"{key.kid or 'without a kid'} ({key.algorithm})" for key in found.keys)
    yield Finding("ok", f"jwks: {jwks}: {keys}")
    for skipped in found.skipped:
        yield Finding("note", f"jwks: {skipped}")
    # A private key, or a secret: RFC 7518 section 6.
    if isinstance(jwks, Path) and (b'"d"' in text or b'"k"' in text) and jwks.stat().st_mode & 0o077:
        yield Finding("note", f"jwks: {jwks} has a private key or a secret, and others can read it: chmod 600")


def _check_proxied(config: ServerConfig) -> Iterator[Finding]:
    """What a proxy does not bring along: the name that clients dial, and UDP."""
    if not config.trusted_proxies:
        return
    if not config.names and not config.secure:
        text = "with trusted_proxies, clients dial the name of the proxy; without it here they get 421"
        yield Finding("note", f"names: {text}")
    if not (config.stun_address or config.stun or config.turn or config.turn_server):
        text = "a proxy passes no UDP on, so clients are told of no STUN server, and those behind NATs hardly connect"
        yield Finding("note", f"stun_address: {text} directly")


def _check_stun(config: ServerConfig) -> Iterator[Finding]:
    from aldis.server.stun_port import stun_host

    host = stun_host(config, config.host)
    if host is None:
        return
    if (found := _check_udp("stun_port", host, config.stun_port)) is not None:
        # The server goes on without its default port.
        spared = found.mark == "wrong" and config.stun_port == STUN_PORT
        yield Finding("note", found.text) if spared else found


def _check_turn(config: ServerConfig) -> Iterator[Finding]:
    if not config.turn_server:
        return
    from aldis.server.turn_folder import turn_settings

    if shutil.which("turnserver") is None:
        yield Finding("wrong", "turn_server: there is no `turnserver` on the PATH; install coturn")
    try:
        settings = turn_settings(config)
    except ConfigError as error:
        yield Finding("wrong", str(error))
        return
    if (found := _check_udp("turn_port", settings.listen or "0.0.0.0", settings.port)) is not None:  # noqa: S104
        yield found


def _check_udp(setting: str, host: str, port: int) -> Finding | None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return None  # as for the other ports, which say so
    shown = f"{setting}: {host}:{port} (UDP)"
    family, _, _, _, address = found[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return _in_use(f"{shown} is in use", port, _UDP)
            return Finding("wrong", f"{shown} cannot be used: {error.strerror}")
    return Finding("ok", f"{shown} is free")


def _check_port(setting: str, host: str, port: int) -> Finding:
    from aldis.server.sockets import check_zone

    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        return Finding("wrong", f"{setting.replace('port', 'host')}: {host!r} cannot be resolved: {error}")
    family, _, _, _, address = found[0]
    try:
        check_zone(host)
        # Like a server, it may have a port whose last connections are still closing.
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        # Who may not open a port is not told that it is open. systemd may have it for this user.
        forbidden = error.errno in (errno.EACCES, errno.EPERM)
        if error.errno == errno.EADDRINUSE or (forbidden and _sockets_at(port)):
            return _in_use(f"{setting}: {shown} is in use", port)
        if forbidden:
            return Finding("wrong", f"{setting}: this user may not listen on port {port}")
        return Finding("wrong", f"{setting}: cannot listen on {shown}: {error.strerror}")
    return Finding("ok", f"{setting}: {shown} is free")


def _in_use(text: str, port: int, tables: Sequence[str] = _TCP) -> Finding:
    holders = list(_holders_of(port, tables))
    if not holders:
        return Finding("note", f"{text}; this user cannot see by whom")
    for pid, command in (*holders, *(_parent_of(pid) for pid, _ in holders)):  # coturn is a child of Aldis
        if any(Path(word).name == "aldis" or word.startswith("aldis.") for word in command):
            return Finding("note", f"{text} by a running Aldis (process {pid})")
    pid, command = holders[0]
    if any(_is_systemd(command) for _, command in holders):
        return Finding("note", f"{text} by systemd, which passes it on if it has a socket unit for Aldis")
    return Finding("wrong", f"{text} by {command[0] if command else 'another program'} (process {pid})")


def _is_systemd(command: list[str]) -> bool:
    """Whether a process passes sockets on, as systemd and its tools do. Process 1 is mostly called init."""
    name = Path(command[0]).name if command else ""
    return name == "init" or name.startswith("systemd")


def _sockets_at(port: int, tables: Sequence[str] = _TCP) -> set[str]:
    """The sockets that listen on a port, as links in /proc name them (proc(5)). Each user sees them all."""
    sockets = set()
    for table in tables:
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _OPEN[table] and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    return sockets


def _holders_of(port: int, tables: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The processes that listen on a port and can be seen, with their commands (proc(5))."""
    sockets = _sockets_at(port, tables)
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                yield int(process.name), _command_of(process)


def _parent_of(process: int) -> tuple[int, list[str]]:
    with suppress(OSError, ValueError):
        parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        return parent, _command_of(Path(f"/proc/{parent}"))
    return 0, []


def _command_of(process: Path) -> list[str]:
    command = (process / "cmdline").read_bytes().decode(errors="replace")
    return [word for word in command.split("\0") if word]


def _check_database(setting: str, url: str, config: ServerConfig, *, offline: bool) -> Iterator[Finding]:
    """Ask a Redis or PostgreSQL, for some seconds at most. A server without it does not start."""
    from aldis.backends.opening import check_here, probe_directory

    try:
        check_here(url, config.directory_options)
    except ConfigError as error:
        setting = setting if error.setting == "directory" else error.setting
        yield Finding("wrong", f"{setting}: {error.problem}")
        return
    if offline:
        yield Finding("ok", f"{setting}: {without_password(url)} (not asked)")
        return
    import asyncio

    warnings: list[str] = []

    async def probe() -> None:
        async with asyncio.timeout(_DATABASE_SECONDS):
            await probe_directory(url, config.directory_options, warn=warnings.append)

    shown = f"{setting}: {without_password(url)}"
    try:
        asyncio.run(probe())
    except TimeoutError:
        yield Finding("wrong", f"{shown} does not answer in {_DATABASE_SECONDS} s")
    except ConfigError as error:
        yield Finding("wrong", f"{setting}: {error.problem}")
    except DirectoryUnavailable as error:
        yield Finding("wrong", f"{shown} cannot be used: {error}")
    else:
        yield Finding("ok", f"{shown} answers")
        for text in warnings:
            yield Finding("note", f"{setting}: {text}")


def _check_data(setting: str, data: str, name: str = FILE_NAME) -> Finding:
    if data == MEMORY:
        return Finding("note", f"{setting}: names are kept in memory, until the server stops")
    folder = Path(data)
    if folder.exists():
        if not folder.is_dir():
            return Finding("wrong", f"{setting}: {data} is no directory")
        database = [folder / f"{name}{suffix}" for suffix in ("", "-wal", "-shm")]  # backups may be anybody's
        unwritable = [file for file in (folder, *database) if file.exists() and not os.access(file, os.W_OK)]
        if unwritable or not os.access(folder, os.X_OK):
            if unwritable and os.name == "posix" and os.statvfs(folder).f_flag & os.ST_RDONLY:
                return Finding("wrong", f"{setting}: {folder} is on a file system that is mounted read-only")
            return Finding("wrong", f"{setting}: this user may not write {unwritable[0] if unwritable else folder}")
        try:
            # Rights are not all: the file system may be full, or take no files.
            with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
                file.write(bytes(_PAGE))
        except OSError as error:
            # An empty file is what a first start has left that found no room.
            there = database[0].exists() and database[0].stat().st_size > 0
            if error.errno in (errno.ENOSPC, errno.EDQUOT) and there:
                # A server starts there, and a reload may be what helps it.
                text = "new names are refused, and a stop loses new bans"
                return Finding("WARN", f"{setting}: there is no room in {data}: {text}")
            return Finding("wrong", f"{setting}: no file can be made in {data}: {error.strerror or error}")
        return Finding("ok", f"{setting}: {data} can be written")
    try:
        _try_to_make(folder.absolute())
    except OSError as error:
        return Finding("wrong", f"{setting}: {data} cannot be made: {error.strerror or error}")
    return Finding("ok", f"{setting}: {data} can be made")


def _check_files(config: ServerConfig) -> Iterator[Finding]:
    """What an earlier run has left: a server does not start with names or bans that it cannot use."""
    names = sqlite_path(config.directory_url)
    if names is not None and os.access(names, os.R_OK | os.W_OK):
        try:
            check_present(names)
        except DirectoryUnavailable as error:
            yield Finding("wrong", f"{'directory' if config.directory else 'data'}: {error}")
    if config.data != MEMORY:
        if (holder := _holder(Path(config.data))) is not None:
            text = f"is in use by a running server (process {holder}); another one does not start there"
            yield Finding("note", f"data: {config.data} {text}")
        if not config.admin_token and (doubt := readable_by_others(Path(config.data) / TOKEN_NAME)):
            yield Finding("note", f"data: {doubt}")
        if os.path.isdir(config.data):  # else it was told already
            try:
                BanFile(Path(config.data) / BANS_NAME).load()
            except ConfigError as error:
                yield Finding("wrong", str(error))


def _holder(folder: Path) -> int | None:
    """The process that has locked a folder, as a server does with its own; None without one, or where none is seen.

    Trying the lock would keep a server from starting in this moment, so the table of all locks is read (proc(5)).
    """
    with suppress(OSError, ValueError):
        status = folder.stat()
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1:2] == ["FLOCK"] and fields[5] == place:
                return int(fields[4])
    return None


def _try_to_make(folder: Path) -> None:
    """Make a folder and what is missing above it, and remove all that again. Raises `OSError`."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    made: list[Path] = []
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o700)
            made.append(each)
        tempfile.TemporaryFile(dir=folder).close()
    finally:
        for each in reversed(made):
            with suppress(OSError):  # somebody has put something there meanwhile
                each.rmdir()
