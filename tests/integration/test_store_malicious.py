"""A server that lies in every way that it can: the store never opens a channel to anybody but the true peer.

The attacker is a whole store with a key of its own, or sits between two true ones. Each attack is also run without the
lie, or it could fail for any other reason and prove nothing.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from aldis.client.events import SignalingState
from aldis.errors import PeerConnectionFailed, PeerError, PeerKeyChanged, ProofInvalid
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.peer.connection import PeerState, PeerTiming
from aldis.protocol.codec import from_base64
from aldis.store.store import NetworkStore
from support.evil_server import EvilServer, Message, evil_server, with_another_fingerprint
from support.patience import PATIENCE
from support.stores import STEADY, contents, new_store, until, until_peer

# Attempts fail by themselves soon: what is refused is refused silently, and only time tells that nothing else comes.
HASTY = PeerTiming(attempt=1.5, heal=1.0, heartbeat=0.2, silence=5.0, probe=1.0, linger=0.3)


@dataclass
class Scene:
    server: EvilServer
    alice: NetworkStore
    bob: NetworkStore  # the true one, or the attacker under his name
    bobs_key: Identity
    ever: set[tuple[str, PeerState]]

    def assert_never_connected(self) -> None:
        assert PeerState.CONNECTED not in {state for _, state in self.ever}


@asynccontextmanager
async def scene(*, attacker: bool, timing: PeerTiming = HASTY) -> AsyncIterator[Scene]:
    """Alice knows bob's key; who has his name is `attacker`, with another key, or bob himself."""
    bobs_key = Identity.generate()
    async with (
        evil_server() as server,
        new_store(timing=timing) as alice,
        new_store(timing=timing, identity=Identity.generate() if attacker else bobs_key) as bob,
    ):
        ever: set[tuple[str, PeerState]] = set()
        for store in (alice, bob):
            store.subscribe(lambda state: ever.update((view.user_id, view.state) for view in state.peers.values()))
        await alice.connect_to_signaling(server.url, "alice")
        await bob.connect_to_signaling(server.url, "bob")
        alice.accept_key("bob", bobs_key.public_key)
        bob.accept_key("alice", alice.identity.public_key)
        server.keys["bob"] = bobs_key.public_key
        yield Scene(server, alice, bob, bobs_key, ever)


async def fails(call: NetworkStore, user_id: str, *reasons: type[PeerError]) -> PeerError:
    with pytest.raises(reasons or PeerConnectionFailed) as caught:
        await call.connect_to_peer(user_id, timeout=5)
    return caught.value


async def refuses(it: Scene, caller: NetworkStore, user_id: str, fault: type[PeerError]) -> PeerError:
    """An answer is refused, which ends nothing: the true one may still come. The server ends it; that is why."""
    calling = asyncio.create_task(caller.connect_to_peer(user_id))
    await until_peer(caller, user_id, lambda view: isinstance(view.error, fault), "the refusal")
    await it.server.hang_up(user_id, caller.state.user_id or "")
    with pytest.raises(fault) as caught:
        await calling
    return caught.value


def described(message: Message) -> dict[str, str] | None:
    """The description in an offer or answer."""
    return message.get("offer") or message.get("answer")


# --- without a lie ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", ["alice", "bob"])
async def test_without_a_lie_they_connect(caller: str) -> None:
    async with scene(attacker=False) as it:
        first, second = (it.alice, it.bob) if caller == "alice" else (it.bob, it.alice)
        await first.connect_to_peer(second.state.user_id or "")
        first.send(second.state.user_id or "", "hello")
        assert await contents(second, 1) == ["hello"]


# --- the server between two true peers --------------------------------------------------------------------------------


def swap_fingerprint(message: Message) -> list[Message]:
    description = described(message)
    if description is not None:
        description["sdp"] = with_another_fingerprint(description["sdp"])
    return [message]


def swap_anything(message: Message) -> list[Message]:
    description = described(message)
    if description is not None:
        description["sdp"] += "a=x\r\n"
    return [message]


def drop_proof(message: Message) -> list[Message]:
    message.pop("proof", None)
    return [message]


def rename_connection(message: Message) -> list[Message]:
    if "connection" in message:
        message["connection"] = "another"
    return [message]


