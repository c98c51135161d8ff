"""What a store does when things die: the server, the peer, the path; and when others misbehave."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from aldis.client.client import SignalingClient
from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
    OfferReceived,
    SignalingEvent,
    SignalingState,
)
from aldis.errors import (
    ConnectionClosed,
    ConnectionLost,
    DeliveryFailed,
    IdentityError,
    PeerConnectionFailed,
    PeerOffline,
    PeerUnknown,
    StateError,
    TooManyPeers,
)
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.peer.connection import PeerConnection, PeerState
from aldis.peer.engine import EngineConfig, EngineState
from aldis.peer.engines.catalog import load_engine
from aldis.peer.transport import PeerTransport
from aldis.peer.trust import Trust
from aldis.protocol.channel import MAX_MESSAGE, Ack, Chunk, Content, Hello, encode_ack, encode_message
from aldis.store.state import StoreLimits
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.peers import Signal, nothing_left_behind
from support.ports import free_port
from support.server_process import ServerProcess
from support.store_program import StoreProcess
from support.stores import (
    QUICK,
    CountingEngine,
    contents,
    device_of,
    new_store,
    read,
    running_server,
    stores,
    until,
    until_peer,
    until_state,
)

SEED = bytes(range(32))


async def test_the_chat_goes_on_without_the_server_and_signaling_comes_back_by_itself(tmp_path: Path) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProcess(tmp_path, port=port))
        url = f"ws://127.0.0.1:{port}"
        alice, bob = await stack.enter_async_context(stores(url, "alice", "bob"))
        await alice.connect_to_peer("bob")
        alice.send("bob", "before")
        assert await contents(bob, 1) == ["before"]

        server.signal(signal.SIGKILL)
        await server.wait()
        lost = await until(alice, lambda state: state.signaling is SignalingState.CONNECTING, "the loss of the server")
        assert isinstance(lost.signaling_error, ConnectionLost)
        alice.send("bob", "without a server")
        bob.send("alice", {"and": "back"})
        assert await contents(bob, 1) == ["without a server"]
        assert await contents(alice, 1) == [{"and": "back"}]
        await alice.drain(timeout=PATIENCE)
        # A peer that was never met has to wait for the server.
        for_carol = alice.send("carol", "when you are there")

        await stack.enter_async_context(ServerProcess(tmp_path, port=port))
        for store in (alice, bob):
            state = await until(store, lambda state: state.signaling is SignalingState.CONNECTED, "the server's return")
            assert state.signaling_error is None
        assert alice.state.peers["bob"].state is PeerState.CONNECTED
        alice.send("bob", "after")
        assert await contents(bob, 1) == ["after"]
        (carol,) = await stack.enter_async_context(stores(url, "carol"))
        assert await contents(carol, 1) == ["when you are there"]
        await for_carol


async def test_a_server_that_comes_back_is_asked_for_its_ice_servers_before_anybody_is_called(tmp_path: Path) -> None:
    port, engine = free_port(), CountingEngine()
    before, after = "stun:127.0.0.1:9", "stun:127.0.0.1:19"  # nobody listens there
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProcess(tmp_path, port=port, stun=[before]))
        url = f"ws://127.0.0.1:{port}"
        (alice,) = await stack.enter_async_context(stores(url, "alice", engine=engine))
        (bob,) = await stack.enter_async_context(stores(url, "bob"))
        await alice.connect_to_peer("bob")
        await alice.disconnect_from_peer("bob")
        await until_state(bob, "alice", PeerState.CLOSED)
        server.signal(signal.SIGKILL)
        await server.wait()
        await until(alice, lambda state: state.signaling is SignalingState.CONNECTING, "the loss of the server")
        delivery = alice.send("bob", "as soon as you are there")
        await stack.enter_async_context(ServerProcess(tmp_path, port=port, stun=[after]))
        await delivery
        named = [[url for server in config.ice_servers for url in server.urls] for config in engine.configs]
        assert named[0] == [before]
        assert {url for urls in named[1:] for url in urls} == {after}


async def test_the_called_side_does_not_throw_away_a_path_that_is_being_healed() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob", path="direct") as (alice, bob):
        await alice.connect_to_peer("bob")
        await until_state(bob, "alice", PeerState.CONNECTED)
        connection = device_of(bob, "alice").path.connection
        transport = transport_to(bob, "alice")
        # The first frame heals the path. So bob gets none before he has heard from the server.
        held: list[bytes | str] = []

        def hold(data: bytes | str) -> None:
            held.append(data)

        transport.message_received = hold  # type: ignore[method-assign]
        transport.state_changed(EngineState.DISCONNECTED)
        await until_state(bob, "alice", PeerState.DISCONNECTED)
        # Bob has never asked the server for alice: he does now, and is told that she is online.
        bob.send("alice", "though the path was lost")
        await until(bob, lambda state: state.peers["alice"].online is True, "presence")
        del transport.message_received
        for data in held:
            transport.message_received(data)
        assert await contents(alice, 1) == ["though the path was lost"]
        await until_state(bob, "alice", PeerState.CONNECTED)
        # Another channel may have been opened beside the lost one, but nothing was ended.
        assert device_of(bob, "alice").path.connection is connection


def transport_to(store: NetworkStore, user_id: str) -> PeerTransport:
    """The transport of a store's connection to a peer."""
    connection = device_of(store, user_id).path.connection
    assert connection is not None
    (transport,) = connection._transports.values()
    return transport


