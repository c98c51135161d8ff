"""The sealed relay between stores on a real server: the first message, the way to the direct connection and back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from aldis.client.backoff import Backoff
from aldis.errors import ConfigError, PeerConnectionFailed, StateError, TransferFailed
from aldis.peer.connection import PeerState
from aldis.peer.engine import EngineConfig, EngineConnection, EngineListener, EngineRefused
from aldis.peer.transport import ChannelPath
from aldis.protocol.messages import Candidate
from aldis.store.files.transfer import TransferState
from aldis.store.peers.paths import Carrier
from aldis.store.store import NetworkStore
from support.held_line import held_line
from support.peers import nothing_left_behind
from support.servers import Server
from support.stores import (
    QUICK,
    SHORT,
    CountingEngine,
    contents,
    device_of,
    identities,
    new_store,
    running_server,
    stores,
    until_peer,
)


class DeafEngine(CountingEngine):
    """A real engine that does not hear where the other side can be reached while it is `deaf`."""

    def __init__(self) -> None:
        super().__init__()
        self.deaf = True
        self._unheard: list[Callable[[], Awaitable[None]]] = []

    async def hear(self) -> None:
        """Hear again, also what was said meanwhile."""
        self.deaf = False
        unheard, self._unheard = self._unheard, []
        for hear in unheard:
            with suppress(EngineRefused, StateError):  # the attempt is over
                await hear()

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        connection = super().create(config, listener)

        add = connection.add_candidate

        async def heard(candidate: Candidate | None) -> None:
            if self.deaf:
                self._unheard.append(lambda: add(candidate))
            else:
                await add(candidate)

        connection.add_candidate = heard  # type: ignore[method-assign]
        return connection


async def carried(store: NetworkStore, user_id: str, path: str) -> None:
    """Wait until messages go this way."""
    await until_peer(store, user_id, lambda view: view.path == path, f"the path {path}")


async def lose_the_path(store: NetworkStore, user_id: str) -> None:
    """The engine's connection is gone, and nobody has said goodbye."""
    connection = device_of(store, user_id).path.connection
    assert connection is not None
    transport = connection._current
    assert transport is not None
    await transport._connection.close()


async def count(sender: NetworkStore, recipient: str, stop: asyncio.Event) -> int:
    """Send numbers from 0 on, each as soon as the one before has arrived, until `stop`; return how many."""
    number = 0
    while not stop.is_set():
        await sender.send(recipient, number)
        number += 1
    return number


# --- the relay alone ------------------------------------------------------------------------------------------------


async def test_two_stores_that_only_have_the_relay_talk_both_ways() -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice", "bob", path="relay") as (alice, bob),
    ):
        await alice.connect_to_peer("bob")
        for number in range(200):
            alice.send("bob", number)
            bob.send("alice", -number)
        assert await contents(bob, 200) == list(range(200))
        assert await contents(alice, 200) == [-number for number in range(200)]
        await alice.drain()
        view = await until_peer(alice, "bob", lambda view: view.queued == 0, "nothing waiting")
        assert (view.state, view.path, view.connections) == (PeerState.CONNECTED, "relay", 0)
        assert view.public_key == bob.identity.public_key
        assert "files" in view.features
        stats = await alice.stats("bob")
        assert stats is not None
        assert stats.path == "relay"
        await bob.disconnect()
        await until_peer(alice, "bob", lambda view: view.state is PeerState.CLOSED, "the goodbye")


async def test_a_message_larger_than_the_window_goes_through_the_relay() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob", path="relay") as (alice, bob):
        alice.send("bob", bytes(200_000))
        assert await contents(bob, 1) == [bytes(200_000)]


async def test_a_store_that_uses_no_relay_is_not_reached_through_it() -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", path="relay") as (alice,),
        stores(server.url, "bob", path="direct"),
    ):
        with pytest.raises(PeerConnectionFailed):
            await alice.connect_to_peer("bob", timeout=5)


async def test_two_that_are_let_in_by_nobody_are_refused() -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", path="relay") as (alice,),
        stores(server.url, "bob", path="relay", accept=lambda user_id, key: False) as (bob,),
    ):
        alice.send("bob", "may I?")
        with pytest.raises(PeerConnectionFailed, match="not accepted"):
            await alice.connect_to_peer("bob", timeout=5)
        assert "alice" not in bob.state.peers


