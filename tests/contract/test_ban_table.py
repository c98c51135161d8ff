"""What the table of bans promises (aldis.cluster.ban_table): on one Redis, behind a Sentinel, and in a Cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from aldis.cluster.ban_table import BanTable
from aldis.cluster.messages import BanChange, BansRestored
from aldis.cluster.shared_bans import BanList
from aldis.hub.bans import Ban
from support.buses import Buses
from support.presence import KINDS, Place, redis_place


@pytest.fixture(scope="module", params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with redis_place(request.param, tmp_path_factory.mktemp(request.param), "--save", "", steady=True) as place:
        yield place


@pytest.fixture
async def buses(place: Place) -> AsyncIterator[Buses]:
    buses = Buses(place)
    yield buses
    await buses.close()


def table(buses: Buses) -> BanTable:
    return BanTable(buses.another(), prefix=buses.prefix)


MALLORY = Ban("user", "mallory", "spam", 4_000_000_000.25)
NETWORK = Ban("network", "2001:db8::/32")


async def test_a_change_is_kept_and_all_nodes_hear_of_it_also_its_origin(buses: Buses) -> None:
    (_, ones), (_, twos) = await buses.node("one"), await buses.node("two")
    bans = table(buses)
    assert await bans.read() == BanList(0, ())
    assert await bans.change(MALLORY, lift=False, origin="one", number=7)
    assert await bans.change(NETWORK, lift=False, origin="two", number=8)
    assert await bans.change(Ban("user", "mallory"), lift=True, origin="one", number=9)
    assert not await bans.change(Ban("user", "mallory"), lift=True, origin="one", number=10)
    found = await bans.read()
    assert found.bans == (NETWORK,)
    await ones.until(lambda: len(ones.messages) == 3)
    await twos.until(lambda: len(twos.messages) == 3)
    assert ones.messages == twos.messages
    assert {node for node, _ in ones.messages} == {""}
    first, second, third = [message for _, message in ones.messages if isinstance(message, BanChange)]
    assert (first.previous, first.origin, first.number, first.ban, first.lifted) == (0, "one", 7, MALLORY, False)
    assert (second.previous, second.ban) == (first.version, NETWORK)
    assert (third.previous, third.lifted) == (second.version, True)
    assert third.version == found.version


async def test_a_lost_list_is_put_back_once(buses: Buses) -> None:
    _, ones = await buses.node("one")
    bans = table(buses)
    ours = BanList(1_700_000_000_000_000, (MALLORY, NETWORK))
    assert await bans.restore(ours, ours.version)
    assert not await bans.restore(ours, ours.version)
    assert not await bans.restore(BanList(5, ()), 5)
    found = await bans.read()
    assert found.passed == {ours.version}
    assert (found.version, set(found.bans)) == (ours.version, set(ours.bans))
    await ones.until(lambda: ones.messages == [("", BansRestored(ours.version))])


async def test_bans_that_are_over_are_dropped_with_a_later_change(buses: Buses) -> None:
    bans = table(buses)
    await bans.change(Ban("user", "old", "", 1000.0), lift=False, origin="one", number=1)
    await bans.change(MALLORY, lift=False, origin="one", number=2)
    assert (await bans.read()).bans == (MALLORY,)
    await bans.change(Ban("user", "mallory", "for ever"), lift=False, origin="one", number=3)
    assert (await bans.read()).bans == (Ban("user", "mallory", "for ever"),)


async def test_a_change_is_later_than_what_its_node_knows_also_where_the_list_was_lost_and_the_clock_is_behind(
    buses: Buses,
) -> None:
    _, ones = await buses.node("one")
    known = 5_000_000_000_000_000  # in the year 2128
    bans = table(buses)
    assert await bans.change(MALLORY, lift=False, origin="one", number=1, known=known)
    assert await bans.read() == BanList(known + 1, (MALLORY,), frozenset({0, known + 1}))
    await ones.until(lambda: ones.messages == [("", BanChange(0, known + 1, "one", 1, MALLORY, False))])
    assert not await bans.restore(BanList(known, (NETWORK,)), known)


async def test_a_list_tells_through_which_versions_it_has_gone(buses: Buses, monkeypatch: pytest.MonkeyPatch) -> None:
    bans = table(buses)
    versions = [0]
    for number in range(3):
        await bans.change(Ban("user", f"u{number}"), lift=False, origin="one", number=number)
        versions.append((await bans.read()).version)
    assert (await bans.read()).passed == set(versions)
    merged = BanList(versions[-1] + 1, (MALLORY,))
    assert await bans.restore(merged, 77)
    assert (await bans.read()).passed == {*versions, 77, merged.version}
    monkeypatch.setattr("aldis.cluster.ban_table._MOST_VERSIONS", 2)
    await bans.change(NETWORK, lift=False, origin="one", number=9)
    found = await bans.read()
    assert found.passed == {merged.version, found.version}
