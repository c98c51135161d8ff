"""The browser SDK in a real browser: tabs and Python programs find each other and talk."""

from __future__ import annotations

import asyncio
import json
import os
from hashlib import sha256

import pytest

from aldis.identity.keys import Identity
from aldis.peer.connection import PeerState
from aldis.store.messages.content import Sendable
from browser.conftest import IN_BOTH, Arrive
from support.patience import PATIENCE
from support.server_process import ServerProcess
from support.stores import contents, read, stores, until_peer, until_state
from support.tabs import Tab, tabs

ENGINES = ("wrtc", "aiortc")
VALUES: list[Sendable] = ["text", "", "\U0001f441 ü", {"json": [1, 2.5, None, True]}, [], 7, None]
SHA256 = "Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', DATA)))"


def url(server: ServerProcess) -> str:
    return f"ws://127.0.0.1:{server.port}"


async def test_two_tabs_chat_both_ways(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await alice.run("await store.connectToPeer('bob');")
    assert await alice.get("store.state.peers.bob.state") == "connected"
    await bob.connected("alice")
    for first, second in ((alice, bob), (bob, alice)):
        await first.sends(second.name, *VALUES)
        messages = await second.read(len(VALUES))
        assert [message["content"] for message in messages] == VALUES
        assert [message["sequence"] for message in messages] == list(range(1, len(VALUES) + 1))
        assert {message["sender"] for message in messages} == {first.name}
    mine = await alice.get("store.state.fingerprint")
    assert mine == await bob.get("store.state.peers.alice.fingerprint")
    stats = await alice.get("store.stats('bob')")
    assert (stats["path"], stats["protocol"], stats["local"]) == ("direct", "udp", "host")
    assert stats["bytesSent"] > 0
    assert 0 < stats["roundTripTime"] < PATIENCE


@IN_BOTH
async def test_the_bytes_of_a_path_that_ice_has_left_stay_counted(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await alice.run("await store.connectToPeer('bob');")
    # Until then the relay may carry the messages, and its bytes are no bytes of this connection.
    await alice.connected("bob")
    await bob.connected("alice")
    # Chromium's statistics may be 50 ms old.
    counted = "while ((await store.stats(userId))[name] <= bytes) await new Promise(requestAnimationFrame);"
    for count in (1, 2):
        await alice.sends("bob", "x" * 50_000)
        await bob.read(1)
        await alice.run(counted, userId="bob", name="bytesSent", bytes=count * 50_000)
        await bob.run(counted, userId="alice", name="bytesReceived", bytes=count * 50_000)
        before = await alice.get("wires.at(-1).remoteDescription.sdp")
        await alice.run("wires.at(-1).restartIce();")
        await alice.run(f"""
            const before = {json.dumps(before)};
            const wire = wires.at(-1);
            while (wire.remoteDescription.sdp === before || wire.signalingState !== 'stable')
              await new Promise((changed) => wire.addEventListener('signalingstatechange', changed, {{ once: true }}));
        """)


@IN_BOTH
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("caller", ["tab", "python"])
async def test_a_tab_and_a_python_program_chat_both_ways(
    arrive: Arrive, server: ServerProcess, engine: str, caller: str
) -> None:
    async with stores(url(server), "bob", engine=engine) as (bob,):
        (alice,) = await tabs(arrive, "alice")
        if caller == "tab":
            await alice.run("await store.connectToPeer('bob');")
        else:
            await bob.connect_to_peer("alice")
        await alice.connected("bob")
        await until_state(bob, "alice", PeerState.CONNECTED)
        for value in VALUES:
            bob.send("alice", value)
        await alice.sends("bob", *VALUES)
        assert await contents(bob, len(VALUES)) == VALUES
        assert await alice.contents(len(VALUES)) == VALUES
        await bob.drain(timeout=PATIENCE)
        assert await alice.get("store.state.peers.bob.fingerprint") == bob.identity.fingerprint
        assert bob.state.peers["alice"].fingerprint == await alice.get("store.state.fingerprint")


# Longer than a path without an answer lasts (2.5 s), and much shorter than a program may be late (10 s here).
BUSY = "setTimeout(() => { for (const until = performance.now() + 4000; performance.now() < until; ); });"


@IN_BOTH
async def test_a_tab_that_is_busy_for_some_seconds_keeps_its_connections(arrive: Arrive, server: ServerProcess) -> None:
    async with stores(url(server), "carol") as (carol,):
        alice, bob = await tabs(arrive, "alice", "bob")
        await asyncio.gather(alice.run("await store.connectToPeer('bob');"), carol.connect_to_peer("bob"))
        await alice.sends("bob", "before")
        await carol.send("bob", "before")
        await bob.run(BUSY)
        await asyncio.gather(alice.sends("bob", "meanwhile"), carol.send("bob", "meanwhile"))
        assert sorted(await bob.contents(4)) == ["before", "before", "meanwhile", "meanwhile"]
        assert await alice.get("store.state.peers.bob.connections") == 1
        assert carol.state.peers["bob"].connections == 1


async def test_two_tabs_that_call_each_other_at_once_end_with_one_connection(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    call = "await store.connectToPeer(peer); await store.send(peer, 'from ' + store.state.userId);"
    await asyncio.gather(alice.run(call, peer="bob"), bob.run(call, peer="alice"))
    await asyncio.gather(alice.sends("bob", "last"), bob.sends("alice", "last"))
    assert await alice.contents(2) == ["from bob", "last"]
    assert await bob.contents(2) == ["from alice", "last"]
    for tab, peer in ((alice, "bob"), (bob, "alice")):
        assert await tab.get(f"store.state.peers.{peer}.connections") == 1
        assert await tab.get("wires.filter((wire) => wire.connectionState === 'connected').length") == 1


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_tab_and_a_python_program_that_call_each_other_at_once_end_with_one_connection(
    arrive: Arrive, server: ServerProcess, engine: str
) -> None:
    async with stores(url(server), "bob", engine=engine) as (bob,):
        (alice,) = await tabs(arrive, "alice")
        await asyncio.gather(
            alice.run("await store.connectToPeer('bob'); await store.send('bob', 'from alice');"),
            bob.connect_to_peer("alice"),
            bob.send("alice", "from bob"),
        )
        await alice.sends("bob", "last")
        await bob.send("alice", "last")
        assert await alice.contents(2) == ["from bob", "last"]
        assert await contents(bob, 2) == ["from alice", "last"]
        assert await alice.get("store.state.peers.bob.connections") == bob.state.peers["alice"].connections == 1
        assert await alice.get("wires.filter((wire) => wire.connectionState === 'connected').length") == 1


COUNT = 1000
SEND_MANY = """
for (let number = 0; number < count; number++) store.send(userId, number);
await store.drain(userId);
"""


async def test_a_thousand_messages_each_way_between_tabs_arrive_once_and_in_order(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await asyncio.gather(
        alice.run(SEND_MANY, userId="bob", count=COUNT), bob.run(SEND_MANY, userId="alice", count=COUNT)
    )
    assert await alice.contents(COUNT) == list(range(COUNT))
    assert await bob.contents(COUNT) == list(range(COUNT))
    assert await alice.get("got.length") == await bob.get("got.length") == 0


@IN_BOTH
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_thousand_messages_each_way_between_a_tab_and_python_arrive_once_and_in_order(
    arrive: Arrive, server: ServerProcess, engine: str
) -> None:
    async with stores(url(server), "bob", engine=engine) as (bob,):
        (alice,) = await tabs(arrive, "alice")
        sending = asyncio.create_task(alice.run(SEND_MANY, userId="bob", count=COUNT))
        for number in range(COUNT):
            bob.send("alice", number)
        messages = await read(bob, COUNT)
        assert [(message.sequence, message.content) for message in messages] == [
            (number + 1, number) for number in range(COUNT)
        ]
        assert await alice.contents(COUNT) == list(range(COUNT))
        await sending
        await bob.drain(timeout=PATIENCE)


SEND_BYTES = f"""
const DATA = new Uint8Array(1 << 20);
for (let at = 0; at < DATA.length; at += 65536) crypto.getRandomValues(DATA.subarray(at, at + 65536));
await store.send(userId, DATA);
return {SHA256};
"""
READ_BYTES = f"""
const [{{ content: DATA }}] = got.splice(0);
return [DATA.constructor.name, DATA.length, {SHA256}];
"""


async def test_a_mebibyte_in_one_message_arrives_whole_from_tab_to_tab(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    digest = await alice.run(SEND_BYTES, userId="bob")
    assert await bob.run(READ_BYTES) == ["Uint8Array", 1 << 20, digest]


@IN_BOTH
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_mebibyte_in_one_message_arrives_whole_between_a_tab_and_python(
    arrive: Arrive, server: ServerProcess, engine: str
) -> None:
    async with stores(url(server), "bob", engine=engine) as (bob,):
        (alice,) = await tabs(arrive, "alice")
        digest = await alice.run(SEND_BYTES, userId="bob")
        (content,) = await contents(bob, 1)
        assert isinstance(content, bytes)
        assert list(sha256(content).digest()) == digest
        data = os.urandom(1 << 20)
        await bob.send("alice", data)
        assert await alice.run(READ_BYTES) == ["Uint8Array", len(data), list(sha256(data).digest())]


async def test_what_is_sent_to_somebody_who_is_away_waits_for_them(arrive: Arrive, server: ServerProcess) -> None:
    (alice,) = await tabs(arrive, "alice")
    await alice.run("window.first = store.send('bob', 1); store.send('bob', 2); store.send('carol', 3);")
    await alice.until("peers.bob?.queued === 2 && peers.bob.online === false")
    (bob,) = await tabs(arrive, "bob")
    assert await bob.contents(2) == [1, 2]
    await alice.run("await first;")
    # It goes, and comes back with the key that it had: what was sent meanwhile is there for it.
    async with stores(url(server), "carol") as (carol,):
        assert await contents(carol, 1) == [3]
    await alice.until("peers.carol.state === 'closed'")
    await alice.run("store.send('carol', 4);")
    await alice.until("peers.carol.queued === 1 && peers.carol.online === false")
    async with stores(url(server), "carol", identity=carol.identity) as (carol,):
        assert await contents(carol, 1) == [4]
        await alice.until("peers.carol.queued === 0")


async def test_presence_is_told_by_watching(arrive: Arrive, server: ServerProcess) -> None:
    (alice,) = await tabs(arrive, "alice")
    await alice.run("await store.watch('bob', 'carol');")
    await alice.until("peers.bob?.online === false")
    (bob,) = await tabs(arrive, "bob")
    await alice.until("peers.bob.online === true")
    async with stores(url(server), "carol") as (carol,):
        await alice.until("peers.carol.online === true")
        await carol.watch("bob")
        await until_peer(carol, "bob", lambda view: view.online is True, "presence")
        await bob.run("await store.disconnect();")
        await until_peer(carol, "bob", lambda view: view.online is False, "absence")
    await alice.until("peers.bob.online === false && peers.carol.online === false")
    assert await alice.get("store.state.peers.bob.state") == "new"
    await alice.run("await store.unwatch('bob', 'carol');")
    assert await alice.get("Object.keys(store.state.peers)") == []


async def test_each_device_of_a_user_is_there(arrive: Arrive, server: ServerProcess) -> None:
    desk = await (await Tab(await arrive()).open()).start("alice", keep=True)
    second = await (await desk.another()).start("alice", keep=True, device="phone")  # so with the same key
    async with stores(url(server), "bob") as (bob,):
        await desk.sends("bob", "from the desk")
        assert await contents(bob, 1) == ["from the desk"]
        await second.sends("bob", "from the phone")
        (message,) = await read(bob, 1)
        assert (message.sender, message.content, message.sequence) == ("alice", "from the phone", 1)
        await bob.send("alice", "to whom I hear")
        assert await second.contents(1) == ["to whom I hear"]
        assert await desk.get("[store.state.signaling, got.length]") == ["connected", 0]


async def test_devices_of_two_users_stay_connected_in_tabs_and_in_python(arrive: Arrive, server: ServerProcess) -> None:
    desk = await (await Tab(await arrive()).open()).start("alice", keep=True, device="desk")
    phone = await (await desk.another()).start("alice", keep=True, device="phone")
    tabs_of_alice, names = (desk, phone), ("laptop", "robot")
    async with stores(url(server), *(f"bob/{name}" for name in names), identity=Identity.generate()) as bobs:
        call = "await Promise.all(names.map((name) => store.connectToPeer(`bob/${name}`)));"
        await asyncio.gather(*(tab.run(call, names=names) for tab in tabs_of_alice))
        await asyncio.gather(*(bob.connect_to_peer(f"alice/{name}") for bob in bobs for name in ("desk", "phone")))
        for count in range(20):
            for bob in bobs:
                await asyncio.gather(*(bob.send(f"alice/{name}", count) for name in ("desk", "phone")))
            for tab in tabs_of_alice:
                await tab.run("await Promise.all(names.map((name) => store.send(`bob/${name}`, 1)));", names=names)
        for bob in bobs:
            devices = bob.state.peers["alice"].devices
            assert {name: device.connections for name, device in devices.items()} == {"desk": 1, "phone": 1}
            messages = await read(bob, 40)
            assert sorted(message.device for message in messages) == ["desk"] * 20 + ["phone"] * 20
        for tab in tabs_of_alice:
            devices = await tab.get(
                "Object.values(store.state.peers.bob.devices).map((it) => [it.device, it.state, it.connections])"
            )
            assert sorted(devices) == [[name, "connected", 1] for name in names]
            assert sorted(message["device"] for message in await tab.read(40)) == ["laptop"] * 20 + ["robot"] * 20
