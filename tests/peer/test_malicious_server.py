"""The server as the enemy: it drops, repeats, reorders and forges what passes. No channel to it ever opens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.errors import PeerKeyChanged, PeerRefused, ProofInvalid
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.peer.connection import PeerState, PeerTiming
from aldis.peer.engine import EngineRefused
from aldis.peer.trust import Trust
from aldis.protocol.channel import Ack, encode_ack
from aldis.protocol.messages import Capabilities, Description, Proof
from support.evil_server import with_another_fingerprint
from support.peers import LOOPBACK, SERVER, EngineEnd, Link, Passed, Side, connected, nothing_left_behind

SHORT = PeerTiming(attempt=1.5, heal=0.5, heartbeat=0.2, silence=0.6, probe=0.3, linger=0.3)
Event = OfferReceived | AnswerReceived


class Mallory:
    """The server, with keys and engines of its own, between alice and bob."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.identity = Identity.generate()
        self.engines: list[EngineEnd] = []

    def as_user(self, user: str) -> Trust:
        return Trust(self.identity, user, SERVER, MemoryPins())

    async def engine(self) -> EngineEnd:
        end = EngineEnd("wrtc", LOOPBACK)
        self.engines.append(end)
        return end

    async def close(self) -> None:
        for end in self.engines:
            await end.connection.close()

    def assert_no_channel(self) -> None:
        assert all(not end.channels for end in self.engines), "a channel to the server is open"


def replaced(event: Event, sdp: str | None = None, proof: Proof | None = None) -> Event:
    description = event.description if sdp is None else Description(event.description.type, sdp)
    return type(event)(event.sender, description, event.connection, proof or event.proof, event.capabilities)


def _swap_fingerprint(event: Event, mallory: Mallory) -> Event:
    sdp = with_another_fingerprint(event.description.sdp)
    return replaced(event, sdp)


def _swap_sdp(event: Event, mallory: Mallory) -> Event:
    return replaced(event, event.description.sdp.replace("a=sctp-port:5000", "a=sctp-port:5001"))


def _swap_key(event: Event, mallory: Mallory) -> Event:
    assert event.proof is not None
    from aldis.protocol.codec import to_base64

    return replaced(
        event,
        proof=Proof(to_base64(mallory.identity.public_key), event.proof.nonce, event.proof.signature),
    )


def _drop_proof(event: Event, mallory: Mallory) -> Event:
    return type(event)(event.sender, event.description, event.connection, None, event.capabilities)


def _swap_connection(event: Event, mallory: Mallory) -> Event:
    return type(event)(event.sender, event.description, "z" * 22, event.proof, event.capabilities)


def _swap_type(event: Event, mallory: Mallory) -> Event:
    other = AnswerReceived if isinstance(event, OfferReceived) else OfferReceived
    return other(event.sender, event.description, event.connection, event.proof, event.capabilities)


TAMPERINGS: dict[str, Callable[[Event, Mallory], Event]] = {
    "the fingerprint": _swap_fingerprint,
    "the description": _swap_sdp,
    "the key": _swap_key,
    "the proof away": _drop_proof,
    "the connection": _swap_connection,
    "offer and answer": _swap_type,
}


@pytest.mark.parametrize("what", TAMPERINGS)
@pytest.mark.parametrize("kind", [OfferReceived, AnswerReceived])
async def test_a_server_that_swaps_things_gets_no_channel_and_changes_no_state(
    what: str, kind: type[OfferReceived] | type[AnswerReceived]
) -> None:
    async with nothing_left_behind():
        link = Link()
        mallory = Mallory(link)
        alice = Side(link, "alice", "bob", timing=SHORT)
        bob = Side(link, "bob", "alice", timing=SHORT)

        def middle(message: Passed) -> list[Passed]:
            if isinstance(message.event, kind):
                return [Passed(message.sender, message.to, TAMPERINGS[what](message.event, mallory))]
            return [message]

        link.middle = middle
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        assert alice.told.hellos == bob.told.hellos == []
        if kind is OfferReceived and what != "offer and answer":
            assert bob.told.states == []  # nothing at all has happened to bob
            assert isinstance(bob.told.refusals[0], ProofInvalid)
            assert bob.pins.find(SERVER, "alice") is None
        await alice.peer.close()
        await bob.peer.close()


async def test_the_reason_of_a_failure_is_the_refused_answer_and_not_the_time_out() -> None:
    async with nothing_left_behind():
        link = Link()
        mallory = Mallory(link)
        alice = Side(link, "alice", "bob", timing=SHORT)
        bob = Side(link, "bob", "alice")  # who hears of it long before his own time is up
        link.middle = lambda message: [
            Passed(message.sender, message.to, _swap_fingerprint(message.event, mallory))
            if isinstance(message.event, AnswerReceived)
            else message
        ]
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        assert isinstance(alice.told.errors[-1], ProofInvalid)
        assert isinstance(alice.told.refusals[0], ProofInvalid)
        await bob.until_state(PeerState.FAILED)  # bob is told as well, when the attempt is over
        (bye,) = [message.event for message in link.of(ByeReceived, "alice")]
        assert isinstance(bye, ByeReceived)
        assert (bye.reason, bye.code) == ("the proof is not valid", "bad-proof")
        assert [error.code for error in bob.told.errors if isinstance(error, PeerRefused)] == ["bad-proof"]
        await alice.peer.close()
        await bob.peer.close()


