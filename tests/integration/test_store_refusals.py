"""A refusal is told: who calls learns at once that it is refused, why, and whether another attempt makes sense.

Every attempt here would otherwise end with its time-out (30 s), which says something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aldis.client.client import SignalingClient
from aldis.client.events import ByeReceived, OfferReceived
from aldis.errors import PeerKeyChanged, PeerRefused
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.peer.connection import PeerState
from aldis.peer.engine import EngineConfig
from aldis.peer.engines.catalog import load_engine
from aldis.peer.negotiation import MAX_OFFERS
from aldis.peer.trust import Trust
from aldis.store.state import StoreLimits
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.peers import nothing_left_behind
from support.stores import contents, running_server, stores, until_state


async def refusal(store: NetworkStore, user_id: str) -> PeerRefused:
    """What comes of a call that is refused; the state says the same."""
    with pytest.raises(PeerRefused) as caught:
        await store.connect_to_peer(user_id, timeout=600)
    assert store.state.peers[user_id].state is PeerState.FAILED
    assert store.state.peers[user_id].error is caught.value
    return caught.value


async def test_who_is_not_accepted_learns_so_and_keeps_what_waits() -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice", accept=lambda user_id, public_key: False) as (alice,),
        stores(server.url, "bob") as (bob,),
    ):
        bob.send("alice", "let me in")
        view = await until_state(bob, "alice", PeerState.FAILED)
        assert isinstance(view.error, PeerRefused)
        error = await refusal(bob, "alice")
        assert (error.code, error.temporary) == ("not-accepted", False)
        assert error.reason == "the other side refuses: not accepted"
        assert bob.state.peers["alice"].queued == 1
        await alice.connect_to_peer("bob")  # whom alice calls herself need not be let in
        assert await contents(alice, 1) == ["let me in"]


async def test_who_is_one_too_many_learns_so_and_when_to_come_back() -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice", limits=StoreLimits(peers=1)) as (alice,),
        stores(server.url, "bob", "carol") as (bob, carol),
    ):
        await bob.connect_to_peer("alice")
        error = await refusal(carol, "alice")
        assert (error.code, error.temporary, error.retry_after) == ("too-many-peers", True, 30)
        bob.send("alice", "still here")
        assert await contents(alice, 1) == ["still here"]


async def test_whose_key_is_not_the_expected_one_learns_so() -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice", "bob") as (alice, bob),
    ):
        alice.accept_key("bob", Identity.generate().public_key)
        error = await refusal(bob, "alice")
        assert (error.code, error.temporary, error.retry_after) == ("key-refused", True, 30)
        alice.accept_key("bob", bob.identity.public_key)
        await bob.connect_to_peer("alice")


@asynccontextmanager
async def a_call_that_nobody_answers() -> AsyncIterator[tuple[NetworkStore, SignalingClient, asyncio.Task[None]]]:
    """Alice, who knows bob's key, bob, who is online and does nothing, and her call to him."""
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice") as (alice,),
        SignalingClient(server.url, "bob") as silent,
    ):
        key = Identity.generate()
        await silent.register(key)
        alice.accept_key("bob", key.public_key)
        calling = asyncio.create_task(alice.connect_to_peer("bob", timeout=2 * PATIENCE))
        await until_state(alice, "bob", PeerState.CONNECTING)
        yield alice, silent, calling


async def test_a_call_that_is_under_way_ends_when_another_key_is_accepted() -> None:
    async with a_call_that_nobody_answers() as (alice, _, calling):
        alice.accept_key("bob", Identity.generate().public_key)
        with pytest.raises(PeerKeyChanged):
            await asyncio.wait_for(calling, PATIENCE)


async def test_a_call_that_is_under_way_ends_when_the_peer_gets_another_key() -> None:
    """The one who has the name now has never heard of the call."""
    async with a_call_that_nobody_answers() as (_, silent, calling):
        await silent.rotate(Identity.generate())
        with pytest.raises(PeerKeyChanged):
            async with asyncio.timeout(PATIENCE):
                await calling


class Deaf:
    """What an engine connection tells is of no interest here."""

    def __getattr__(self, name: str) -> object:
        return lambda *values: None


async def an_offer() -> str:
    """A session description that an engine can answer."""
    connection = load_engine("wrtc").create(EngineConfig(allow_loopback=True), Deaf())  # type: ignore[arg-type]
    connection.open_channel("aldis.v1")
    sdp = await connection.offer()
    await connection.close()
    return sdp


async def byes(client: SignalingClient, count: int) -> list[ByeReceived]:
    """The next refusals that a client is told."""
    found = []
    async for event in client.events():
        if isinstance(event, ByeReceived) and event.code is not None:
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_offers_without_a_proof_and_offers_without_end_are_answered() -> None:
    identity = Identity.generate()
    async with running_server() as server, stores(server.url, "alice"), SignalingClient(server.url, "bob") as bob:
        await bob.register(identity)
        told = asyncio.create_task(byes(bob, 2))
        await bob.send_offer("alice", "v=0\r\n", connection="unproven")
        trust = Trust(identity, "bob", bob.server, MemoryPins())
        sdp = await an_offer()
        for number in range(MAX_OFFERS + 1):
            name = f"number{number}"
            await bob.send_offer("alice", sdp, connection=name, proof=trust.sign_offer("alice", name, sdp))
        unproven, too_many = await told
        assert (unproven.connection, unproven.code, unproven.retry_after) == ("unproven", "bad-proof", 60)
        assert (too_many.connection, too_many.code) == (f"number{MAX_OFFERS}", "rate-limited")
        assert too_many.retry_after is not None
        assert 0 < too_many.retry_after <= 10


async def test_who_answers_an_offer_of_a_program_that_was_restarted_learns_that_it_is_over() -> None:
    """Else the attempt would keep the place of another one until its time-out."""
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice") as (alice,),
        SignalingClient(server.url, "bob") as bob,
        asyncio.timeout(PATIENCE),
    ):
        await bob.register(Identity.generate())
        events = bob.events()
        await bob.send_answer("alice", "v=0\r\n", connection="of before")
        bye = await anext(events)
        alice.send("bob", "hello")  # now there is an attempt with another name
        offer = await anext(events)
        assert isinstance(offer, OfferReceived)
        await bob.send_answer("alice", "v=0\r\n", connection="of before, too")
        while not isinstance(another := await anext(events), ByeReceived):
            pass
        assert isinstance(bye, ByeReceived)
        assert (bye.connection, bye.reason, bye.code) == ("of before", "this connection is over", None)
        assert (another.connection, another.reason) == ("of before, too", "this connection is over")