async def test_connecting_waits_for_the_server_to_come_back_as_long_as_it_may(tmp_path: Path) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProcess(tmp_path, port=port))
        alice, _ = await stack.enter_async_context(stores(f"ws://127.0.0.1:{port}", "alice", "bob"))
        server.signal(signal.SIGKILL)
        await server.wait()
        await until(alice, lambda state: state.signaling is SignalingState.CONNECTING, "the loss of the server")
        with pytest.raises(PeerConnectionFailed, match="server cannot be reached"):
            await alice.connect_to_peer("bob", timeout=0.1)
        call = asyncio.create_task(alice.connect_to_peer("bob"))
        await stack.enter_async_context(ServerProcess(tmp_path, port=port))
        try:
            await call
        except PeerOffline:  # bob comes back a moment after alice
            await until_peer(alice, "bob", lambda view: view.online is True, "presence")
            await alice.connect_to_peer("bob")


async def test_when_the_server_shows_us_the_door_what_is_connected_goes_on_and_the_rest_is_told() -> None:
    key = Identity.generate()
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "bob") as (bob,),
        new_store(identity=key) as first,
        new_store(identity=key) as second,
    ):
        await first.connect_to_signaling(server.url, "alice")
        await first.connect_to_peer("bob")
        waiting = first.send("carol", "never")
        await until_peer(first, "carol", lambda view: view.online is False, "absence")
        await second.connect_to_signaling(server.url, "alice")  # the newest connection of a key wins
        state = await until(first, lambda state: state.signaling is SignalingState.DISCONNECTED, "the end")
        assert isinstance(state.signaling_error, ConnectionClosed)
        with pytest.raises(DeliveryFailed, match="gone for good"):
            await waiting
        with pytest.raises(ConnectionClosed):
            first.send("carol", "x")
        with pytest.raises(ConnectionClosed):
            await first.connect_to_peer("carol")
        await first.connect_to_peer("bob")
        await first.send("bob", "I am still here")
        await bob.disconnect_from_peer("alice")
        await until_state(first, "bob", PeerState.CLOSED)
        with pytest.raises(ConnectionClosed):
            first.send("bob", "x")