async def test_a_server_that_answers_with_its_own_key_is_found_out_when_the_key_is_pinned() -> None:
    async with nothing_left_behind():
        link = Link()
        mallory = Mallory(link)
        bob = Identity.generate()
        pins = MemoryPins()
        pins.pin(SERVER, "bob", bob.public_key)
        alice = Side(link, "alice", "bob", pins=pins, timing=SHORT)
        offered = asyncio.Event()

        def swallow(message: Passed) -> list[Passed]:
            if isinstance(message.event, OfferReceived):
                offered.set()
            return []

        link.middle = swallow
        alice.peer.connect()
        await offered.wait()
        offer = link.of(OfferReceived)[0].event
        assert isinstance(offer, OfferReceived)
        await answer_as(mallory, "bob", alice, offer)
        await alice.until_state(PeerState.FAILED)
        assert isinstance(alice.told.errors[-1], PeerKeyChanged)
        assert isinstance(alice.told.refusals[0], PeerKeyChanged)
        mallory.assert_no_channel()
        assert pins.find(SERVER, "bob") == bob.public_key
        await alice.peer.close()
        await mallory.close()


async def answer_as(mallory: Mallory, user: str, victim: Side, offer: OfferReceived) -> None:
    """Answer an offer with Mallory's engine and Mallory's key, candidates and all."""
    assert offer.connection is not None
    assert offer.proof is not None
    end = await mallory.engine()
    sdp = await end.connection.answer(offer.description.sdp)
    proof = mallory.as_user(user).sign_answer(
        "alice", offer.connection, sdp, offer_sdp=offer.description.sdp, nonce=offer.proof.nonce
    )
    victim.receive(AnswerReceived(user, Description("answer", sdp), offer.connection, proof, Capabilities()))
    await end.until(lambda: None in end.candidates)
    for candidate in end.candidates:
        victim.receive(CandidateReceived(user, candidate, offer.connection))


async def test_a_server_that_offers_in_anothers_name_is_found_out_when_the_key_is_pinned() -> None:
    async with nothing_left_behind():
        link = Link()
        mallory = Mallory(link)
        bob = Identity.generate()
        pins = MemoryPins()
        pins.pin(SERVER, "bob", bob.public_key)
        alice = Side(link, "alice", "bob", pins=pins, timing=SHORT)
        end = await mallory.engine()
        end.connection.open_channel("aldis.v1")
        sdp = await end.connection.offer()
        proof = mallory.as_user("bob").sign_offer("alice", "m" * 22, sdp)
        alice.receive(OfferReceived("bob", Description("offer", sdp), "m" * 22, proof, Capabilities()))
        await alice.until(lambda: bool(alice.told.refusals))
        assert isinstance(alice.told.refusals[0], PeerKeyChanged)
        assert alice.told.states == []
        assert link.passed == []  # not even an answer
        await alice.peer.close()
        await mallory.close()


async def test_a_server_in_the_middle_of_both_gets_no_channel_although_neither_knows_the_others_key_yet() -> None:
    """With its own key on both sides it is the peer, on first use; with theirs it is nobody. Never anything between."""
    async with nothing_left_behind():
        link = Link()
        mallory = Mallory(link)
        alice = Side(link, "alice", "bob", timing=SHORT)
        bob = Side(link, "bob", "alice", timing=SHORT)

        def middle(message: Passed) -> list[Passed]:
            # Its own connection, alice's signature: the description with the fingerprint is what she has signed.
            if isinstance(message.event, OfferReceived):
                return [Passed(message.sender, message.to, _swap_fingerprint(message.event, mallory)), message]
            return [message]

        link.middle = middle
        alice.peer.connect()
        await connected(alice, bob)
        assert bob.told.refusals  # the altered one came first, and harmed nothing
        assert bob.pins.find(SERVER, "alice") == alice.identity.public_key
        assert alice.pins.find(SERVER, "bob") == bob.identity.public_key
        await alice.peer.close()
        await bob.peer.close()


async def test_a_replayed_offer_is_refused_and_harms_neither_a_connection_nor_its_state() -> None:
    async with nothing_left_behind():
        link = Link()
        alice = Side(link, "alice", "bob")
        bob = Side(link, "bob", "alice")
        alice.peer.connect()
        await connected(alice, bob)
        first = link.of(OfferReceived)[0].event
        assert isinstance(first, OfferReceived)
        await alice.peer.close()
        await bob.until_state(PeerState.CLOSED)
        again = Side(link, "alice", "bob", identity=alice.identity)
        again.peer.connect()
        await connected(again, bob)
        states = list(bob.told.states)
        bob.receive(first)
        altered = type(first)(first.sender, first.description, "z" * 22, first.proof, first.capabilities)
        bob.receive(altered)
        await bob.until(lambda: bool(bob.told.refusals))
        assert "signature" in str(bob.told.refusals[0])
        assert len(bob.told.refusals) == 1  # a late repetition is no reason to alarm a person
        assert bob.told.states == states
        again.peer.send_frame(encode_ack(1))
        await bob.until(lambda: bob.told.frames == [Ack(1)])
        await again.peer.close()
        await bob.peer.close()