async def test_a_path_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="path"):
        new_store(path="carrier pigeon")
    async with new_store() as store:
        with pytest.raises(ConfigError, match="path"):
            store.set_path("bob", "fastest")


async def test_where_only_the_relay_may_be_used_an_error_does_not_speak_of_a_direct_connection() -> None:
    async with running_server(relay=False) as server, stores(server.url, "alice", "bob", path="relay") as (alice, _):
        with pytest.raises(PeerConnectionFailed, match=r"\Ano connection to bob: the server relays no messages"):
            await alice.connect_to_peer("bob", timeout=5)


async def test_another_path_can_be_chosen_for_one_user() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        alice.set_path("bob", "relay")
        await alice.send("bob", "one")
        assert alice.state.peers["bob"].path == "relay"
        alice.set_path("bob", None)
        await alice.connect_to_peer("bob")
        await carried(alice, "bob", "direct")
        await alice.send("bob", "two")
        alice.set_path("bob", "relay")
        await alice.send("bob", "three")
        assert alice.state.peers["bob"].path == "relay"
        assert await contents(bob, 3) == ["one", "two", "three"]


# --- the first message ----------------------------------------------------------------------------------------------


async def test_the_first_message_takes_one_round_trip_and_a_half() -> None:
    async with (
        held_line() as line,
        held_line() as other,
        running_server(names=(line.host, other.host)) as server,
        line.to(server.url),
        other.to(server.url),
        stores(other.url, "bob") as (bob,),
        stores(line.url, "alice") as (alice,),
    ):
        line.hold()
        alice.send("bob", "hello")
        await line.until(lambda: line.has("discover-response"))
        assert {message["type"] for message in line.said} <= {"watch", "discover"}
        await line.let_through()
        assert await contents(bob, 1) == ["hello"]
        assert line.round_trips == 1
        await line.open()


async def test_to_a_peer_that_is_watched_the_first_message_takes_half_a_round_trip() -> None:
    async with (
        held_line() as line,
        held_line() as other,
        running_server(names=(line.host, other.host)) as server,
        line.to(server.url),
        other.to(server.url),
        stores(other.url, "bob") as (bob,),
        stores(line.url, "alice") as (alice,),
    ):
        alice.accept_key("bob", bob.identity.public_key)
        await alice.watch("bob")
        line.hold()
        alice.send("bob", "hello")
        assert await contents(bob, 1) == ["hello"]
        assert line.round_trips == 0
        await line.open()


async def test_what_comes_while_a_store_is_still_starting_is_not_lost() -> None:
    async with (
        held_line() as line,
        held_line() as other,
        running_server(names=(line.host, other.host)) as server,
        line.to(server.url),
        other.to(server.url),
        stores(other.url, "alice") as (alice,),
        new_store() as bob,
    ):
        line.hold_behind = "registered"
        starting = asyncio.create_task(bob.connect_to_signaling(line.url, "bob"))
        await line.until(lambda: line.has("ice-servers"))
        alice.send("bob", "early")
        await line.until(lambda: line.has("relay"))
        await line.let_through()
        await starting
        assert await contents(bob, 1) == ["early"]
        assert [message["type"] for message in line.heard].count("relay") == 1
        await line.open()


# --- the direct connection, and back --------------------------------------------------------------------------------


async def test_a_stream_moves_to_the_direct_connection_and_back_and_nothing_is_lost_doubled_or_reordered() -> None:
    engine = DeafEngine()
    timing = replace(QUICK, attempt=30.0)
    async with (
        running_server() as server,
        stores(server.url, "alice", "bob", engine=engine, timing=timing) as (alice, bob),
    ):
        stop = asyncio.Event()
        sending = [asyncio.create_task(count(*each, stop)) for each in ((alice, "bob"), (bob, "alice"))]
        for loser, other in ((alice, "bob"), (bob, "alice")):
            await carried(loser, other, "relay")
            await engine.hear()
            await carried(loser, other, "direct")
            engine.deaf = True
            await lose_the_path(loser, other)
        stop.set()
        sent = await asyncio.gather(*sending)
        received = await asyncio.gather(contents(bob, sent[0]), contents(alice, sent[1]))
        assert received == [list(range(number)) for number in sent]