async def test_closing_a_store_that_is_connecting_ends_both_calls() -> None:
    async with nothing_left_behind(), running_server() as server:
        key = Identity.generate()
        for steps in range(60):
            store = new_store(identity=key)
            connecting = asyncio.create_task(store.connect_to_signaling(server.url, "alice"))
            for _ in range(steps):
                await asyncio.sleep(0)
            await store.disconnect()
            with suppress(StateError):
                await connecting
            assert store.state.signaling is SignalingState.DISCONNECTED


async def test_a_peer_that_is_not_there_makes_place_for_one_that_is() -> None:
    limits = StoreLimits(peers=1)
    async with running_server() as server, stores(server.url, "alice", limits=limits) as (alice,):
        with pytest.raises(PeerUnknown):
            await alice.connect_to_peer("nobody")
        async with stores(server.url, "bob") as (bob,):
            await bob.connect_to_peer("alice")
            bob.send("alice", "room for me")
            assert await contents(alice, 1) == ["room for me"]
        assert set(alice.state.peers) == {"bob"}


@pytest.mark.parametrize("engine", ["wrtc", "aiortc"])
async def test_a_peer_that_is_killed_and_comes_back_gets_what_was_sent_meanwhile_and_nothing_twice(engine: str) -> None:
    async with running_server() as server, stores(server.url, "alice", engine=engine, timing=QUICK) as (alice,):
        async with StoreProcess(server.url, "bob", SEED) as bob:
            await alice.connect_to_peer("bob")
            first = alice.send("bob", "read by the first run")
            assert await bob.event() == ["message", "alice", "read by the first run"]
            await first
            await bob.kill()
        for number in range(20):
            alice.send("bob", number)
        await until_state(alice, "bob", PeerState.DISCONNECTED, PeerState.FAILED)
        async with StoreProcess(server.url, "bob", SEED) as bob:
            for number in range(20):
                assert await bob.event() == ["message", "alice", number]
            await alice.drain(timeout=PATIENCE)
            bob.command("send", "alice", "I am back")
            assert await contents(alice, 1) == ["I am back"]
            assert await bob.event() == ["delivered", 1]


async def test_a_peer_that_is_killed_and_calls_again_itself_is_the_same_peer() -> None:
    async with running_server() as server, stores(server.url, "alice", timing=QUICK) as (alice,):
        for run in range(3):
            async with StoreProcess(server.url, "bob", SEED) as bob:
                bob.command("connect", "alice")
                assert await bob.event() == ["connected", "alice"]
                bob.command("send", "alice", f"run {run}")
                (message,) = await read(alice, 1)
                assert (message.content, message.sequence) == (f"run {run}", 1)
                delivery = alice.send("bob", run)
                events = [await bob.event(), await bob.event()]
                assert ["message", "alice", run] in events
                await delivery  # what is not acknowledged would go to the next run


async def test_nothing_is_lost_or_doubled_while_connections_break_again_and_again() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob", timing=QUICK) as (alice, bob):
        count = 400
        to_bob, to_alice = asyncio.create_task(read(bob, count)), asyncio.create_task(read(alice, count))
        for number in range(count):
            alice.send("bob", number)
            bob.send("alice", os.urandom(20_000) + number.to_bytes(4))
            if number % 100 == 50:
                # Break it under their hands: the engine connection goes, and nobody says goodbye.
                await until_state(alice, "bob", PeerState.CONNECTED)
                device_of(alice, "bob").drop("broken by the test")
        assert [message.content for message in await to_bob] == list(range(count))
        numbers = [int.from_bytes(bytes(message.content)[-4:]) for message in await to_alice]  # type: ignore[arg-type]
        assert numbers == list(range(count))
        await asyncio.gather(alice.drain(timeout=PATIENCE), bob.drain(timeout=PATIENCE))


