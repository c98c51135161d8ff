"""The answers of the STUN server: to whom, how large, how often."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from aldis.protocol.stun import (
    BINDING_ERROR,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    Attribute,
    read_message,
    read_xor_address,
    write_message,
)
from aldis.server.stun import BURST_SECONDS, MAX_ATTRIBUTES, MAX_NETWORKS, MAX_REQUEST, StunAnswers

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "stun.json").read_text(encoding="utf-8")
)["messages"]
FOUR, SIX = ip_address("192.0.2.7"), ip_address("2001:db8::7")
TRANSACTION = bytes(range(12))
BURST = 50 * BURST_SECONDS  # at the rate of these tests
# What IP and UDP add to a datagram.
HEADERS = {4: 28, 6: 48}


def named(name: str) -> bytes:
    return next(bytes.fromhex(vector["hex"]) for vector in VECTORS if vector["name"].startswith(name))


def request(*attributes: tuple[int, bytes], fingerprint: bool = False) -> bytes:
    return write_message(BINDING_REQUEST, TRANSACTION, attributes, fingerprint=fingerprint)


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if "unknown" in vector], ids=lambda each: each["name"])
def test_the_requests_of_rfc_5769_are_answered_by_what_is_unknown(vector: dict[str, Any]) -> None:
    asked = bytes.fromhex(vector["hex"])
    answer = read_message(StunAnswers(10, 50, 0.0).answer(asked, FOUR, 32853, 0.0) or b"")
    assert answer is not None
    assert answer.transaction == asked[8:20]
    assert answer.fingerprint_fits == vector["fingerprint"]
    if vector["unknown"]:
        assert (answer.kind, answer.error_code) == (BINDING_ERROR, 420)
        unknown = struct.pack(f">{len(vector['unknown'])}H", *vector["unknown"])
        assert answer.value(Attribute.UNKNOWN_ATTRIBUTES) == unknown
    else:
        assert answer.kind == BINDING_SUCCESS


@pytest.mark.parametrize("address", [FOUR, SIX], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("fingerprint", [False, True], ids=["plain", "with a fingerprint"])
def test_a_client_learns_its_address_and_port(address: Any, fingerprint: bool) -> None:
    answer = read_message(StunAnswers(10, 50, 0.0).answer(request(fingerprint=fingerprint), address, 7, 0.0) or b"")
    assert answer is not None
    assert (answer.kind, answer.transaction, answer.fingerprint_fits) == (BINDING_SUCCESS, TRANSACTION, fingerprint)
    assert read_xor_address(answer.value(Attribute.XOR_MAPPED_ADDRESS) or b"", TRANSACTION) == (address, 7)
    assert len(answer.attributes) == 1 + fingerprint


def unknown(count: int) -> list[tuple[int, bytes]]:
    return [(0x4000 + number, b"") for number in range(count)]


@pytest.mark.parametrize("address", [FOUR, SIX], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("fingerprint", [False, True], ids=["plain", "with a fingerprint"])
@pytest.mark.parametrize("attributes", [unknown(count) for count in (0, 1, 2, 3, MAX_ATTRIBUTES - 1)], ids=len)
def test_an_answer_is_never_larger_than_twice_the_request(
    address: Any, fingerprint: bool, attributes: list[tuple[int, bytes]]
) -> None:
    asked = request(*attributes, fingerprint=fingerprint)
    answer = StunAnswers(10, 50, 0.0).answer(asked, address, 7, 0.0)
    assert answer is not None
    more = HEADERS[address.version]
    assert len(answer) + more <= 2 * (len(asked) + more)
    if attributes or address is FOUR:  # also without what IP and UDP add
        assert len(answer) <= 2 * len(asked)


def test_each_unknown_attribute_is_named_once_and_none_behind_the_signature() -> None:
    asked = request(
        (0x0003, b""), (0x8123, b""), (0x0003, b""), (Attribute.MESSAGE_INTEGRITY, bytes(20)), (0x0024, b"")
    )
    answer = read_message(StunAnswers(10, 50, 0.0).answer(asked, FOUR, 7, 0.0) or b"")
    assert answer is not None
    assert answer.value(Attribute.UNKNOWN_ATTRIBUTES) == b"\x00\x03"


GOOD = request(fingerprint=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        named("2.2"),  # an answer
        write_message(0x0011, TRANSACTION),  # an indication
        write_message(0x0003, TRANSACTION),  # another method: Allocate
        request()[:-1],
        request() + bytes(4),  # longer than it says
        request()[:4] + bytes(4) + request()[8:],  # RFC 3489
        bytes([0x80]) + request()[1:],  # RTP
        GOOD[:-1] + bytes([GOOD[-1] ^ 1]),  # a wrong fingerprint
        request((Attribute.FINGERPRINT, bytes(4)), (Attribute.USERNAME, b"")),  # not at the end
        write_message(BINDING_REQUEST, TRANSACTION, [(0x8000, b"")])[:-1] + b"\x09",  # an attribute beyond the end
        request((0x8000, bytes(MAX_REQUEST))),
        request(*[(0x8000 + number, b"") for number in range(MAX_ATTRIBUTES + 1)]),
        request(*[(0x4000 + number, b"") for number in range(MAX_ATTRIBUTES + 1)]),
    ],
)
def test_what_is_no_request_gets_no_answer(data: bytes) -> None:
    answers = StunAnswers(10, 50, 0.0)
    assert answers.answer(data, FOUR, 7, 0.0) is None
    assert answers.outcomes["ignored"] == 1


def test_a_request_from_port_0_gets_no_answer() -> None:
    assert StunAnswers(10, 50, 0.0).answer(request(), FOUR, 0, 0.0) is None


def test_an_address_gets_a_burst_and_then_a_rate() -> None:
    answers = StunAnswers(100_000, 50, 0.0)
    asked = request()
    assert sum(answers.answer(asked, FOUR, 7, 0.0) is not None for _ in range(BURST + 5)) == BURST
    assert answers.outcomes["limited"] == 5
    assert sum(answers.answer(asked, FOUR, 7, 1.0) is not None for _ in range(BURST)) == 50
    assert answers.answer(asked, SIX, 7, 1.0) is not None
    answers.limit(100_000, 2, 1.0)
    assert sum(answers.answer(asked, FOUR, 7, 1.0) is not None for _ in range(BURST)) == 2 * BURST_SECONDS
    assert sum(answers.answer(asked, FOUR, 7, 2.0) is not None for _ in range(BURST)) == 2


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    answers = StunAnswers(100_000, 50, 0.0)
    for number in range(BURST):
        assert answers.answer(request(), ip_address(f"2001:db8::{number:x}"), 7, 0.0) is not None
    assert answers.answer(request(), ip_address("2001:db8::ffff"), 7, 0.0) is None
    assert answers.answer(request(), ip_address("2001:db8:0:1::1"), 7, 0.0) is not None


def test_all_together_have_a_limit_which_may_change() -> None:
    answers = StunAnswers(10, 50, 0.0)
    got = [answers.answer(request(), ip_address(f"192.0.2.{number}"), 7, 0.0) for number in range(30)]
    assert sum(each is not None for each in got) == 20
    answers.limit(1, 50, 1.0)
    got = [answers.answer(request(), ip_address(f"192.0.2.{number}"), 7, 1.0) for number in range(30)]
    assert sum(each is not None for each in got) == 2


def test_forged_addresses_take_no_memory_without_end() -> None:
    answers = StunAnswers(10, 50, 0.0)
    for number in range(MAX_NETWORKS + 10):
        answers.answer(request(), ip_address(0x0A000000 + number), 7, 0.0)
    assert answers.networks == MAX_NETWORKS
