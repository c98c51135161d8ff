"""The page that the server shows at `/`, and the browser SDK: the files of the package's folder `web`, as replies.

    GET /               index.html, as `server.edition` has made it ready
    GET /v-DIGEST/NAME  what that loads; under this path it never changes
    GET /NAME           the file of that name, as it is written; NAME may have folders in it. favicon.ico is the icon

Rules of this module:

* All files are read once, when the server starts, and compressed then. A request is a look-up of its exact path in a
  table: it touches no file, and no path leads anywhere else.
* What never changes is kept by browsers and not asked for again. All else is revalidated each time it is used
  (`no-cache` with an `ETag`): a new version of the server is a new version of the page, all of it.
* The page may do what it needs and nothing more (`_PAGE`). Only the SDK is there for pages of other origins.

It knows no socket, and not what is a WebSocket's request.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final
from urllib.parse import quote

from aldis.server.edition import INDEX, edition
from aldis.server.http import Headers, Reply, plain, tokens

ICON: Final = "icon.svg"
# What pages of other origins may import; CORS lets them read it.
SHARED: Final = "aldis.js"
# A file of another kind is none of the page's: it is for developers, and stays where it is.
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "webmanifest": "application/manifest+json; charset=utf-8",
    "ico": "image/x-icon",
    "png": "image/png",
    "webp": "image/webp",
    "woff2": "font/woff2",
}
# Compressed already.
_PACKED_TYPES: Final = frozenset({"png", "webp", "woff2"})
# `'self'` covers the WebSocket of the same origin (CSP 3 section 6.7.2.8) in all browsers that have what the page needs
# (Ed25519 in WebCrypto): Chrome since 71, Safari since 16.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
# There is no Strict-Transport-Security: it would speak for everything else on this host name, which is not ours to do.
_ALL: Final = (
    ("Vary", "Accept-Encoding"),
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
_PAGE: Final = (
    *_ALL,
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    (
        "Permissions-Policy",
        "camera=(self), microphone=(self), display-capture=(self), geolocation=(), midi=(), payment=(), usb=()",
    ),
)
# Asked for again each time it is used; and for a year (RFC 9111 section 1.2.2) not even when a page is reloaded
# (RFC 8246).
_CHANGING: Final = ("Cache-Control", "no-cache")
_LASTING: Final = ("Cache-Control", "max-age=31536000, immutable")
_SHARED: Final = (*_ALL, ("Access-Control-Allow-Origin", "*"), ("Cross-Origin-Resource-Policy", "cross-origin"))

_MISSING: Final = (
    "This is an Aldis signaling server, and its WebSocket works. The page that belongs here is missing from this\n"
    "installation; to have it, install the package aldis again.\n"
)


@dataclass(frozen=True, slots=True)
class _Form:
    """A file in one content coding. `headers` go with 200 and `validated` with 304 (RFC 9110 section 15.4.5)."""

    body: bytes
    tag: str
    headers: tuple[tuple[str, str], ...]
    validated: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, body: bytes, kind: str, common: tuple[tuple[str, str], ...], coding: str = "") -> _Form:
        # A strong validator names these very bytes (RFC 9110 section 8.8.1), so each coding has its own.
        tag = f'"{sha256(body).hexdigest()[:32]}"'
        validated = (*common, ("ETag", tag))
        coded = (("Content-Encoding", coding),) if coding else ()
        return cls(body, tag, (*validated, ("Content-Type", kind), *coded), validated)


@dataclass(frozen=True, slots=True)
class _File:
    plain: _Form
    packed: _Form | None


class Pages:
    """The files of a folder, by the paths at which they are served."""

    def __init__(self, folder: Traversable) -> None:
        written = dict(_read(folder))
        self._files = {_path(name): _file(name, body, _CHANGING) for name, body in written.items()}
        # False when the installation is broken.
        self.complete = INDEX in written
        if self.complete:
            made = edition(written)
            self._files[b"/"] = _file(INDEX, made.index, _CHANGING)
            self._files |= {_path(name): _file(name, body, _LASTING) for name, body in made.files.items()}
        # Browsers ask for it beside anything that names no icon; their console would show a 404.
        icon = self._files.get(b"/" + ICON.encode())
        if icon is not None:
            self._files.setdefault(b"/favicon.ico", icon)

    @classmethod
    def of_package(cls) -> Pages:
        """Those of this package."""
        return cls(files("aldis") / "web")

    @property
    def paths(self) -> frozenset[bytes]:
        """All paths at which there is something."""
        return frozenset(self._files)

    def is_shared(self, path: bytes) -> bool:
        """Whether this is the SDK, which pages of other origins import."""
        return path == _path(SHARED)

    def reply(self, path: bytes, headers: Headers) -> Reply | None:
        """What a GET of this path gets; None when there is nothing. `path` is without its query."""
        file = self._files.get(path)
        if file is None:
            if path == b"/":
                return plain(HTTPStatus.SERVICE_UNAVAILABLE, _MISSING, "page-missing")
            return None
        form = file.packed if file.packed is not None and _accepts_gzip(headers) else file.plain
        if _has(headers, form.tag):
            return Reply(HTTPStatus.NOT_MODIFIED, b"", "not-modified", form.validated)
        return Reply(HTTPStatus.OK, form.body, "page", form.headers)


def _read(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif _suffix(entry.name) in _TYPES:
            yield prefix + entry.name, entry.read_bytes()


def _path(name: str) -> bytes:
    return b"/" + quote(name).encode()


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _file(name: str, body: bytes, caching: tuple[str, str]) -> _File:
    kind = _TYPES[_suffix(name)]
    common = (caching, *(_SHARED if name == SHARED else _PAGE))
    packed = body if _suffix(name) in _PACKED_TYPES else gzip.compress(body, 9, mtime=0)
    return _File(
        _Form.of(body, kind, common), _Form.of(packed, kind, common, "gzip") if len(packed) < len(body) else None
    )


def _accepts_gzip(headers: Headers) -> bool:
    """Whether the client takes gzip (RFC 9110 section 12.5.3)."""
    weights: dict[str, str] = {}
    for token in tokens(headers, "Accept-Encoding"):
        coding, _, parameter = token.partition(";")
        weights[coding.strip().lower()] = parameter.replace(" ", "").lower()
    weight = weights.get("gzip", weights.get("*"))
    # A weight of 0 in any of its spellings (section 12.4.2) is a no.
    return weight is not None and not (weight.startswith("q=0") and weight[3:].strip(".0") == "")


def _has(headers: Headers, tag: str) -> bool:
    """Whether the client has this form already: the weak comparison of RFC 9110 section 13.1.2."""
    return any(known == "*" or known.removeprefix("W/") == tag for known in tokens(headers, "If-None-Match"))
