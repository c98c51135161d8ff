"""The settings of a server: their names, their valid values, and their sources.

Flags win over environment variables (`ALDIS_PORT`), these over the TOML file, and the file over the defaults. A value
that cannot be used is an error that names the setting, its source and the expected value. An unknown key in the file is
an error too. An unknown `ALDIS_` variable is only a warning, because another program may use it.

This module reads only the file that it is given. It opens no port and makes no directory.
"""

# ruff: noqa: RUF009 - `_setting` makes a dataclass field

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from aldis.environment import data_directory, decoded, expand
from aldis.errors import ConfigError
from aldis.protocol.ice import read_url
from aldis.server.names import MAX_HOST, read_name, read_origin
from aldis.server.origins import ANY
from aldis.settings import check_path

MEMORY: Final = ":memory:"
PREFIX: Final = "ALDIS_"
# Variables of other commands, and the path of the file: they are no settings of a server, and cause no warning.
_NOT_SETTINGS: Final = frozenset({"ALDIS_CONFIG", "ALDIS_ADMIN", "ALDIS_SERVER", "ALDIS_CA_FILE", "ALDIS_DEBUG"})
# The characters of RFC 3986 section 3.3 that never need quotes in a shell.
_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*/?")
_WORDS: Final = {
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "on": True,
    "off": False,
    "1": True,
    "0": False,
}

# Their values are in no message.
_SECRETS: Final = frozenset({"turn_secret", "admin_token"})

T = TypeVar("T")


class _Expected(Exception):
    """A value is not valid; the text says what is expected."""


# --- readers: from an outside text or a Python value to the value of the setting -----------------------------------


def _choice(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, str) and value.lower() in words:
            return value.lower()
        raise _Expected(f"one of {', '.join(words)}")

    return read


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    raise _Expected(f"one of {', '.join(_WORDS)}")


def _integer(lowest: int, highest: int, unit: str = "") -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip(), re.ASCII):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return value
        raise _Expected(f"a whole number from {lowest} to {highest}{unit}")

    return read


def _seconds(lowest: float, highest: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest:
            return float(value)
        raise _Expected(f"a number of seconds from {lowest:g} to {highest:g}")

    return read


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return _utf8(value).strip()
    raise _Expected("a text that is not empty")


def _secret(value: object) -> str:
    if isinstance(value, str):
        return _utf8(value)
    raise _Expected("a text")


def _utf8(text: str) -> str:
    try:
        text = decoded(text)
        text.encode()  # a lone surrogate, which `decoded` does not change
    except ValueError:
        raise _Expected("a text in UTF-8") from None
    return text


def _optional_port(value: object) -> int | None:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    try:
        return _integer(0, 65535)(value)
    except _Expected as error:
        raise _Expected(f"{error}, or none for no such port") from None


def _port_range(value: object) -> tuple[int, int]:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,5})-(\d{1,5})", value.strip(), re.ASCII)):
        value = (int(found[1]), int(found[2]))
    match value:
        case (int(first), int(last)) | [int(first), int(last)] if 1024 <= first <= last <= 65535:
            return first, last
    raise _Expected("two ports from 1024 to 65535, such as 49152-50175")


def _texts(shape: re.Pattern[str], expected: str) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in _utf8(value).split(",") if part.strip()]
        if isinstance(value, list | tuple) and all(isinstance(v, str) and shape.fullmatch(v) for v in value):
            return tuple(value)
        raise _Expected(f"{expected}, or several of them (a list in TOML, separated by commas elsewhere)")

    return read


def _names(value: object) -> tuple[str, ...]:
    expected = "a host name as clients dial it, with the port if it is not the usual one"
    read = tuple(map(read_name, _texts(re.compile(r"[^\s/,@]+"), expected)(value)))
    names = tuple(name for name in read if name is not None)
    if len(names) < len(read):
        raise _Expected(f"{expected}, such as signal.example.com:8443 or [2001:db8::1]")
    return names


def _origins(value: object) -> tuple[str, ...]:
    expected = (
        "an origin such as https://example.com, as browsers send it: scheme, host, and the port if it is not 443; "
        "* for all"
    )
    read = tuple(text if text == ANY else read_origin(text) for text in _texts(re.compile(r"\S+"), expected)(value))
    origins = tuple(origin for origin in read if origin is not None)
    if len(origins) < len(read):
        raise _Expected(expected)
    return origins


def _networks(value: object) -> tuple[str, ...]:
    expected = "an address or a network such as 10.0.0.0/8"
    texts = _texts(re.compile(r"\S+"), expected)(value)
    try:
        return tuple(str(ip_network(text)) for text in texts)
    except ValueError as error:
        raise _Expected(f"{expected}; {error}") from None


