"""The settings of a server: their names, their valid values, and their sources.

Flags win over environment variables (`ALDIS_PORT`), these over the TOML file, and the file over the defaults. A value
that cannot be used is an error that names the setting, its source and the expected value. An unknown key in the file is
an error too. An unknown `ALDIS_` variable is only a warning, because another program may use it.

This module reads only the file that it is given. It opens no port and makes no directory.
"""

# ruff: noqa: RUF009 - `_setting` makes a dataclass field

from __future__ import annotations

import difflib
import re
import sys
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX, DirectoryOptions, scheme_of
from aldis.backends.sqlite_file import FILE_NAME
from aldis.environment import data_directory
from aldis.errors import ConfigError
from aldis.server.account_settings import AccountSettings, account_warnings, check_accounts
from aldis.server.limit_settings import LimitSettings, check_limits, limit_warnings
from aldis.server.log_addresses import MODES
from aldis.server.log_levels import AREAS, DEFAULT
from aldis.server.readers import MEMORY as MEMORY
from aldis.server.readers import Expected
from aldis.server.readers import read_base_path as _base_path
from aldis.server.readers import read_choice as _choice
from aldis.server.readers import read_data as _data
from aldis.server.readers import read_directory as _directory
from aldis.server.readers import read_directory_url as _directory_url
from aldis.server.readers import read_domains as _domains
from aldis.server.readers import read_email as _email
from aldis.server.readers import read_file as _file
from aldis.server.readers import read_host as _host
from aldis.server.readers import read_ice_urls as _ice_urls
from aldis.server.readers import read_integer as _integer
from aldis.server.readers import read_log_levels as _log_levels
from aldis.server.readers import read_names as _names
from aldis.server.readers import read_networks as _networks
from aldis.server.readers import read_optional_port as _optional_port
from aldis.server.readers import read_origins as _origins
from aldis.server.readers import read_port_range as _port_range
from aldis.server.readers import read_redis_prefix as _redis_prefix
from aldis.server.readers import read_redis_url as _redis_url
from aldis.server.readers import read_secret as _secret
from aldis.server.readers import read_switch as _switch
from aldis.server.readers import read_watchdog as _watchdog
from aldis.server.readers import setting as _setting

PREFIX: Final = "ALDIS_"
# Variables of other commands, and the path of the file: they are no settings of a server, and cause no warning.
_NOT_SETTINGS: Final = frozenset(
    {"ALDIS_CONFIG", "ALDIS_ADMIN", "ALDIS_SERVER", "ALDIS_CA_FILE", "ALDIS_DEBUG", "ALDIS_TOKEN"}
)

_HIGHEST_PORT: Final = 65535
STUN_PORT: Final = 3478  # RFC 8489 section 8
# Their values are in no message.
_SECRETS: Final = frozenset({"turn_secret", "admin_token", "hook_secret", "directory", "redis"})


_KNOWN_TO_TURN: Final = "the secret that the TURN servers know; a service may have it in its environment"


