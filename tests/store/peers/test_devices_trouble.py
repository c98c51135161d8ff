"""Devices of one user that come, go and fail at the worst moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aldis.errors import ConnectionLost, PeerConnectionFailed, PeerKeyChanged
from aldis.peer.connection import PeerState
from aldis.protocol.channel import Chunk, Content
from aldis.store.files.disk import Found
from aldis.store.files.transfer import Transfer
from aldis.store.messages.control import FileOffer
from aldis.store.messages.delivery import Delivery
from aldis.store.peers.peer import MAX_DEVICES
from aldis.store.state import StoreState
from support.dial_target import settle
from support.peer_context import PeerWorld

FILE = Found(1, "text/plain", "v1")


async def test_what_waits_for_a_device_that_has_gone_moves_to_one_that_comes_back_without_the_server() -> None:
    world = PeerWorld()
    world.lists("phone")
    world.send("one")
    phone = await world.opens("phone")
    world.lists("desk", "phone")
    world.send("x", "desk")
    desk = await world.opens("desk")
    world.peer.device("phone").listener.frame_received(Chunk(Content.TEXT, 1, 1, True, b"x"))
    desk.becomes(PeerState.DISCONNECTED)
    phone.becomes(PeerState.DISCONNECTED)
    world.lists()  # the server has lost both
    assert world.queued() == {"phone": 1, "desk": 1}
    desk.opens("stream of desk")  # the path has healed
    assert world.queued() == {"desk": 2}


async def test_a_device_whose_messages_have_moved_is_called_again_for_those_that_stay() -> None:
    world = PeerWorld()
    world.watchable = False
    world.online = ("phone",)
    world.send("one")
    phone = await world.opens("phone")
    world.send("only for the phone", "phone")
    phone.becomes(PeerState.FAILED)
    world.online = ("desk",)
    world.send("x", "desk")  # the server is asked, and says that the phone has gone
    await world.opens("desk")
    assert world.queued() == {"phone": 1, "desk": 2}
    world.online = ("phone", "desk")
    for _ in range(3):
        world.timers.advance(5)
        await settle()
    assert world.connections["phone"].state is PeerState.CONNECTING


async def test_a_device_that_is_left_does_not_count_any_more_when_it_has_gone() -> None:
    world = PeerWorld()
    world.lists("phone")
    world.send("one")
    await world.opens("phone")
    world.lists("desk")  # the phone has left the server, and is connected with us
    world.send("two")
    assert world.queued() == {"phone": 2}
    await world.peer.device("phone").close("", "left", PeerConnectionFailed("bob", "left"))
    world.send("three")
    assert world.queued() == {"desk": 1}


async def test_a_call_that_succeeds_in_the_moment_in_which_the_device_goes_keeps_the_other_one() -> None:
    world = PeerWorld()
    world.lists("phone")
    call = asyncio.create_task(world.peer.connect(None, 10, None))
    await settle()
    phone = world.connections["phone"]
    phone.opens("stream of phone")
    phone.becomes(PeerState.FAILED)
    world.lists("desk")
    await call
    assert world.peer.device("desk").kept
    assert not world.peer.device("phone").wanted


async def test_a_device_that_has_gone_is_forgotten_before_one_that_is_online() -> None:
    world = PeerWorld()
    for number in range(MAX_DEVICES):
        device = world.peer.device(f"device-{number}")
        device.touched = number
    world.lists("device-0")
    world.timers.advance(1000)
    assert world.offered("one-more")
    assert world.peer.find_device("device-0") is not None
    assert world.peer.find_device("device-1") is None


async def test_when_the_server_is_gone_for_good_what_waits_goes_to_the_device_that_is_connected() -> None:
    world = PeerWorld()
    world.lists("phone", "desk")
    world.send("x", "desk")
    await world.opens("desk")
    kept = world.send("one")
    assert kept.device is None
    world.send("x", "phone")
    phone = await world.opens("phone")
    moved = world.send("two")
    phone.becomes(PeerState.DISCONNECTED)
    assert world.queued() == {"desk": 2, "phone": 2}
    world.registered, world.ended = False, ConnectionLost("replaced")
    world.peer.signaling_ended(world.ended)
    phone.becomes(PeerState.FAILED)
    assert not moved.done
    assert world.queued() == {"desk": 3}
    world.send("three")
    assert world.queued() == {"desk": 4}


async def test_a_subscriber_that_accepts_another_key_while_a_message_comes_in_ends_the_connection_cleanly() -> None:
    world = PeerWorld()
    world.lists("phone", "desk")
    for device in ("phone", "desk"):
        assert world.offered(device)
        await world.opens(device)
    world.connections["phone"].round_trip_time = 0.1
    phone = world.peer.device("phone")
    phone.error = PeerConnectionFailed("bob", "so that the state changes with the device")
    done: list[StoreState] = []

    def accept(state: StoreState) -> None:
        done.append(state)
        if len(done) == 2:
            world.peer.accept(changed=True)

    world.feed.subscribe(accept)
    phone.listener.frame_received(Chunk(Content.TEXT, 1, 1, True, b"x"))
    await settle()
    assert len(done) > 1
    assert phone.error is None


async def test_a_call_that_moves_to_another_device_fails_when_the_key_has_changed_meanwhile() -> None:
    world = PeerWorld()
    world.lists("phone")
    call = asyncio.create_task(world.peer.connect(None, 10, None))
    await settle()
    world.lists("desk")
    world.peer.key_changed(world.peer.device("desk"), PeerKeyChanged("bob", bytes(32), bytes([1]) * 32))
    with pytest.raises(PeerKeyChanged):
        await asyncio.wait_for(call, 1)


async def test_a_transfer_whose_subscriber_accepts_a_key_while_it_moves_harms_no_call() -> None:
    world = PeerWorld()
    world.watchable = False
    world.online = ("phone", "desk")
    for device in ("phone", "desk"):
        assert world.offered(device)
        await settle()
        world.connections[device].opens(f"stream of {device}")  # it takes no files
    world.send("x", "phone")
    world.peer.device("phone").listener.frame_received(Chunk(Content.TEXT, 1, 1, True, b"x"))
    world.connections["phone"].becomes(PeerState.FAILED)
    transfer = world.services.files.offer(world.peer.device("phone"), Path("notes.txt"), FILE, None, addressed=False)
    transfer.subscribe(lambda changed: world.peer.accept(changed=True) if changed.error else None)
    world.online = ("desk",)
    world.send("x", "tablet")  # its call finds that the phone has gone
    await settle()
    await settle()
    assert transfer.error is not None
    ended = [task for task in world.tasks if task.done() and not task.cancelled()]
    assert [task.exception() for task in ended if task.exception() is not None] == []


async def test_a_device_that_speaks_before_it_was_found_is_the_one_heard_from() -> None:
    world = PeerWorld()
    world.hold = asyncio.Event()
    world.lists("phone")
    world.send("one")
    assert world.offered("phone")
    await world.opens("phone")
    world.lists("desk", "phone")
    world.send("two")
    assert world.queued() == {"phone": 2}
    world.hold.set()


async def test_what_a_callback_sends_while_its_device_is_forgotten_is_not_forgotten() -> None:
    world = PeerWorld()
    for number in range(MAX_DEVICES):
        world.peer.device(f"device-{number}").touched = number
    first = world.peer.device("device-0")
    world.services.files.received(first, FileOffer("0" * 32, "notes.txt", 1, "text/plain"))
    sent: list[Delivery] = []

    def ended(transfer: Transfer) -> None:
        if transfer.error is not None:
            sent.append(world.send("what happened?", "device-0"))

    world.transfers[0].subscribe(ended)
    world.timers.advance(1000)
    assert world.offered("one-more")
    assert len(sent) == 1
    assert world.queued() == {"device-0": 1}


async def test_devices_that_speak_in_turn_are_told_of_once_in_a_turn_of_the_loop() -> None:
    world = PeerWorld()
    world.lists("phone", "desk")
    for number, device in enumerate(("phone", "desk")):
        assert world.offered(device)
        await world.opens(device)
        world.peer.device(device).error = PeerConnectionFailed("bob", f"error {number}")
    told: list[StoreState] = []
    world.feed.subscribe(told.append)
    for sequence in range(1, 11):
        for device in ("phone", "desk", "phone"):
            world.peer.device(device).listener.frame_received(Chunk(Content.TEXT, sequence, 1, True, b"x"))
    assert len(told) == 1
    assert world.peer.device(None).name == "phone"
    await settle()
    assert len(told) == 2


async def test_what_was_sent_to_two_devices_that_go_at_once_moves_in_the_order_in_which_it_was_sent() -> None:
    world = PeerWorld()
    world.lists("phone", "tablet")
    for device in ("tablet", "phone"):
        assert world.offered(device)
        await world.opens(device)
    world.send("one")
    world.peer.device("tablet").listener.frame_received(Chunk(Content.TEXT, 1, 1, True, b"x"))
    world.send("two")
    assert world.queued() == {"phone": 1, "tablet": 1}
    for device in ("tablet", "phone"):
        world.connections[device].becomes(PeerState.FAILED)
    world.lists("desk")
    desk = await world.opens("desk")
    assert [frame[-3:] for frame in desk.frames] == [b"one", b"two"]