async def test_messages_go_to_a_callback_while_there_is_one_those_that_waited_first() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        got: list[object] = []
        changed = Signal()

        def callback(message: object) -> None:
            got.append(message)
            changed.changed()
            if len(got) == 2:
                raise ValueError("a fault of the application")

        await alice.send("bob", "waits")
        unsubscribe = bob.on_message(callback)
        alice.send("bob", "raises")
        alice.send("bob", "goes on")
        await changed.until(lambda: len(got) == 3)
        unsubscribe()
        unsubscribe()
        alice.send("bob", "read")
        assert await contents(bob, 1) == ["read"]
        assert len(got) == 3


async def test_nobody_is_let_in_by_what_only_counts_as_true(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", accept=lambda user_id, public_key: "no") as (alice,),
        stores(server.url, "stranger") as (stranger,),
    ):
        with pytest.raises(PeerConnectionFailed):
            await stranger.connect_to_peer("alice")
        assert alice.state.peers == {}
        assert "nobody is let in by anything but True" in caplog.text


async def test_who_calls_is_let_in_by_the_application_only() -> None:
    asked: list[tuple[str, bytes]] = []

    def accept(user_id: str, public_key: bytes) -> bool:
        asked.append((user_id, public_key))
        if user_id == "crash":
            raise ValueError("a fault of the application")
        return user_id == "friend"

    async with (
        running_server() as server,
        stores(server.url, "alice", accept=accept) as (alice,),
        stores(server.url, "friend", "stranger", "crash") as (friend, stranger, crash),
    ):
        await friend.connect_to_peer("alice")
        for store in (stranger, crash):
            with pytest.raises(PeerConnectionFailed):
                await store.connect_to_peer("alice")
        assert asked[0] == ("friend", friend.identity.public_key)
        assert set(alice.state.peers) == {"friend"}
        # Whom the application calls itself need not be let in.
        await alice.connect_to_peer("stranger")
        assert len(asked) >= 3


class BrokenPins(MemoryPins):
    """Pins on a disk that may be full, or away: `pin` fails, or everything does."""

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken

    def pin(self, server: str, user_id: str, public_key: bytes) -> bytes:
        if self.broken:
            raise OSError("no space left")
        return super().pin(server, user_id, public_key)

    def find(self, server: str, user_id: str) -> bytes | None:
        if self.broken == "all":
            raise OSError("no such device")
        return super().find(server, user_id)


@pytest.mark.parametrize("broken", ["pin", "all"])
async def test_pins_that_cannot_be_used_are_told_as_such_and_what_waits_is_sent_when_they_can(broken: str) -> None:
    pins = BrokenPins(broken)
    async with (
        running_server() as server,
        stores(server.url, "alice", pins=pins) as (alice,),
        stores(server.url, "bob", "carol") as (bob, carol),
    ):
        with pytest.raises(IdentityError, match="the pinned keys cannot be used: no s") as caught:
            await alice.connect_to_peer("bob")
        assert isinstance(caught.value.__cause__, OSError)
        delivery = alice.send("bob", "as soon as I may")
        await until_peer(alice, "bob", lambda view: isinstance(view.error, IdentityError), "the fault")
        calling = asyncio.create_task(carol.connect_to_peer("alice"))
        await until_peer(alice, "carol", lambda view: isinstance(view.error, IdentityError), "the fault")
        pins.broken = ""
        await delivery
        assert await contents(bob, 1) == ["as soon as I may"]
        await alice.connect_to_peer("carol")
        await calling
        assert alice.state.peers["bob"].error is alice.state.peers["carol"].error is None


async def test_the_number_of_peers_is_limited_and_those_that_are_done_make_place() -> None:
    limits = StoreLimits(peers=2)
    async with (
        running_server() as server,
        stores(server.url, "alice", limits=limits) as (alice,),
        stores(server.url, "b", "c", "d") as (b, c, d),
    ):
        await b.connect_to_peer("alice")
        await c.connect_to_peer("alice")
        with pytest.raises(PeerConnectionFailed):
            await d.connect_to_peer("alice", timeout=2)
        with pytest.raises(TooManyPeers) as caught:
            alice.send("d", "x")
        assert caught.value.limit == 2
        await b.disconnect_from_peer("alice")
        await until_state(alice, "b", PeerState.CLOSED)
        await d.connect_to_peer("alice")
        assert set(alice.state.peers) == {"c", "d"}


