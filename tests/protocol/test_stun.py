"""STUN messages: the vectors of RFC 5769, and what is no message."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from aldis.protocol.stun import (
    BINDING_REQUEST,
    Attribute,
    read_message,
    read_xor_address,
    write_address,
    write_message,
)

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "stun.json").read_text(encoding="utf-8")
)["messages"]
TRANSACTION = bytes(range(12))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_messages_of_rfc_5769_are_read(vector: dict[str, Any]) -> None:
    message = read_message(bytes.fromhex(vector["hex"]))
    assert message is not None
    assert message.fingerprint_fits == vector["fingerprint"]
    if "mapped" in vector:
        value = message.value(Attribute.XOR_MAPPED_ADDRESS)
        assert value is not None
        address, port = vector["mapped"]
        assert read_xor_address(value, message.transaction) == (ip_address(address), port)
        assert write_address(ip_address(address), port, message.transaction) == value


@pytest.mark.parametrize("fingerprint", [False, True])
def test_what_is_written_is_read_again(fingerprint: bool) -> None:
    attributes = [(Attribute.USERNAME, b"odd"), (Attribute.NONCE, b"")]
    message = read_message(write_message(BINDING_REQUEST, TRANSACTION, attributes, fingerprint=fingerprint))
    assert message is not None
    assert (message.kind, message.transaction) == (BINDING_REQUEST, TRANSACTION)
    assert list(message.attributes[:2]) == attributes
    assert message.fingerprint_fits == fingerprint
    assert message.value(Attribute.REALM) is None
    assert message.error_code == 0


def test_an_error_has_its_code() -> None:
    message = read_message(write_message(0x0111, TRANSACTION, [(Attribute.ERROR_CODE, b"\0\0\x04\x01Unauthorized")]))
    assert message is not None
    assert message.error_code == 401


PLAIN = write_message(BINDING_REQUEST, TRANSACTION)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:-1],
        PLAIN[:4] + bytes(4) + PLAIN[8:],  # RFC 3489 has no magic cookie
        b"\xc0" + PLAIN[1:],
        PLAIN + bytes(4),
        PLAIN[:2] + b"\0\x02" + PLAIN[4:] + bytes(2),
        write_message(BINDING_REQUEST, TRANSACTION, [(0x8000, b"1234")])[:-5] + b"\x05" + b"1234",
    ],
)
def test_what_is_no_message_is_not_read(data: bytes) -> None:
    assert read_message(data) is None


@pytest.mark.parametrize(
    "value", [b"", b"\0\x01\0", b"\0\x01\0\0123", b"\0\x03\0\0" + bytes(4), b"\0\x02\0\0" + bytes(4)]
)
def test_what_is_no_address_is_not_read(value: bytes) -> None:
    assert read_xor_address(value, TRANSACTION) is None
