"""STUN messages (RFC 8489): reading, writing, and what an answer to a Binding request has in it.

Pure. It contacts no server; who asks and who answers are `peer.selftest`, `server.turn_check` and `server.stun`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from zlib import crc32

HEADER_SIZE: Final = 20  # bytes (section 5)
COOKIE: Final = b"\x21\x12\xa4\x42"
BINDING_REQUEST: Final = 0x0001
BINDING_SUCCESS: Final = 0x0101
BINDING_ERROR: Final = 0x0111
UNKNOWN_ATTRIBUTE: Final = 420  # the error code (section 14.8)
# Section 14.7: the CRC-32 of what comes before it, XOR this.
_FINGERPRINT_XOR: Final = 0x5354554E
_FINGERPRINT_SIZE: Final = 8
_TRANSACTION: Final = slice(8, HEADER_SIZE)
# An address attribute (section 14.1): a zero byte, the family, the port, the address.
_FAMILIES: Final = {0x01: 4, 0x02: 16}


class Attribute(IntEnum):
    """The attributes that this project reads or writes (RFC 8489 section 18.3, RFC 8656 section 18)."""

    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    LIFETIME = 0x000D
    REALM = 0x0014
    NONCE = 0x0015
    REQUESTED_TRANSPORT = 0x0019
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    PASSWORD_ALGORITHM = 0x001D
    USERHASH = 0x001E
    XOR_MAPPED_ADDRESS = 0x0020
    FINGERPRINT = 0x8028


@dataclass(frozen=True, slots=True)
class StunMessage:
    """A message that was read. `attributes` are in the order in which they came. `raw` are all its bytes."""

    kind: int
    transaction: bytes  # 12 bytes
    attributes: tuple[tuple[int, bytes], ...]
    raw: bytes

    def value(self, kind: int) -> bytes | None:
        """The first attribute of this kind: a receiver ignores later ones (section 14)."""
        return next((value for found, value in self.attributes if found == kind), None)

    @property
    def error_code(self) -> int:
        """The code of ERROR-CODE (section 14.8); 0 without one."""
        value = self.value(Attribute.ERROR_CODE)
        return (value[2] & 7) * 100 + value[3] if value is not None and len(value) >= 4 else 0

    @property
    def fingerprint_fits(self) -> bool:
        """Whether FINGERPRINT is the last attribute, and right. False without one."""
        if not self.attributes or self.attributes[-1][0] != Attribute.FINGERPRINT:
            return False
        return self.raw[-_FINGERPRINT_SIZE:] == _fingerprint(self.raw[:-_FINGERPRINT_SIZE])


def is_kind(data: bytes, kind: int) -> bool:
    """Whether a datagram may be a message of this kind: its first bytes say so."""
    return len(data) >= HEADER_SIZE and data[4:8] == COOKIE and data[:2] == kind.to_bytes(2, "big")


def read_message(data: bytes, *, most: int | None = None) -> StunMessage | None:
    """Read a datagram; None for what is no STUN message of RFC 5389 or later, or has more than `most` attributes."""
    if len(data) < HEADER_SIZE or data[4:8] != COOKIE:
        return None
    kind, length = struct.unpack_from(">HH", data)
    if kind & 0xC000 or length % 4 or length != len(data) - HEADER_SIZE:
        return None
    attributes: list[tuple[int, bytes]] = []
    at = HEADER_SIZE
    while at < len(data):
        name, size = struct.unpack_from(">HH", data, at)
        at += 4
        if at + size > len(data) or len(attributes) == most:
            return None
        attributes.append((name, data[at : at + size]))
        at += size + -size % 4
    return StunMessage(kind, data[_TRANSACTION], tuple(attributes), data)


def write_head(kind: int, length: int, transaction: bytes) -> bytes:
    """The header of a message whose attributes take `length` bytes."""
    return struct.pack(">HH", kind, length) + COOKIE + transaction


def write_attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)


def write_message(
    kind: int, transaction: bytes, attributes: Iterable[tuple[int, bytes]] = (), *, fingerprint: bool = False
) -> bytes:
    """A whole message, with FINGERPRINT at its end if wanted."""
    body = b"".join(write_attribute(name, value) for name, value in attributes)
    if not fingerprint:
        return write_head(kind, len(body), transaction) + body
    before = write_head(kind, len(body) + _FINGERPRINT_SIZE, transaction) + body
    return before + _fingerprint(before)


def _fingerprint(before: bytes) -> bytes:
    return write_attribute(Attribute.FINGERPRINT, struct.pack(">I", crc32(before) ^ _FINGERPRINT_XOR))


def write_address(address: IPv4Address | IPv6Address, port: int, transaction: bytes) -> bytes:
    """The value of XOR-MAPPED-ADDRESS (section 14.2)."""
    family = 0x01 if isinstance(address, IPv4Address) else 0x02
    return struct.pack(">BBH", 0, family, port ^ 0x2112) + _mask(address.packed, transaction)


def read_xor_address(value: bytes, transaction: bytes) -> tuple[IPv4Address | IPv6Address, int] | None:
    """Address and port in a XOR-MAPPED-ADDRESS; None when it cannot be read."""
    if len(value) < 4 or len(value) != 4 + _FAMILIES.get(value[1], -4):
        return None
    return ip_address(_mask(value[4:], transaction)), struct.unpack_from(">H", value, 2)[0] ^ 0x2112


def _mask(address: bytes, transaction: bytes) -> bytes:
    return bytes(byte ^ mask for byte, mask in zip(address, COOKIE + transaction, strict=False))
