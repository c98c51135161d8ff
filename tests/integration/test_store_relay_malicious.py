"""A server that lies between two stores that only have the relay: nothing is read, altered, doubled or reordered.

What the server drops or delays it can only delay. Each attack is also run without the lie. The stores are of Python, or
of the browser SDK in a process of Node.
"""

from __future__ import annotations

import asyncio
import itertools
from base64 import b64encode
from collections.abc import Callable
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aldis.errors import PeerKeyChanged, PeerOffline
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.peer.connection import PeerState
from aldis.peer.sealing import FRAMES, HANDSHAKE
from aldis.store.store import NetworkStore
from support.evil_server import EvilServer, Message, evil_server
from support.relay_scene import (
    EACH_LANGUAGE,
    PAIRS,
    SDK,
    Languages,
    altered,
    cannot_reach,
    is_kind,
    relay_store,
    scene,
    sealed,
)
from support.stores import STEADY, contents, device_of, new_store, round_trip, until_peer

FAILED = PeerState.FAILED
COUNT = 40

Alter: TypeAlias = "Callable[[int, Message], list[Message]]"


class Tampering:
    """`alter(number, message)` for the frames messages of both sides, counted together."""

    def __init__(self, alter: Alter) -> None:
        self._alter = alter
        self.seen = 0

    def __call__(self, message: Message) -> list[Message]:
        if not is_kind(message, FRAMES):
            return [message]
        self.seen += 1
        return self._alter(self.seen, message)


def swapped(held: list[Message]) -> Alter:
    """Each third message comes after the one that follows it."""

    def alter(number: int, message: Message) -> list[Message]:
        if number % 3 == 0:
            held.append(message)
            return []
        late, held[:] = list(held), []
        return [message, *late]

    return alter


def spliced(taken: dict[str, bytes]) -> Alter:
    """Now and then, what the other side has said in the same session comes back to it."""

    def alter(number: int, message: Message) -> list[Message]:
        other = taken.get(message["to"])
        taken[message["from"]] = sealed(message)
        return [altered(message, other), message] if other is not None and number % 4 == 0 else [message]

    return alter


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def fifth(change: Callable[[bytes], bytes]) -> Alter:
    """Each fifth message is another one."""
    return lambda number, message: [altered(message, change(sealed(message)))] if number % 5 == 0 else [message]


ATTACKS: dict[str, Callable[[], Alter]] = {
    "nothing": lambda: lambda number, message: [message],
    "replay": lambda: lambda number, message: [message, message],
    "drop": lambda: lambda number, message: [] if number % 5 == 0 else [message],
    "reorder": lambda: swapped([]),
    "reflect": lambda: spliced({}),
    "alter the ciphertext": lambda: fifth(lambda data: flip(data, 30)),
    "alter the counter": lambda: fifth(lambda data: flip(data, 25)),
    "another session": lambda: fifth(lambda data: flip(data, 10)),
    "another suite": lambda: fifth(lambda data: b"\x02" + data[1:]),
    "a handshake": lambda: fifth(lambda data: data[:1] + b"\x01" + data[2:] + bytes(200)),
    "cut": lambda: fifth(lambda data: data[:-1]),
    "cut to the suite": lambda: fifth(lambda data: data[:1]),
}