def sign_with_own_key(message: Message) -> list[Message]:
    """A consistent proof, by the server's own key."""
    description = described(message)
    if description is not None and "offer" in message:
        server = Identity.from_seed(bytes(32))
        nonce = from_base64(message["proof"]["nonce"])
        signed = proofs.offer(message["from"], message["to"], message["connection"], nonce, description["sdp"])
        message["proof"] |= {
            "publicKey": b64encode(server.public_key).decode(),
            "signature": b64encode(server.sign(signed)).decode(),
        }
    return [message]


def only(kind: str, tamper: Callable[[Message], list[Message]]) -> Callable[[Message], list[Message]]:
    return lambda message: tamper(message) if message["type"] == kind else [message]


@pytest.mark.parametrize("kind", ["offer", "answer"])
@pytest.mark.parametrize("lie", [swap_fingerprint, swap_anything, drop_proof, rename_connection])
async def test_an_offer_or_answer_that_was_changed_on_the_way_connects_nobody(
    kind: str, lie: Callable[[Message], list[Message]]
) -> None:
    told = kind == "answer" and lie is not rename_connection
    async with scene(attacker=False, timing=STEADY if told else HASTY) as it:
        it.server.tamper = only(kind, lie)
        await (refuses(it, it.alice, "bob", ProofInvalid) if told else fails(it.alice, "bob"))
        it.assert_never_connected()


async def test_an_offer_signed_anew_with_the_servers_key_is_refused_and_shown() -> None:
    async with scene(attacker=False) as it:
        it.server.tamper = sign_with_own_key
        await fails(it.bob, "alice")
        view = it.alice.state.peers["bob"]
        assert isinstance(view.error, PeerKeyChanged)
        assert view.error.offered == Identity.from_seed(bytes(32)).public_key
        it.assert_never_connected()


async def test_an_offer_for_somebody_else_or_in_another_name_is_refused() -> None:
    async with (
        scene(attacker=False) as it,
        new_store(timing=HASTY) as carol,
    ):
        await carol.connect_to_signaling(it.server.url, "carol")
        carol.accept_key("bob", it.bobs_key.public_key)
        # What bob says to alice goes to carol; what carol says comes in bob's name.
        it.server.tamper = lambda message: [
            message | {"to": "carol"} if message["from"] == "bob" else message | {"from": "bob", "to": "alice"}
        ]
        await fails(it.bob, "alice")
        await fails(carol, "alice")
        await until_peer(carol, "bob", lambda view: isinstance(view.error, ProofInvalid), "the refusal")
        assert PeerState.CONNECTED not in {view.state for view in carol.state.peers.values()}
        it.assert_never_connected()


async def test_an_offer_that_is_replayed_connects_nobody_and_does_not_disturb_a_connection() -> None:
    async with scene(attacker=False, timing=STEADY) as it:
        await it.bob.connect_to_peer("alice")
        await until_peer(it.alice, "bob", lambda view: view.state is PeerState.CONNECTED)
        offer = next(message for message in it.server.relayed if message["type"] == "offer")
        for _ in range(3):
            await it.server.deliver(offer)
        await it.server.deliver(offer | {"connection": "another"})
        await it.server.deliver({"type": "bye", "from": "bob", "to": "alice", "connection": offer["connection"]})
        for number in range(10):
            it.bob.send("alice", number)
        assert await contents(it.alice, 10) == list(range(10))
        states = {state for user, state in it.ever if user == "bob"}
        assert states == {PeerState.NEW, PeerState.CONNECTING, PeerState.CONNECTED}


async def test_an_old_offer_replayed_to_a_new_run_of_the_program_leads_nowhere() -> None:
    async with scene(attacker=False) as it:
        await it.bob.connect_to_peer("alice")
        offer = next(message for message in it.server.relayed if message["type"] == "offer")
        await it.bob.disconnect()
        async with new_store(timing=HASTY, identity=it.alice.identity) as again:
            states: set[PeerState] = set()
            again.subscribe(lambda state: states.update(view.state for view in state.peers.values()))
            await it.alice.disconnect()
            await again.connect_to_signaling(it.server.url, "alice")
            again.accept_key("bob", it.bobs_key.public_key)
            await it.server.deliver(offer)
            await until_peer(again, "bob", lambda view: view.state is PeerState.FAILED, "failure")
            assert PeerState.CONNECTED not in states


