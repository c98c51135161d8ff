"""A store queues messages before it has been at a server."""

from __future__ import annotations

import asyncio

import pytest

from aldis.errors import DeliveryFailed, RequestFailed, ServerUnreachable, StateError
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.peers import nothing_left_behind
from support.stores import contents, new_store, running_server, stores, until_peer


async def test_what_is_sent_before_the_first_login_arrives_after_it_in_order() -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "bob") as (bob,),
        new_store() as alice,
    ):
        deliveries = [alice.send("bob", number) for number in range(100)]
        await until_peer(alice, "bob", lambda view: view.queued == 100, "the queue")
        draining = asyncio.create_task(alice.drain(timeout=PATIENCE))
        await alice.connect_to_signaling(server.url, "alice")
        deliveries.append(alice.send("bob", 100))
        assert await contents(bob, 101) == list(range(101))
        await draining
        for delivery in deliveries:
            await delivery


async def test_a_login_that_fails_leaves_what_is_queued_for_the_next_one() -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "bob", "taken") as (bob, _),
        new_store(identity=Identity.generate()) as alice,
    ):
        delivery = alice.send("bob", "as soon as I am in")
        with pytest.raises(ServerUnreachable):
            await alice.connect_to_signaling("ws://127.0.0.1:9", "alice")
        with pytest.raises(RequestFailed):
            await alice.connect_to_signaling(server.url, "taken")
        with pytest.raises(RequestFailed):
            await alice.connect_to_signaling(server.url, "bob")  # whose name it is to whom the message goes
        assert not delivery.done
        await alice.connect_to_signaling(server.url, "alice")
        assert await contents(bob, 1) == ["as soon as I am in"]
        await delivery


async def test_a_login_that_fails_leaves_no_key_of_that_server_shown() -> None:
    pins = MemoryPins()
    pins.pin("127.0.0.1:9", "bob", bytes(32))
    async with nothing_left_behind(), new_store(pins=pins) as alice:
        alice.send("bob", "hello")
        with pytest.raises(ServerUnreachable):
            await alice.connect_to_signaling("ws://127.0.0.1:9", "alice")
        await until_peer(alice, "bob", lambda view: view.public_key is None, "no key")


async def test_a_store_that_ends_before_its_first_login_fails_what_it_has_queued() -> None:
    async with nothing_left_behind():
        store = NetworkStore()
        delivery = store.send("bob", "never")
        await store.disconnect()
        with pytest.raises(DeliveryFailed, match="closed"):
            await delivery
        with pytest.raises(StateError):
            store.send("bob", "x")


async def test_a_message_to_our_own_name_fails_when_the_name_is_known() -> None:
    async with nothing_left_behind(), running_server() as server, new_store() as alice:
        delivery = alice.send("alice", "who am I?")
        await alice.connect_to_signaling(server.url, "alice")
        with pytest.raises(DeliveryFailed, match="our own name"):
            await delivery
        assert "alice" not in alice.state.peers
