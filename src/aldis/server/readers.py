"""Readers of settings: each takes a text from outside or a Python value, and gives the value of the setting.

A reader raises `Expected` for a value that cannot be used; its text says what is expected. `setting` makes the field of
a dataclass that `server.config` reads with such a reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import field
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

from aldis.backends.directory_url import MEMORY as MEMORY
from aldis.backends.directory_url import check_url, path_of
from aldis.backends.redis_url import RedisUrl
from aldis.environment import decoded, expand
from aldis.errors import ConfigError, UsageError
from aldis.hub.networks import read_network
from aldis.protocol.ice import read_url
from aldis.server.log_levels import DEFAULT, LogLevels, read_levels
from aldis.server.names import MAX_HOST, read_name, read_origin
from aldis.server.origins import ANY
from aldis.settings import check_path

# The characters of RFC 3986 section 3.3 that never need quotes in a shell.
_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*/?")
# Two labels at least, the last of them no number: an authority for the public issues for nothing else.
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_MOST_DOMAINS: Final = 100  # names in one certificate, as the largest public authority has it
_EMAIL: Final = re.compile(r"|[^\s@,<>]+@[^\s@,<>]+", re.ASCII)
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

T = TypeVar("T")


class Expected(Exception):
    """A value is not valid; the text says what is expected."""


def read_choice(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, str) and value.lower() in words:
            return value.lower()
        raise Expected(f"one of {', '.join(words)}")

    return read


def read_log_levels(value: object) -> str:
    try:
        levels = read_levels(value if isinstance(value, str) else "")
    except UsageError as error:
        raise Expected(str(error)) from None
    return str(levels if levels.default else LogLevels(DEFAULT, levels.areas))


def read_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    raise Expected(f"one of {', '.join(_WORDS)}")


def read_integer(lowest: int, highest: int, unit: str = "") -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip(), re.ASCII):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return value
        raise Expected(f"a whole number from {lowest} to {highest}{unit}")

    return read


def read_seconds(lowest: float, highest: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                value = None
        if isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest:
            return float(value)
        raise Expected(f"a number of seconds from {lowest:g} to {highest:g}")

    return read


def read_watchdog(value: object) -> float:
    try:
        return 0.0 if value in (0, "0") else read_seconds(1, 3600)(value)
    except Expected as expected:
        raise Expected(f"0 or {expected}") from None


def read_text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return read_utf8(value).strip()
    raise Expected("a text that is not empty")


def read_secret(value: object) -> str:
    if isinstance(value, str):
        return read_utf8(value)
    raise Expected("a text")


def read_utf8(text: str) -> str:
    try:
        text = decoded(text)
        text.encode()  # a lone surrogate, which `decoded` does not change
    except ValueError:
        raise Expected("a text in UTF-8") from None
    return text


def read_optional_port(value: object) -> int | None:
    if value is None or (isinstance(value, str) and value.lower() == "none"):
        return None
    try:
        return read_integer(0, 65535)(value)
    except Expected as error:
        raise Expected(f"{error}, or none for no such port") from None


def read_port_range(value: object) -> tuple[int, int]:
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,5})-(\d{1,5})", value.strip(), re.ASCII)):
        value = (int(found[1]), int(found[2]))
    match value:
        case (int(first), int(last)) | [int(first), int(last)] if 1024 <= first <= last <= 65535:
            return first, last
    raise Expected("two ports from 1024 to 65535, such as 49152-50175")


def read_texts(shape: re.Pattern[str], expected: str) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in read_utf8(value).split(",") if part.strip()]
        if isinstance(value, list | tuple) and all(isinstance(v, str) and shape.fullmatch(v) for v in value):
            return tuple(value)
        raise Expected(f"{expected}, or several of them (a list in TOML, separated by commas elsewhere)")

    return read


def read_names(value: object) -> tuple[str, ...]:
    expected = "a host name as clients dial it, with the port if it is not the usual one"
    read = tuple(map(read_name, read_texts(re.compile(r"[^\s/,@]+"), expected)(value)))
    names = tuple(name for name in read if name is not None)
    if len(names) < len(read):
        raise Expected(f"{expected}, such as signal.example.com:8443 or [2001:db8::1]")
    return names


def read_domains(value: object) -> tuple[str, ...]:
    expected = "a domain such as signal.example.com, without a port and without *"
    domains = read_texts(re.compile(r"[^\s/,@:*]+"), expected)(value)
    read = tuple(dict.fromkeys((read_name(domain) or "").removesuffix(".") for domain in domains))
    if not all(_DOMAIN.fullmatch(domain) for domain in read) or len(read) > _MOST_DOMAINS:
        raise Expected(f"{expected}, and at most {_MOST_DOMAINS}")
    return read


def read_email(value: object) -> str:
    if isinstance(value, str) and _EMAIL.fullmatch(value.strip()):
        return value.strip()
    raise Expected("an address such as admin@example.com, or an empty text")


def read_directory(value: object) -> str:
    text = read_text(value)
    if text.startswith("https://") and text.isascii() and " " not in text:
        return text
    raise Expected("the URL of an ACME directory, with https://")


def read_origins(value: object) -> tuple[str, ...]:
    expected = (
        "an origin such as https://example.com, as browsers send it: scheme, host, and the port if it is not 443; "
        "* for all"
    )
    read = tuple(text if text == ANY else read_origin(text) for text in read_texts(re.compile(r"\S+"), expected)(value))
    origins = tuple(origin for origin in read if origin is not None)
    if len(origins) < len(read):
        raise Expected(expected)
    return origins


def read_networks(value: object) -> tuple[str, ...]:
    expected = "an address or a network such as 10.0.0.0/8"
    texts = read_texts(re.compile(r"\S+"), expected)(value)
    try:
        return tuple(str(read_network(text, strict=True)) for text in texts)
    except ValueError as error:
        raise Expected(f"{expected}; {error}") from None


def read_base_path(value: object) -> str:
    if isinstance(value, str) and _PATH.fullmatch(value.strip()):
        return value.strip().rstrip("/")
    raise Expected("a path such as /aldis, or an empty text")


def read_ice_urls(kind: str, expected: str) -> Callable[[object], tuple[str, ...]]:
    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part for part in value.split(",") if part.strip()]
        wanted = f"{expected}, or several of them (a list in TOML, separated by commas elsewhere)"
        if not isinstance(value, list | tuple) or not all(isinstance(url, str) for url in value):
            raise Expected(wanted)
        urls = []
        for text in value:
            try:
                url = read_url(text)
            except ValueError as error:
                raise Expected(f"{wanted}; {text.strip()!r}: {error}") from None
            if not url.scheme.startswith(kind):
                raise Expected(wanted)
            urls.append(str(url))
        return tuple(urls)

    return read


def read_data(value: object) -> str:
    if isinstance(value, Path) or (isinstance(value, str) and value.strip()):
        return MEMORY if value == MEMORY else str(read_path(value))
    raise Expected(f"a directory, or {MEMORY} to keep nothing")


def read_directory_url(value: object) -> str:
    if isinstance(value, Path):
        return str(read_path(value))
    text = read_text(value)
    try:
        check_url(text)
    except ValueError as error:
        raise Expected(str(error)) from None
    path = path_of(text)
    return text if path is None else str(read_path(path))


def read_redis_url(value: object) -> str:
    text = read_text(value)
    try:
        RedisUrl.parse(text)
    except ValueError as error:
        raise Expected(str(error)) from None
    return text


def read_redis_prefix(value: object) -> str:
    # Braces would be the hash tag of all keys (Redis Cluster specification, "Hash tags").
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", value.strip()):
        return value.strip()
    raise Expected("1 to 64 letters, digits and . _ : -")


def read_file(value: object) -> Path | None:
    if value is None:
        return value
    if isinstance(value, Path) or (isinstance(value, str) and value.strip()):
        return read_path(value)
    raise Expected("a file")


def read_path(value: str | Path) -> Path:
    try:
        path = check_path("path", value)
    except ConfigError as error:
        raise Expected(f"a path; {error.problem}") from None
    if isinstance(value, Path):
        return path
    try:
        return expand(value)
    except ConfigError:
        raise Expected("a path without `~`, as this home directory is not known") from None


def read_host(value: object) -> str:
    text = read_text(value)
    if len(text) > MAX_HOST or any(character.isspace() or character in "\0/" for character in text):
        raise Expected("the address or the name of a network interface of this machine")
    try:
        return str(ip_address(text))  # an IPv6 address has many spellings
    except ValueError:
        return text


def setting(default: T, read: Callable[[object], object], text: str, *, secret: bool = False) -> T:
    metadata = {"read": read, "help": text}
    made: T = field(default=default, repr=not secret, metadata=metadata)
    return made