def _base_path(value: object) -> str:
    if isinstance(value, str) and _PATH.fullmatch(value.strip()):
        return value.strip().rstrip("/")
    raise _Expected("a path such as /aldis, or an empty text")


def _ice_urls(kind: str, expected: str) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part for part in value.split(",") if part.strip()]
        wanted = f"{expected}, or several of them (a list in TOML, separated by commas elsewhere)"
        if not isinstance(value, list | tuple) or not all(isinstance(url, str) for url in value):
            raise _Expected(wanted)
        urls = []
        for text in value:
            try:
                url = read_url(text)
            except ValueError as error:
                raise _Expected(f"{wanted}; {text.strip()!r}: {error}") from None
            if not url.scheme.startswith(kind):
                raise _Expected(wanted)
            urls.append(str(url))
        return tuple(urls)

    return read


def _data(value: object) -> str:
    if isinstance(value, Path) or (isinstance(value, str) and value.strip()):
        return MEMORY if value == MEMORY else str(_path(value))
    raise _Expected(f"a directory, or {MEMORY} to keep nothing")


def _file(value: object) -> Path | None:
    if value is None:
        return value
    if isinstance(value, Path) or (isinstance(value, str) and value.strip()):
        return _path(value)
    raise _Expected("a file")


def _path(value: str | Path) -> Path:
    try:
        path = check_path("path", value)
    except ConfigError as error:
        raise _Expected(f"a path; {error.problem}") from None
    if isinstance(value, Path):
        return path
    try:
        return expand(value)
    except ConfigError:
        raise _Expected("a path without `~`, as this home directory is not known") from None


def _host(value: object) -> str:
    text = _text(value)
    if len(text) > MAX_HOST or any(character.isspace() or character in "\0/" for character in text):
        raise _Expected("the address or the name of a network interface of this machine")
    try:
        return str(ip_address(text))  # an IPv6 address has many spellings
    except ValueError:
        return text


