"""The settings of the operator's accounts: tokens, the names that may register, and the operator's application.

They are a part of `server.config.ServerConfig`, which reads them like all others.
"""

# ruff: noqa: RUF009 - `setting` makes a dataclass field

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from aldis.errors import ConfigError
from aldis.protocol.hosts import is_this_machine
from aldis.server.readers import (
    Expected,
    read_choice,
    read_integer,
    read_path,
    read_seconds,
    read_secret,
    read_text,
    setting,
)

# Bytes of a secret for HMAC-SHA256: RFC 2104 section 3 advises against less than the output of the hash.
MIN_SECRET = 32


def _url(value: object) -> str:
    """The URL of an HTTP server of the operator's, or an empty text."""
    if value == "":
        return ""
    text = read_text(value)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.fragment or not text.isascii() or not text.isprintable() or " " in text:
        raise Expected("a URL such as https://accounts.example.com/aldis")
    if parts.username is not None or parts.password is not None:
        raise Expected("a URL without a user name and a password: requests are signed with hook_secret")
    return text


def _key_set(value: object) -> str | Path:
    """A file, or a URL, of a JWKS."""
    if value == "":
        return ""
    if isinstance(value, Path):
        return read_path(value)
    text = read_text(value)
    if not text.lower().startswith(("https://", "http://")):
        return read_path(text)
    url = _url(text)
    if not is_private(url):
        raise Expected("a file, or a URL with https; http only on this machine: whoever changes the keys is every user")
    return url


def is_private(url: str) -> bool:
    """Whether nobody on the way can read or change what is fetched: https, or this machine itself."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_this_machine(parts.hostname or "")


def _claim(value: object) -> str:
    text = "" if value == "" else read_text(value)
    if len(text) > 256:
        raise Expected("the name of a claim, of at most 256 characters")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSettings:
    """The part of `ServerConfig` that is about accounts. Times are in seconds."""

    name_policy: Literal["", "first-come", "token", "closed"] = setting(
        "",
        lambda value: value if value == "" else read_choice("first-come", "token", "closed")(value),
        "Which names may register. first-come: any free name. token: the token's own. closed: those on the list "
        "(`aldis admin names`); default: token with --auth token, else first-come.",
    )
    jwks: str | Path = setting(
        "",
        _key_set,
        "With --auth token: the keys of tokens, a JWKS: a file, or a URL that is fetched again by itself.",
    )
    # An issuer shows a new key a while before it uses it.
    jwks_refresh: float = setting(300.0, read_seconds(10, 86_400), "How often the JWKS of a URL is fetched.")
    token_audience: str = setting(
        "", _claim, "The `aud` that a token must have; default: a token must have none, as it is for others then."
    )
    token_issuer: str = setting("", _claim, "The `iss` that a token must have; default: any.")
    token_claim: str = setting("sub", read_text, "The claim of a token that is the user's name.")
    token_device_claim: str = setting(
        "", _claim, "The claim of a token that is the only device it is for; default: none, it is for all."
    )
    # Clocks of servers with NTP differ by less than a second; without, by more than any leeway covers.
    token_leeway: float = setting(
        10.0, read_seconds(0, 300), "How far the clocks of issuer and server may differ, for `exp`, `nbf` and `iat`."
    )
    # So that clients whose tokens expire at the same moment do not all come back at once.
    token_grace: float = setting(
        60.0, read_seconds(0, 3600), "Sessions end within this time after their token has expired, at random."
    )
    hook_url: str = setting(
        "", _url, "A URL of your application that is asked whether a client may register; default: none."
    )
    hook_secret: str = setting(
        "",
        read_secret,
        "The secret that signs what is sent to hook_url and presence_url; other users can read a command line.",
        secret=True,
    )
    # A person waits for it; clients give up after 10 s.
    hook_timeout: float = setting(3.0, read_seconds(0.1, 8), "How long hook_url may take, with the wait for its turn.")
    # Covers the repeated registrations of a bad line.
    hook_cache: float = setting(
        10.0, read_seconds(0, 3600), "How long an answer of hook_url holds for the same user, device and key."
    )
    # What a small application handles at once.
    hook_concurrency: int = setting(32, read_integer(1, 1000), "Requests to hook_url at a time; more wait.")
    hook_failure: Literal["deny", "allow"] = setting(
        "deny", read_choice("deny", "allow"), "What holds when hook_url does not answer: deny, or allow."
    )
    presence_url: str = setting(
        "", _url, "A URL of your application that is told who comes online and goes offline; default: none."
    )
    # An event takes up to 1 KB. Ten thousand cover all clients of a server that lose their network at once.
    presence_queue: int = setting(
        10_000, read_integer(100, 1_000_000), "Events that wait for presence_url; beyond it, the oldest are dropped."
    )


def check_accounts(settings: AccountSettings, auth: str) -> str:
    """Check what belongs together; return the `name_policy` that holds. Raises `ConfigError`."""
    policy = settings.name_policy or ("token" if auth == "token" else "first-come")
    if auth == "token" and not settings.jwks:
        raise ConfigError("jwks", "is needed with auth = token: the keys of tokens; `aldis token --new-key` makes one")
    if auth != "token" and settings.jwks:
        raise ConfigError("jwks", f"is of no use with auth = {auth}; set auth = token, or leave it out")
    if policy == "token" and auth != "token":
        raise ConfigError("name_policy", "token needs auth = token: without a token there is no name in it")
    if (settings.hook_url or settings.presence_url) and len(settings.hook_secret.encode()) < MIN_SECRET:
        raise ConfigError(
            "hook_secret",
            f"needs {MIN_SECRET} bytes or more, for your application to know that requests are from this server; "
            "`openssl rand -hex 32` makes one",
        )
    return policy


def account_warnings(settings: AccountSettings) -> list[str]:
    """What an operator should know about settings that can be used."""
    return [
        f"{name} is plain http to another machine: whoever is on the way can read it, and answer in its place"
        for name, url in (("hook_url", settings.hook_url), ("presence_url", settings.presence_url))
        if url and not is_private(url)
    ]
