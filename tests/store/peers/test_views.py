"""Views of peers: what is told, when, and at what cost."""

from __future__ import annotations

import asyncio

from aldis.peer.connection import PeerState
from aldis.store.peers.views import PeerViews
from aldis.store.state import PeerView, StoreState
from aldis.store.subscriptions import StateFeed


class Viewed:
    """A peer whose views are counted."""

    def __init__(self, user_id: str = "bob") -> None:
        self.user_id = user_id
        self.state = PeerState.NEW
        self.queued = 0
        self.looks = 0

    @property
    def view(self) -> PeerView:
        self.looks += 1
        return PeerView(self.user_id, self.state, queued=self.queued)

    @property
    def round_trip_times(self) -> dict[str, float | None]:
        return {}


def watched() -> tuple[PeerViews, list[StoreState]]:
    """Views, and all states that are told."""
    feed = StateFeed()
    told: list[StoreState] = []
    feed.subscribe(told.append)
    told.clear()
    return PeerViews(feed, lambda: StoreState(user_id="alice")), told


async def test_a_thousand_messages_in_one_turn_of_the_loop_are_one_view_and_one_state() -> None:
    views, told = watched()
    bob = Viewed()
    views.add(bob)
    told.clear()
    bob.looks = 0
    for _ in range(1000):
        bob.queued += 1
        views.counted(bob)
    assert (bob.looks, told) == (0, [])
    await asyncio.sleep(0)
    assert bob.looks == 1
    assert [state.peers["bob"].queued for state in told] == [1000]


async def test_a_count_makes_one_state_and_not_another_in_the_next_turn() -> None:
    made = 0

    def server() -> StoreState:
        nonlocal made
        made += 1
        return StoreState()

    views = PeerViews(StateFeed(), server)
    bob = Viewed()
    views.add(bob)
    made = 0
    bob.queued += 1
    views.counted(bob)
    for _ in range(3):
        await asyncio.sleep(0)
    assert made == 1


async def test_a_change_is_told_at_once_and_takes_the_counts_along() -> None:
    views, told = watched()
    bob, carol = Viewed(), Viewed("carol")
    views.add(bob)
    views.add(carol)
    told.clear()
    carol.queued = 7
    views.counted(carol)
    bob.state = PeerState.CONNECTING
    views.changed(bob)
    assert [(state.peers["bob"].state, state.peers["carol"].queued) for state in told] == [(PeerState.CONNECTING, 7)]
    await asyncio.sleep(0)
    assert len(told) == 1


async def test_what_has_not_changed_is_not_told() -> None:
    views, told = watched()
    bob = Viewed()
    views.add(bob)
    told.clear()
    views.changed(bob)
    views.counted(bob)
    await asyncio.sleep(0)
    assert told == []


async def test_nobody_looks_at_a_peer_that_was_forgotten() -> None:
    views, told = watched()
    bob = Viewed()
    views.add(bob)
    views.counted(bob)
    views.remove(bob)
    bob.looks = 0
    views.changed(bob)
    views.counted(bob)
    views.publish()
    await asyncio.sleep(0)
    assert bob.looks == 0
    assert told[-1].peers == {}
