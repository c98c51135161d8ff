"""In which order a node applies bans, and when it reads them all (aldis.cluster.shared_bans), without Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.cluster import shared_bans
from aldis.cluster.faults import ClusterUnavailable
from aldis.cluster.messages import BanChange, BansRestored
from aldis.cluster.shared_bans import BanList, SharedBans
from aldis.hub.bans import Ban


def user(name: str) -> Ban:
    return Ban("user", name)


class Node:
    """One node, and the list in Redis."""

    def __init__(self, version: int = 0, *bans: Ban) -> None:
        self.list = BanList(version, bans)
        self.known: dict[str, Ban] = {}
        self.said: list[str] = []
        self.answers: list[tuple[int, int]] = []
        self.fails = False
        self.while_reading: Callable[[], object] = lambda: None
        self.reads = 0
        self.bans = SharedBans(self, self)

    async def read(self) -> BanList:
        self.reads += 1
        found = self.list
        self.while_reading()
        await asyncio.sleep(0)
        if self.fails:
            raise ClusterUnavailable("away")
        return found

    async def restore(self, known: BanList, own: int) -> bool:
        if known.version <= self.list.version:
            return False
        self.list = known._replace(passed=self.list.passed | {known.version, own})
        return True

    def known_bans(self) -> Sequence[Ban]:
        return list(self.known.values())

    def banned(self, ban: Ban) -> int:
        self.known[ban.value] = ban
        self.said.append(f"+{ban.value}")
        return 1

    def lifted(self, ban: Ban) -> None:
        self.known.pop(ban.value, None)
        self.said.append(f"-{ban.value}")

    def answer_ban(self, change: BanChange, sessions: int) -> None:
        self.answers.append((change.number, sessions))

    def change(self, previous: int, version: int, ban: Ban, *, lift: bool = False) -> BanChange:
        """What Redis publishes when the list changes."""
        others = tuple(each for each in self.list.bans if each.value != ban.value)
        self.list = BanList(version, others if lift else (*others, ban))
        return BanChange(previous, version, "n1", version, ban, lift)


@pytest.fixture
def node() -> Node:
    return Node()


async def test_changes_in_order_are_applied_without_reading(node: Node) -> None:
    await node.bans.catch_up()
    assert node.bans.heard(node.change(0, 1, user("a")))
    assert node.bans.heard(node.change(1, 2, user("b")))
    assert node.bans.heard(node.change(2, 3, user("a"), lift=True))
    assert node.said == ["+a", "+b", "-a"]
    assert node.answers == [(1, 1), (2, 1), (3, 0)]
    assert node.reads == 1


async def test_a_change_that_the_list_had_already_changes_nothing(node: Node) -> None:
    change = node.change(0, 1, user("a"))
    await node.bans.catch_up()
    assert node.bans.heard(change)
    assert node.said == ["+a"]
    assert node.answers == [(1, 0)]


async def test_after_a_missed_change_the_list_is_read(node: Node) -> None:
    await node.bans.catch_up()
    node.change(0, 1, user("a"))
    node.change(1, 2, user("b"))
    assert not node.bans.heard(node.change(2, 3, user("a"), lift=True))
    await node.bans.catch_up()
    assert node.said == ["+b"]
    assert node.answers == [(3, 0)]


async def test_what_is_heard_while_the_list_is_read_waits_for_it(node: Node) -> None:
    changes = iter([(0, 1, "a"), (1, 2, "b")])

    def change() -> None:
        for previous, version, name in changes:
            assert node.bans.heard(node.change(previous, version, user(name)))

    node.while_reading = change
    await node.bans.catch_up()
    assert node.said == ["+a", "+b"]
    assert node.bans.version == 2
    assert node.reads == 1


async def test_a_change_that_shows_another_gap_has_the_list_read_again(node: Node) -> None:
    node.while_reading = lambda: node.bans.heard(node.change(5, 6, user("c"))) if node.reads == 1 else None
    await node.bans.catch_up()
    assert node.said == ["+c"]
    assert node.reads == 2


async def test_calls_at_once_read_after_the_last_of_them(node: Node) -> None:
    first = asyncio.ensure_future(node.bans.catch_up())
    await asyncio.sleep(0)
    node.change(0, 1, user("a"))
    await node.bans.catch_up()
    await first
    assert node.said == ["+a"]


async def test_a_failed_read_can_be_repeated(node: Node) -> None:
    node.change(0, 1, user("a"))
    node.fails = True
    with pytest.raises(ClusterUnavailable):
        await node.bans.catch_up()
    node.fails = False
    await node.bans.catch_up()
    assert node.said == ["+a"]


async def test_an_older_list_in_redis_is_replaced_by_ours(node: Node) -> None:
    await node.bans.catch_up()
    node.bans.heard(node.change(0, 5, user("a")))
    node.list = BanList(0, ())
    await node.bans.catch_up()
    assert node.list[:2] == (5, (user("a"),))
    assert node.said == ["+a"]


async def test_a_list_that_was_begun_anew_keeps_our_bans(node: Node) -> None:
    await node.bans.catch_up()
    node.bans.heard(node.change(0, 5, user("a")))
    node.list = BanList(0, ())
    assert not node.bans.heard(node.change(0, 9, user("b")))
    await node.bans.catch_up()
    assert node.list[:2] == (10, (user("b"), user("a")))
    assert sorted(node.known) == ["a", "b"]
    await node.bans.catch_up()
    assert node.list.version == 10


async def test_a_list_that_was_put_back_is_read_by_those_that_do_not_have_it(node: Node) -> None:
    await node.bans.catch_up()
    node.bans.heard(node.change(0, 5, user("a")))
    assert node.bans.is_behind(BansRestored(6))
    assert not node.bans.is_behind(BansRestored(5))


async def test_too_many_changes_while_the_list_is_read_have_it_read_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_bans, "_MOST_WAITING", 2)

    def change() -> None:
        if node.reads == 1:
            for version in range(1, 5):
                node.bans.heard(node.change(version - 1, version, user(f"u{version}")))

    node.while_reading = change
    await node.bans.catch_up()
    assert sorted(node.known) == ["u1", "u2", "u3", "u4"]
    assert node.reads == 2


async def test_changes_wait_in_bounded_room_while_the_list_cannot_be_read(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_bans, "_MOST_WAITING", 2)
    await node.bans.catch_up()
    node.change(0, 1, user("u1"))
    node.fails = True
    for version in range(2, 8):
        assert not node.bans.heard(node.change(version - 1, version, user(f"u{version}")))
        with pytest.raises(ClusterUnavailable):
            await node.bans.catch_up()
    node.fails = False
    await node.bans.catch_up()
    assert sorted(node.known) == [f"u{version}" for version in range(1, 8)]
    assert node.answers == [(6, 0), (7, 0)]


async def test_a_ban_of_old_data_that_came_back_is_made_without_those_that_were_lifted_since(node: Node) -> None:
    await node.bans.catch_up()
    node.bans.heard(node.change(0, 5, user("a")))
    old = node.list
    node.bans.heard(node.change(5, 6, user("a"), lift=True))
    node.bans.heard(node.change(6, 7, user("b")))
    node.list = old
    assert not node.bans.heard(node.change(5, 9, user("c")))
    await node.bans.catch_up()
    assert sorted(node.known) == ["b", "c"]
    assert {ban.value for ban in node.list.bans} == {"b", "c"}


async def test_a_ban_that_is_lifted_in_a_list_that_was_begun_anew_does_not_come_back(node: Node) -> None:
    await node.bans.catch_up()
    node.bans.heard(node.change(0, 5, user("a")))
    node.list = BanList(0, ())
    assert not node.bans.heard(node.change(0, 9, user("a")))
    assert not node.bans.heard(node.change(9, 10, user("a"), lift=True))
    await node.bans.catch_up()
    assert node.known == {}
    assert node.list.bans == ()


async def test_a_ban_that_is_made_while_ours_are_put_back_leaves_them_in_force(node: Node) -> None:
    await node.bans.catch_up()
    node.bans.heard(node.change(0, 5, user("a")))
    node.list = BanList(0, ())
    node.while_reading = lambda: node.bans.heard(node.change(0, 9, user("b"))) if node.reads == 2 else None
    await node.bans.catch_up()
    assert sorted(node.known) == ["a", "b"]
    assert {ban.value for ban in node.list.bans} == {"a", "b"}


@pytest.mark.parametrize("heard", [True, False])
async def test_a_ban_that_is_unheard_while_ours_are_put_back_leaves_them_in_force(node: Node, heard: bool) -> None:
    await node.bans.catch_up()
    node.bans.heard(node.change(0, 5, user("a")))
    node.list = BanList(0, ())

    def change() -> None:
        if node.reads == 2:
            said = node.change(0, 9, user("b"))
            if heard:
                node.bans.heard(said)

    node.while_reading = change
    await node.bans.catch_up()
    assert sorted(node.known) == ["a", "b"]
    assert {ban.value for ban in node.list.bans} == {"a", "b"}


_steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.sets(st.integers(0, 2)), st.booleans()), max_size=20
)


@given(_steps)
def test_nodes_that_miss_changes_have_the_list_of_their_version_and_in_the_end_the_last(
    steps: list[tuple[str, bool, set[int], bool]],
) -> None:
    """Each step: a name, whether its ban is lifted, which nodes miss it, and whether Redis has lost its data before."""

    async def run() -> None:
        nodes = [Node() for _ in range(3)]
        shared, version = BanList(0, ()), 0
        for name, lift, missing, lost in steps:
            if lost:
                shared = BanList(0, ())
            version += 1
            change = BanChange(shared.version, version, "n1", 1, user(name), lift)
            others = tuple(each for each in shared.bans if each.value != name)
            passed = shared.passed | {shared.version, version}
            shared = BanList(version, others if lift else (*others, user(name)), passed)
            for number, node in enumerate(nodes):
                node.list = shared
                if number not in missing and not node.bans.heard(change):
                    await node.bans.catch_up()
                shared = node.list
                version = max(version, shared.version)
        for _ in range(2):
            for node in nodes:
                node.list = shared
                await node.bans.catch_up()
                shared = node.list
        wanted = {ban.value for ban in shared.bans}
        assert [set(node.known) for node in nodes] == [wanted] * 3
        last = {name: (lift, len(missing) < 3) for name, lift, missing, _ in steps}
        assert wanted >= {name for name, (lift, heard) in last.items() if heard and not lift}
        if not any(lost for *_, lost in steps):
            assert wanted == {name for name, (lift, _) in last.items() if not lift}

    asyncio.run(run())
