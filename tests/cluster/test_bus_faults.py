"""The bus of a cluster, where Redis ends, stops answering, has another master, or is none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.crc import key_slot

from aldis.cluster import bus as buses_module
from aldis.cluster.bus import MAX_QUEUED_BYTES, Bus
from aldis.cluster.bus_link import SILENCE, TICK
from aldis.cluster.faults import ClusterUnavailable
from aldis.cluster.messages import Rebound
from aldis.hub.cluster import Forward, UserState
from support.buses import Buses, BusWords
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.presence import KINDS, Place, redis_place
from support.redis_server import RedisServer, Sentinels

BUCKETS = range(0, 1024, 16)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with redis_place(request.param, tmp_path, "--save", "") as place:
        yield place


single = pytest.mark.parametrize("place", ["single"], indirect=True)
without_sentinel = pytest.mark.parametrize("place", ["single", "cluster"], indirect=True)
cluster = pytest.mark.parametrize("place", ["cluster"], indirect=True)


@pytest.fixture
async def buses(place: Place) -> AsyncIterator[Buses]:
    buses = Buses(place)
    yield buses
    await buses.close()


def forward(number: int, frame: bytes = b"{}") -> Forward:
    return Forward(number, "alice", True, frame)


async def until_restored(heard: BusWords) -> None:
    await heard.until(lambda: heard.words[-1:] == ["restored"])


@without_sentinel
async def test_all_is_subscribed_again_once_the_servers_are_back(place: Place, buses: Buses) -> None:
    (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
    await two.want(BUCKETS)
    for server in place.masters:
        server.kill()
    await ones.until(lambda: "interrupted" in ones.words)
    await twos.until(lambda: "interrupted" in twos.words)
    assert not two.healthy
    sent = [number for number in range(100) if one.send("two", forward(number))]
    await ones.until(lambda: len(ones.not_sent) == len(sent))
    for server in place.masters:
        server.start()
    await until_restored(twos)
    await until_restored(ones)
    assert twos.words == ["interrupted", "restored"]
    assert twos.buckets == [frozenset(BUCKETS)]
    assert ones.buckets == [frozenset()]
    assert one.healthy
    assert two.healthy
    # In a Cluster, "one" may hear again while it has not yet found the server that has what "two" hears.
    async with asyncio.timeout(PATIENCE):
        while not one.send("two", forward(100)):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    await twos.until(lambda: twos.messages == [("one", forward(100))])
    for bucket in BUCKETS:
        assert await two_hears(buses, bucket)
    assert len(ones.not_sent) == len(sent)


async def two_hears(buses: Buses, bucket: int) -> bool:
    return await buses.tell(bucket, UserState("alice", bucket)) == 1


@without_sentinel
async def test_what_is_on_its_way_when_a_server_ends_arrives_in_order_or_is_unsent(place: Place, buses: Buses) -> None:
    (one, ones), (_, twos) = await buses.node("one"), await buses.node("two")
    sent = 0
    while len(twos.messages) < 1000:
        assert one.send("two", forward(sent))
        sent += 1
        await asyncio.sleep(0)
    for number in range(sent, sent + 1000):
        assert one.send("two", forward(number))
    for server in place.masters:
        server.kill()
    sent += 1000
    await ones.until(lambda: len(ones.not_sent) > 0 and one.queued == 0)
    arrived = [message.number for _, message in twos.messages if isinstance(message, Forward)]
    unsent = [message.number for _, message in ones.not_sent if isinstance(message, Forward)]
    assert arrived == list(range(len(arrived)))
    assert unsent == list(range(unsent[0], sent))
    assert one.queued_bytes == 0


@pytest.mark.parametrize("place", ["cluster"], indirect=True)
async def test_one_server_of_a_cluster_that_ends_leaves_the_others_alone(place: Place, buses: Buses) -> None:
    one, ones = await buses.node("one")
    await one.want(BUCKETS)
    killed = next(server for server in place.masters if server.port != place_of(one, "one") and not_all(one, server))
    killed.kill()
    await ones.until(lambda: ones.words == ["interrupted"])
    assert one.send("one", forward(1))
    await ones.until(lambda: ones.messages == [("one", forward(1))])
    killed.start()
    await until_restored(ones)
    (buckets,) = ones.buckets
    assert 0 < len(buckets) < len(BUCKETS)
    for bucket in buckets:
        assert await two_hears(buses, bucket)


def place_of(bus: buses_module.Bus, node_id: str) -> int:
    address = bus._servers.master_of(bus.names.inbox(node_id).encode())
    assert address is not None
    return address[1]


def not_all(bus: buses_module.Bus, server: RedisServer) -> bool:
    address = bus._servers.master_of(bus.names.everyone.encode())
    assert address is not None
    return address[1] != server.port


def test_a_server_that_hangs_is_given_up_within_five_seconds() -> None:
    assert SILENCE + 3 * TICK < 5


@without_sentinel
async def test_servers_that_hang_are_noticed(place: Place, buses: Buses, monkeypatch: pytest.MonkeyPatch) -> None:
    (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
    await two.want(BUCKETS)
    for server in place.masters:
        server.pause()
    assert one.send("two", forward(1))
    await asyncio.gather(
        ones.until(lambda: "interrupted" in ones.words), twos.until(lambda: "interrupted" in twos.words)
    )
    await ones.until(lambda: ones.not_sent == [("two", forward(1))])
    if place.kind == "single":  # in a Cluster the others may hang on for a moment
        assert not one.send("two", forward(2))
        assert not one.send_all(Rebound("alice"))
    monkeypatch.setattr(buses_module, "PATIENCE", 0.2)
    with pytest.raises(ClusterUnavailable, match="does not answer in time"):
        await two.want([1, 2, 3])
    for server in place.masters:
        server.resume()
    monkeypatch.undo()
    await until_restored(twos)
    await until_restored(ones)
    assert one.send("two", forward(3))
    await twos.until(lambda: ("one", forward(3)) in twos.messages)
    assert await buses.tell(1, UserState("alice", 1)) == 0  # not wanted, because that had failed


@single
async def test_the_queue_is_bounded_while_the_server_hangs(place: Place, buses: Buses) -> None:
    (server,) = place.masters
    (one, ones), _ = await buses.node("one"), await buses.node("two")
    server.pause()
    frame, sent = bytes(50_000), 0
    while one.send("two", forward(sent, frame)):
        sent += 1
    assert MAX_QUEUED_BYTES - 3 * len(frame) < one.queued_bytes <= MAX_QUEUED_BYTES
    assert not one.send_all(Rebound("b" * len(frame)))
    await ones.until(lambda: len(ones.not_sent) == sent)
    assert [message.number for _, message in ones.not_sent if isinstance(message, Forward)] == list(range(sent))
    assert (one.queued, one.queued_bytes) == (0, 0)
    server.resume()


@cluster
async def test_channels_follow_their_slots(place: Place, buses: Buses) -> None:
    (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
    await two.want(BUCKETS)
    for number, name in enumerate([buses.names.everyone, buses.names.channel(16), buses.names.inbox("two")]):
        slot = key_slot(name.encode())
        ids = {server: server.say("cluster", "myid") for server in place.masters}
        address = two._servers.master_of(name.encode())
        assert address is not None
        source = next(server for server in place.masters if server.port == address[1])
        target = next(server for server in place.masters if server is not source)
        for server in (target, source, *place.masters):
            server.say("cluster", "setslot", str(slot), "node", ids[target])
        await twos.until(lambda: twos.words.count("restored") > number)  # noqa: B023
        assert twos.words[-1] == "restored"
    assert twos.buckets == [frozenset(), frozenset([16]), frozenset()]
    assert await two_hears(buses, 16)
    await until_restored(ones)  # of the channel of all
    # The sender learns the new place of the last one by an answer.
    number = 0
    while not twos.messages:
        number += 1
        if one.send("two", forward(number)):
            heard = [
                asyncio.ensure_future(ones.until(lambda: ("two", forward(number)) in ones.not_sent)),  # noqa: B023
                asyncio.ensure_future(twos.until(lambda: bool(twos.messages))),
            ]
            await asyncio.wait(heard, return_when=asyncio.FIRST_COMPLETED)
            for each in heard:
                each.cancel()
        await asyncio.sleep(0)
    assert twos.messages == [("one", forward(number))]
    assert two.healthy


@single
async def test_a_replica_is_not_used(place: Place, buses: Buses, monkeypatch: pytest.MonkeyPatch) -> None:
    (server,) = place.masters
    one, ones = await buses.node("one")
    server.say("replicaof", "127.0.0.1", "1")
    server.say("client", "kill", "type", "pubsub")
    await ones.until(lambda: ones.words == ["interrupted"])
    monkeypatch.setattr(buses_module, "PATIENCE", 5.0)
    with pytest.raises(ClusterUnavailable, match="only a replica"):
        await one.want([7])
    server.say("replicaof", "no", "one")
    await until_restored(ones)


async def test_a_new_master_behind_a_sentinel_is_found(tmp_path: Path) -> None:
    with redis_place("sentinel", tmp_path, "--save", "") as place:
        (master,) = place.masters
        buses = Buses(place)
        (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
        await two.want(BUCKETS)
        before = await buses.servers[0].masters()
        master.kill()
        await until_restored(ones)
        await until_restored(twos)
        assert await buses.servers[0].masters() != before
        assert twos.buckets == [frozenset(BUCKETS)]
        assert one.send("two", forward(1))
        await twos.until(lambda: twos.messages == [("one", forward(1))])
        assert two.healthy
        await buses.close()


async def test_a_master_that_is_replaced_while_it_runs_is_left(tmp_path: Path) -> None:
    with redis_place("sentinel", tmp_path, "--save", "") as place:
        (master,) = place.masters
        buses = Buses(place)
        (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
        sentinel = RedisServer(tmp_path / "none")
        sentinel.port = buses.servers[0].where.hosts[0][1]
        assert sentinel.say("sentinel", "failover", Sentinels.SERVICE) == "OK"
        await until_restored(ones)
        await until_restored(twos)
        assert all(link.address[1] != master.port for bus in (one, two) for link in bus._links.values())
        assert one.send("two", forward(1))
        await twos.until(lambda: twos.messages == [("one", forward(1))])
        await buses.close()


@single
async def test_a_server_that_refuses_the_password_is_an_error(
    place: Place, buses: Buses, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server,) = place.masters
    bus, heard = buses.made(server.url("nobody:wrong@"))
    monkeypatch.setattr(buses_module, "PATIENCE", 5.0)
    with pytest.raises(ClusterUnavailable, match="WRONGPASS"):
        await bus.open("one")
    assert heard.words == []


@single
async def test_a_user_of_redis_needs_no_more_than_what_is_said(place: Place, buses: Buses) -> None:
    (server,) = place.masters
    rights = f"&{buses.prefix}* +subscribe +unsubscribe +publish +hello +ping"
    server.say("acl", "setuser", "aldis", "on", ">secret", *rights.split())
    one, ones = buses.made(server.url("aldis:secret@"))
    await one.open("one")
    await one.want([7])
    assert one.send("one", forward(1))
    await ones.until(lambda: bool(ones.messages))
    one.drop([7])
    await one.moved("two")
    assert server.say("acl", "log") == ""


def break_the_disk(server: RedisServer) -> None:
    """A snapshot cannot be written: from now on Redis refuses changes, and PING too, by MISCONF."""
    (server.folder / "dump.rdb").mkdir()
    server.say("config", "set", "save", "3600 1")
    server.say("set", "something", "changed")
    server.say("bgsave")
    deadline = time.monotonic() + PATIENCE
    while "MISCONF" not in server.say("ping"):
        assert time.monotonic() < deadline


@single
async def test_messages_go_on_while_the_disk_of_the_server_is_broken(place: Place, buses: Buses) -> None:
    (server,) = place.masters
    (one, ones), (two, twos) = await buses.node("one"), await buses.node("two")
    break_the_disk(server)
    await one.want([7])  # with a PING behind it
    assert one.send("two", forward(1))
    await twos.until(lambda: twos.messages == [("one", forward(1))])
    assert one.send("three", forward(2))
    await ones.until(lambda: ones.not_sent == [("three", forward(2))])
    _, threes = await buses.node("three")  # a new connection begins with a PING
    assert one.send("three", forward(3))
    await threes.until(lambda: threes.messages == [("one", forward(3))])
    (link,) = two._links.values()
    await link.settled()
    assert (ones.words, twos.words) == ([], [])


@single
async def test_a_user_that_may_not_ping_any_more_loses_no_answer(place: Place, buses: Buses) -> None:
    (server,) = place.masters
    server.say("acl", "setuser", "aldis", "on", ">secret", f"&{buses.prefix}*", "+@pubsub", "+hello", "+ping")
    one, ones = buses.made(server.url("aldis:secret@"))
    await one.open("one")
    server.say("acl", "setuser", "aldis", "-ping")
    await one.want([7])
    assert one.send("two", forward(1))
    await ones.until(lambda: ones.not_sent == [("two", forward(1))])
    assert one.queued == 0


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n+PONG\r\n",
        b"%1\r\n+role\r\n+master\r\n+PONG\r\n+more\r\n",
        b"%1\r\n+role\r\n+master\r\n",
        b"",
    ],
)
async def test_a_server_that_is_no_redis_is_an_error(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(buses_module, "PATIENCE", 5.0)
    buses = Buses(Place("single", f"redis://127.0.0.1:{port}", []))
    bus, _ = buses.made()
    with pytest.raises(ClusterUnavailable, match="Redis"):
        await bus.open("one")
    assert not bus.healthy
    await buses.close()
    server.close()
    async with asyncio.timeout(PATIENCE):
        await server.wait_closed()


@single
async def test_a_lost_bucket_that_is_dropped_is_not_waited_for(place: Place, buses: Buses) -> None:
    (server,) = place.masters
    one, ones = await buses.node("one")
    await one.want([7, 8])
    server.kill()
    await ones.until(lambda: ones.words == ["interrupted"])
    one.drop([7])
    wanted = [asyncio.ensure_future(one.want([7, number])) for number in range(9, 99)]
    await asyncio.sleep(0)
    wanted[0].cancel()
    server.start()
    await until_restored(ones)
    ended = await asyncio.gather(*wanted, return_exceptions=True)
    assert ended[1:] == [None] * 89
    assert ones.buckets == [frozenset([7, 8])]
    assert [await buses.tell(number, UserState("alice", 1)) for number in (7, 8, 9, 10)] == [1, 1, 0, 1]


@single
@pytest.mark.parametrize("broken", ["masters", "open_link"])
async def test_the_bus_goes_on_after_an_unexpected_exception_and_tells_it_once(
    place: Place, buses: Buses, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bugs: list[Exception] = []
    heard, servers = BusWords(), buses.another()
    bus = Bus(servers, heard, prefix=buses.prefix, bug=bugs.append)
    buses.buses.append(bus)
    await bus.open("one")
    raised = 0
    again = asyncio.Event()

    async def fails(*_: object) -> None:
        nonlocal raised
        raised += 1
        if raised == 3:
            again.set()
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        if broken == "masters":
            patch.setattr(servers, "masters", fails)
        else:
            patch.setattr(buses_module, "open_link", fails)
        place.masters[0].say("client", "kill", "type", "pubsub")
        async with asyncio.timeout(PATIENCE):
            await again.wait()
        assert not bus.healthy
        assert "ZeroDivisionError" in bus.fault
    await until_restored(heard)
    assert bus.healthy
    assert [type(error) for error in bugs] == [ZeroDivisionError]


@single
async def test_a_refused_channel_is_an_error_and_leaves_the_others_alone(
    place: Place, buses: Buses, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server,) = place.masters
    allowed = [buses.names.inbox("one"), buses.names.everyone, buses.names.channel(7)]
    rights = [*(f"&{name}" for name in allowed), "+subscribe", "+unsubscribe", "+publish", "+hello", "+ping"]
    server.say("acl", "setuser", "aldis", "on", ">secret", *rights)
    one, ones = buses.made(server.url("aldis:secret@"))
    await one.open("one")
    monkeypatch.setattr(buses_module, "PATIENCE", 5.0)
    with pytest.raises(ClusterUnavailable, match="NOPERM"):
        await one.want([8])
    monkeypatch.undo()
    await one.want([7])
    assert one.send("two", forward(1))
    await ones.until(lambda: ones.not_sent == [("two", forward(1))])
    assert "NOPERM" in one.fault
    assert one.send("one", forward(2))
    await ones.until(lambda: ones.messages == [("one", forward(2))])
    assert ones.words == []


async def test_the_bus_speaks_tls_as_the_url_says(tmp_path: Path) -> None:
    files = make_certificates(tmp_path)
    tls = ("--tls-cert-file", files.cert, "--tls-key-file", files.key, "--tls-ca-cert-file", files.ca)
    with RedisServer(tmp_path / "redis", *map(str, tls), tls=True) as server:
        url = server.url(scheme="rediss")
        mine = f"{url}?ca_file={files.ca}&cert_file={files.cert}&key_file={files.key}"
        buses = Buses(Place("single", mine, [server]))
        one, ones = await buses.node("one")
        assert one.send("one", forward(1))
        await ones.until(lambda: ones.messages == [("one", forward(1))])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(buses_module, "PATIENCE", 5.0)
            with pytest.raises(ClusterUnavailable, match="certificate verify failed"):
                await buses.made(url)[0].open("two")
        await buses.close()