@pytest.mark.parametrize(
    ("attack", "languages"),
    [*itertools.product(ATTACKS, PAIRS), ("nothing", SDK)],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
async def test_whatever_happens_to_frames_each_message_arrives_once_and_in_order(
    attack: str, languages: Languages
) -> None:
    async with scene(languages) as it:
        tampering = it.server.tamper = Tampering(ATTACKS[attack]())
        await it.alice.send("bob", 0)  # else all might go with the handshake
        for number in range(1, COUNT):
            it.alice.send("bob", number)
            it.bob.send("alice", number)
            if number == COUNT // 2:
                assert await contents(it.bob, number) == list(range(number))
        assert await contents(it.bob, COUNT - COUNT // 2) == list(range(COUNT // 2, COUNT))
        assert await contents(it.alice, COUNT - 1) == list(range(1, COUNT))
        assert tampering.seen


@EACH_LANGUAGE
async def test_a_handshake_that_is_replayed_begins_nothing(languages: Languages) -> None:
    async with scene(languages) as it:
        handshakes: list[Message] = []

        def note(message: Message) -> list[Message]:
            if is_kind(message, HANDSHAKE):
                handshakes.append(message)
            return [message]

        it.server.tamper = note
        await it.alice.send("bob", "once")
        for message in handshakes:
            await it.server.deliver(message)
        await it.alice.send("bob", "twice")
        assert await contents(it.bob, 2) == ["once", "twice"]
        assert len(handshakes) == 1


async def test_a_handshake_that_was_held_back_ends_no_direct_connection() -> None:
    async with scene(path="auto", timing=STEADY) as it:
        assert isinstance(it.alice, NetworkStore)
        assert isinstance(it.bob, NetworkStore)
        held: list[Message] = []

        def hold(message: Message) -> list[Message]:
            if not is_kind(message, HANDSHAKE):
                return [message]
            held.append(message)
            return []

        it.server.tamper = hold
        it.alice.send("bob", "before")
        await it.alice.connect_to_peer("bob")
        assert await contents(it.bob, 1) == ["before"]
        for message in held:
            await it.server.deliver(message)
        await round_trip(it.bob)  # what the server has said before is dealt with
        assert held
        await it.alice.send("bob", "after")
        assert await contents(it.bob, 1) == ["after"]
        views = it.alice.state.peers["bob"], it.bob.state.peers["alice"]
        assert [(view.path, view.connections) for view in views] == [("direct", 1)] * 2


async def test_a_flood_at_the_start_leaves_room_for_the_messages_of_others() -> None:
    bobs_key = Identity.generate()
    async with (
        evil_server(relay=True) as server,
        new_store(path="relay") as alice,
        new_store(path="relay", identity=bobs_key) as bob,
    ):
        await alice.connect_to_signaling(server.url, "alice")
        alice.accept_key("bob", bobs_key.public_key)
        junk = bytes((1, FRAMES)) + bytes(40_000)

        def flood(message: Message) -> list[Message]:
            if message["type"] != "relay" or message["to"] != "bob":
                return [message]
            arrived.set()
            return [*([altered({**message, "from": "mallory"}, junk)] * 300), message]

        arrived = asyncio.Event()
        server.tamper = flood
        server.ready.clear()
        starting = asyncio.create_task(bob.connect_to_signaling(server.url, "bob"))
        await server.has("bob")
        sending = alice.send("bob", "hello")
        await arrived.wait()
        await round_trip(alice)  # answered when all that came before was delivered
        server.ready.set()
        await starting
        assert await contents(bob, 1) == ["hello"]
        await sending
        assert len([message for message in server.relayed if is_kind(message, HANDSHAKE)]) == 1


def drop_one(server: EvilServer) -> list[Message]:
    """Lose the next frames message; it is in the list then."""
    dropped: list[Message] = []

    def drop(message: Message) -> list[Message]:
        if dropped or not is_kind(message, FRAMES):
            return [message]
        dropped.append(message)
        return []

    server.tamper = drop
    return dropped


async def test_a_lost_session_with_a_peer_that_uses_only_the_relay_is_begun_anew() -> None:
    async with scene(path="auto") as it:
        assert isinstance(it.alice, NetworkStore)
        assert isinstance(it.bob, NetworkStore)
        bob = it.bob
        it.alice.set_path("bob", "relay")
        await bob.send("alice", "one")
        view = await until_peer(bob, "alice", lambda view: device_of(bob, "alice").path.told is FAILED, "refused")
        assert view.path == "relay"
        dropped = drop_one(it.server)
        bob.send("alice", "two")
        assert await contents(it.alice, 2) == ["one", "two"]
        assert dropped


async def test_a_lost_session_is_under_repair_and_nothing_fails_without_a_reason() -> None:
    async with scene() as it:
        alice = it.alice
        assert isinstance(alice, NetworkStore)
        await alice.send("bob", "one")
        told: list[tuple[PeerState, bool]] = []
        alice.subscribe(lambda state: told.append((state.peers["bob"].state, state.peers["bob"].error is None)))
        dropped = drop_one(it.server)
        await asyncio.gather(alice.send("bob", "two"), alice.send("bob", "three"))
        assert await contents(it.bob, 3) == ["one", "two", "three"]
        assert dropped
        await until_peer(alice, "bob", lambda view: view.state is PeerState.CONNECTED, "connected again")
        assert (PeerState.DISCONNECTED, True) in told
        assert (FAILED, True) not in told


async def test_one_that_leaves_during_an_attempt_without_its_goodbye_is_closed() -> None:
    async with scene(path="auto") as it:
        assert isinstance(it.alice, NetworkStore)
        it.server.tamper = lambda message: [] if message["type"] == "ice-candidate" else [message]
        await it.alice.watch("bob")
        await it.alice.send("bob", "x")
        direct = device_of(it.alice, "bob").path
        await until_peer(it.alice, "bob", lambda view: direct.state is PeerState.CONNECTING, "an attempt")
        connecting = asyncio.create_task(it.alice.connect_to_peer("bob"))
        seen: list[PeerState] = []
        it.alice.subscribe(lambda state: seen.append(state.peers["bob"].state))
        await it.server.deliver({"type": "presence", "userId": "bob", "online": False, "to": "alice"})
        view = await until_peer(it.alice, "bob", lambda view: view.online is False, "the news")
        assert (view.state, view.path, view.error) == (PeerState.CLOSED, None, None)
        assert set(seen) <= {PeerState.CONNECTED, PeerState.CLOSED}
        with pytest.raises(PeerOffline):
            await connecting


async def test_one_that_has_left_is_closed_when_the_server_says_so_first_of_a_message() -> None:
    async with scene(path="auto") as it:
        assert isinstance(it.alice, NetworkStore)
        assert isinstance(it.bob, NetworkStore)
        await it.alice.watch("bob")
        it.server.tamper = lambda message: [] if message["type"] == "ice-candidate" else [message]
        await it.alice.send("bob", "x")
        direct = device_of(it.alice, "bob").path
        await until_peer(it.alice, "bob", lambda view: direct.state is PeerState.CONNECTING, "an attempt")
        # Both may have begun one, and bob knows nothing of hers then: he can end the one that somebody has answered.
        while not any(message["type"] == "answer" for message in it.server.relayed):
            await round_trip(it.bob)

        def hold(message: Message) -> list[Message]:
            # The end of the attempt comes; the goodbye through the relay, and the news, are late.
            return [] if message["type"] in ("relay", "presence") and message["to"] == "alice" else [message]

        it.server.tamper = hold
        # A PING would be told that bob is not online, too: it has to wait until the end of the attempt was seen.
        it.server.refuse = lambda message: 0.1 if message["to"] == "bob" else 0
        await it.bob.disconnect()
        while direct.state is not PeerState.FAILED:
            await round_trip(it.alice)
        it.server.refuse = lambda message: 0
        seen: list[PeerState] = []
        it.alice.subscribe(lambda state: seen.append(state.peers["bob"].state))
        it.alice.send("bob", "y")
        view = await until_peer(it.alice, "bob", lambda view: view.state is not PeerState.CONNECTED, "the refusal")
        assert (view.state, view.path, view.error, view.queued) == (PeerState.CLOSED, None, None, 1)
        assert set(seen) <= {PeerState.CONNECTED, PeerState.CLOSED}


async def test_an_attempt_that_arrives_behind_the_goodbye_is_no_failure() -> None:
    async with scene(path="auto") as it:
        assert isinstance(it.alice, NetworkStore)
        assert isinstance(it.bob, NetworkStore)
        held: list[Message] = []

        def hold(message: Message) -> list[Message]:
            if message["type"] in ("offer", "ice-candidate", "bye") and message["to"] == "alice":
                held.append(message)
                return []
            return [message]

        it.server.tamper = hold
        await it.bob.send("alice", "x")
        while not any(message["type"] == "offer" for message in held):
            await round_trip(it.alice)
        await it.bob.disconnect()
        await until_peer(it.alice, "bob", lambda view: view.state is PeerState.CLOSED, "the goodbye")
        seen: list[PeerState] = []
        it.alice.subscribe(lambda state: seen.append(state.peers["bob"].state))
        for message in held:
            await it.server.deliver(message)
        direct = device_of(it.alice, "bob").path
        while direct.state is not PeerState.FAILED:
            await round_trip(it.alice)  # nothing changes in the state
        assert set(seen) <= {PeerState.CLOSED}
        assert it.alice.state.peers["bob"].error is None


@EACH_LANGUAGE
async def test_a_handshake_in_the_name_of_another_user_or_for_another_is_refused(languages: Languages) -> None:
    async with (
        scene(languages) as it,
        relay_store(languages[0], it.server, "carol", Identity.generate()) as carol,
    ):
        it.server.tamper = lambda message: [{**message, "from": "carol"}] if message["type"] == "relay" else [message]
        it.alice.send("bob", "in another name")
        await cannot_reach(it.alice, "bob")
        it.server.tamper = lambda message: [{**message, "to": "carol"}] if message["type"] == "relay" else [message]
        it.bob.send("alice", "for another")
        await cannot_reach(it.bob, "alice")
        it.server.tamper = lambda message: [message]
        await carol.send("bob", "the first of carol")
        first = await anext(it.bob.messages())
        while first.sender == "alice":
            first = await anext(it.bob.messages())
        assert (first.sender, first.content) == ("carol", "the first of carol")


@EACH_LANGUAGE
async def test_a_message_of_one_session_is_worth_nothing_in_the_next_one(languages: Languages) -> None:
    async with scene(languages) as it:
        first: list[Message] = []

        def note(message: Message) -> list[Message]:
            if message["type"] == "relay" and message["from"] == "alice":
                first.append(message)
            return [message]

        it.server.tamper = note
        await it.alice.send("bob", "a")
        await it.alice.send("bob", "b")
        old = [message for message in first if is_kind(message, FRAMES)]
        await it.alice.disconnect_from_peer("bob")
        first.clear()
        await it.alice.send("bob", "c")
        session = sealed(first[0])[2:18]
        for message in old:
            await it.server.deliver(message)
            await it.server.deliver(altered(message, sealed(message)[:2] + session + sealed(message)[18:]))
        await it.alice.send("bob", "d")
        assert await contents(it.bob, 4) == ["a", "b", "c", "d"]


@EACH_LANGUAGE
@pytest.mark.parametrize("signed_by", ["the server", "bob for another device", "nobody"])
async def test_nothing_is_sealed_to_a_key_that_bob_has_not_signed(signed_by: str, languages: Languages) -> None:
    async with scene(languages) as it:
        key = X25519PrivateKey.generate().public_key().public_bytes_raw()
        signature = {
            "the server": Identity.generate().sign(proofs.seal("bob", "main", key)),
            "bob for another device": it.bob.identity.sign(proofs.seal("bob", "phone", key)),
            "nobody": bytes(64),
        }[signed_by]
        it.server.seal_keys["bob"] = {
            "publicKey": b64encode(key).decode(),
            "signature": b64encode(signature).decode(),
        }
        it.alice.send("bob", "secret")
        await cannot_reach(it.alice, "bob")
        assert not [message for message in it.server.relayed if message["type"] == "relay"]


@EACH_LANGUAGE
async def test_nothing_is_sealed_to_a_key_of_small_order_that_bob_has_signed(languages: Languages) -> None:
    """Everybody would know what X25519 makes of it."""
    async with scene(languages) as it:
        it.server.seal_keys["bob"] = {
            "publicKey": b64encode(bytes(32)).decode(),
            "signature": b64encode(it.bob.identity.sign(proofs.seal("bob", "main", bytes(32)))).decode(),
        }
        it.alice.send("bob", "secret")
        await cannot_reach(it.alice, "bob")
        assert not [message for message in it.server.relayed if message["type"] == "relay"]


async def test_an_attacker_under_bobs_name_is_refused_and_shown() -> None:
    async with scene() as it:
        it.server.keys["bob"] = it.bob.identity.public_key
        it.alice.accept_key("bob", Identity.generate().public_key)
        it.bob.send("alice", "I am bob")
        assert isinstance(it.alice, NetworkStore)
        view = await until_peer(it.alice, "bob", lambda view: view.error is not None, "the refusal")
        assert isinstance(view.error, PeerKeyChanged)


@EACH_LANGUAGE
async def test_another_suite_is_no_downgrade(languages: Languages) -> None:
    """The first byte of a handshake is signed, and what it names is all that is understood."""
    async with scene(languages) as it:
        it.server.tamper = lambda message: (
            [altered(message, b"\x00" + sealed(message)[1:])] if is_kind(message, HANDSHAKE) else [message]
        )
        it.alice.send("bob", "hello")
        await cannot_reach(it.alice, "bob")
        it.server.tamper = lambda message: [message]
        assert await contents(it.bob, 1) == ["hello"]
