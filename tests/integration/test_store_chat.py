"""Two stores on a real server, with real engines: they find each other and talk."""

from __future__ import annotations

import asyncio
import itertools
import os
from contextlib import AsyncExitStack

import pytest

from aldis.client.events import SignalingState
from aldis.errors import (
    AldisError,
    ConfigError,
    DeliveryFailed,
    FingerprintMismatch,
    InvalidAddress,
    MessageTooLarge,
    PeerConnectionFailed,
    PeerKeyChanged,
    PeerOffline,
    PeerUnknown,
    RequestFailed,
    ServerUnreachable,
    StateError,
    UsageError,
)
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.peer.connection import PeerState
from aldis.store.messages.content import Sendable
from aldis.store.quality import Grade, PeerQuality
from aldis.store.state import StoreLimits
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.peers import nothing_left_behind
from support.stores import (
    CountingEngine,
    contents,
    new_store,
    read,
    running_server,
    stores,
    until_peer,
    until_state,
)

ENGINES = ("wrtc", "aiortc")
across = pytest.mark.parametrize(("first", "second"), list(itertools.product(ENGINES, ENGINES)))


@across
async def test_two_stores_chat_both_ways(first: str, second: str) -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        new_store(engine=first) as alice,
        new_store(engine=second) as bob,
    ):
        await alice.connect_to_signaling(server.url, "alice")
        await bob.connect_to_signaling(server.url, "bob")
        await alice.connect_to_peer("bob")
        assert alice.state.peers["bob"].state is PeerState.CONNECTED
        await until_state(bob, "alice", PeerState.CONNECTED)
        values: list[Sendable] = ["text", "", b"\x00bytes", b"", {"json": [1, 2.5, None, True]}, [], 7, None]
        for value in values:
            alice.send("bob", value)
            bob.send("alice", value)
        assert await contents(bob, len(values)) == values
        assert await contents(alice, len(values)) == values
        await alice.drain(timeout=PATIENCE)
        await bob.drain(timeout=PATIENCE)
        assert alice.state.peers["bob"].public_key == bob.identity.public_key
        assert bob.state.peers["alice"].fingerprint == alice.identity.fingerprint


@pytest.mark.timeout(180)  # aiortc keeps a processor busy for five seconds with it, of which there may be a tenth
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_message_of_five_mebibytes_arrives_whole_both_ways_at_once(engine: str) -> None:
    async with running_server() as server, stores(server.url, "alice", "bob", engine=engine) as (alice, bob):
        data, text = os.urandom(5 * 1024 * 1024), "é" * (2 * 1024 * 1024)
        alice.send("bob", data)
        bob.send("alice", text)
        (to_bob,), (to_alice,) = await asyncio.gather(contents(bob, 1, 150), contents(alice, 1, 150))
        assert to_bob == data
        assert to_alice == text


async def test_messages_that_were_queued_before_the_peer_exists_arrive_in_order() -> None:
    async with running_server() as server, stores(server.url, "alice") as (alice,):
        deliveries = [alice.send("bob", number) for number in range(50)]
        view = await until_peer(alice, "bob", lambda view: view.online is False, "absence")
        assert (view.state, view.queued) == (PeerState.NEW, 50)
        assert not deliveries[0].done
        async with stores(server.url, "bob") as (bob,):
            messages = await read(bob, 50)
            assert [message.content for message in messages] == list(range(50))
            assert [message.sequence for message in messages] == list(range(1, 51))
            assert {message.sender for message in messages} == {"alice"}
            await deliveries[-1]
            assert all(delivery.delivered for delivery in deliveries)
            await until_peer(alice, "bob", lambda view: view.queued == 0, "an empty queue")


async def test_many_messages_both_ways_arrive_once_and_in_order() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        count = 5000  # several windows
        for number in range(count):
            alice.send("bob", f"{number}")
            bob.send("alice", number)
        to_bob, to_alice = await asyncio.gather(contents(bob, count), contents(alice, count))
        assert to_bob == [f"{number}" for number in range(count)]
        assert to_alice == list(range(count))
        await asyncio.gather(alice.drain(timeout=PATIENCE), bob.drain(timeout=PATIENCE))


