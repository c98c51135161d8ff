"""The limits of each address, without a socket."""

from __future__ import annotations

import tracemalloc

import pytest

from aldis.server import addresses
from aldis.server.addresses import AddressLimits, network_of
from aldis.server.refusals import Refusal


def limits(connections: int = 1000, connects: int = 10, total: int = 1000) -> AddressLimits:
    return AddressLimits(
        connections_per_address=connections, connects_per_address=connects, connects_per_second=total, now=0.0
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_what_counts_as_one_client(one: str, other: str, same: bool) -> None:
    assert (network_of(one) == network_of(other)) is same


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "", "no address"])
def test_this_machine_has_no_limits(address: str) -> None:
    assert network_of(address) is None


def test_an_address_has_so_many_connections_at_a_time() -> None:
    some = limits(connections=2)
    assert [some.enter(b"a", 0.0) for _ in range(3)] == [None, None, Refusal.ADDRESS]
    assert some.enter(b"b", 0.0) is None
    some.leave(b"a")
    assert [some.enter(b"a", 0.0) for _ in range(2)] == [None, Refusal.ADDRESS]


def test_an_address_makes_so_many_new_connections_in_a_time() -> None:
    some = limits(connects=2)
    now = 0.0
    for made in (20, 2, 20):  # at once, in a second, in a minute
        for _ in range(made):
            assert some.enter(b"a", now) is None
            some.leave(b"a")
        assert some.enter(b"a", now) is Refusal.ADDRESS_RATE
        now += 1.0 if made == 20 else 60.0


def test_all_together_make_so_many_new_connections_in_a_time() -> None:
    some = limits(total=2)
    assert [some.accept(0.0) for _ in range(21)] == [*[None] * 20, Refusal.RATE]
    assert [some.accept(1.0) for _ in range(3)] == [None, None, Refusal.RATE]


def test_any_number_of_addresses_costs_a_bounded_amount_of_memory() -> None:
    some = limits()
    tracemalloc.start()
    try:
        for number in range(3 * addresses.MAX_IDLE):
            network = number.to_bytes(8, "big")
            assert some.enter(network, float(number)) is None
            some.leave(network)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(some) == addresses.MAX_IDLE
    assert peak < 16_000_000


def test_an_address_with_connections_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_IDLE", 2)
    some = limits(connections=1)
    for number in range(5):
        assert some.enter(b"%d" % number, 0.0) is None
    assert some.enter(b"0", 0.0) is Refusal.ADDRESS
    for number in range(5):
        some.leave(b"%d" % number)
    assert len(some) == 2
