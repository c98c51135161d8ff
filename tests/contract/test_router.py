"""What every router promises (aldis.hub.router), checked on each.

A `Town` is a service of one or more hubs. A router for several processes adds a town of its own to `TOWNS`, in which
the two people of a test are at different hubs; the tests stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

import pytest

from aldis.hub.router import Router
from aldis.hub.sessions import Receipt, RelayResult
from aldis.protocol import messages as m
from support.hub_cluster import HubCluster
from support.hub_redis import RedisCluster
from support.hub_world import Client, World
from support.presence import KINDS, Place, redis_place

RESUME_WINDOW = 30.0
KEPT = 12
UNSENT = 60_000


class Town(Protocol):
    """A service, and the people who use it. `join` registers somebody at the next hub."""

    def join(self, user_id: str, device: str = "main", **more: Any) -> Client: ...

    def router_of(self, client: Client) -> Router:
        """The router of the hub at which a client is."""

    async def settle(self) -> None:
        """Return when everything has arrived."""

    def pass_time(self, seconds: float) -> None: ...


class OneHub:
    """All at one hub."""

    def __init__(self) -> None:
        self._world = World(resume_window=RESUME_WINDOW, resume_messages=KEPT, unsent_bytes=UNSENT)

    def join(self, user_id: str, device: str = "main", **more: Any) -> Client:
        return self._world.client(user_id, device=device, **more)

    def router_of(self, client: Client) -> Router:
        return client.world.hub.router

    async def settle(self) -> None:
        pass

    def pass_time(self, seconds: float) -> None:
        self._world.pass_time(seconds)


class TwoNodes:
    """Everybody at another hub than the one who came before."""

    def __init__(self) -> None:
        self._cluster = HubCluster(2, resume_window=RESUME_WINDOW, resume_messages=KEPT, unsent_bytes=UNSENT)
        self._next = 0
        self._home: dict[str, World] = {}

    def join(self, user_id: str, device: str = "main", **more: Any) -> Client:
        address = f"{user_id}/{device}"
        if address not in self._home:  # a program comes back to its node
            self._home[address] = self._cluster.worlds[self._next % 2]
            self._next += 1
        client = self._home[address].client(user_id, device=device, **more)
        self._cluster.settle()
        return client

    def router_of(self, client: Client) -> Router:
        return client.world.hub.router

    async def settle(self) -> None:
        self._cluster.settle()

    def pass_time(self, seconds: float) -> None:
        self._cluster.pass_time(seconds)


class TwoNodesOnRedis:
    """The same over a real Redis."""

    def __init__(self, url: str) -> None:
        self._cluster = RedisCluster(url, 2, resume_window=RESUME_WINDOW, resume_messages=KEPT, unsent_bytes=UNSENT)
        self._next = 0
        self._home: dict[str, World] = {}

    def join(self, user_id: str, device: str = "main", **more: Any) -> Client:
        address = f"{user_id}/{device}"
        if address not in self._home:
            self._home[address] = self._cluster.worlds[self._next % 2]
            self._next += 1
        client = self._home[address].connect()
        client.register(user_id, device=device, settle=self._cluster.settle, **more)
        assert client.registered is not None, client.inbox
        client.take()
        return client

    def router_of(self, client: Client) -> Router:
        return client.world.hub.router

    async def settle(self) -> None:
        self._cluster.settle()

    def pass_time(self, seconds: float) -> None:
        for world in self._cluster.worlds:
            world.pass_time(seconds)
        self._cluster.settle()

    def close(self) -> None:
        self._cluster.close()


TOWNS: dict[str, Callable[[], Town]] = {"local": OneHub, "two nodes": TwoNodes}
# Single, behind Sentinels, and as a Cluster: every promise on each.
REDIS_KINDS = {f"two nodes on Redis, {kind}": kind for kind in KINDS}


@pytest.fixture(params=[*TOWNS, *REDIS_KINDS])
def town(request: pytest.FixtureRequest, redis_urls: Callable[[str], str]) -> Iterator[Town]:
    if request.param in TOWNS:
        yield TOWNS[request.param]()
        return
    nodes = TwoNodesOnRedis(redis_urls(REDIS_KINDS[request.param]))
    yield nodes
    nodes.close()


@pytest.fixture(scope="module")
def redis_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """The servers of each kind, started when they are needed. Each test has keys of its own in them."""
    with ExitStack() as stack:
        places: dict[str, Place] = {}

        def url(kind: str) -> str:
            if kind not in places:
                places[kind] = stack.enter_context(
                    redis_place(kind, tmp_path_factory.mktemp(kind), "--save", "", steady=True)
                )
            place = places[kind]
            for master in place.masters:
                master.say("flushall")
            return place.url

        yield url


class Sender:
    """Somebody who sends, and what became of each message; `results` has None for what is not known yet."""

    def __init__(self, town: Town, user_id: str = "alice", *, sealed: bool = False) -> None:
        self._sealed = sealed
        self.client = town.join(user_id)
        self._router = town.router_of(self.client)
        self.results: list[RelayResult | None] = []

    def send(self, to: str, reason: str = "") -> None:
        index = len(self.results)
        self.results.append(None)

        def done(receipt: Receipt, result: RelayResult) -> None:
            assert receipt is given
            assert returned, "called from within deliver"
            assert self.results[index] is None, "called twice"
            assert result is not RelayResult.PENDING
            self.results[index] = result

        returned = False
        kind = m.Relay if self._sealed else m.Bye
        given: Receipt = (self.client.session, kind, to, index)
        if self._sealed:
            result = self._router.deliver_sealed(m.Relay(to, reason or "-", "alice"), given, done)
        else:
            result = self._router.deliver(m.Bye(to, "alice", reason=reason), given, done)
        returned = True
        if result is not RelayResult.PENDING:
            self.results[index] = result


def reasons(client: Client) -> list[str]:
    """What has arrived: the reasons of byes and the texts of sealed messages, in order."""
    fields = {"bye": "reason", "relay": "sealed"}
    return [message[fields[message["type"]]] for message in client.take() if message["type"] in fields]


def come_back(town: Town, user_id: str, old: Client) -> Client:
    client = town.join(user_id, resume=old.ticket(0))
    assert client.registered is not None
    assert client.registered["resumed"]
    return client


async def test_a_message_to_nobody_is_absent(town: Town) -> None:
    alice = Sender(town)
    for address in ("bob", "bob/phone", "alice/phone"):
        alice.send(address)
    await town.settle()
    assert alice.results == [RelayResult.ABSENT] * 3


async def test_a_message_reaches_the_device_of_its_address(town: Town) -> None:
    alice = Sender(town)
    phone, laptop = town.join("bob", "phone"), town.join("bob", "laptop")
    for number, address in enumerate(("bob", "bob/phone", "bob/laptop", "bob/main")):
        alice.send(address, str(number))
    await town.settle()
    assert alice.results == [*[RelayResult.SENT] * 3, RelayResult.ABSENT]
    assert (reasons(phone), reasons(laptop)) == (["1"], ["0", "2"])


async def test_messages_arrive_in_their_order_and_once(town: Town) -> None:
    alice, bob = Sender(town), town.join("bob")
    for number in range(100):
        alice.send("bob", str(number))
    await town.settle()
    assert reasons(bob) == [str(number) for number in range(100)]
    assert alice.results == [RelayResult.SENT] * 100


async def test_what_comes_in_the_resume_window_is_known_when_the_recipient_is_back(town: Town) -> None:
    alice, bob = Sender(town), town.join("bob")
    bob.lose()
    alice.send("bob", "1")
    alice.send("bob/main", "2")
    await town.settle()
    assert alice.results == [None, None]
    bob = come_back(town, "bob", bob)
    alice.send("bob", "3")
    await town.settle()
    assert alice.results == [RelayResult.SENT] * 3


async def test_a_recipient_who_does_not_come_back_is_absent(town: Town) -> None:
    alice, bob = Sender(town), town.join("bob")
    bob.lose()
    alice.send("bob")
    await town.settle()
    town.pass_time(RESUME_WINDOW + 2)
    await town.settle()
    assert alice.results == [RelayResult.ABSENT]


async def test_of_what_is_kept_for_a_lost_recipient_a_stranger_has_two_ninths(town: Town) -> None:
    alice, bob = Sender(town), town.join("bob")
    bob.lose()
    for number in range(KEPT + 1):
        alice.send("bob", str(number))
    await town.settle()
    kept = KEPT * 2 // 9
    assert alice.results == [None] * kept + [RelayResult.LIMITED] * (KEPT + 1 - kept)
    bob = come_back(town, "bob", bob)
    await town.settle()
    assert alice.results[:kept] == [RelayResult.SENT] * kept
    alice.send("bob", "more")
    await town.settle()
    assert alice.results[-1] is RelayResult.SENT
    assert reasons(bob) == ["more"], "what was kept came with the registration"


async def test_what_strangers_send_to_a_lost_recipient_leaves_room_for_a_friend(town: Town) -> None:
    friend, bob = Sender(town, "friend"), town.join("bob")
    bob.lose()
    friend.send("bob", "first")
    strangers = [Sender(town, f"stranger{number}") for number in range(3)]
    for stranger in strangers:
        for _ in range(KEPT):
            stranger.send("bob")
    await town.settle()
    assert all(RelayResult.LIMITED in stranger.results for stranger in strangers)
    friend.send("bob", "second")
    await town.settle()
    assert friend.results[0] is None
    come_back(town, "bob", bob)
    await town.settle()
    assert friend.results[0] is RelayResult.SENT


async def test_a_sender_has_a_share_of_what_waits_for_a_recipient_that_does_not_read(town: Town) -> None:
    stranger, friend, bob = Sender(town, "stranger"), Sender(town, "friend"), town.join("bob")
    bob.full = True
    for _ in range(UNSENT // 1000):
        stranger.send("bob", "x" * 1000)
    friend.send("bob", "hello")
    await town.settle()
    sent = stranger.results.count(RelayResult.SENT)
    assert UNSENT // 6 < sent * 1000 < UNSENT * 2 // 9
    assert set(stranger.results[sent:]) == {RelayResult.LIMITED}
    assert friend.results == [RelayResult.SENT]
    assert reasons(bob)[-1] == "hello"


async def test_a_recipient_that_starts_anew_has_not_got_what_was_kept(town: Town) -> None:
    alice, bob = Sender(town), town.join("bob")
    bob.lose()
    alice.send("bob")
    await town.settle()
    again = town.join("bob")
    await town.settle()
    assert alice.results == [RelayResult.ABSENT]
    assert reasons(again) == []


async def test_locate_tells_the_devices_newest_first(town: Town) -> None:
    alice = town.join("alice")
    locate = partial(town.router_of(alice).locate, viewer=alice.session)
    assert locate("bob") == m.PresenceMessage("bob", False)
    town.join("bob", "phone")
    laptop = town.join("bob", "laptop")
    await town.settle()
    found = locate("bob")
    assert found.online
    assert found.public_key == locate("bob").public_key != locate("alice").public_key
    assert found.devices == [m.Device("laptop"), m.Device("phone")]
    laptop.lose()
    await town.settle()
    assert locate("bob").devices == [m.Device("laptop"), m.Device("phone")], "it may still resume"
    town.pass_time(RESUME_WINDOW + 2)
    await town.settle()
    assert locate("bob").devices == [m.Device("phone")]


async def test_a_user_that_does_not_admit_the_sender_is_as_one_that_is_not_online(town: Town) -> None:
    alice, bob, friend = Sender(town), town.join("bob"), Sender(town, "friend")
    bob.send(type="privacy", block=["alice"], presence="contacts", addContacts=["friend"])
    await town.settle()
    bob.take()
    for sender in (alice, friend):
        sender.send("bob", "hello")
    await town.settle()
    assert alice.results == [RelayResult.ABSENT]
    assert friend.results == [RelayResult.SENT]
    assert reasons(bob) == ["hello"]
    stranger = town.join("stranger")
    await town.settle()
    for viewer, sees in ((alice.client, False), (stranger, False), (friend.client, True), (bob, True)):
        assert town.router_of(viewer).locate("bob", viewer.session).online is sees


async def test_publish_tells_each_watcher_once_how_things_stand(town: Town) -> None:
    alice, carol, dave = town.join("alice"), town.join("carol"), town.join("dave")
    town.join("bob")
    for watcher in (alice, carol):
        watcher.send(type="watch", userIds=["bob"])
    await town.settle()
    for watcher in (alice, carol, dave):
        watcher.take()
    town.join("bob", "phone")
    await town.settle()
    (news,) = alice.take()
    assert (news["type"], news["userId"], news["online"]) == ("presence", "bob", True)
    assert [device["device"] for device in news["devices"]] == ["phone", "main"]
    assert carol.take() == [news]
    assert dave.take() == []


# --- sealed messages ------------------------------------------------------------------------------------------------


async def test_a_sealed_message_goes_where_others_go_and_in_order(town: Town) -> None:
    alice, phone = Sender(town, sealed=True), town.join("bob", "phone")
    for number in range(KEPT):
        alice.send("bob", str(number))
    alice.send("carol")
    await town.settle()
    assert reasons(phone) == [str(number) for number in range(KEPT)]
    assert alice.results == [*[RelayResult.SENT] * KEPT, RelayResult.ABSENT]


async def test_sealed_messages_wait_for_a_lost_client_and_use_no_room_of_others(town: Town) -> None:
    alice, carol, bob = Sender(town, sealed=True), Sender(town, "carol"), town.join("bob")
    bob.lose()
    for number in range(200):
        alice.send("bob", str(number))
    for number in range(KEPT * 2 // 9):
        carol.send("bob", f"of carol {number}")
    await town.settle()
    assert set(alice.results) == {None, RelayResult.LIMITED}
    kept = [str(number) for number, result in enumerate(alice.results) if result is None]
    assert kept == [str(number) for number in range(len(kept))]
    come_back(town, "bob", bob)
    await town.settle()
    assert alice.results.count(RelayResult.SENT) == len(kept)
    assert carol.results == [RelayResult.SENT] * (KEPT * 2 // 9)


async def test_a_full_window_refuses_sealed_messages_alone(town: Town) -> None:
    alice, carol, bob = Sender(town, sealed=True), Sender(town, "carol"), town.join("bob")
    for number in range(300):
        alice.send("bob", str(number))
    carol.send("bob", "hello")
    await town.settle()
    assert alice.results == [*[RelayResult.SENT] * 256, *[RelayResult.LIMITED] * 44]
    assert reasons(bob)[-1] == "hello"
    bob.lose()
    assert come_back(town, "bob", bob).registered is not None