@pytest.mark.parametrize("engine", ["wrtc", "aiortc"])
async def test_an_offer_replayed_to_a_new_process_costs_an_attempt_and_no_connection(engine: str) -> None:
    """The new process of bob has no memory of nonces. The old offer passes the check, and leads nowhere."""
    async with nothing_left_behind():
        link = Link()
        mallory = Mallory(link)
        alice = Side(link, "alice", "bob", engine=engine)
        bob = Side(link, "bob", "alice", engine=engine)
        alice.peer.connect()
        await connected(alice, bob)
        old = link.of(OfferReceived)[0].event
        assert isinstance(old, OfferReceived)
        await alice.peer.close()
        await bob.peer.close()

        alice = Side(link, "alice", "bob", engine=engine, identity=alice.identity)
        bob = Side(link, "bob", "alice", engine=engine, identity=bob.identity)
        alice.peer.connect()
        await connected(alice, bob)
        link.passed.clear()
        bob.receive(old)
        await link.until_sent(AnswerReceived, "bob")
        # The server takes the answer for itself and tries to be alice: it has all but her certificate's key.
        end = await mallory.engine()
        end.connection.open_channel("aldis.v1")
        await end.connection.offer()
        answer = link.of(AnswerReceived, "bob")[0].event
        assert isinstance(answer, AnswerReceived)
        with contextlib.suppress(EngineRefused):
            await end.connection.accept(answer.description.sdp)
        await end.until(lambda: None in end.candidates)
        for candidate in end.candidates:
            bob.receive(CandidateReceived("alice", candidate, old.connection))
        for number in range(1, 4):
            alice.peer.send_frame(encode_ack(number))
            await bob.until(lambda n=number: bob.told.frames[-1:] == [Ack(n)])
        mallory.assert_no_channel()
        assert bob.told.states == [PeerState.CONNECTING, PeerState.CONNECTED]
        assert bob.told.closings == 0
        await alice.peer.close()
        await bob.peer.close()
        await mallory.close()


async def test_a_replayed_answer_changes_nothing() -> None:
    async with nothing_left_behind():
        link = Link()
        alice = Side(link, "alice", "bob")
        bob = Side(link, "bob", "alice")
        alice.peer.connect()
        await connected(alice, bob)
        for message in link.of(AnswerReceived):
            alice.receive(message.event)
        alice.peer.send_frame(encode_ack(1))
        await bob.until(lambda: bob.told.frames == [Ack(1)])
        assert alice.told.refusals == []
        assert alice.told.states == [PeerState.CONNECTING, PeerState.CONNECTED]
        await alice.peer.close()
        await bob.peer.close()


async def test_an_answer_to_an_earlier_attempt_does_not_pass_for_one_to_this() -> None:
    async with nothing_left_behind():
        link = Link()
        alice = Side(link, "alice", "bob", timing=SHORT)
        bob = Side(link, "bob", "alice", timing=SHORT)
        link.middle = lambda message: [] if isinstance(message.event, AnswerReceived) else [message]
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        old = link.of(AnswerReceived)[0].event
        assert isinstance(old, AnswerReceived)
        await bob.until_state(PeerState.FAILED)
        alice.peer.connect()
        await link.until_sent(OfferReceived, "alice", times=2)
        name = link.of(OfferReceived, "alice")[1].event.connection
        alice.receive(AnswerReceived("bob", old.description, name, old.proof, old.capabilities))
        alice.receive(old)
        await alice.until(lambda: bool(alice.told.refusals))
        assert "another offer" in str(alice.told.refusals[0])
        link.middle = lambda message: [message]
        for message in link.of(AnswerReceived, "bob")[1:]:
            link.deliver(message)
        await link.until_sent(AnswerReceived, "bob", times=2)
        await alice.peer.close()
        await bob.peer.close()


async def test_forged_candidates_and_byes_cannot_take_a_connection_away() -> None:
    async with nothing_left_behind():
        link = Link()
        alice = Side(link, "alice", "bob", timing=SHORT)
        bob = Side(link, "bob", "alice", timing=SHORT)
        alice.peer.connect()
        await connected(alice, bob)
        name = link.of(OfferReceived)[0].event.connection
        candidates = [message.event for message in link.of(CandidateReceived, "bob")]
        for number in range(500):
            alice.receive(CandidateReceived("bob", None, f"unknown{number}"))
            for event in candidates:
                alice.receive(event)
        alice.receive(ByeReceived("bob", name, "forged"))
        alice.peer.send_frame(encode_ack(1))
        bob.peer.send_frame(encode_ack(2))
        await bob.until(lambda: bob.told.frames == [Ack(1)])
        await alice.until(lambda: alice.told.frames == [Ack(2)])
        assert alice.told.states == [PeerState.CONNECTING, PeerState.CONNECTED]
        await alice.peer.close()
        await bob.peer.close()
