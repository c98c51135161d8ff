"""A thousand clients go through a hub for an hour of the fake clock, without a socket."""

from __future__ import annotations

from typing import Any

from support.hub_watches import watch_table
from support.hub_world import Client, World, identity_of

USERS = 1000


def test_a_thousand_sessions_relay_come_go_resume_and_leave_nothing_behind() -> None:
    world = World(seed=7)
    rng = world.random
    online: dict[str, Client] = {}
    detached: dict[str, tuple[Client, int, float]] = {}
    received: dict[str, int] = {}
    expected: dict[str, list[str]] = {}
    arrived: dict[str, list[str]] = {}

    def take(name: str) -> None:
        for message in online[name].take():
            if message["type"] in ("bye", "presence"):
                received[name] += 1
            if message["type"] == "bye":
                assert message["from"] == message["reason"].split(":")[0]
                arrived[name].append(message["reason"])

    def connect(name: str, **more: Any) -> Client:
        client = world.connect()
        client.register(name, **more)
        return client

    for n in range(USERS):
        name = f"user{n}"
        identity_of(name)
        online[name] = connect(name)
        received[name], expected[name], arrived[name] = 0, [], []
        take(name)
    assert world.hub.users_online == USERS
    names = list(online)
    for name in names:
        online[name].send(type="watch", userIds=rng.sample(names, 3))

    for second in range(3600):
        world.pass_time(1)
        for client in online.values():
            if client.pings:
                client.pings = 0
                world.hub.heard(client.session, world.now)
        for number in range(2):
            sender, recipient = rng.choice(list(online)), rng.choice(names)
            take(sender)
            text = f"{sender}:{second}:{number}"
            online[sender].send(type="bye", to=recipient, reason=text, id=1)
            replies = [m["type"] for m in online[sender].inbox if m.get("re") == 1]
            if recipient in online:
                assert replies == ["ack"]
                expected[recipient].append(text)
            elif recipient in detached:
                expected[recipient].append(text)
            else:
                assert replies == ["error"]
        if second % 3 == 0:
            name = rng.choice(list(online))
            take(name)
            if rng.random() < 0.5:
                online[name].send(type="received", count=received[name])
            client = online.pop(name)
            client.lose()
            detached[name] = (client, received[name], world.now)
        for name, (client, count, since) in list(detached.items()):
            if rng.random() < 0.1:
                back = world.connect()
                back.registered = client.registered
                back.register(name, resume=client.ticket(count))
                resumed = back.inbox[0]["resumed"]
                # The clock goes in whole seconds and the window is a second's precision.
                assert resumed == (world.hub.settings.resume_window > world.now - since)
                online[name] = back
                if not resumed:
                    received[name] = 0
                    expected[name] = list(arrived[name])
                    back.send(type="watch", userIds=rng.sample(names, 3))
                del detached[name]
            elif world.now - since > 31:
                assert not world.hub.online(name)
                expected[name] = list(arrived[name])

    for name in list(online):
        take(name)
        assert arrived[name] == expected[name], name
    for client in online.values():
        client.lose(clean=True)
    world.pass_time(60)
    assert world.hub.users_online == 0
    assert world.hub.stats.connections_now == 0
    assert world.hub.pending == 0
    assert not watch_table(world), "no watch outlives its session"
    assert not world.hub._lifecycle._timers._buckets, "no session is still due"