class _Problems:
    """Collects what is wrong, so that an operator mends all of it at once."""

    def __init__(self) -> None:
        self._found: list[ConfigError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Keep the error of the block, and go on."""
        try:
            yield
        except ConfigError as error:
            self._found += (error, *error.others)

    def tell(self) -> None:
        """Raise the first of the errors, with the others; nothing if there is none."""
        if self._found:
            first, *others = self._found
            first.others = tuple(others)
            raise first


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(LimitSettings):
    """All settings of one server. The constructor checks them: a `ConfigError` names the first invalid one, and has
    the others.

    `help_of(name)` describes a setting in one line. Times are in seconds, sizes in bytes.
    """

    host: str = _setting(
        "127.0.0.1", _host, "The address to listen on; 0.0.0.0 for all of IPv4, :: for all of IPv6 and IPv4."
    )
    port: int = _setting(8080, _integer(0, 65535), "The port to listen on; 0 takes a free one.")
    admin_host: str = _setting(
        "127.0.0.1", _host, "The address of the admin port; its metrics need no password, so keep it local."
    )
    admin_port: int | None = _setting(
        9080,
        _optional_port,
        "The port of the operator's page, the admin API, /metrics and /readyz; 0 takes a free one, none closes it.",
    )
    admin_token: str = _setting(
        "",
        _secret,
        "The password of the admin API; default: one that is made, in the file admin-token of the data directory.",
        secret=True,
    )
    auth: Literal["verify", "token", "open"] = _setting(
        "verify",
        _choice("verify", "token", "open"),
        "verify: every client proves its key. token: it also has a token of yours (--jwks). open: classic clients too, "
        "unproven.",
    )
    data: str = _setting(
        "", lambda value: value if value == "" else _data(value), "The directory for the names and their keys."
    )
    directory: str = _setting(
        "",
        lambda value: value if value == "" else _directory_url(value),
        "Keep the names and their keys elsewhere than in data: a SQLite file, or the URL of a Redis, Valkey or "
        "PostgreSQL; other users can read a command line, and the password in it.",
        secret=True,
    )
    redis: str = _setting(
        "",
        lambda value: value if value == "" else _redis_url(value),
        "Be one of a cluster: all servers with this Redis or Valkey act as one. The names and their keys are there "
        "too, unless directory is a PostgreSQL or another Redis.",
        secret=True,
    )
    # Each takes 60 MB, and a core.
    workers: int = _setting(
        1,
        _integer(1, 128),
        "Processes that serve the public port together, one for each core; more than one need redis.",
    )
    # Shorter than a second, and a busy machine would end a server that is well.
    watchdog_seconds: float = _setting(
        0.0,
        _watchdog,
        "End the process when it has stood still for so long; something else has to start it again. 0: never.",
    )
    redis_prefix: str = _setting(
        DEFAULT_REDIS_PREFIX, _redis_prefix, "What the name of each key in Redis begins with; one for each server."
    )
    redis_password_file: Path | None = _setting(
        None, _file, "The file with the password of the Redis user, in place of one in the URL."
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
    stun_port: int = _setting(
        STUN_PORT,
        _integer(0, 65535),
        "The UDP port on which this server answers STUN itself, unless stun or turn_server names others, or only this "
        "machine reaches it; 0 is off.",
    )
    stun_address: str = _setting(
        "",
        lambda value: value if value == "" else _host(value),
        "The address by which clients reach that port; needed behind a proxy; default: the host that a client dials.",
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
    turn_check: tuple[str, ...] = _setting(
        (),
        _ice_urls("turn", "a URL such as turn:127.0.0.1:3478"),
        "TURN servers that run by themselves and know turn_secret, as this server reaches them: each is asked for a "
        "relay over UDP three times a minute, and metrics tell what came of it.",
    )
    # TURN checks the credential at every refresh (each 10 minutes, RFC 8656 section 3.2), so it has to outlive a call;
    # stores ask for a new one in time. The draft recommends a day, in which anybody who takes a new name could use the
    # relay.
    turn_credential_lifetime: int = _setting(
        4 * 3600,
        _integer(600, 7 * 86_400, " seconds"),
        "How long the credentials hold that clients get for TURN servers, and an earlier secret after a new one.",
    )
    turn_server: bool = _setting(
        False, _switch, "Run a TURN and STUN server beside this one: coturn's `turnserver`, which has to be installed."
    )
    turn_address: str = _setting(
        "",
        lambda value: value if value == "" else _host(value),
        "The address by which clients reach that TURN server; default: the first of names or acme_domain, or host.",
    )
    turn_port: int = _setting(3478, _integer(1, 65535), "Its port, for UDP and TCP.")
    turn_tls_port: int = _setting(5349, _integer(1, 65535), "Its port for TLS, with the certificate of this server.")
    turn_relay_ports: tuple[int, int] = _setting(
        (49152, 50175), _port_range, "The UDP ports on which it relays, such as 49152-50175: one for each user of it."
    )
    relay: bool = _setting(
        True,
        _switch,
        "Relay sealed messages between users that cannot connect directly, or not yet; the server cannot read them.",
    )
    tls_cert: Path | None = _setting(None, _file, "The certificate chain (PEM), to serve wss:// without a proxy.")
    tls_key: Path | None = _setting(None, _file, "The private key of the certificate (PEM).")
    acme_domain: tuple[str, ...] = _setting(
        (),
        _domains,
        "Get and renew a certificate for this domain; in place of tls_cert. It leads here, at the ports 80 or 443.",
    )
    acme_agree_tos: bool = _setting(
        False, _switch, "Agree to the terms of service of the certificate authority; needed with acme_domain."
    )
    acme_email: str = _setting("", _email, "Where the certificate authority can write to you.")
    acme_directory: str = _setting(
        "https://acme-v02.api.letsencrypt.org/directory", _directory, "The certificate authority: its ACME directory."
    )
    acme_ca_file: Path | None = _setting(
        None, _file, "The authorities (PEM) to trust for acme_directory, if it is a server of your own."
    )
    redirect_port: int | None = _setting(
        None, _optional_port, "With TLS: a port for plain HTTP, mostly 80, that redirects browsers to https."
    )
    hsts: bool = _setting(
        True, _switch, "With TLS: tell browsers to use https only for this host, on all of its ports, for a year."
    )
    log_format: Literal["console", "json"] = _setting(
        "console", _choice("console", "json"), "console for people, json for machines."
    )
    log_level: str = _setting(
        DEFAULT, _log_levels, "The lowest level to log; also by area: info,tls=debug. Areas: " + ", ".join(AREAS) + "."
    )
    log_addresses: Literal["short", "full", "none"] = _setting(
        "short", _choice(*MODES), "How clients' addresses look in the log: short (their network), full, or none."
    )
    # Warnings that `load_config` found.
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = _Problems()
        for name, read in READERS.items():
            with problems.noted():
                object.__setattr__(self, name, _read(name, read, getattr(self, name), ""))
        problems.tell()  # a value that cannot be used goes together with none
        if not self.data:
            object.__setattr__(self, "data", str(data_directory()))
        with problems.noted():
            object.__setattr__(self, "name_policy", check_accounts(self, self.auth))
        for check in (
            partial(check_limits, self),
            self._check_turn,
            self._check_proxy_protocol,
            self._check_tls,
            self._check_redis,
            self._check_workers,
            self._check_acme,
            self._check_ports,
        ):
            with problems.noted():
                check()
        problems.tell()

    @property
    def directory_url(self) -> str:
        """Where the names are; it may have a password in it."""
        return self.directory or self.redis or (MEMORY if self.data == MEMORY else str(Path(self.data) / FILE_NAME))

    @property
    def directory_options(self) -> DirectoryOptions:
        return DirectoryOptions(redis_prefix=self.redis_prefix, redis_password_file=self.redis_password_file)

    @property
    def secure(self) -> bool:
        """Whether the public port speaks TLS."""
        return self.tls_cert is not None or bool(self.acme_domain)

    def _check_proxy_protocol(self) -> None:
        if self.proxy_protocol and not self.trusted_proxies:
            raise ConfigError("proxy_protocol", "needs trusted_proxies: the proxies that speak it")

    def _check_tls(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            missing = "tls_cert" if self.tls_cert is None else "tls_key"
            raise ConfigError(missing, "tls_cert and tls_key go together")

    def _check_redis(self) -> None:
        if self.redis and self.directory and scheme_of(self.directory) is None:
            problem = "is a file of one machine, which the other servers of the cluster (redis) cannot read"
            raise ConfigError("directory", f"{problem}; leave it out, or name a Redis or a PostgreSQL")

    def _check_ports(self) -> None:
        if self.redirect_port is not None and not self.secure:
            problem = "needs acme_domain, or tls_cert and tls_key: without TLS there is no https to go to"
            raise ConfigError("redirect_port", problem)
        admin_ports = range(self.admin_port, self.admin_port + self.workers) if self.admin_port else ()
        if self.redirect_port == self.port != 0:
            raise ConfigError("redirect_port", f"{self.port} is the public port already; choose another one, or none")
        if self.port in admin_ports and _overlap(self.host, self.admin_host):
            raise ConfigError("admin_port", f"{self.port} is the public port already; choose another one, or none")
        if self.redirect_port in admin_ports and _overlap(self.host, self.admin_host):
            problem = f"{self.redirect_port} is the redirect_port already; choose another one, or none"
            raise ConfigError("admin_port", problem)
        if self.turn_server:
            # It listens where this server does, over UDP and TCP.
            turn_ports = {"turn_port": self.turn_port} | ({"turn_tls_port": self.turn_tls_port} if self.secure else {})
            for setting, port in turn_ports.items():
                if port in (self.port, self.redirect_port):
                    what = "the public port" if port == self.port else "the redirect_port"
                    raise ConfigError(setting, f"{port} is {what} already; choose another one")

    def _check_workers(self) -> None:
        if self.workers == 1:
            return
        if sys.platform == "win32":
            raise ConfigError("workers", "more than one cannot share a port on Windows; use 1, or a container")
        if not self.redis:
            problem = "more than one need redis: they share nothing else, and users of one would not find the others'"
            raise ConfigError("workers", problem)
        if self.acme_domain:
            problem = "more than one and acme_domain do not go together: the authority asks any worker, and one knows"
            raise ConfigError("workers", f"{problem}; get the certificate with another program, and give tls_cert")
        if self.admin_port and self.admin_port + self.workers - 1 > _HIGHEST_PORT:
            raise ConfigError("admin_port", f"each worker has its own, from this one on: {_HIGHEST_PORT} is the last")

    def _check_turn(self) -> None:
        if self.turn and not self.turn_secret:
            raise ConfigError("turn_secret", f"is needed with turn: {_KNOWN_TO_TURN}")
        if not self.turn_check:
            return
        if not self.turn_secret:
            raise ConfigError("turn_secret", f"is needed with turn_check: {_KNOWN_TO_TURN}")
        if any(url.startswith("turns:") or url.endswith("=tcp") for url in self.turn_check):
            raise ConfigError("turn_check", "asks over UDP only; name the same server with turn: and no transport")

    def _check_acme(self) -> None:
        if not self.acme_domain:
            return
        if self.tls_cert is not None:
            raise ConfigError("acme_domain", "and tls_cert do not go together: choose one")
        if self.data == MEMORY:
            raise ConfigError("acme_domain", "needs a data directory, or each start would order a new certificate")
        if not self.acme_agree_tos:
            problem = "is needed with acme_domain: read the terms of service of the authority, and say yes here"
            raise ConfigError("acme_agree_tos", problem)


def _overlap(one: str, other: str) -> bool:
    """Whether two listening addresses cannot use the same port, as far as the texts tell."""
    one, other = ("127.0.0.1" if host == "localhost" else host for host in (one, other))
    return one == other or any(host in ("0.0.0.0", "::", "*") for host in (one, other))  # noqa: S104


_PARTS: Final = (LimitSettings, AccountSettings)  # the last ones in the documentation
READERS: Final[dict[str, Callable[[object], Any]]] = {
    setting.name: setting.metadata["read"]
    for setting in sorted(
        fields(ServerConfig), key=lambda setting: sum(setting.name in part.__dataclass_fields__ for part in _PARTS)
    )
    if "read" in setting.metadata
}
SETTINGS: Final = tuple(READERS)
"""The names of all settings, in the order of the documentation."""
LIMITS: Final = frozenset(LimitSettings.__dataclass_fields__) - frozenset(AccountSettings.__dataclass_fields__)
"""The names of those that limit clients."""


# What a running server takes over on SIGHUP. The rest is part of open ports and files, or clients have been told of it.
RELOADABLE: Final = (LIMITS - {"max_message_bytes", "resume_window", "watches_per_session"}) | {
    *("tls_cert", "tls_key", "hsts", "names", "origins", "stun", "stun_address"),
    *("turn", "turn_secret", "turn_credential_lifetime", "relay"),
    *("log_level", "log_addresses"),
    *("token_audience", "token_issuer", "token_claim", "token_device_claim", "token_leeway"),
    *("hook_failure", "hook_cache"),
}


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
    except Expected as expected:
        # A URL may have a password in it.
        text = re.sub(r"//.*@", "//...@", f"{value!r} ") if value != "" else "an empty text "
        shown = "" if name in _SECRETS else text
        raise ConfigError(name, f"{shown}{source}cannot be used; expected {expected}") from None


def load_config(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None,
    *,
    only: Collection[str] = (),
) -> ServerConfig:
    """Build the settings: flags over environment over file over defaults.

    `flags` holds settings by name (`admin_port`), None where the flag was not given. `only`: what a command beside the
    server needs of them. It has not the secrets in the environment of the service, without which others are wrong.
    Raises `ConfigError`, with all that is wrong.
    """
    values: dict[str, Any] = {}
    problems = _Problems()
    for key, value in _from_file(file).items():
        with problems.noted():
            name = _name_of(key, file)
            if name in values:
                raise ConfigError(name, f"is in {file} twice, with a hyphen and with an underscore")
            values[name] = _read(name, READERS[name], value, f"in {file} ")
    warnings = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in READERS:
            with problems.noted():
                values[name] = _read(name, READERS[name], text, f"in the environment variable {variable} ")
        else:
            meant = _meant(name)
            hint = f"; {PREFIX}{meant.upper()} is one, which looks like it" if meant else ""
            warnings.append(f"the environment variable {variable} is no setting of this server{hint}")
    for name, value in flags.items():
        if name not in READERS:
            raise ConfigError(name, "is no setting of this server")
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            with problems.noted():
                values[name] = _read(name, READERS[name], value, f"given with {flag} ")
    problems.tell()
    config = ServerConfig(**{name: value for name, value in values.items() if not only or name in only})
    return replace(config, warnings=(*warnings, *account_warnings(config), *limit_warnings(config)))


def _meant(name: str) -> str | None:
    """The setting that looks most like this name, or None."""
    return next(iter(difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.75)), None)


def _from_file(file: Path | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        # Editors of Windows begin a file with a byte order mark, which nobody sees.
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError("config", f"cannot read {file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, and a thousand brackets
        raise ConfigError("config", f"{file} is not TOML: {error}") from error


def _name_of(key: str, file: Path | None) -> str:
    """The setting that a key of the file means."""
    name = key.replace("-", "_")
    if name not in READERS:
        meant = _meant(name)
        hint = f"{meant} is one, which looks like it" if meant else "`aldis serve --help` lists all of them"
        raise ConfigError(key, f"in {file} is no setting of this server; {hint}")
    return name