def _setting(default: T, read: Callable[[object], object], text: str, *, secret: bool = False) -> T:
    metadata = {"read": read, "help": text}
    made: T = field(default=default, repr=not secret, metadata=metadata)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """All settings of one server. The constructor checks them: a `ConfigError` names the first invalid one.

    `help_of(name)` describes a setting in one line. Times are in seconds, sizes in bytes.
    """

    host: str = _setting(
        "127.0.0.1", _host, "The address to listen on; 0.0.0.0 for all of IPv4, :: for all of IPv6 and IPv4."
    )
    port: int = _setting(8080, _integer(0, 65535), "The port to listen on; 0 takes a free one.")
    admin_host: str = _setting(
        "127.0.0.1", _host, "The address of the admin port; it has no password, so keep it local."
    )
    admin_port: int | None = _setting(
        9080, _optional_port, "The port of /healthz, /readyz and /metrics; 0 takes a free one, none switches it off."
    )
    admin_token: str = _setting(
        "",
        _secret,
        "The password of the admin API; default: one that is made, in the file admin-token of the data directory.",
        secret=True,
    )
    auth: Literal["verify", "open"] = _setting(
        "verify", _choice("verify", "open"), "verify: every client proves its key. open: classic clients too, unproven."
    )
    data: str = _setting(
        "", lambda value: value if value == "" else _data(value), "The directory for the names and their keys."
    )
    web: bool = _setting(True, _switch, "Show a page at /, on which people can talk in their browsers.")
    names: tuple[str, ...] = _setting(
        (),
        _names,
        "The host names by which clients dial this server, and no others; needed behind a proxy; "
        "default: localhost, the address dialled, the certificate's names.",
    )
    base_path: str = _setting(
        "",
        _base_path,
        "The path that a proxy leaves before each path, such as /aldis; not needed if the proxy removes it.",
    )
    origins: tuple[str, ...] = _setting(
        (),
        _origins,
        "The web pages of other hosts that may connect, by origin; * for all; "
        "default: none, or all if only this machine reaches the server.",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        _networks,
        "The addresses or networks of proxies whose X-Forwarded-For tells where a client comes from; default: none.",
    )
    proxy_protocol: bool = _setting(
        False,
        _switch,
        "Have the trusted proxies speak the PROXY protocol, version 2; without it, their connections are closed.",
    )
    stun: tuple[str, ...] = _setting(
        (), _ice_urls("stun", "a URL such as stun:stun.example.com:3478"), "STUN servers to tell clients of."
    )
    turn: tuple[str, ...] = _setting(
        (),
        _ice_urls("turn", "a URL such as turn:turn.example.com:3478?transport=udp"),
        "TURN servers to tell clients of.",
    )
    turn_secret: str = _setting(
        "",
        _secret,
        "The secret shared with the TURN servers (coturn: static-auth-secret); other users can read a command line.",
        secret=True,
    )
    turn_server: bool = _setting(
        False, _switch, "Run a TURN and STUN server beside this one: coturn's `turnserver`, which has to be installed."
    )
    turn_address: str = _setting(
        "",
        lambda value: value if value == "" else _host(value),
        "The address by which clients reach that TURN server; default: the first of names, or host.",
    )
    turn_port: int = _setting(3478, _integer(1, 65535), "Its port, for UDP and TCP.")
    turn_tls_port: int = _setting(5349, _integer(1, 65535), "Its port for TLS, with the certificate of this server.")
    turn_relay_ports: tuple[int, int] = _setting(
        (49152, 50175), _port_range, "The UDP ports on which it relays, such as 49152-50175: one for each user of it."
    )
    # One connection costs about 10 KB here and one file descriptor.
    max_connections: int = _setting(
        10_000,
        _integer(1, 10_000_000),
        "Connections beyond this number are refused with 503; they count as soon as they are accepted.",
    )
    # A household has ten, an office behind one address a hundred. Loopback has no limit, because proxies are there.
    connections_per_address: int = _setting(
        256,
        _integer(1, 10_000_000),
        "Connections at a time from one address (IPv6: one /64); more are refused with 429.",
    )
    # A page takes ten connections.
    connects_per_address: int = _setting(
        50,
        _integer(1, 1_000_000),
        "New connections a second from one address (IPv6: one /64); ten times as many at once.",
    )
    # As many as can register. After a restart, 20,000 may come back at once.
    connects_per_second: int = _setting(
        2000,
        _integer(1, 1_000_000),
        "New connections a second from all clients; ten times as many at once. More are refused with 503.",
    )
    # After a restart thousands connect at once, and with TLS a busy machine may speak seconds later. With 1,000, half
    # of 2,000 such clients lost their first try. Each costs 3 KB.
    handshakes: int = _setting(
        5000,
        _integer(1, 10_000_000),
        "Connections that have sent nothing yet; beyond this number the oldest one is closed.",
    )
    # With the sender's address, a message goes to another client. Ours accept 1 MiB, and 1 MiB may wait for a slow
    # client.
    max_message_bytes: int = _setting(
        64 * 1024, _integer(1024, 512 * 1024, " bytes"), "The largest message that a client may send."
    )
    # A peer connection takes 10 to 30 messages at each side. A program that connects to sixty peers at once is slowed
    # down for a few seconds.
    messages_per_second: int = _setting(
        200,
        _integer(1, 1_000_000),
        "Messages a second that are read from one client; twice as many at once. What comes faster waits.",
    )
    bytes_per_second: int = _setting(
        256 * 1024,
        _integer(1024, 1_000_000_000, " bytes"),
        "Bytes a second that are read from one client; twice as many at once. What comes faster waits.",
    )
    # A name is bound for good, and takes 100 bytes of the disk. A class of pupils or an office that starts behind one
    # address on one day stays below this.
    new_names_per_address: int = _setting(
        200,
        _integer(0, 1_000_000_000),
        "New names that one address (IPv6: /64) may bind at once, and again in a day; 0 for any number.",
    )
    resume_window: float = _setting(
        30.0, _seconds(0, 3600), "How long a client that has lost its connection stays online, so that it can resume."
    )
    # A client that confirms as it reads leaves a few KiB behind, so all of ten thousand may lose their network at once.
    detached_bytes: int = _setting(
        64 * 1024 * 1024,
        _integer(64 * 1024, 1_000_000_000_000, " bytes"),
        "Bytes that are kept for clients that have lost their connection; beyond it, those with the most are given up.",
    )
    ping_interval: float = _setting(20.0, _seconds(1, 3600), "How long a client may be silent before it is pinged.")
    # Docker kills a container 10 s after it has asked it to stop.
    drain_seconds: float = _setting(8.0, _seconds(0, 3600), "How long a graceful stop may take.")
    tls_cert: Path | None = _setting(None, _file, "The certificate chain (PEM), to serve wss:// without a proxy.")
    tls_key: Path | None = _setting(None, _file, "The private key of the certificate (PEM).")
    redirect_port: int | None = _setting(
        None, _optional_port, "With TLS: a port for plain HTTP, mostly 80, that redirects browsers to https."
    )
    hsts: bool = _setting(
        True, _switch, "With TLS: tell browsers to use https only for this host, on all of its ports, for a year."
    )
    log_format: Literal["console", "json"] = _setting(
        "console", _choice("console", "json"), "console for people, json for machines."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", _choice("debug", "info", "warning", "error"), "The lowest level to log."
    )
    # Warnings that `load_config` found.
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, read in READERS.items():
            object.__setattr__(self, name, _read(name, read, getattr(self, name), ""))
        if not self.data:
            object.__setattr__(self, "data", str(data_directory()))
        if self.turn and not self.turn_secret:
            raise ConfigError("turn_secret", "is needed with turn: the secret that the TURN servers know")
        if self.proxy_protocol and not self.trusted_proxies:
            raise ConfigError("proxy_protocol", "needs trusted_proxies: the proxies that speak it")
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_cert" if self.tls_cert is None else "tls_key"
            raise ConfigError(missing, "tls_cert and tls_key go together")
        if self.redirect_port is not None and self.tls_cert is None:
            raise ConfigError("redirect_port", "needs tls_cert and tls_key: without TLS there is no https to go to")
        if self.redirect_port == self.port != 0:
            raise ConfigError("redirect_port", f"{self.port} is the public port already; choose another one, or none")
        if self.admin_port == self.port != 0 and _overlap(self.host, self.admin_host):
            raise ConfigError("admin_port", f"{self.port} is the public port already; choose another one, or none")


