"""The routes of the public port: the reply to each HTTP request, or its upgrade to a WebSocket.

    GET /healthz                        200, for load balancers: this process is alive
    GET / or /ws, with an upgrade       a WebSocket; /ws/ is the same
    GET / or any other file's path      the page, if the server shows one (`server.pages`)
    GET / or /ws, without either        426, with a sentence for a person with a browser
    GET in HTTP/1.0                     505, and how to set up a proxy (`server.listener` asks `is_old`)
    anything else                       404

`Host` has to name this server (`server.names`), or the reply is 421. This refuses proofs for other servers, and pages
that point their own name at this server (DNS rebinding). Two kinds of path ignore the host: /healthz, because load
balancers send any, and the SDK. The SDK is public, and has to load so that it can tell a developer what is wrong.

A path may begin with several slashes: with nginx's `location /a { proxy_pass http://server/; }`, /a/b comes as //b.

This module returns its decisions as values and knows no socket. It changes headers into the only form that picows
accepts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final, Protocol

from aldis.hub import dialects
from aldis.hub.dialects import Dialect
from aldis.protocol.codes import CloseCode
from aldis.server.http import RETRY_AFTER, Headers, HttpReply, busy, host_of, plain, tokens
from aldis.server.names import Arrival, Host, ServerNames
from aldis.server.origins import OriginPolicy
from aldis.server.refusals import Refusal

WEBSOCKET_PATHS: Final = frozenset({b"/", b"/ws", b"/ws/"})
# The outcome of a request for a host that is not this server.
MISDIRECTED: Final = "misdirected"


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """The request becomes a WebSocket. `refusal` is a close code, with which the WebSocket ends at once.

    `host` is the host that registration proofs have to name. With UNKNOWN_HOST, it is the host that the client dialled.
    """

    dialect: Dialect
    host: str
    refusal: CloseCode | None = None


class Site(Protocol):
    """Files that clients can GET."""

    def reply(self, path: bytes, headers: Headers, /) -> HttpReply | None:
        """The reply to a GET of this path; None when there is no such file."""

    def is_shared(self, path: bytes, /) -> bool:
        """Whether pages of other origins may load this file, under any host name."""


_NO_UPGRADE: Final = plain(
    HTTPStatus.UPGRADE_REQUIRED,
    "This is an Aldis signaling server. It speaks WebSocket: connect to this address with an Aldis client,\n"
    "for example: aldis chat NAME --as ME --server URL\n",
    "no-upgrade",
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
)
_BAD_HOST: Final = plain(
    HTTPStatus.BAD_REQUEST, "The Host header is missing, not valid, or there are several.\n", "bad-request"
)
_NOT_FOUND: Final = plain(
    HTTPStatus.NOT_FOUND, "There is nothing here. The WebSocket is at / and at /ws.\n", "not-found"
)


def _too_many(text: str, outcome: str) -> HttpReply:
    # RFC 6585 section 4
    return plain(HTTPStatus.TOO_MANY_REQUESTS, text, outcome, ("Retry-After", str(RETRY_AFTER)))


_REFUSALS: Final = {
    Refusal.FULL: busy("This server has all the connections it can take; try again in a moment.\n", Refusal.FULL),
    Refusal.ADDRESS: _too_many("Too many connections come from your address.\n", Refusal.ADDRESS),
    Refusal.ADDRESS_RATE: _too_many("Your address connects too often; try again in a moment.\n", Refusal.ADDRESS_RATE),
    Refusal.MEMORY: busy("This server has no memory left for more clients; try again in a moment.\n", Refusal.MEMORY),
    Refusal.RATE: busy("Too many clients connect at once; try again in a moment.\n", Refusal.RATE),
}


def misdirected(host: Host) -> HttpReply:
    """The refusal of an unknown host name. Its text tells visitors and the operator what to do."""
    text = (
        f"This server does not go by the name {host.text}.\n"
        "\n"
        "If somebody sent you here, tell them. If it is your server, start it with this name:\n"
        "\n"
        f"    aldis serve --names {host.text}\n"
        "\n"
        "List there all names and addresses that people use, separated by commas: no others count then, not even\n"
        "localhost. A proxy in front of it has to pass the Host header on.\n"
    )
    return plain(HTTPStatus.MISDIRECTED_REQUEST, text, MISDIRECTED)


# RFC 6797; a year. Without includeSubDomains, because those may not be ours.
_HSTS: Final = ("Strict-Transport-Security", "max-age=31536000")


class Routes:
    """Decides on each request. `names` are the server's own host names, `origins` the pages that may connect.

    `site` serves the page for browsers. Without it, people get a short text instead. `base_path` is what a proxy leaves
    before each path, such as `/aldis`. Paths without it are served too. `hsts` sends `Strict-Transport-Security` with
    the page.

    `origins` says which web pages may connect. A page that may not is closed with 4502 after the upgrade,
    because a browser shows a page the close code, and never the status of a refused handshake. For the same reason, a
    browser that dialled a wrong host is closed with 4505, and other clients get 421.
    """

    def __init__(
        self,
        *,
        names: ServerNames,
        origins: OriginPolicy | None = None,
        site: Site | None = None,
        base_path: str = "",
        hsts: bool = False,
    ) -> None:
        self._names = names
        self._site = site
        self._base_path = base_path.encode()
        self.replace(origins=origins or OriginPolicy(), hsts=hsts)

    def replace(self, *, origins: OriginPolicy, hsts: bool) -> None:
        """Use these settings from the next request on."""
        self._origins = origins
        self._hsts = hsts

    def decide(
        self, path: bytes, headers: Headers, *, arrival: Arrival, refusal: Refusal | None, draining: bool
    ) -> UpgradeRequest | HttpReply:
        """Decide on a GET request, and change the headers of an upgrade into the form that picows accepts.

        `refusal` says why the connection may not stay, if it may not. A full server takes no WebSocket, but people
        still get the page, and load balancers learn that it is alive.
        """
        path = self._without_base(path.partition(b"?")[0])
        if len(headers.getall("Host", [])) > 1:  # RFC 9112 section 3.2: whatever the path is
            return _BAD_HOST
        if path == b"/healthz":
            return plain(HTTPStatus.OK, "ok\n", "healthz")
        if refusal is not None and refusal is not Refusal.FULL:
            return _REFUSALS[refusal]
        host = host_of(headers)
        if host is None:
            return _BAD_HOST
        own = self._names.own(host, arrival)
        upgrade = (not path or path in WEBSOCKET_PATHS) and self._is_upgrade(headers)
        if own is None and not (upgrade and headers.getall("Origin", [])) and not self._is_shared(path):
            return misdirected(host)
        if not path:
            if not (upgrade or self._means_upgrade(headers)):
                # The page loads its files relative to its own path, so that path has to end with a slash.
                location = ("Location", f"{self._base_path.decode()}/")
                return plain(HTTPStatus.PERMANENT_REDIRECT, "It is one slash further.\n", "redirected", location)
            path = b"/"
        if path not in WEBSOCKET_PATHS:
            return self._show(path, headers, host) or _NOT_FOUND
        if not upgrade:
            return (None if self._means_upgrade(headers) else self._show(path, headers, host)) or _NO_UPGRADE
        if draining:
            return busy("This server is going away; try again in a moment.\n", "draining")
        if refusal is not None:
            return _REFUSALS[refusal]
        # Firefox sends `keep-alive, Upgrade`, as RFC 9110 section 7.6.1 allows; picows compares with a single word.
        headers["Connection"] = "upgrade"
        headers["Upgrade"] = "websocket"
        offered = tokens(headers, "Sec-WebSocket-Protocol")
        dialect = dialects.chosen(offered)
        if own is None:
            return UpgradeRequest(dialect, host.text, CloseCode.UNKNOWN_HOST)
        is_allowed = self._origins.allows(headers.getall("Origin", []), (host.text, own))
        return UpgradeRequest(dialect, own, None if is_allowed else CloseCode.ORIGIN_NOT_ALLOWED)

    def _without_base(self, path: bytes) -> bytes:
        """The path without the base path; empty for the base path without its final slash."""
        rest = path.removeprefix(self._base_path) if self._base_path else path
        if rest != path and not rest:
            return b""
        return b"/" + (rest if rest.startswith(b"/") else path).lstrip(b"/")

    def _show(self, path: bytes, headers: Headers, host: Host) -> HttpReply | None:
        reply = None if self._site is None else self._site.reply(path, headers)
        if reply is None or not self._hsts or host.name == "localhost" or host.name.endswith(".localhost"):
            # On `localhost` it would end plain HTTP for all programs that somebody develops there.
            return reply
        return replace(reply, headers=(*reply.headers, _HSTS))

    def _is_shared(self, path: bytes) -> bool:
        return self._site is not None and self._site.is_shared(path)

    @staticmethod
    def _is_upgrade(headers: Headers) -> bool:
        return (
            "upgrade" in (token.lower() for token in tokens(headers, "Connection"))
            and "websocket" in (token.lower() for token in tokens(headers, "Upgrade"))
            and headers.getall("Sec-WebSocket-Version", []) == ["13"]
        )

    @staticmethod
    def _means_upgrade(headers: Headers) -> bool:
        """Whether a request was meant as an upgrade but cannot become one, so that a page would be a wrong reply.

        A proxy that is not set up for WebSockets drops `Upgrade` (RFC 9110 section 7.6.1), but not the key.
        """
        upgrades = (token.lower() for token in tokens(headers, "Upgrade"))
        return "websocket" in upgrades or bool(headers.getall("Sec-WebSocket-Key", []))
