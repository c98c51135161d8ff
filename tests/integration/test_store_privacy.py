"""Stores of users who block each other, or hide: with a real server and real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack

import pytest

from aldis.client.events import SignalingState
from aldis.errors import DeliveryFailed, PeerBlocked, PeerOffline, RequestFailed, StateError, UsageError
from aldis.identity.keys import Identity
from aldis.peer.connection import PeerState
from aldis.protocol.privacy import Privacy
from aldis.store.state import PeerView
from support.scripted_server import ScriptedServer
from support.stores import contents, new_store, running_server, stores, until, until_peer, until_state


async def test_to_block_somebody_ends_all_with_them_on_each_device_until_they_are_unblocked() -> None:
    async with running_server() as server:
        identity = Identity.generate()
        async with (
            stores(server.url, "alice", "alice/phone", identity=identity) as (laptop, phone),
            stores(server.url, "bob", "carol") as (bob, carol),
        ):
            for device in ("main", "phone"):
                await bob.connect_to_peer(f"alice/{device}")
            await carol.send("alice/main", "hello")
            await bob.watch("alice")
            await laptop.block("bob")
            assert laptop.state.privacy == Privacy(blocked=frozenset({"bob"}))
            assert laptop.state.peers["bob"].blocked
            assert laptop.state.peers["bob"].state is PeerState.CLOSED
            await until(phone, lambda state: state.peers["bob"].blocked)
            await until_state(phone, "bob", PeerState.CLOSED)
            seen = await until_peer(bob, "alice", lambda view: not view.online and not _open(view), "offline")
            assert not seen.blocked, "nobody is told that they are blocked"
            for store in (laptop, phone):
                with pytest.raises(PeerBlocked):
                    store.send("bob", "no")
                with pytest.raises(PeerBlocked):
                    await store.connect_to_peer("bob")
            with pytest.raises(PeerOffline):
                await bob.connect_to_peer("alice")
            waiting = bob.send("alice/phone", "you will want this")
            carol.send("alice/main", "still here")
            assert await contents(laptop, 2) == ["hello", "still here"]
            await phone.unblock("bob")
            await waiting
            assert await contents(phone, 1) == ["you will want this"]
            await until(laptop, lambda state: not state.peers["bob"].blocked)
            await laptop.connect_to_peer("bob")


def _open(view: PeerView) -> bool:
    return any(device.state is PeerState.CONNECTED for device in view.devices.values())


async def test_what_waits_for_somebody_fails_when_they_are_blocked() -> None:
    async with running_server() as server, stores(server.url, "alice") as (alice,):
        delivery = alice.send("bob", "when you come")
        calling = asyncio.ensure_future(alice.connect_to_peer("bob"))
        await asyncio.sleep(0)  # it has begun
        await alice.block("bob", "mallory")
        with pytest.raises(DeliveryFailed, match="you have blocked bob"):
            await delivery
        with pytest.raises((PeerBlocked, PeerOffline)):
            await calling
        assert alice.state.privacy.blocked == {"bob", "mallory"}
        assert "mallory" not in alice.state.peers
        with pytest.raises(UsageError):
            await alice.block("alice")
        with pytest.raises(StateError):
            await new_store().block("bob")


async def test_a_block_that_the_server_cannot_keep_holds_here() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        await bob.connect_to_peer("alice")
        assert server._questions.directory is not None
        await server._questions.directory.close()
        with pytest.raises(RequestFailed) as caught:
            await alice.block("bob")
        assert caught.value.code == "internal"
        assert alice.state.peers["bob"].blocked
        await until_state(bob, "alice", PeerState.CLOSED, PeerState.DISCONNECTED, PeerState.FAILED)
        # The server passes on what bob sends. He gets no answer, as from somebody who is away.
        bob.send("alice", "are you there?")
        await until_state(bob, "alice", PeerState.CONNECTING)
        with pytest.raises(PeerBlocked):
            alice.send("bob", "no")
        assert alice.state.peers["bob"].state is PeerState.CLOSED
        with pytest.raises(RequestFailed):
            await alice.unblock("bob")
        assert not alice.state.peers["bob"].blocked
        await bob.drain()
        assert await contents(alice, 1) == ["are you there?"]


async def test_a_block_that_the_server_could_not_be_told_of_is_told_when_it_is_back() -> None:
    identity = Identity.generate()
    async with AsyncExitStack() as stack:
        async with running_server() as server:
            url, port = server.url, server.port
            (alice,) = await stack.enter_async_context(stores(url, "alice", identity=identity))
            many = [f"user{number}" for number in range(1000)]
            with pytest.raises(RequestFailed):
                await alice.block("bob", *many)  # more than one message may have
            await alice.unblock(*many)
            assert alice.state.privacy.blocked == {"bob"}
        async with (
            running_server(port=port) as server,
            stores(url, "alice/phone", identity=identity) as (phone,),
        ):
            await until(phone, lambda state: state.privacy.blocked == {"bob"})
            await until(alice, lambda state: state.signaling is SignalingState.CONNECTED)


async def test_a_server_that_knows_no_blocks_has_none_to_end() -> None:
    async with ScriptedServer() as server, new_store(ice_servers=()) as alice:
        connecting = asyncio.create_task(alice.connect_to_signaling(server.url, "alice"))
        line = await server.accept()
        await line.admit()
        await connecting

        async def unknown(change: Coroutine[object, object, None]) -> asyncio.Task[None]:
            asking = asyncio.create_task(change)
            request = await line.receive()
            assert request["type"] == "privacy"
            line.say(type="error", code="unknown-type", message="unknown", temporary=False, re=request["id"])
            return asking

        with pytest.raises(RequestFailed):
            await (await unknown(alice.block("bob")))
        assert alice.state.privacy.blocked == {"bob"}
        await (await unknown(alice.unblock("bob")))
        assert not alice.state.privacy.blocked
        with pytest.raises(RequestFailed):
            await (await unknown(alice.add_contacts("bob")))


async def test_a_hidden_user_can_call_and_is_answered() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        await alice.set_visibility(presence="hidden", offers="hidden")
        with pytest.raises(PeerOffline):
            await bob.connect_to_peer("alice")
        await alice.connect_to_peer("bob")
        alice.send("bob", "it is me")
        bob.send("alice", "I see")
        assert await contents(bob, 1) == ["it is me"]
        assert await contents(alice, 1) == ["I see"]
        assert bob.state.peers["alice"].online is False


async def test_only_contacts_see_and_call_a_user_that_wants_it_so() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob", "eve") as (alice, bob, eve):
        await alice.add_contacts("bob")
        await alice.set_visibility(presence="contacts", offers="contacts")
        assert alice.state.privacy == Privacy("contacts", "contacts", frozenset({"bob"}))
        for store in (bob, eve):
            await store.watch("alice")
        await until_peer(bob, "alice", lambda view: view.online is True)
        await until_peer(eve, "alice", lambda view: view.online is False)
        with pytest.raises(PeerOffline):
            await eve.connect_to_peer("alice")
        await bob.connect_to_peer("alice")
        await alice.remove_contacts("bob")
        await until_peer(bob, "alice", lambda view: view.online is False)
        assert bob.state.peers["alice"].state is PeerState.CONNECTED, "a connection goes on"
        with pytest.raises(UsageError):
            await alice.set_visibility(presence="everybody")  # type: ignore[arg-type]
