"""A user of a cluster that hides from some: the others hear of all its changes, and those of none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aldis.hub.cluster import UserState
from aldis.protocol.privacy import Privacy
from support.hub_cluster import HubCluster
from support.hub_world import Client


class Scene:
    """bob has blocked eve. alice and eve watch him at the first of two nodes; he is at the node `where`."""

    def __init__(self, where: int, interval: float = 0.25) -> None:
        self.cluster = HubCluster(2, resume_window=30.0, presence_interval=interval)
        self.here, self.there = self.cluster.worlds
        self.alice, self.eve = self.here.client("alice"), self.here.client("eve")
        self.bob = self.enter(where)
        self.bob.send(type="privacy", block=["eve"])
        self.cluster.settle()
        for client in (self.alice, self.eve):
            client.send(type="watch", userIds=["bob"])
        self.told()

    def enter(self, where: int) -> Client:
        self.bob = self.cluster.worlds[where].client("bob")
        return self.bob

    def told(self) -> tuple[list[bool], list[bool]]:
        """Whether bob was online, in each message to alice and to eve."""
        self.cluster.settle()
        self.here.pass_time(1)
        self.cluster.settle()
        alice, eve = ([m["online"] for m in each.take() if m["type"] == "presence"] for each in (self.alice, self.eve))
        return alice, eve


@pytest.mark.parametrize("interval", [0.0, 0.25])
@pytest.mark.parametrize("where", [0, 1], ids=["at the same node", "at another node"])
def test_those_who_may_see_a_user_hear_that_it_comes_and_goes(where: int, interval: float) -> None:
    scene = Scene(where, interval)
    scene.bob.lose(clean=True)
    assert scene.told() == ([False], [])
    scene.enter(where)
    assert scene.told() == ([True], [])
    scene.bob.lose(clean=True)
    assert scene.told() == ([False], [])


def test_a_user_that_goes_from_node_to_node_is_online_for_those_who_may_see_it_alone() -> None:
    scene = Scene(where=0)
    for where in (1, 0, 1):
        scene.enter(where)
        alice, eve = scene.told()
        assert (alice[-1:], eve) == ([True], [])


def test_those_who_may_see_a_user_hear_that_its_node_is_lost() -> None:
    scene = Scene(where=1)
    router = scene.here.hub.cluster
    assert router is not None
    router.lost_node("node-1")
    assert scene.told() == ([False], [])


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (lambda state: state._replace(devices=()), ([False], [])),
        (lambda state: state._replace(privacy=Privacy()), ([], [True])),
        (lambda state: state._replace(privacy=Privacy("hidden")), ([False], [])),
        # Both at once, as after an outage.
        (lambda state: _another_device(state)._replace(privacy=Privacy()), ([True], [True])),
        (lambda state: _another_device(state)._replace(privacy=Privacy("hidden")), ([False], [])),
    ],
)
def test_a_change_of_devices_and_privacy_is_told_to_those_that_see_it(
    after: Callable[[UserState], UserState], told: tuple[list[bool], list[bool]]
) -> None:
    scene = Scene(where=1)
    router = scene.here.hub.cluster
    assert router is not None
    before = scene.cluster.table.state("bob")
    router.learn(after(before)._replace(version=before.version + 1))
    assert scene.told() == told


def _another_device(state: UserState) -> UserState:
    (device,) = state.devices
    return state._replace(devices=(device._replace(device="phone", entry="another"), device))