def _overlap(one: str, other: str) -> bool:
    """Whether two listening addresses cannot use the same port, as far as the texts tell."""
    one, other = ("127.0.0.1" if host == "localhost" else host for host in (one, other))
    return one == other or any(host in ("0.0.0.0", "::", "*") for host in (one, other))  # noqa: S104


READERS: Final[dict[str, Callable[[object], Any]]] = {
    setting.name: setting.metadata["read"] for setting in fields(ServerConfig) if "read" in setting.metadata
}
SETTINGS: Final = tuple(READERS)
"""The names of all settings, in the order of the documentation."""


# What a running server takes over on SIGHUP. The rest is part of open ports and files, or clients have been told of it.
RELOADABLE: Final = frozenset(
    {
        *("tls_cert", "tls_key", "hsts", "names", "origins", "stun", "turn", "turn_secret", "log_level"),
        *("max_connections", "handshakes", "messages_per_second", "bytes_per_second", "drain_seconds"),
    }
)


def changes(before: ServerConfig, after: ServerConfig) -> tuple[list[str], list[str]]:
    """The settings that differ: those that a running server takes over, and those that need a restart."""
    names = [name for name in SETTINGS if getattr(before, name) != getattr(after, name)]
    fixed = {name for name in names if name not in RELOADABLE}
    if (before.tls_cert is None) != (after.tls_cert is None):  # the port speaks TLS, or it does not
        fixed |= {"tls_cert", "tls_key"}
    return [name for name in names if name not in fixed], [name for name in names if name in fixed]


def help_of(name: str) -> str:
    """The purpose of a setting, in one line."""
    return next(str(setting.metadata["help"]) for setting in fields(ServerConfig) if setting.name == name)


def _read(name: str, read: Callable[[object], Any], value: object, source: str) -> Any:
    try:
        return read(value)
    except _Expected as expected:
        shown = "" if name in _SECRETS else f"{value!r} " if value != "" else "an empty text "
        raise ConfigError(name, f"{shown}{source}cannot be used; expected {expected}") from None


def load_config(flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None) -> ServerConfig:
    """Build the settings: flags over environment over file over defaults.

    `flags` holds settings by name (`admin_port`), None where the flag was not given. Raises `ConfigError`.
    """
    values: dict[str, Any] = {}
    for name, value in _from_file(file).items():
        values[name] = _read(name, READERS[name], value, f"in {file} ")
    warnings = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in READERS:
            values[name] = _read(name, READERS[name], text, f"in the environment variable {variable} ")
        else:
            warnings.append(f"the environment variable {variable} is no setting of this server")
    for name, value in flags.items():
        if name not in READERS:
            raise ConfigError(name, "is no setting of this server")
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            values[name] = _read(name, READERS[name], value, f"given with {flag} ")
    return ServerConfig(**values, warnings=tuple(warnings))


def _from_file(file: Path | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        with file.open("rb") as opened:
            table = tomllib.load(opened)
    except OSError as error:
        raise ConfigError("config", f"cannot read {file}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("config", f"{file} is not TOML: {error}") from error
    found = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in READERS:
            raise ConfigError(key, f"in {file} is no setting of this server; there are {', '.join(SETTINGS)}")
        found[name] = value
    return found