@pytest.mark.parametrize("engine", ENGINES)
async def test_both_sides_connecting_at_once_end_with_one_connection(engine: str) -> None:
    engines = [CountingEngine(engine), CountingEngine(engine)]
    async with running_server() as server, AsyncExitStack() as stack:
        alice, bob = [await stack.enter_async_context(new_store(engine=counting)) for counting in engines]
        await alice.connect_to_signaling(server.url, "alice")
        await bob.connect_to_signaling(server.url, "bob")
        await asyncio.gather(alice.connect_to_peer("bob"), bob.connect_to_peer("alice"))
        alice.send("bob", "over the one")
        bob.send("alice", "connection")
        assert await contents(bob, 1) == ["over the one"]
        assert await contents(alice, 1) == ["connection"]
        assert [len(counting.open) for counting in engines] == [1, 1]
        assert alice.state.peers["bob"].state is bob.state.peers["alice"].state is PeerState.CONNECTED
        await alice.disconnect()
        await bob.disconnect()
        assert not any(counting.open for counting in engines)


async def test_several_calls_at_once_share_one_attempt() -> None:
    counting = CountingEngine()
    async with running_server() as server, stores(server.url, "bob"), new_store(engine=counting) as alice:
        await alice.connect_to_signaling(server.url, "alice")
        await asyncio.gather(*[alice.connect_to_peer("bob") for _ in range(5)])
        await alice.connect_to_peer("bob")
        assert counting.created == 1


async def test_a_call_that_is_cancelled_leaves_nothing_and_the_next_one_works() -> None:
    counting = CountingEngine()
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "bob"),
        new_store(engine=counting, path="direct") as alice,
    ):
        await alice.connect_to_signaling(server.url, "alice")
        call = asyncio.create_task(alice.connect_to_peer("bob"))
        await until_state(alice, "bob", PeerState.CONNECTING)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until_state(alice, "bob", PeerState.CLOSED)
        await alice.connect_to_peer("bob")
        assert len(counting.open) == 1


async def test_one_of_two_calls_can_be_cancelled() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, _):
        first, second = (asyncio.create_task(alice.connect_to_peer("bob")) for _ in range(2))
        await until_state(alice, "bob", PeerState.CONNECTING)
        first.cancel()
        await second
        assert alice.state.peers["bob"].state is PeerState.CONNECTED


async def test_a_peer_that_nobody_knows_and_one_that_is_away_are_told_apart() -> None:
    async with running_server() as server, stores(server.url, "alice") as (alice,):
        with pytest.raises(PeerUnknown):
            await alice.connect_to_peer("bob")
        async with stores(server.url, "bob"):
            pass
        with pytest.raises(PeerOffline):
            await alice.connect_to_peer("bob")
        view = alice.state.peers["bob"]
        assert (view.state, view.online, view.error) == (PeerState.NEW, False, None)


async def test_a_peer_with_another_key_than_before_is_refused_until_the_key_is_accepted() -> None:
    known, now = Identity.generate(), Identity.generate()
    pins = MemoryPins()
    async with running_server() as server, new_store(pins=pins) as alice, new_store(identity=now) as bob:
        await alice.connect_to_signaling(server.url, "alice")
        await bob.connect_to_signaling(server.url, "bob")
        alice.accept_key("bob", known.public_key)
        delivery = alice.send("bob", "for the bob that we know")
        with pytest.raises(PeerKeyChanged) as caught:
            await alice.connect_to_peer("bob")
        assert (caught.value.pinned, caught.value.offered) == (known.public_key, now.public_key)
        with pytest.raises(DeliveryFailed):
            await delivery
        with pytest.raises(PeerKeyChanged):
            alice.send("bob", "hello?")
        view = alice.state.peers["bob"]
        assert view.state is PeerState.FAILED
        assert isinstance(view.error, PeerKeyChanged)
        # The other way round too: what bob offers is not taken.
        with pytest.raises(PeerConnectionFailed):
            await bob.connect_to_peer("alice", timeout=1)
        alice.accept_key("bob", now.public_key)
        await alice.connect_to_peer("bob")
        alice.send("bob", "hello")
        assert await contents(bob, 1) == ["hello"]


async def test_a_name_that_belongs_to_another_key_cannot_be_registered_and_the_store_can_try_another() -> None:
    async with running_server() as server, stores(server.url, "alice"), new_store() as other:
        with pytest.raises(RequestFailed) as caught:
            await other.connect_to_signaling(server.url, "alice")
        assert caught.value.code == "key-mismatch"
        assert other.state.signaling is SignalingState.DISCONNECTED
        await other.connect_to_signaling(server.url, "alice2")
        assert other.state.signaling is SignalingState.CONNECTED


