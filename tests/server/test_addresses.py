"""The limits of each address, without a socket."""

from __future__ import annotations

import tracemalloc

import pytest

from aldis.hub.usage import WHOLE_EVERY, SharedUsage, Use
from aldis.server import addresses
from aldis.server.addresses import AddressLimits
from aldis.server.refusals import Refusal


def limits(connections: int = 1000, connects: int = 10, total: int = 1000) -> AddressLimits:
    return AddressLimits(
        connections_per_address=connections, connects_per_address=connects, connects_per_second=total, now=0.0
    )


def test_an_address_has_so_many_connections_at_a_time() -> None:
    some = limits(connections=2)
    assert [some.enter(b"a", 0.0) for _ in range(3)] == [None, None, Refusal.ADDRESS]
    assert some.enter(b"b", 0.0) is None
    some.leave(b"a")
    assert [some.enter(b"a", 0.0) for _ in range(2)] == [None, Refusal.ADDRESS]


def test_a_customer_of_a_provider_has_as_many_connections_as_sixteen_networks() -> None:
    """Or forty of its 65,536 networks took all places of a server."""
    some = limits(connections=2)
    networks = [bytes.fromhex("20010db80000") + number.to_bytes(2, "big") for number in range(40)]
    came = [network for network in networks for _ in range(2) if some.enter(network, 0.0) is None]
    assert len(came) == 32
    assert some.enter(bytes.fromhex("20010db800010000"), 0.0) is None
    assert all(some.enter(bytes([192, 0, 2, number]), 0.0) is None for number in range(40))
    some.leave(came[0])
    assert [some.enter(networks[39], 0.0) for _ in range(2)] == [None, Refusal.ADDRESS]
    for network in (*came[1:], networks[39]):
        some.leave(network)
    assert [some.enter(network, 0.0) for network in networks[:32]] == [None] * 32


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
    assert [some.accept(b"%d" % each, 0.0) for each in range(21)] == [*[None] * 20, Refusal.RATE]
    assert [some.accept(b"%d" % each, 1.0) for each in range(3)] == [None, None, Refusal.RATE]


def test_who_has_hardly_connected_gets_the_rest_of_what_all_may_make() -> None:
    some = limits(total=1000)  # 10,000 at once
    crowd = [b"%d" % each for each in range(200)]
    made = 0
    while some.accept(crowd[made % 200], 0.0) is None:
        made += 1
    assert made == 9000
    assert some.accept(None, 0.0) is Refusal.RATE  # nobody knows who that is
    assert [some.accept(b"newcomer", 0.0) for _ in range(41)] == [*[None] * 40, Refusal.RATE]
    # The crowd goes on, and takes what comes in. Others come all the while.
    for second in range(1, 31):
        made = sum(some.accept(crowd[each % 200], float(second)) is None for each in range(2000))
        assert 900 <= made <= 1000
        assert some.accept(b"%d came late" % second, float(second)) is None


def test_the_networks_of_one_customer_of_a_provider_do_not_keep_the_others_out() -> None:
    some = limits(total=100)
    customer, other = bytes.fromhex("20010db80000"), bytes.fromhex("20010db80001")
    refused = 0
    for number in range(2000):
        network = customer + number.to_bytes(2, "big")
        assert some.enter(network, number / 400) is None
        refused += some.accept(network, number / 400) is not None
        some.leave(network)
    assert refused > 500
    for number in range(40):
        assert some.accept(bytes([192, 0, 2, number]), 5.0) is None
        assert some.accept(other + number.to_bytes(2, "big"), 5.0) is None


def test_a_client_behind_a_proxy_that_is_refused_takes_nothing_from_the_others() -> None:
    some = limits(connects=10, total=20)  # 100 and 200 at once
    outcomes = []
    for _ in range(1000):
        assert some.accept(b"proxy", 0.0, proxied=True) is None
        outcomes.append(some.identify(b"a", 0.0))
    assert outcomes == [None] * 100 + [Refusal.ADDRESS_RATE] * 900
    for _ in range(30):
        assert some.accept(b"proxy", 0.0, proxied=True) is None
        assert some.identify(b"b", 0.0) is None


def test_who_has_hardly_connected_gets_the_rest_also_behind_a_proxy() -> None:
    some = limits(total=1000)  # 10,000 at once

    def comes(network: bytes) -> Refusal | None:
        refusal = some.accept(b"proxy", 0.0, proxied=True) or some.identify(network, 0.0)
        if refusal is None:
            some.leave(network)
        return refusal

    made = 0
    while comes(b"%d" % (made % 200)) is None:
        made += 1
    assert made == 9000
    assert comes(b"0") is Refusal.RATE
    assert [comes(b"newcomer") for _ in range(41)] == [*[None] * 40, Refusal.RATE]