async def test_strangers_cannot_take_the_places_of_those_whom_the_application_calls_or_writes_to() -> None:
    limits = StoreLimits(peers=4)
    assert limits.callers == 3
    async with (
        running_server() as server,
        stores(server.url, "alice", limits=limits) as (alice,),
        stores(server.url, "one", "two", "three", "four", "friend") as (one, two, three, four, friend),
    ):
        for stranger in (one, two, three):
            await stranger.connect_to_peer("alice")
        with pytest.raises(PeerConnectionFailed):
            await four.connect_to_peer("alice", timeout=2)
        await alice.send("friend", "there you are")
        assert await contents(friend, 1) == ["there you are"]
        # Now it is full, with people who are there.
        with pytest.raises(TooManyPeers) as caught:
            alice.send("four", "x")
        assert caught.value.limit == 4


async def test_who_is_written_to_or_called_is_no_stranger_any_more() -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", limits=StoreLimits(peers=4)) as (alice,),
        stores(server.url, "one", "two", "three", "four", "five") as (one, two, three, four, five),
    ):
        for stranger in (one, two, three):
            await stranger.connect_to_peer("alice")
        await alice.send("one", "hello")
        await four.connect_to_peer("alice")  # in the place of one
        assert set(alice.state.peers) == {"one", "two", "three", "four"}
        await two.disconnect_from_peer("alice")
        await until_state(alice, "two", PeerState.CLOSED)
        await alice.connect_to_peer("three")
        await five.connect_to_peer("alice")
        assert set(alice.state.peers) == {"one", "three", "four", "five"}


async def test_strangers_are_forgotten_before_those_whom_the_application_knows() -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", limits=StoreLimits(peers=4)) as (alice,),
        stores(server.url, "friend", "stranger", "other") as (friend, stranger, other),
    ):
        await alice.send("friend", "hello")
        await friend.disconnect_from_peer("alice")
        await until_state(alice, "friend", PeerState.CLOSED)
        for each in (stranger, other):
            await each.connect_to_peer("alice")
        await stranger.disconnect_from_peer("alice")
        await until_state(alice, "stranger", PeerState.CLOSED)
        for name in ("absent", "away"):
            alice.send(name, "when you come")
        assert set(alice.state.peers) == {"friend", "other", "absent", "away"}


class Rogue:
    """A registered user with a real connection who sends what they like."""

    def __init__(self, url: str, user_id: str) -> None:
        self.identity = Identity.generate()
        self.client = SignalingClient(url, user_id)
        self.frames: list[Chunk | Ack] = []
        self.state = PeerState.NEW
        self.signal = Signal()
        self.greeting = Hello(1, "rogue", 1)

    async def call(self, user_id: str) -> PeerConnection:
        await self.client.connect()
        await self.client.register(self.identity)
        self.peer = PeerConnection(
            local=self.client.user_id,
            remote=user_id,
            engine=load_engine("wrtc"),
            config=lambda: EngineConfig(allow_loopback=True),
            trust=Trust(self.identity, self.client.user_id, self.client.server, MemoryPins()),
            signaling=self.client,
            listener=self,
            hello=lambda: self.greeting,
        )
        self.client.subscribe(self._event)
        self.peer.connect()
        await self.signal.until(lambda: self.state is PeerState.CONNECTED, "the rogue's connection")
        return self.peer

    def _event(self, event: SignalingEvent) -> None:
        if isinstance(event, OfferReceived | AnswerReceived | CandidateReceived | ByeReceived):
            self.peer.receive(event)

    async def close(self) -> None:
        await self.peer.close()
        await self.client.close()

    def state_changed(self, state: PeerState, error: object) -> None:
        self.state = state
        self.signal.changed()

    def channel_opened(self, hello: Hello) -> None: ...

    def frame_received(self, frame: Chunk | Ack) -> None:
        self.frames.append(frame)
        self.signal.changed()

    def channel_closed(self) -> None: ...
    def path_found(self) -> None:
        pass

    def writable(self) -> None:
        self.signal.changed()

    def refused(self, error: object) -> None: ...

    async def pour(self, frames: list[bytes]) -> None:
        """Send as the channel has room, until all is sent or the connection has ended."""
        for frame in frames:
            await self.signal.until(
                lambda frame=frame: self.peer.send_frame(frame) or self.state is not PeerState.CONNECTED, "room"
            )