# --- the server, or its friend, in bob's place ------------------------------------------------------------------------


async def test_an_attacker_with_the_peers_name_is_told_by_the_directory() -> None:
    async with scene(attacker=True) as it:
        del it.server.keys["bob"]
        queued = it.alice.send("bob", "secret")
        error = await fails(it.alice, "bob", PeerKeyChanged)
        assert isinstance(error, PeerKeyChanged)
        assert error.offered == it.bob.identity.public_key
        assert queued.done
        assert not queued.delivered
        it.assert_never_connected()


async def test_an_attacker_who_answers_with_a_key_of_its_own_is_refused_though_the_directory_lies() -> None:
    async with scene(attacker=True, timing=STEADY) as it:
        queued = it.alice.send("bob", "secret")
        await refuses(it, it.alice, "bob", PeerKeyChanged)
        assert not queued.done
        it.assert_never_connected()


async def test_an_attacker_who_answers_in_the_peers_key_without_having_it_is_refused() -> None:
    async with scene(attacker=True, timing=STEADY) as it:
        key = b64encode(it.bobs_key.public_key).decode()

        def lie(message: Message) -> list[Message]:
            if message["from"] == "bob" and "proof" in message:
                message["proof"]["publicKey"] = key
            return [message]

        it.server.tamper = lie
        await refuses(it, it.alice, "bob", ProofInvalid)
        it.assert_never_connected()


async def test_an_attacker_who_calls_is_refused() -> None:
    async with scene(attacker=True) as it:
        await fails(it.bob, "alice")
        it.bob.send("alice", "I am bob")
        assert isinstance(it.alice.state.peers["bob"].error, PeerKeyChanged)
        it.assert_never_connected()


async def test_at_the_first_contact_the_directory_and_the_answer_have_to_name_one_key() -> None:
    async with (
        scene(attacker=True, timing=STEADY) as it,
        new_store(timing=STEADY) as carol,
    ):
        await carol.connect_to_signaling(it.server.url, "carol")  # she has never met bob, and pins nothing
        await refuses(it, carol, "bob", PeerKeyChanged)
        assert carol.state.peers["bob"].public_key is None
        assert carol.state.peers["bob"].state is not PeerState.CONNECTED


# --- other lies -------------------------------------------------------------------------------------------------------


async def test_lies_about_presence_and_garbage_harm_nothing() -> None:
    async with scene(attacker=False) as it:
        await it.alice.connect_to_peer("bob")
        sdp = {"type": "offer", "sdp": "v=0"}
        garbage: list[Message] = [
            {"type": "presence", "userId": "bob", "online": False},
            {"type": "presence", "userId": "nobody", "online": True},
            {"type": "offer", "from": "", "offer": sdp},
            {"type": "offer", "from": "b b", "offer": sdp, "connection": "c", "proof": {"publicKey": "x"}},
            {"type": "offer", "from": "alice", "offer": sdp, "connection": "c"},
            {"type": "answer", "from": "bob", "answer": sdp},
            {"type": "ice-candidate", "from": "bob", "candidate": None, "connection": "c"},
            {"type": "bye", "from": "bob", "connection": "c"},
            {"type": "bye", "from": "carol"},
        ]
        for message in garbage:
            await it.server.deliver(message | {"to": "alice"})
        for key in (b"", bytes(32), b"x" * 32):
            proof = {"publicKey": b64encode(key).decode(), "nonce": "x", "signature": "x"}
            for name in ("eve", "e v e"):
                offer = {"type": "offer", "from": name, "to": "alice", "offer": sdp, "connection": "c", "proof": proof}
                await it.server.deliver(offer)
        it.bob.send("alice", "all is well")
        assert await contents(it.alice, 1) == ["all is well"]
        assert it.alice.state.peers["bob"].state is PeerState.CONNECTED
        assert it.alice.state.peers["bob"].online is False
        # A server that talks nonsense is left, and dialled again.
        await until(it.alice, lambda state: state.signaling is SignalingState.CONNECTED, "signaling")
        await asyncio.gather(it.alice.drain(timeout=PATIENCE), it.bob.drain(timeout=PATIENCE))