def test_a_crowd_that_has_gone_is_forgotten() -> None:
    some = limits(total=10)  # 100 at once
    for _ in range(90):
        some.accept(b"a", 0.0)
    assert some.accept(b"a", 0.0) is Refusal.RATE
    assert some.accept(b"a", 0.5) is None  # half of a second brings five
    for _ in range(10):
        some.accept(b"b", 0.5)
    assert some.accept(b"a", 25.0) is None


def test_counting_who_connects_costs_a_bounded_amount_of_memory() -> None:
    some = limits(total=10)
    for _ in range(60):
        some.accept(b"a", 0.0)
    tracemalloc.start()
    try:
        for number in range(3 * addresses.MAX_IDLE):
            some.accept(number.to_bytes(8, "big"), 0.001 * number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


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


class Node:
    """The addresses of one node of a cluster."""

    def __init__(self, nodes: dict[str, Node], **more: int) -> None:
        def tell(use: Use) -> None:
            for node in nodes.values():
                if node is not self:
                    node.usage.heard([use], self.now)

        self.now = 0.0
        self.limits = limits(**more)
        self.usage = SharedUsage(tell)
        self.limits.share(self.usage)

    def enter(self, network: bytes, now: float, most: int = 1000) -> int:
        """Connect until it is refused; how many were not."""
        self.now = now
        return next((made for made in range(most) if self.limits.enter(network, now) is not None), most)


def cluster(count: int, **more: int) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for number in range(count):
        nodes[f"n{number}"] = Node(nodes, **more)
    return nodes


def tell(nodes: dict[str, Node], now: float) -> None:
    """Each node tells what it has to."""
    for name, node in nodes.items():
        uses, counts = node.usage.due(len(nodes), now), node.usage.due_counts(len(nodes), now)
        for other in (each for each in nodes.values() if each is not node):
            other.usage.heard(uses, now)
            for count in counts:
                other.limits.heard_counts(name, count)


@pytest.mark.parametrize("count", [2, 4, 16])
def test_an_address_makes_so_many_new_connections_at_all_nodes_together(count: int) -> None:
    nodes = cluster(count, connects=10, connections=10_000)
    tell(nodes, 0.0)
    made, excess = 0, 0.0
    for second in range(1, 201):
        made += sum(node.enter(b"a", float(second)) for node in nodes.values())
        excess = max(excess, made - 10 * (addresses.BURST_SECONDS + second))
        tell(nodes, float(second))
    assert excess <= 10 * addresses.BURST_SECONDS  # at each moment of the time: so it is paid back


def test_an_address_has_so_many_connections_at_all_nodes_together() -> None:
    nodes = cluster(4, connections=16)
    one, two, three, four = nodes.values()
    assert one.enter(b"a", 0.0, 10) == 10
    tell(nodes, 0.0)
    assert two.enter(b"a", 1.0, 4) == 4
    assert three.enter(b"a", 1.0) == 6  # it has not heard of the four
    tell(nodes, 2.0)
    assert four.enter(b"a", 3.0) == 0
    for _ in range(8):
        one.limits.leave(b"a")
    tell(nodes, 4.0)
    assert four.enter(b"a", 5.0) == 4
    assert four.enter(b"b", 5.0) == 16


def test_connections_at_a_lost_node_do_not_count_and_a_missed_word_is_made_up_for() -> None:
    nodes = cluster(3, connections=16)
    one, two, three = nodes.values()
    one.enter(b"a", 0.0, 10)
    two.enter(b"a", 0.0, 5)
    tell(nodes, 0.0)
    three.limits.lost_node("n0")
    three.limits.lost_node("unknown")
    assert three.enter(b"a", 1.0, 3) == 3
    three.limits.lost_node("n1")
    tell(nodes, WHOLE_EVERY)
    assert three.enter(b"a", WHOLE_EVERY) == 0


def test_few_connections_are_not_told() -> None:
    nodes = cluster(2, connections=160)
    one, two = nodes.values()
    tell(nodes, 0.0)
    one.enter(b"a", 0.0, 10)
    one.enter(b"b", 0.0, 11)
    assert one.limits.changed_counts(2, whole=False) == [(b"b", 11)]
    assert one.limits.changed_counts(2, whole=False) == []
    one.limits.leave(b"b")
    assert one.limits.changed_counts(2, whole=False) == [(b"b", 0)]
    assert two.limits.changed_counts(2, whole=True) == []