async def failed_attempt(store: NetworkStore, user_id: str) -> None:
    """Wait until an attempt has failed."""
    device = device_of(store, user_id)
    await until_peer(store, user_id, lambda view: device.path.state is PeerState.FAILED, "a failed attempt")


async def test_a_direct_connection_is_found_by_itself_when_there_is_a_path_again() -> None:
    engine = DeafEngine()
    async with (
        running_server() as server,
        stores(server.url, "alice", "bob", engine=engine, timing=replace(QUICK, attempt=2.0)) as (alice, bob),
    ):
        await alice.send("bob", "the only message")
        await failed_attempt(alice, "bob")
        await engine.hear()
        await carried(alice, "bob", "direct")
        await carried(bob, "alice", "direct")
        assert await contents(bob, 1) == ["the only message"]


@pytest.mark.parametrize("what", ["our network changes", "their network changes", "the other side calls"])
async def test_a_long_pause_ends_when(what: str) -> None:
    engine = DeafEngine()
    timing, backoff = replace(QUICK, attempt=2.0), Backoff(first=1e6, most=1e6)
    async with (
        running_server() as server,
        stores(server.url, "alice", "bob", engine=engine, timing=timing, backoff=backoff) as (alice, bob),
    ):
        await alice.send("bob", "x")
        await failed_attempt(alice, "bob")
        await failed_attempt(bob, "alice")
        await engine.hear()
        match what:
            case "our network changes":
                alice._manager.recovery._network_changed()
            case "their network changes":
                bob._manager.recovery._network_changed()
            case _:
                await bob.connect_to_peer("alice")
        await carried(alice, "bob", "direct")
        await carried(bob, "alice", "direct")


async def test_a_call_that_soon_gets_through_begins_no_session_of_the_relay() -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", "bob") as (alice, bob),
    ):
        await alice.connect_to_peer("bob")
        assert device_of(alice, "bob").paths.carrier is Carrier.DIRECT
        for store, peer in ((alice, "bob"), (bob, "alice")):
            assert not device_of(store, peer).paths.relay.active


async def test_a_call_that_takes_its_time_begins_one_meanwhile() -> None:
    engine = DeafEngine()
    async with (
        running_server() as server,
        stores(server.url, "alice", "bob", engine=engine, timing=replace(QUICK, attempt=30.0)) as (alice, _),
    ):
        call = asyncio.create_task(alice.connect_to_peer("bob"))
        await carried(alice, "bob", "relay")
        assert not call.done()
        await engine.hear()
        await call
        await carried(alice, "bob", "direct")


async def test_no_session_begins_while_hellos_are_exchanged_on_a_direct_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the called side says on the channel waits until it is released. The caller speaks first there.
    caller: list[ChannelPath] = []
    held: list[tuple[ChannelPath, bytes]] = []
    send = ChannelPath._send

    def hold(path: ChannelPath, frame: bytes) -> bool:
        if not caller:
            caller.append(path)
        if path is caller[0]:
            return send(path, frame)
        held.append((path, frame))
        return True

    monkeypatch.setattr(ChannelPath, "_send", hold)
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        alice.set_path("bob", "direct")  # on a busy machine a session would begin before
        connected = asyncio.create_task(alice.connect_to_peer("bob"))
        await carried(bob, "alice", "direct")  # so it has alice's HELLO
        alice.set_path("bob", None)
        alice.send("bob", "meanwhile")
        assert not device_of(alice, "bob").paths.relay.active
        monkeypatch.undo()
        for path, frame in held:
            send(path, frame)
        await connected
        await bob.send("alice", "back")
        assert (await contents(bob, 1), await contents(alice, 1)) == (["meanwhile"], ["back"])
        for store, other in ((alice, "bob"), (bob, "alice")):
            view = store.state.peers[other]
            assert (view.path, view.connections) == ("direct", 1)


async def test_where_no_direct_connection_can_be_made_the_relay_carries_all() -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", "bob", engine=DeafEngine(), timing=replace(QUICK, attempt=2.0)) as (alice, bob),
    ):
        await alice.connect_to_peer("bob")
        assert alice.state.peers["bob"].path == "relay"
        for number in range(20):
            await alice.send("bob", number)
        assert await contents(bob, 20) == list(range(20))
        assert alice.state.peers["bob"].error is None