@pytest.mark.parametrize(
    "frames",
    [
        encode_message(Content.TEXT, 7, b"a gap"),
        [encode_ack(1)],
        encode_message(Content.TEXT, 1, b"\xff"),
        encode_message(Content.JSON, 1, b"["),
        encode_message(Content.CONTROL, 1, b""),
        encode_message(Content.CONTROL, 1, b"{garbage"),
        encode_message(Content.CONTROL, 1, b'{"type":"file-offer","id":"AAECAwQFBgc","name":"x","size":-1,"mime":""}'),
        [encode_message(Content.BYTES, 1, b"x" * 20)[0][:-1]],
    ],
)
async def test_a_peer_that_breaks_the_protocol_loses_its_connection_and_harms_nobody(frames: list[bytes]) -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice", "bob") as (alice, bob),
    ):
        reader = asyncio.create_task(read(alice, 1))
        rogue = Rogue(server.url, "rogue")
        try:
            peer = await rogue.call("alice")
            for frame in frames:
                assert peer.send_frame(frame)
            view = await until_state(alice, "rogue", PeerState.FAILED)
            assert isinstance(view.error, PeerConnectionFailed)
            assert "protocol" in str(view.error)
            await rogue.signal.until(lambda: rogue.state in (PeerState.CLOSED, PeerState.FAILED), "the end")
            bob.send("alice", "all is well")
            assert [message.content for message in await reader] == ["all is well"]
        finally:
            await rogue.close()


async def test_who_sends_more_than_there_is_room_for_is_cut_off_and_others_are_not() -> None:
    limits = StoreLimits(arriving_size=MAX_MESSAGE)
    async with (
        running_server() as server,
        stores(server.url, "alice", limits=limits) as (alice,),
        stores(server.url, "bob") as (bob,),
    ):
        rogues = [Rogue(server.url, name) for name in ("first", "second")]
        try:
            for rogue in rogues:
                await rogue.call("alice")
                # Together more than there is room for, and neither ends its message.
                await rogue.pour(encode_message(Content.BYTES, 1, bytes(MAX_MESSAGE * 2 // 3))[:-1])
            # The one of which more has been read by then.
            await until(
                alice,
                lambda state: any(state.peers[rogue.client.user_id].state is PeerState.FAILED for rogue in rogues),
                "the end of one",
            )
            bob.send("alice", b"x" * 500_000)
            assert await contents(alice, 1) == [b"x" * 500_000]
        finally:
            for rogue in rogues:
                await rogue.close()


async def test_an_offer_of_a_stranger_who_has_no_key_makes_no_peer() -> None:
    async with running_server() as server, stores(server.url, "alice") as (alice,):
        client = SignalingClient(server.url, "mallory")
        await client.connect()
        await client.register(Identity.generate())
        await client.send_offer("alice", "v=0\r\n", connection="c")
        await client.send_bye("alice", connection="c")
        await client.ping()
        async with stores(server.url, "bob") as (bob,):
            await bob.connect_to_peer("alice")
            assert set(alice.state.peers) == {"bob"}
        await client.close()
