"""What a limit counts as one client."""

from __future__ import annotations

import pytest

from aldis.hub.networks import group_of, network_of


@pytest.mark.parametrize("loopback", [False, True])
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
def test_what_counts_as_one_client(one: str, other: str, same: bool, loopback: bool) -> None:
    assert (network_of(one, loopback=loopback) == network_of(other, loopback=loopback)) is same


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_a_limit_that_keeps_clients_out_does_not_count_this_machine(address: str) -> None:
    assert network_of(address, loopback=False) is None
    assert network_of(address, loopback=True) is not None


@pytest.mark.parametrize("address", ["", "no address"])
def test_what_is_no_address_is_not_counted(address: str) -> None:
    assert network_of(address, loopback=False) is network_of(address, loopback=True) is None


def test_a_user_of_an_unknown_network_shares_with_nobody() -> None:
    assert group_of("192.0.2.1", "alice") == group_of("192.0.2.1", "bob") == network_of("192.0.2.1", loopback=False)
    assert group_of("2001:db8::1", "alice") == group_of("2001:db8:0:ffff::1", "bob"), "one customer of a provider"
    assert group_of("2001:db8::1", "alice") != group_of("2001:db8:1::1", "alice")
    groups = {group_of(address, user) for address in ("", "127.0.0.1") for user in ("alice", "bob")}
    assert len(groups) == 2