async def test_a_server_that_is_not_there_is_told_and_the_store_can_try_again() -> None:
    async with new_store() as store:
        with pytest.raises(ServerUnreachable):
            await store.connect_to_signaling("ws://127.0.0.1:9", "alice")
        async with running_server() as server:
            await store.connect_to_signaling(server.url, "alice")
            with pytest.raises(StateError):
                await store.connect_to_signaling(server.url, "alice")


async def test_what_cannot_work_is_said_at_once() -> None:
    async with running_server() as server, new_store() as store:
        with pytest.raises(StateError):
            await store.connect_to_peer("bob")
        await store.connect_to_signaling(server.url, "alice")
        for user_id in ("", "bob/", "bob/my phone", "b ob", "alice", "alice/phone"):
            with pytest.raises(UsageError):
                store.send(user_id, "x")
            with pytest.raises(UsageError):
                await store.connect_to_peer(user_id)
        with pytest.raises(UsageError):
            store.send("bob", {1, 2})  # type: ignore[arg-type]
        with pytest.raises(MessageTooLarge):
            store.send("bob", bytes(17 * 1024 * 1024))
        with pytest.raises(UsageError):
            store.accept_key("bob", b"short")
        assert store.state.peers == {}
        await store.disconnect()
        with pytest.raises(StateError):
            store.send("bob", "x")
        for call in (store.connect_to_peer("bob"), store.connect_to_signaling(server.url, "a")):
            with pytest.raises(StateError):
                await call


async def test_leaving_fails_what_was_not_delivered_and_ends_the_iterators() -> None:
    async with nothing_left_behind(), running_server() as server, stores(server.url, "alice") as (alice,):
        delivery = alice.send("bob", "never read")
        ignored = alice.send("bob", "never asked for")
        waiting = asyncio.ensure_future(anext(alice.messages()))
        drained = asyncio.create_task(alice.drain())
        calling = asyncio.create_task(alice.connect_to_peer("bob"))
        states: list[SignalingState] = []

        async def watch() -> None:
            states.extend([state.signaling async for state in alice.states()])

        watching = asyncio.create_task(watch())
        await until_peer(alice, "bob", lambda view: view.online is False, "absence")
        await asyncio.gather(alice.disconnect(), alice.disconnect())
        await alice.disconnect()
        with pytest.raises(DeliveryFailed):
            await delivery
        with pytest.raises(DeliveryFailed):
            await drained
        with pytest.raises(StopAsyncIteration):
            await waiting
        with pytest.raises((StateError, PeerUnknown)):
            await calling
        await watching
        assert states[-1] is SignalingState.DISCONNECTED
        assert ignored.done


@pytest.mark.parametrize("engine", ENGINES)
async def test_leaving_in_the_middle_of_an_attempt_leaves_nothing_open(engine: str) -> None:
    counting = CountingEngine(engine)
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "bob"),
        new_store(engine=counting) as alice,
    ):
        await alice.connect_to_signaling(server.url, "alice")
        call = asyncio.create_task(alice.connect_to_peer("bob"))
        await until_state(alice, "bob", PeerState.CONNECTING)
        await alice.disconnect()
        assert counting.created == 1
        assert not counting.open
        with pytest.raises(StateError):
            await call


async def test_messages_that_have_arrived_can_be_read_after_leaving() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        delivery = alice.send("bob", "for later")
        await delivery
        await bob.disconnect()
        assert [message.content async for message in bob.messages()] == ["for later"]


async def test_a_goodbye_closes_the_peer_on_the_other_side_and_a_return_is_noticed() -> None:
    key = Identity.generate()
    async with running_server() as server, stores(server.url, "alice") as (alice,):
        async with new_store(identity=key) as bob:
            await bob.connect_to_signaling(server.url, "bob")
            await alice.connect_to_peer("bob")
            await until_state(bob, "alice", PeerState.CONNECTED)
        await until_state(alice, "bob", PeerState.CLOSED)
        await until_peer(alice, "bob", lambda view: view.online is False, "absence")
        async with new_store(identity=key) as bob:
            await bob.connect_to_signaling(server.url, "bob")
            await until_state(alice, "bob", PeerState.CONNECTED)