@pytest.mark.parametrize(("ours", "theirs", "relay"), [("auto", "direct", "refused"), ("direct", "auto", "none")])
async def test_an_error_says_why_neither_turn_nor_the_relay_has_helped(ours: str, theirs: str, relay: str) -> None:
    quick = replace(QUICK, attempt=2.0)
    async with (
        running_server() as server,
        stores(server.url, "alice", path=ours, engine=DeafEngine(), timing=quick) as (alice,),
        stores(server.url, "bob", path=theirs, engine=DeafEngine(), timing=quick),
    ):
        with pytest.raises(PeerConnectionFailed, match="no TURN server is configured; ") as failed:
            await alice.connect_to_peer("bob")
        assert (failed.value.turn, failed.value.relay) == ("none", relay)


@pytest.mark.parametrize(("most", "relays"), [(45 * 1024, True), (43 * 1024, False)])
async def test_a_server_whose_messages_are_too_small_for_our_frames_relays_nothing(most: int, relays: bool) -> None:
    async with running_server(max_message_bytes=most) as server, stores(server.url, "alice") as (alice,):
        assert alice.has_relay is relays


# --- files ----------------------------------------------------------------------------------------------------------


async def test_a_file_goes_through_the_relay_up_to_the_servers_limit(tmp_path: Path) -> None:
    async with running_server() as server, stores(server.url, "alice", "bob", path="relay") as (alice, bob):
        bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
        small, large = tmp_path / "small", tmp_path / "large"
        small.write_bytes(b"s" * 100_000)
        large.write_bytes(bytes(2**20 + 1))
        await (await alice.send_file("bob", small))
        assert (tmp_path / "copy").read_bytes() == small.read_bytes()
        with pytest.raises(TransferFailed, match="it needs a direct path: only the relay may be used"):
            await (await alice.send_file("bob", large))


async def test_a_large_file_waits_for_a_direct_path_and_fails_when_there_is_none(tmp_path: Path) -> None:
    engine = DeafEngine()
    timing = replace(QUICK, attempt=2.0)
    large = tmp_path / "large"
    large.write_bytes(bytes(2**20 + 1))
    async with (
        running_server() as server,
        stores(server.url, "alice", "bob", engine=engine, timing=timing) as (alice, bob),
    ):
        bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
        await alice.send("bob", "through the relay")
        with pytest.raises(TransferFailed, match="it needs a direct path: "):
            await (await alice.send_file("bob", large))
        await engine.hear()
        await (await alice.send_file("bob", large))
        assert (tmp_path / "copy").read_bytes() == large.read_bytes()
        assert alice.state.peers["bob"].path == "direct"


async def test_a_large_file_outlives_an_attempt_that_fails(tmp_path: Path) -> None:
    engine = DeafEngine()
    large = tmp_path / "large"
    large.write_bytes(bytes(2**20 + 1))
    async with (
        running_server() as server,
        stores(server.url, "alice", "bob", engine=engine, timing=replace(QUICK, attempt=2.0)) as (alice, bob),
    ):
        bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
        transfer = await alice.send_file("bob", large)
        await alice.connect_to_peer("bob")
        assert alice.state.peers["bob"].path == "relay", "the attempt has failed"
        await engine.hear()
        await transfer
        assert (tmp_path / "copy").read_bytes() == large.read_bytes()


