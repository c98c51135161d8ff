"""The devices of one user: which one is called, which one gets a message, and when a message moves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aldis.errors import PeerConnectionFailed, PeerKeyChanged, PeerOffline, TooManyPeers
from aldis.peer.connection import PeerState
from aldis.protocol.channel import Ack, Chunk, Content
from aldis.store.files.disk import Found
from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.messages.outbox import VOID
from aldis.store.peers.peer import MAX_DEVICES
from aldis.store.state import StoreState
from support.dial_target import settle
from support.peer_context import PeerWorld

FILE = Found(1, "text/plain", "v1")


async def test_the_device_to_call_has_no_name_before_the_server_has_listed_one() -> None:
    world = PeerWorld()
    world.send("one")
    assert world.queued() == {None: 1}
    world.online = ("phone", "desk")
    await world.opens("phone")
    assert world.queued() == {"phone": 1}
    assert world.peer.view.devices.keys() == {"phone", "desk"}


async def test_a_device_that_calls_first_is_the_one_that_was_meant() -> None:
    world = PeerWorld()
    world.hold = asyncio.Event()
    world.send("one")
    await settle()
    assert world.asked == 1
    assert world.offered("phone")
    assert world.queued() == {"phone": 1}
    world.online = ("desk", "phone")
    world.hold.set()
    await settle()
    assert list(world.connections) == ["phone"]


async def test_what_waits_for_the_user_goes_to_a_device_that_was_addressed_when_it_is_the_only_one() -> None:
    world = PeerWorld()
    world.send("to the phone", "phone")
    delivery = world.send("to the user")
    assert world.queued() == {"phone": 1, None: 1}
    world.online = ("phone",)
    connection = await world.opens("phone")
    assert world.queued() == {"phone": 2}
    assert (delivery.sequence, delivery.device) == (2, None)
    assert len(connection.frames) == 2


async def test_a_call_that_waits_for_the_user_goes_on_with_the_device_that_is_there() -> None:
    world = PeerWorld()
    world.lists("phone")
    call = asyncio.create_task(world.peer.connect(None, 10, None))
    await settle()
    assert world.connections["phone"].state is PeerState.CONNECTING
    world.lists("desk", "phone")
    world.lists("desk")
    assert world.connections["phone"].closed == []  # it is told by a task
    await world.opens("desk")
    await call
    assert world.connections["phone"].closed == ["it has gone"]
    desk = world.peer.find_device("desk")
    assert desk is not None
    assert desk.kept
    assert not world.peer.device("phone").wanted


async def test_a_call_that_waits_for_a_device_ends_when_it_is_not_there_though_another_one_is() -> None:
    world = PeerWorld()
    world.online = ("desk",)
    with pytest.raises(PeerOffline, match="bob/phone"):
        await world.peer.connect("phone", 10, None)


async def test_messages_move_in_order_with_their_deliveries_and_leave_voids_between_the_others() -> None:
    world = PeerWorld()
    world.lists("phone")
    one, _, two = world.send("one"), world.send("only for the phone", "phone"), world.send("two")
    phone = await world.opens("phone")
    phone.becomes(PeerState.FAILED)
    world.lists("desk")
    assert world.queued() == {"phone": 1, "desk": 2}
    desk = await world.opens("desk")
    assert [frame[-3:] for frame in desk.frames] == [b"one", b"two"]
    assert (one.sequence, two.sequence) == (1, 2)
    device = world.peer.device("desk")
    device.listener.frame_received(Ack(2))
    assert one.delivered
    assert two.delivered
    # The one that is left keeps its number. What stood before it is skipped, and a void stands behind it.
    assert world.peer.device("phone").messages.hello().next == 2
    world.lists("phone", "desk")
    phone = await world.opens("phone", "stream of another run")
    assert phone.frames[0].endswith(b"only for the phone")
    assert [frame.endswith(VOID) for frame in phone.frames] == [False, True]


async def test_what_a_subscriber_sends_while_messages_move_comes_after_them() -> None:
    world = PeerWorld()
    world.lists("phone")
    world.send("one")
    phone = await world.opens("phone")
    phone.becomes(PeerState.DISCONNECTED)
    told: list[PeerState] = []

    def answer(state: StoreState) -> None:
        told.append(state.peers["bob"].state)
        if len(told) == 2:  # after the state of now: the first that is told of the move
            world.send("two")

    world.feed.subscribe(answer)
    world.lists("desk")
    assert len(told) > 1
    desk = await world.opens("desk")
    assert [frame[-3:] for frame in desk.frames] == [b"one", b"two"]


async def test_what_is_sent_while_two_devices_move_comes_after_the_messages_of_both() -> None:
    world = PeerWorld()
    world.lists("desk", "phone", "tablet")
    assert world.offered("desk")
    desk = world.connections["desk"]
    desk.opens("stream of desk")  # which takes no files: so a transfer that moves there fails at once
    for device, text in (("phone", "one"), ("tablet", "two")):
        assert world.offered(device)
        (await world.opens(device)).becomes(PeerState.DISCONNECTED)
        world.send(text)
    transfer = world.services.files.offer(world.peer.device("phone"), Path("a.txt"), FILE, None, addressed=False)

    def answer(transfer: Transfer) -> None:
        if transfer.state is TransferState.FAILED:
            world.send("six")

    transfer.subscribe(answer)
    world.lists("desk")
    await settle()
    assert transfer.state is TransferState.FAILED
    assert [frame[-3:] for frame in desk.frames] == [b"one", b"two", b"six"]


async def test_what_is_sent_while_a_device_comes_back_and_another_one_goes_comes_after_what_moves() -> None:
    world = PeerWorld()
    world.lists("phone", "desk")
    for device in ("desk", "phone"):
        assert world.offered(device)
        (await world.opens(device)).becomes(PeerState.DISCONNECTED)
    world.lists("phone")
    world.send("only for the desk", "desk")
    world.send("one")
    await settle()
    told: list[PeerState] = []

    def answer(state: StoreState) -> None:
        told.append(state.peers["bob"].devices["desk"].state)
        if len(told) == 2:  # after the state of now: the first that is told
            world.send("two")

    world.feed.subscribe(answer)
    world.lists("desk")
    assert told[1] is PeerState.CLOSED  # the call to the desk as it was before
    desk = await world.opens("desk")
    assert [frame[-3:] for frame in desk.frames] == [b"esk", b"one", b"two"]


async def test_nothing_moves_while_the_device_is_connected_or_listed_or_nobody_knows() -> None:
    world = PeerWorld()
    world.lists("phone")
    world.send("one")
    phone = await world.opens("phone")
    world.lists("desk")  # it has lost the server, and still hears us
    assert world.queued() == {"phone": 1}
    world.registered = False
    phone.becomes(PeerState.FAILED)
    assert world.queued() == {"phone": 1}
    world.registered = True
    world.peer.signaling_returned(resumed=False)
    assert world.queued() == {"phone": 1}  # what the server has said before counts no more
    world.lists("desk", initial=True)
    assert world.queued() == {"desk": 1}


async def test_a_server_that_tells_no_changes_is_believed_only_in_the_moment_in_which_it_is_asked() -> None:
    world = PeerWorld()
    world.watchable = False
    world.online = ("desk", "phone")
    world.send("one")
    desk = await world.opens("desk")
    world.send("to the phone", "phone")
    await world.opens("phone")
    world.online = ("phone",)
    desk.becomes(PeerState.FAILED)
    assert world.queued() == {"desk": 1, "phone": 1}
    world.timers.advance(5)  # it is called again, and so the server is asked
    await settle()
    assert world.queued() == {"phone": 2}


async def test_files_that_were_not_offered_to_a_device_move_and_others_do_not() -> None:
    world = PeerWorld()
    world.lists("phone")
    files = world.services.files
    phone = world.peer.device(None)
    transfer = files.offer(phone, Path("notes.txt"), FILE, None, addressed=False)
    addressed = files.offer(world.peer.device("phone"), Path("notes.txt"), FILE, None)
    await settle()
    world.lists("desk")
    await world.opens("desk")
    assert transfer.device == "desk"
    assert addressed.device is None
    assert files.busy(world.peer.device("phone"))
    world.lists()
    world.lists("phone")
    assert transfer.device == "desk"


async def test_a_changed_key_blocks_the_user_when_no_device_has_proved_the_pinned_one() -> None:
    world = PeerWorld()
    world.online = ("phone", "desk")
    waiting = world.send("to the desk", "desk")
    await settle()
    world.their_key = bytes([1]) * 32
    failed = world.send("to the user")
    await settle()
    assert isinstance(world.peer.view.error, PeerKeyChanged)
    assert waiting.done
    assert failed.done
    with pytest.raises(PeerKeyChanged):
        world.send("more")
    world.pinned_key = world.their_key
    world.peer.accept(changed=True)
    world.send("more")
    assert world.peer.view.public_key == world.their_key


async def test_a_changed_key_fails_only_the_call_to_it_while_another_device_has_proved_the_pinned_one() -> None:
    world = PeerWorld()
    world.online = ("phone", "desk")
    world.send("to the user")
    await world.opens("phone")
    world.their_key = bytes([1]) * 32
    failed = world.send("to the desk", "desk")
    await settle()
    assert failed.done
    assert not failed.delivered
    assert world.peer.unaccepted is None
    assert world.peer.view.state is PeerState.CONNECTED
    assert isinstance(world.peer.view.devices["desk"].error, PeerKeyChanged)
    world.send("more")


async def test_the_device_heard_from_last_counts_and_a_mere_reconnect_is_not_heard() -> None:
    world = PeerWorld()
    world.lists("phone", "desk")
    for device in ("phone", "desk"):
        assert world.offered(device)
        await world.opens(device)
    assert world.peer.device(None).name == "desk"
    world.connections["phone"].becomes(PeerState.DISCONNECTED)
    await world.opens("phone")  # the same run of the program
    assert world.peer.device(None).name == "desk"
    world.peer.device("phone").listener.frame_received(Chunk(Content.TEXT, 1, 1, True, b"x"))
    assert world.peer.device(None).name == "phone"
    world.connections["desk"].becomes(PeerState.DISCONNECTED)
    await world.opens("desk", "another run")
    assert world.peer.device(None).name == "desk"


async def test_a_user_with_too_many_devices_calls_in_vain_until_one_can_be_forgotten() -> None:
    world = PeerWorld()
    for number in range(MAX_DEVICES):
        world.send("x", f"device-{number}")
    with pytest.raises(TooManyPeers):
        world.offered("one-more")
    with pytest.raises(TooManyPeers):
        world.send("x", "one-more")
    idle = world.peer.device("device-7")
    await idle.close("", "left", PeerConnectionFailed("bob", "left"))
    assert world.offered("one-more")
    assert world.peer.find_device("device-7") is None
    assert len(world.peer.devices) == MAX_DEVICES
    for task in world.tasks:
        task.cancel()


async def test_what_a_device_shows_is_what_the_server_lists_and_what_is_under_way() -> None:
    world = PeerWorld()
    world.send("x", "phone")
    assert world.peer.view.devices["phone"].online is None
    world.lists("desk")
    views = world.peer.view.devices
    assert [(view.device, view.online, view.queued) for view in views.values()] == [
        ("desk", True, 0),
        ("phone", False, 1),
    ]
    assert world.peer.view.queued == 1