async def test_one_peer_can_be_left_and_called_again() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        await alice.connect_to_peer("bob")
        await until_state(bob, "alice", PeerState.CONNECTED)
        await alice.disconnect_from_peer("bob")
        await alice.disconnect_from_peer("carol")
        await until_state(bob, "alice", PeerState.CLOSED)
        assert alice.state.peers["bob"].state is PeerState.CLOSED
        alice.send("bob", "again")
        assert await contents(bob, 1) == ["again"]


async def test_the_path_of_a_connected_peer_has_a_round_trip_time() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, _):
        await alice.connect_to_peer("bob")
        view = await until_peer(alice, "bob", lambda view: view.round_trip_time is not None, "a round-trip time")
        assert view.round_trip_time is not None
        assert 0 < view.round_trip_time < PATIENCE


async def test_each_device_of_a_user_can_be_there() -> None:
    key = Identity.generate()
    async with (
        running_server() as server,
        stores(server.url, "alice") as (alice,),
        new_store(identity=key) as main,
        new_store(identity=key) as phone,
    ):
        await main.connect_to_signaling(server.url, "bob")
        await phone.connect_to_signaling(server.url, "bob", device="phone")
        main.send("alice", "from main")
        assert await contents(alice, 1) == ["from main"]
        phone.send("alice", "from the phone")
        message = (await read(alice, 1))[0]
        assert (message.sender, message.content, message.sequence) == ("bob", "from the phone", 1)


# --- who is it, is it there, how does it run --------------------------------------------------------------------------


async def test_an_invitation_with_a_fingerprint_connects_to_that_key_and_to_no_other() -> None:
    memory = MemoryPins()
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice", pins=memory) as (alice,),
        stores(server.url, "bob") as (bob,),
    ):
        stranger = Identity.generate()
        with pytest.raises(FingerprintMismatch) as caught:
            await alice.connect_to_peer("bob", fingerprint=stranger.fingerprint)
        assert (caught.value.expected, caught.value.offered) == (stranger.fingerprint, bob.identity.fingerprint)
        assert isinstance(alice.state.peers["bob"].error, FingerprintMismatch)
        assert memory.find(alice_server(alice), "bob") is None
        # It is the other side's call that is refused now, until a person decides otherwise.
        with pytest.raises(PeerConnectionFailed):
            await bob.connect_to_peer("alice", timeout=1)
        assert alice.state.peers["bob"].public_key is None
        await alice.connect_to_peer("bob", fingerprint=f" {bob.identity.fingerprint.upper()}\n")
        assert alice.state.peers["bob"].public_key == bob.identity.public_key
        with pytest.raises(FingerprintMismatch):
            await alice.connect_to_peer("bob", fingerprint=stranger.fingerprint)
        assert alice.state.peers["bob"].state is PeerState.CONNECTED


def alice_server(store: NetworkStore) -> str:
    assert store._manager.signaling is not None
    return store._manager.signaling.client.server


async def test_an_invitation_keeps_other_keys_out_though_strangers_have_filled_the_store_meanwhile() -> None:
    async with (
        running_server() as server,
        stores(server.url, "bob", limits=StoreLimits(peers=1)) as (bob,),
        stores(server.url, "stranger") as (stranger,),
        stores(server.url, "alice") as (forger,),
    ):
        with pytest.raises(FingerprintMismatch):
            await bob.connect_to_peer("alice", fingerprint=Identity.generate().fingerprint)
        await stranger.connect_to_peer("bob")
        await stranger.disconnect_from_peer("bob")
        await until_state(bob, "stranger", PeerState.CLOSED)
        calling = asyncio.create_task(forger.connect_to_peer("bob"))
        await until_peer(bob, "alice", lambda view: isinstance(view.error, FingerprintMismatch), "the refusal")
        await forger.disconnect()
        with pytest.raises(AldisError):
            await calling
        assert bob.state.peers["alice"].public_key is None


async def test_an_accepted_key_needs_no_fingerprint_any_more() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        with pytest.raises(FingerprintMismatch):
            await alice.connect_to_peer("bob", fingerprint=Identity.generate().fingerprint)
        alice.accept_key("bob", bob.identity.public_key)
        await alice.connect_to_peer("bob")


