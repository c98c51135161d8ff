"""The ClientHello of a TLS connection (RFC 8446 section 4.1.2), as far as a server has to know it beforehand.

`read` takes the first bytes of a connection. It is pure. TLS sends a ClientHello in one record unless it is larger than
16 KiB; one that is not in one record counts as none.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

# RFC 8446 section 5.1: type, version and length of a record; a record has at most 2^14 bytes.
RECORD_HEAD: Final = 5
MAX_RECORD: Final = 16 * 1024
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_VERSION_AND_RANDOM: Final = 34
_SERVER_NAME: Final = 0  # RFC 6066 section 3
_ALPN: Final = 16  # RFC 7301 section 3.1


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for: a name (empty for none), and protocols in its order (ALPN)."""

    server_name: str
    protocols: tuple[str, ...]


def size(head: bytes) -> int | None:
    """The size of the first record with its head, from its first `RECORD_HEAD` bytes; None for no handshake."""
    if len(head) < RECORD_HEAD or head[0] != _HANDSHAKE:
        return None
    length = int.from_bytes(head[3:5])
    return RECORD_HEAD + length if 0 < length <= MAX_RECORD else None


def read(record: bytes) -> ClientHello | None:
    """Read the first record of a connection; None when it is no whole ClientHello."""
    if size(record) != len(record):
        return None
    reader = _Reader(record[RECORD_HEAD:])
    try:
        if reader.take(1)[0] != _CLIENT_HELLO:
            return None
        body = _Reader(reader.vector(3))
        body.take(_VERSION_AND_RANDOM)
        body.vector(1)  # session
        body.vector(2)  # cipher suites
        body.vector(1)  # compression
        extensions = _Reader(body.vector(2))
        name = ""
        protocols: tuple[str, ...] = ()
        while extensions.left:
            kind = int.from_bytes(extensions.take(2))
            content = _Reader(extensions.vector(2))
            if kind == _SERVER_NAME:
                name = _host_name(_Reader(content.vector(2)))
            elif kind == _ALPN:
                protocols = _protocols(_Reader(content.vector(2)))
    except (struct.error, UnicodeDecodeError):
        return None
    return ClientHello(name, protocols)


class _Reader:
    """Reads a TLS structure from its start. Raises `struct.error` at its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise struct.error
        self._at += count
        return self._data[self._at - count : self._at]

    def vector(self, width: int) -> bytes:
        """Bytes after their length, which has `width` bytes."""
        return self.take(int.from_bytes(self.take(width)))


def _host_name(names: _Reader) -> str:
    while names.left:
        is_host = names.take(1) == b"\0"
        name = names.vector(2)
        if is_host:
            return name.decode("ascii")
    return ""


def _protocols(names: _Reader) -> tuple[str, ...]:
    found = []
    while names.left:
        found.append(names.vector(1).decode("latin-1"))
    return tuple(found)
