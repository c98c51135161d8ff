"""Users with several devices, on a real server with real engines: each device has a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from aldis.errors import PeerOffline
from aldis.identity.keys import Identity
from aldis.peer.connection import PeerState
from aldis.store.state import StoreLimits
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.stores import contents, read, running_server, stores, until, until_peer

ALICE, BOB = Identity.generate(), Identity.generate()
# Holds what is sent after the first message back, so that a test knows what is not acknowledged.
ONE_MESSAGE = StoreLimits(unread_messages=1)


@asynccontextmanager
async def devices(url: str, *names: str, user: str = "bob", **options: object) -> AsyncIterator[list[NetworkStore]]:
    """A store for each device of one user, in this order."""
    identity = {"alice": ALICE, "bob": BOB}[user]
    async with AsyncExitStack() as stack:
        made = []
        for name in names:
            made += await stack.enter_async_context(stores(url, f"{user}/{name}", identity=identity, **options))
        yield made


async def until_read(store: NetworkStore, text: str, *, times: int) -> None:
    """Read until this text has come so many times."""
    async with asyncio.timeout(PATIENCE):
        async for message in store.messages():
            times -= message.content == text
            if times == 0:
                return


async def replaced(store: NetworkStore, user_id: str, names: tuple[str, ...]) -> None:
    """Return when a connection with one of these devices is not the first one any more."""
    async for state in store.states():
        if any(state.peers[user_id].devices[name].connections > 1 for name in names):
            return


async def test_three_devices_on_each_side_keep_their_connections_for_half_a_minute() -> None:
    async with asyncio.TaskGroup() as group:  # in the same half minute
        for engine in ("wrtc", "aiortc"):
            group.create_task(connections_stay(engine))


async def connections_stay(engine: str) -> None:
    names = ("desk", "phone", "tablet")
    async with (
        running_server() as server,
        devices(server.url, *names, user="alice", engine=engine) as ours,
        devices(server.url, *names, engine=engine) as theirs,
    ):
        everybody = [(store, "bob") for store in ours] + [(store, "alice") for store in theirs]
        # All want all: the user, whichever device that is, and each device.
        await asyncio.gather(
            *(store.connect_to_peer(other) for store, other in everybody),
            *(store.connect_to_peer(f"{other}/{name}") for store, other in everybody for name in names),
        )
        for store, other in everybody:
            views = store.state.peers[other].devices
            assert [view.state for view in views.values()] == [PeerState.CONNECTED] * 3
            store.send(other, "to one of them")
            for name in names:
                store.send(f"{other}/{name}", f"to {name}")
        sides = [*zip(ours, names, strict=True), *zip(theirs, names, strict=True)]
        await asyncio.gather(*(until_read(store, f"to {name}", times=3) for store, name in sides))
        changes = [asyncio.create_task(replaced(store, other, names)) for store, other in everybody]
        done, _ = await asyncio.wait(changes, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert not done
        for change in changes:
            change.cancel()
        for store, other in everybody:
            assert {view.connections for view in store.state.peers[other].devices.values()} == {1}


async def test_a_message_to_a_user_goes_to_the_device_that_registered_last_until_another_one_is_heard() -> None:
    async with (
        running_server() as server,
        devices(server.url, "phone", "desk") as (phone, desk),
        stores(server.url, "alice", identity=ALICE, path="direct") as (alice,),
    ):
        alice.send("bob", "one")
        assert await contents(desk, 1) == ["one"]
        phone.send("alice", "here I am")
        (message,) = await read(alice, 1)
        assert (message.sender, message.device) == ("bob", "phone")
        alice.send("bob", "two")
        alice.send("bob/desk", "three")
        assert await contents(phone, 1) == ["two"]
        assert await contents(desk, 1) == ["three"]
        desk.send("alice", "back at the desk")
        await read(alice, 1)
        delivery = alice.send("bob", "four")
        assert await contents(desk, 1) == ["four"]
        await delivery
        view = alice.state.peers["bob"]
        assert list(view.devices) == ["desk", "phone"]
        assert {device.state for device in view.devices.values()} == {PeerState.CONNECTED}
        assert view.connections == 2


async def test_messages_move_to_another_device_when_their_own_has_gone_and_not_those_that_were_addressed() -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", identity=ALICE) as (alice,),
        devices(server.url, "phone", limits=ONE_MESSAGE) as (phone,),
    ):
        await alice.send("bob", "one")  # the phone has it, and reads nothing
        waiting = [alice.send("bob", "two"), alice.send("bob/phone", "for the phone"), alice.send("bob", "three")]
        async with devices(server.url, "desk") as (desk,):
            await until_peer(alice, "bob", lambda view: "desk" in view.devices)
            assert alice.state.peers["bob"].queued == 3  # another device is no reason to move
            await phone.disconnect()
            assert await contents(desk, 2) == ["two", "three"]
            await waiting[0]
            await waiting[2]
            assert not waiting[1].done
            assert alice.state.peers["bob"].devices["phone"].queued == 1
            with pytest.raises(PeerOffline):
                await alice.connect_to_peer("bob/phone")
            await alice.connect_to_peer("bob")
            async with devices(server.url, "phone") as (phone_again,):
                assert await contents(phone_again, 1) == ["for the phone"]
                await waiting[1]
                await alice.drain(timeout=PATIENCE)


async def test_messages_of_a_device_that_has_gone_wait_for_whichever_comes_next() -> None:
    async with running_server() as server, stores(server.url, "alice", identity=ALICE) as (alice,):
        async with devices(server.url, "phone", limits=ONE_MESSAGE):
            await alice.send("bob", "one")
            delivery = alice.send("bob", "two")
        await until(alice, lambda state: state.peers["bob"].online is False, "the phone has left")
        assert not delivery.done
        async with devices(server.url, "desk") as (desk,):
            assert await contents(desk, 1) == ["two"]
            await delivery


async def test_a_connection_that_is_kept_up_goes_to_another_device_when_its_own_has_gone() -> None:
    async with (
        running_server() as server,
        stores(server.url, "alice", identity=ALICE) as (alice,),
        devices(server.url, "desk"),
    ):
        async with devices(server.url, "phone"):
            await alice.connect_to_peer("bob")
            assert alice.state.peers["bob"].devices["phone"].state is PeerState.CONNECTED
        view = await until_peer(alice, "bob", lambda view: view.devices["desk"].state is PeerState.CONNECTED)
        assert "phone" not in view.devices


async def test_one_device_can_be_left_and_the_other_stays() -> None:
    async with (
        running_server() as server,
        devices(server.url, "phone", "desk") as (phone, desk),
        stores(server.url, "alice", identity=ALICE) as (alice,),
    ):
        await asyncio.gather(alice.connect_to_peer("bob/phone"), alice.connect_to_peer("bob/desk"))
        await alice.disconnect_from_peer("bob/phone")
        await until_peer(phone, "alice", lambda view: view.state is PeerState.CLOSED)
        views = alice.state.peers["bob"].devices
        assert (views["phone"].state, views["desk"].state) == (PeerState.CLOSED, PeerState.CONNECTED)
        assert await alice.stats("bob/phone") is None
        assert await alice.stats("bob/desk") is not None
        alice.send("bob", "still there?")
        assert await contents(desk, 1) == ["still there?"]
