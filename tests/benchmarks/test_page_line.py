"""The slow line of the page's benchmark, without the kernel: when packets arrive, and what is done to them."""

from __future__ import annotations

import math
import struct

import pytest
from benchmarks.page.line import Way, source_port, turned


def tcp(source: str, target: str, port: int, payload: bytes = b"") -> bytes:
    addresses = b"".join(bytes(map(int, address.split("."))) for address in (source, target))
    head = struct.pack("!BBHHHBBH", 0x46, 0, 44 + len(payload), 1, 0, 64, 6, 0x1234) + addresses + b"\x01" * 4
    return head + struct.pack("!HHIIHHHH", port, 9, 1, 2, 0x5010, 1000, 0x4321, 0) + payload


def internet_checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_packet_is_turned_and_keeps_its_checksums() -> None:
    there = tcp("10.0.0.1", "10.0.0.2", 443, b"payload!")
    assert turned(there) == tcp("10.0.0.2", "10.0.0.1", 443, b"payload!")
    assert internet_checksum(turned(there)) == internet_checksum(there)
    assert source_port(there) == source_port(turned(there)) == 443


def test_packets_arrive_after_the_delay_and_one_after_the_other_at_the_rate() -> None:
    way = Way(delay=0.05, rate=8000)  # 1,000 bytes a second
    assert way.due == math.inf
    way.send(b"a" * 100, now=10)
    way.send(b"b" * 100, now=10)
    assert way.due == pytest.approx(10.15)
    assert list(way.arrived(10.149)) == []
    assert list(way.arrived(10.16)) == [b"a" * 100]
    assert way.due == pytest.approx(10.25)
    assert list(way.arrived(11)) == [b"b" * 100]
    way.send(b"c", now=20)  # it was free meanwhile
    assert way.due == pytest.approx(20.051)
