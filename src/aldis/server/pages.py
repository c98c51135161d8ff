"""The page at `/` and the browser SDK: the files of the package's folder `web`, as HTTP replies.

    GET /             index.html
    GET /assets/NAME  the files of the page
    GET /aldis.js     the browser SDK, also for pages of other origins
    GET /sdk/NAME     the files of the SDK
    GET /src/         a list of all sources, for people
    GET /src/NAME     one source

`sdk/tools/build.js` makes everything except the sources. Names in `assets` and `sdk` contain a hash of the content.

Rules of this module:

* The server reads all files once, when it starts. A request looks its exact path up in a table. It touches no file, so
  no path leads outside. A file is compressed at its first request.
* Browsers keep a file with a hash in its name, and do not ask for it again. They ask for every other file each time
  they use it (`no-cache` with an `ETag`). So a new version of the server always brings the whole new page.
* The page may do what it needs and nothing more (`_PAGE`). Pages of other origins may only import the SDK.

It does not know sockets, and does not decide whether a request is for a WebSocket.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from http import HTTPStatus
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final
from urllib.parse import quote

from aldis.server.http import Headers, HttpReply, plain, tokens

INDEX: Final = "index.html"
# Files that pages of other origins may import; CORS lets these pages read them.
SHARED: Final = "aldis.js"
SHARED_FOLDER: Final = "sdk/"
# Browsers request this for a page that names no icon; without it, their console shows a 404.
FAVICON: Final = "favicon.ico"
_ICON: Final = "src/page/icon.svg"
_SOURCES: Final = "src/"
# Names in these folders contain a hash of the content.
_HASHED: Final = ("assets/", SHARED_FOLDER)
# Files of other kinds are not served.
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "map": "application/json; charset=utf-8",
    "svg": "image/svg+xml; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "webmanifest": "application/manifest+json; charset=utf-8",
    "ico": "image/x-icon",
    "png": "image/png",
    "webp": "image/webp",
    "woff2": "font/woff2",
}
# Level 9 makes scripts smaller by 0.1 %, and takes three times as long for source maps, while other clients wait.
_LEVEL: Final = 6
# These are compressed already.
_PACKED_TYPES: Final = frozenset({"png", "webp", "woff2"})
# `'self'` covers the WebSocket of the same origin (CSP 3 section 6.7.2.8) in all browsers that have what the page needs
# (Ed25519 in WebCrypto): Chrome since 71, Safari since 16.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
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
# A browser revalidates the first at each use. It keeps the second for a year (RFC 9111 section 1.2.2), even when a page
# is reloaded (RFC 8246).
_CHANGING: Final = ("Cache-Control", "no-cache")
_LASTING: Final = ("Cache-Control", "max-age=31536000, immutable")
_SHARED: Final = (*_ALL, ("Access-Control-Allow-Origin", "*"), ("Cross-Origin-Resource-Policy", "cross-origin"))

_MISSING: Final = (
    "This is an Aldis signaling server, and its WebSocket works. The page that belongs here is missing from this\n"
    "installation; to have it, install the package aldis again.\n"
)


@dataclass(frozen=True, slots=True)
class _Form:
    """A file in one content coding. `headers` go with a 200, `validated` with a 304 (RFC 9110 section 15.4.5)."""

    body: bytes
    tag: str
    headers: tuple[tuple[str, str], ...]
    validated: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, body: bytes, kind: str, common: tuple[tuple[str, str], ...], coding: str = "") -> _Form:
        # A strong validator names exactly these bytes (RFC 9110 section 8.8.1), so each coding has its own.
        tag = f'"{sha256(body).hexdigest()[:32]}"'
        validated = (*common, ("ETag", tag))
        coded = (("Content-Encoding", coding),) if coding else ()
        return cls(body, tag, (*validated, ("Content-Type", kind), *coded), validated)


class _File:
    """A file in the forms in which it is served. `packed` is None if compression does not make it smaller."""

    def __init__(self, name: str, body: bytes) -> None:
        self._body = body
        # The sources of the page do not run from here; they are for reading.
        is_text = name.startswith(_SOURCES) and not name.endswith((".js", ".css", ".svg"))
        self._suffix = "txt" if is_text else _suffix(name)
        caching = _LASTING if name.startswith(_HASHED) else _CHANGING
        self._headers = (caching, *(_SHARED if _is_shared(name) else _PAGE))

    @cached_property
    def plain(self) -> _Form:
        return _Form.of(self._body, _TYPES[self._suffix], self._headers)

    @cached_property
    def packed(self) -> _Form | None:
        if self._suffix in _PACKED_TYPES:
            return None
        packed = gzip.compress(self._body, _LEVEL, mtime=0)
        small = len(packed) < len(self._body)
        return _Form.of(packed, _TYPES[self._suffix], self._headers, "gzip") if small else None


class Pages:
    """The files of a folder, by their URL paths."""

    def __init__(self, folder: Traversable) -> None:
        names = dict(_read(folder))
        # False when the installation is incomplete.
        self.complete = INDEX in names
        if self.complete:
            names[""] = names[INDEX]
        sources = sorted(name for name in names if name.startswith(_SOURCES))
        if sources:
            # Relative: the server may be at a path of its host.
            listed = "".join(f"{name.removeprefix(_SOURCES)}\n" for name in sources)
            names[_SOURCES] = _File(_SOURCES, listed.encode())
        if _ICON in names:
            names.setdefault(FAVICON, names[_ICON])
        self._files = {_path(name): file for name, file in names.items()}

    @classmethod
    def of_package(cls) -> Pages:
        """The files of this package."""
        return cls(files("aldis") / "web")

    @property
    def paths(self) -> frozenset[bytes]:
        """All URL paths that have a file."""
        return frozenset(self._files)

    def is_shared(self, path: bytes) -> bool:
        """Whether the path belongs to the SDK, which pages of other origins import."""
        return _is_shared(path.removeprefix(b"/").decode("latin-1"))

    def reply(self, path: bytes, headers: Headers) -> HttpReply | None:
        """The reply to a GET of this path (without its query); None when there is no such file."""
        file = self._files.get(path)
        if file is None:
            if path == b"/":
                return plain(HTTPStatus.SERVICE_UNAVAILABLE, _MISSING, "page-missing")
            return None
        form = (file.packed if _accepts_gzip(headers) else None) or file.plain
        if _has(headers, form.tag):
            return HttpReply(HTTPStatus.NOT_MODIFIED, b"", "not-modified", form.validated)
        return HttpReply(HTTPStatus.OK, form.body, "page", form.headers)


def _read(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, _File]]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _read(entry, f"{prefix}{entry.name}/")
        elif _suffix(entry.name) in _TYPES:
            yield prefix + entry.name, _File(prefix + entry.name, entry.read_bytes())


def _path(name: str) -> bytes:
    return b"/" + quote(name).encode()


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _is_shared(name: str) -> bool:
    return name == SHARED or name.startswith(SHARED_FOLDER)


def _accepts_gzip(headers: Headers) -> bool:
    """Whether the client takes gzip (RFC 9110 section 12.5.3)."""
    weights: dict[str, str] = {}
    for token in tokens(headers, "Accept-Encoding"):
        coding, _, parameter = token.partition(";")
        weights[coding.strip().lower()] = parameter.replace(" ", "").lower()
    weight = weights.get("gzip", weights.get("*"))
    # A weight of 0, in any spelling (section 12.4.2), means "not accepted".
    return weight is not None and not (weight.startswith("q=0") and weight[3:].strip(".0") == "")


def _has(headers: Headers, tag: str) -> bool:
    """Whether the client has this form already, by the weak comparison of RFC 9110 section 13.1.2."""
    return any(known == "*" or known.removeprefix("W/") == tag for known in tokens(headers, "If-None-Match"))
