"""The address of a server: the text that a person writes becomes the URL to dial and the host to sign.

Accepted are `ws://` and `wss://`, `http://` and `https://` (as copied from a browser), and a bare `host[:port]`. The
bare form means `wss://`; on this machine it means `ws://`, because nothing leaves the machine, and a server on trial
there has no certificate. Path and query are kept. A path that does not end in `/ws` gets a slash at its end. Hosts are
read as browsers read them (`protocol.hosts`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from aldis.errors import ConfigError
from aldis.protocol.hosts import is_this_machine, read_host

_SECURE: Final = {"ws": False, "wss": True, "http": False, "https": True}
_DEFAULT_PORTS: Final = {False: 80, True: 443}
# Characters that need no quoting in a path and a query (RFC 3986 sections 3.3 and 3.4), and `%` for those quoted
# already.
_UNQUOTED: Final = "/?%:@!$&'()*+,;=~"
_HOST_AND_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::[0-9]*)?")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server to dial.

    `url` is the URL to dial. `server` is the text of the `Host` header: host and port in lower case, without the
    scheme's default port. Registration proofs sign it, and pins are stored under it.
    """

    url: str
    secure: bool
    host: str
    port: int
    server: str

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Read what a person wrote. Raises `ConfigError` (a `UsageError`) when it is not the address of a server."""
        if not isinstance(text, str):
            raise ConfigError("url", f"{text!r} is not a str")
        # urlsplit would drop some of these silently, and they must not get into a header.
        if any(character.isspace() or unicodedata.category(character) in ("Cc", "Cs") for character in text):
            raise ConfigError("url", f"{text!r} contains white space or a control character")
        try:
            parts = urlsplit(text if "://" in text else f"//{text}")
            port = parts.port
        except ValueError as error:
            raise ConfigError("url", f"{text!r} is not a URL: {error}") from None
        host, literal = _host(text, parts)
        if not parts.scheme:
            secure = not is_this_machine(host)
        elif parts.scheme in _SECURE:
            secure = _SECURE[parts.scheme]
        else:
            raise ConfigError("url", f"{text!r} should begin with ws:// or wss://")
        if port == 0:
            raise ConfigError("url", f"{text!r} has no usable port")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("url", "a server's URL has no user name and password; pass a token instead")
        if parts.fragment:
            raise ConfigError("url", f"{text!r} has a fragment, which no server ever sees")
        default = _DEFAULT_PORTS[secure]
        server = literal if port in (None, default) else f"{literal}:{port}"
        path = quote(_folder(parts.path), safe=_UNQUOTED)
        query = f"?{quote(parts.query, safe=_UNQUOTED)}" if parts.query else ""
        return cls(f"{'wss' if secure else 'ws'}://{server}{path}{query}", secure, host, port or default, server)


def _folder(path: str) -> str:
    """The path to dial: /aldis/ for /aldis, from which a proxy would only redirect. /ws gets no slash."""
    return path if path.endswith(("/", "/ws")) else f"{path}/"


def _host(text: str, parts: SplitResult) -> tuple[str, str]:
    """The host to dial, and the same host as a URL has it: IPv6 addresses in brackets."""
    # Not `parts.hostname`: Python lower-cases it differently from browsers (final sigma), and drops text before or
    # after brackets.
    found = _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2])
    try:
        literal = read_host(found[1] if found is not None else "")
    except ValueError as error:
        raise ConfigError("url", f"{text!r} has no valid host name: {error}") from None
    return literal.strip("[]"), literal


def misdirected(address: ServerAddress) -> str:
    """Explain the reply 421 (RFC 9110 section 15.5.20), and what the operator can do."""
    return (
        f"it does not go by the name {address.server} (421); if this is the right server, "
        f"its operator has to start it with --names {address.server}, and a proxy in front of it to pass Host on"
    )