@pytest.mark.parametrize("journal", ["a journal", ""])
async def test_messages_do_not_wait_for_a_large_file_that_has_lost_its_direct_path(
    tmp_path: Path, journal: str
) -> None:
    engine = DeafEngine()
    engine.deaf = False
    options = {"engine": engine, "timing": replace(QUICK, attempt=2.0)}
    hers, his = (tmp_path / "alice.journal", tmp_path / "bob.journal") if journal else (None, None)
    large = tmp_path / "large"
    large.write_bytes(os.urandom(30 * 2**20))
    async with (
        running_server() as server,
        stores(server.url, "alice", journal=hers, **options) as (alice,),
        stores(server.url, "bob", journal=his, **options) as (bob,),
    ):
        bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
        await alice.connect_to_peer("bob")
        transfer = await alice.send_file("bob", large)
        under_way = asyncio.Event()
        transfer.subscribe(lambda transfer: under_way.set() if transfer.transferred > 2**20 else None)
        await under_way.wait()
        relay = device_of(alice, "bob").paths.relay
        send_frame, relayed = relay.send_frame, 0

        def count_relayed(frame: bytes) -> bool:
            nonlocal relayed
            took = send_frame(frame)
            relayed += took * len(frame)
            return took

        relay.send_frame = count_relayed  # type: ignore[method-assign]
        engine.deaf = True
        await lose_the_path(alice, "bob")
        for number in range(100):
            await alice.send("bob", number)
        assert await contents(bob, 100) == list(range(100))
        assert alice.state.peers["bob"].path == "relay"
        assert relayed < 16 * 1024, "pieces of the file"
        assert transfer.state is TransferState.RUNNING
        await engine.hear()
        await transfer
        assert (tmp_path / "copy").read_bytes() == large.read_bytes()


# --- restarts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarted", ["alice", "bob"])
async def test_either_side_may_be_started_anew(restarted: str) -> None:
    keys = identities("alice", "bob")
    async with running_server() as server:
        kept = "bob" if restarted == "alice" else "alice"
        async with stores(server.url, kept, identity=keys[kept], path="relay") as (one,):
            async with stores(server.url, restarted, identity=keys[restarted], path="relay") as (other,):
                await one.send(restarted, "first")
                await other.send(kept, "to you")
            waiting = one.send(restarted, "while you were away")
            async with stores(server.url, restarted, identity=keys[restarted], path="relay") as (again,):
                assert await contents(again, 1) == ["while you were away"]
                await waiting
                await again.send(kept, "back")
                assert await contents(one, 2) == ["to you", "back"]


async def test_one_that_vanishes_without_a_word_and_comes_back_is_reached_by_a_new_session() -> None:
    """It has another seal key, and knows nothing of the session."""
    keys = identities("alice", "bob")
    async with (
        running_server() as server,
        stores(server.url, "alice", identity=keys["alice"], path="relay", timing=QUICK) as (alice,),
    ):
        gone = new_store(identity=keys["bob"], path="relay", timing=QUICK)
        await gone.connect_to_signaling(server.url, "bob", backoff=SHORT)
        await alice.send("bob", "one")
        # Its name is taken from it, which it does not hear of before it is too late to say goodbye.
        async with stores(server.url, "bob", identity=keys["bob"], path="relay", timing=QUICK) as (bob,):
            await alice.send("bob", "two")
            assert await contents(bob, 1) == ["two"]
        await gone.disconnect()


async def test_the_server_may_be_started_anew(tmp_path: Path) -> None:
    async with (
        Server(tmp_path) as server,
        stores(server.url, "alice", "bob", path="relay", timing=QUICK) as (alice, bob),
    ):
        await alice.send("bob", "before")
        await server.kill()
        waiting = [alice.send("bob", number) for number in range(50)]
        await server.start_again()
        assert await contents(bob, 51) == ["before", *range(50)]
        for delivery in waiting:
            await delivery


# --- the server's switch --------------------------------------------------------------------------------------------


async def test_a_server_that_relays_nothing_leaves_the_direct_connection() -> None:
    async with running_server(relay=False) as server, stores(server.url, "alice", "bob") as (alice, _):
        await alice.send("bob", "hello")
        assert alice.state.peers["bob"].path == "direct"
        alice.set_path("bob", "relay")
        with pytest.raises(PeerConnectionFailed, match="the server relays no messages"):
            await alice.connect_to_peer("bob", timeout=5)


async def test_what_exceeds_a_budget_of_the_server_arrives_later() -> None:
    """The client is told when it may go on, and sends again in order."""
    async with (
        running_server(pair_sealed_bytes_per_second=65_536) as server,
        stores(server.url, "alice", "bob", path="relay") as (alice, bob),
    ):
        for number in range(24):
            alice.send("bob", bytes([number]) * 16_000)
        assert await contents(bob, 24) == [bytes([number]) * 16_000 for number in range(24)]
        assert (await until_peer(alice, "bob", lambda view: view.queued == 0)).path == "relay"
