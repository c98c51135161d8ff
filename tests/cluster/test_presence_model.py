"""Random calls of several nodes on the table of who is online, against a model of it in Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from aldis.backends.redis_client import Command
from aldis.cluster.buckets import bucket_of
from aldis.cluster.presence_table import REPLACED, AnnouncedDevice
from aldis.hub.cluster import FULL, TAKEN, Entered, RemoteDevice, UserState
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy
from support.presence import KEY_A, KEY_B, Place, World, enter, redis_place

MOST = 3
USERS = ("alice", "bob", "carol")
DEVICES = ("laptop", "phone", "tablet", "watch")
PRIVACIES = (DEFAULT_PRIVACY, Privacy("hidden"), Privacy("contacts", blocked=frozenset({"eve"})))


class Model:
    """What the table has to say."""

    def __init__(self) -> None:
        self.devices: dict[str, dict[str, RemoteDevice]] = defaultdict(dict)
        self.privacy: dict[str, Privacy] = {}
        self.left: list[tuple[str, RemoteDevice]] = []

    def taken(self, user: str, device: RemoteDevice) -> bool:
        others = self.devices[user].values()
        return any(each.proves != device.proves or (not device.proves and each.key != device.key) for each in others)

    def put(self, user: str, device: RemoteDevice, privacy: Privacy) -> None:
        if not self.devices[user]:
            self.privacy[user] = privacy
        if (before := self.devices[user].get(device.device)) is not None:
            self.left.append((user, before))
        self.devices[user][device.device] = device

    def remove(self, user: str, device: RemoteDevice) -> None:
        self.left.append((user, self.devices[user].pop(device.device)))
        if not self.devices[user]:
            self.privacy.pop(user)

    def has(self, user: str, device: RemoteDevice) -> bool:
        found = self.devices[user].get(device.device)
        return found is not None and found.entry == device.entry

    def state(self, user: str, version: int) -> UserState:
        devices = sorted(self.devices[user].values(), key=lambda device: device.order, reverse=True)
        return UserState(user, version, tuple(devices), self.privacy.get(user, DEFAULT_PRIVACY))

    def keys(self) -> set[str]:
        """All keys but the counters and the marks of lost nodes."""
        users = {f"{{b{bucket_of(user)}}}:u:{user}" for user, devices in self.devices.items() if devices}
        nodes = {
            f"{{b{bucket_of(user)}}}:n:{device.node}"
            for user, devices in self.devices.items()
            for device in devices.values()
        }
        return users | nodes


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("redis")
    with redis_place("single", folder, "--save", "") as place:
        yield place


@pytest.fixture
async def world(place: Place) -> AsyncIterator[World]:
    world = World(place)
    yield world
    await world.close()


@pytest.mark.parametrize("seed", range(8))
async def test_any_calls_lead_where_the_model_says(world: World, seed: int) -> None:
    random, model = Random(seed), Model()
    tables = [world.node(f"n{number}") for number in range(3)]
    lost = 0
    versions: dict[str, int] = defaultdict(int)
    for _ in range(200):
        table, user = random.choice(tables), random.choice(USERS)
        online = list(model.devices[user].values())
        match random.choice(
            ["enter"] * 4 + ["leave"] * 3 + ["late"] * 2 + ["change", "privacy", "announce"] + ["reap"]
        ):
            case "enter":
                key = random.choice([KEY_A] * 5 + [KEY_B])
                device = world.device(random.choice(DEVICES), key, random.random() < 0.95)
                privacy = random.choice(PRIVACIES)
                answer = await enter(table, user, device, privacy=privacy, most=MOST)
                if model.taken(user, device):
                    assert answer == TAKEN
                elif device.device not in model.devices[user] and len(online) >= MOST:
                    assert answer == FULL
                else:
                    assert isinstance(answer, Entered)
                    model.put(user, device._replace(node=table.node_id, order=answer.order), privacy)
                    assert answer.state == model.state(user, answer.state.version)
            case "leave" if online:
                device = random.choice(online)
                assert await table.leave(user, device.device, device.entry) is not None
                model.remove(user, device)
            case "late" if model.left:
                whose, device = random.choice(model.left)
                if not model.has(whose, device):
                    assert await table.leave(whose, device.device, device.entry) is None
                    assert await table.change(whose, device.device, device.entry, session="late") is None
            case "change" if online:
                device = random.choice(online)
                assert await table.change(user, device.device, device.entry, session="changed") is not None
                model.devices[user][device.device] = device._replace(session="changed")
            case "privacy":
                privacy = random.choice(PRIVACIES)
                changed = await table.change_privacy(user, privacy)
                assert (changed is not None) is bool(online)
                if online:
                    model.privacy[user] = privacy
            case "announce" if model.left:
                whose, device = random.choice(model.left)
                (answer,) = await table.announce([AnnouncedDevice(whose, device, DEFAULT_PRIVACY)])
                before = model.devices[whose].get(device.device)
                if before is not None and before.order > device.order:
                    assert answer == REPLACED
                elif model.taken(whose, device):
                    assert answer == TAKEN
                else:
                    assert isinstance(answer, Entered)
                    assert answer.order == device.order
                    model.put(whose, device._replace(node=table.node_id), DEFAULT_PRIVACY)
            case "reap" if random.random() < 0.2:
                gone = table.node_id
                await random.choice(tables).reap(gone)
                lost += 1
                table.node_id = f"m{lost}"
                for name in USERS:
                    for device in list(model.devices[name].values()):
                        if device.node == gone:
                            model.remove(name, device)
        for state in await table.states(USERS):
            assert state == model.state(state.user_id, state.version)
            assert state.version >= versions[state.user_id]
            versions[state.user_id] = state.version
    sets = [key for key in await world.keys() if ":n:" in key]
    await world.run(*[Command("SREM", f"{world.prefix}{key}", ("",)) for key in sets])  # the marks of lost nodes
    assert {key for key in await world.keys() if not key.endswith(":last")} == model.keys()
