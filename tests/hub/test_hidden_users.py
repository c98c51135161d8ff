"""Nothing that a hidden user does can be seen: its viewer gets exactly what it gets when the user is offline."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from support.hub_world import Client, World

OFFER = {"type": "offer", "sdp": "v=0"}
HIDDEN: dict[str, dict[str, Any]] = {
    "blocked": {"block": ["eve"]},
    "not a contact": {"presence": "contacts", "offers": "contacts", "addContacts": ["bob"]},
    "hidden": {"presence": "hidden", "offers": "hidden"},
}
# What leaves the user hidden from eve.
CHANGES: dict[str, list[dict[str, Any]]] = {
    "blocked": [{"presence": "hidden"}, {"presence": "public"}, {"offers": "hidden"}, {"addContacts": ["eve"]}],
    "not a contact": [{"presence": "hidden"}, {"presence": "contacts"}, {"block": ["eve"]}, {"unblock": ["eve"]}],
    "hidden": [{"addContacts": ["bob"]}, {"block": ["eve"]}, {"unblock": ["eve"]}, {"block": ["bob"]}],
}


class Alice:
    """The hidden user: its devices come, go, are lost, resume, call and change who may see them."""

    def __init__(self, world: World, how: str) -> None:
        self.world = world
        self.changes = CHANGES[how]
        self.devices: dict[str, Client] = {}
        self.lost: dict[str, Client] = {}

    def act(self, random: Random) -> None:
        name = random.choice("abc")
        device = self.devices.get(name)
        if device is None:
            old = self.lost.pop(name, None)
            more: dict[str, Any] = {} if old is None else {"resume": old.ticket(0)}
            self.devices[name] = self.world.connect()
            self.devices[name].register("alice", device=name, **more)
            return
        match random.randrange(5):
            case 0:
                device.lose()
                self.lost[name] = self.devices.pop(name)
            case 1:
                device.lose(clean=True)
                del self.devices[name]
            case 2:
                device.send(type="unregister")
                del self.devices[name]
            case 3:
                device.send(type="offer", to="bob", offer=OFFER)
            case _:
                device.send(type="privacy", **random.choice(self.changes))


class Eve:
    """The viewer: asks, watches, calls, reads slowly, is lost and resumes. `seen` is all that it gets."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.client("eve")
        self.numbered = 0
        self.seen: list[Any] = []

    def act(self, random: Random, number: int) -> None:
        client = self.client
        to = random.choice(["alice", "alice/a", "alice/other"])
        match random.randrange(9):
            case 0 | 1:
                client.send(type="watch", userIds=["alice", "bob"], id=number)
            case 2:
                client.send(type="unwatch", userIds=["alice"], id=number)
            case 3 | 4:
                client.send(type="discover", userId="alice", id=number)
            case 5:
                client.send(type="offer", to=to, offer=OFFER, id=number)
            case 6:
                client.send(type="bye", to=to)
            case 7:
                client.full = not client.full
                self.world.hub.writable(client.session)
            case _:
                self.look()
                client.lose()
                self.client = self.world.connect()
                self.client.register("eve", resume=client.ticket(self.numbered))

    def look(self) -> None:
        for message in self.client.take():
            self.numbered += message["type"] == "presence"
            secret = ("session", "secret", "nonce", "serverTime")
            self.seen.append({name: value for name, value in message.items() if name not in secret})


def seen_by_eve(seed: int, how: str, *, active: bool, watchers: int) -> list[Any]:
    """What eve sees while alice is active, or offline. Eve does the same in both cases."""
    world = World(presence_interval=0.25 * (seed % 2))
    world.client("bob")
    for number in range(watchers):
        world.client(f"watcher{number}").send(type="watch", userIds=["alice"])
    alice, eve = Alice(world, how), Eve(world)
    first = world.client("alice")
    first.send(type="privacy", **HIDDEN[how])
    first.lose(clean=True)
    order, hers, eves = Random(seed), Random(seed + 1), Random(seed + 2)
    for number in range(80):
        world.now += order.choice([0.0, 0.01, 0.3, 2.0])
        world.hub.tick(world.now)
        world.hub_waits = order.random() < 0.2
        world.work()
        if order.random() < 0.5:
            eve.act(eves, number)
        elif active:
            alice.act(hers)
        eve.look()
    world.hub_waits = eve.client.full = False
    world.hub.writable(eve.client.session)
    world.pass_time(1)
    eve.look()
    return eve.seen


@pytest.mark.parametrize("watchers", [0, 70], ids=["few watchers", "more than are told at once"])
@pytest.mark.parametrize("how", list(HIDDEN))
def test_a_hidden_user_is_seen_as_if_it_were_offline(how: str, watchers: int) -> None:
    for seed in range(10 if watchers else 40):
        active, offline = (seen_by_eve(seed, how, active=one, watchers=watchers) for one in (True, False))
        assert active == offline, seed