async def test_presence_is_told_of_those_who_are_watched_without_connecting_to_them() -> None:
    async with nothing_left_behind(), running_server() as server, stores(server.url, "alice") as (alice,):
        await alice.watch("bob", "carol", "bob")
        assert {name: view.online for name, view in alice.state.peers.items()} == {"bob": False, "carol": False}
        async with stores(server.url, "bob") as (bob,):
            view = await until_peer(alice, "bob", lambda view: view.online is True, "presence")
            assert view.state is PeerState.NEW
            await bob.connect_to_peer("alice")
            await alice.unwatch("bob", "carol", "dora")
            assert {name: view.online for name, view in alice.state.peers.items()} == {"bob": True}
        await alice.watch("bob")
        await until_peer(alice, "bob", lambda view: view.online is False, "absence")
        with pytest.raises(UsageError):
            await alice.watch("alice")
        with pytest.raises(UsageError):
            await alice.watch("b ob")


async def test_a_watch_that_the_server_does_not_allow_leaves_nothing_behind() -> None:
    names = [f"user{number}" for number in range(1001)]  # more than fit into one request
    async with running_server(watches_per_user=1000) as server, stores(server.url, "alice") as (alice,):
        with pytest.raises(RequestFailed, match="at most 1000 names"):
            await alice.watch(*names)
        assert alice.state.peers == {}


async def test_a_watched_peer_who_makes_place_for_another_stays_watched() -> None:
    limits = StoreLimits(peers=1)
    async with running_server() as server, stores(server.url, "alice", limits=limits) as (alice,):
        await alice.watch("bob")
        for name in ("bob", "carol"):
            with pytest.raises((PeerUnknown, PeerOffline)):
                await alice.connect_to_peer(name)
        assert set(alice.state.peers) == {"bob", "carol"}
        async with stores(server.url, "bob"):
            await until_peer(alice, "bob", lambda view: view.online is True, "presence")


@pytest.mark.parametrize("engine", ENGINES)
async def test_the_path_and_its_traffic_are_told(engine: str) -> None:
    async with running_server() as server, stores(server.url, "alice", "bob", engine=engine) as (alice, bob):
        assert await alice.stats("bob") is None
        await alice.connect_to_peer("bob")
        await alice.send("bob", b"x" * 100_000)
        stats = await alice.stats("bob")
        assert stats is not None
        assert (stats.path, stats.protocol) == ("direct", "udp")
        assert {stats.local, stats.remote} <= {"host", "prflx"}
        assert stats.bytes_sent is not None
        assert stats.bytes_sent > 100_000
        await until_state(bob, "alice", PeerState.CONNECTED)
        await alice.disconnect_from_peer("bob")
        assert await alice.stats("bob") is None


@pytest.mark.parametrize("engine", ENGINES)
async def test_how_well_a_connection_runs_is_graded_once_and_in_a_stream_of_readings(engine: str) -> None:
    async with running_server() as server, stores(server.url, "alice", "bob", engine=engine) as (alice, _):
        assert await alice.quality("bob") == PeerQuality(Grade.LOST, "no-path")
        await alice.connect_to_peer("bob")
        readings: list[PeerQuality] = []
        async for reading in alice.readings("bob", every=0.3):
            readings.append(reading)
            if len(readings) == 2:
                break
            await alice.send("bob", b"x" * 100_000)
        first, second = readings
        assert (first.path, first.protocol) == ("direct", "udp")
        assert first.sent_per_second is None
        assert second.sent_per_second is not None
        assert second.sent_per_second > 1000
        assert second.received_per_second is not None
        assert second.grade is not Grade.LOST
        assert second.heartbeats >= 1
        assert second.lost_heartbeats <= second.heartbeats
        with pytest.raises(ConfigError, match="every"):
            await anext(alice.readings("bob", every=0.1))
        with pytest.raises(InvalidAddress):
            await alice.quality("no one")
        await alice.disconnect_from_peer("bob")
        assert (await alice.quality("bob")).grade is Grade.LOST
    assert [reading async for reading in alice.readings("bob")] == []


async def test_a_sender_holds_back_while_the_other_side_does_not_read_and_nothing_is_lost() -> None:
    limits = StoreLimits(unread_messages=10)
    async with running_server() as server, stores(server.url, "alice", "bob", limits=limits) as (alice, bob):
        deliveries = [alice.send("bob", number) for number in range(3000)]
        await deliveries[9]
        await until_peer(alice, "bob", lambda view: view.queued == 2990, "acknowledgement of what is in the queue")
        assert not deliveries[10].done
        assert await contents(bob, 3000) == list(range(3000))
        await deliveries[-1]
