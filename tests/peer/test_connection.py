"""Two PeerConnections over a link in memory: real engines, real keys, and a server that does as it pleases."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.errors import (
    ConnectionLost,
    IdentityError,
    PeerConnectionFailed,
    PeerOffline,
    PeerRefused,
    ProofInvalid,
    RequestFailed,
    StateError,
)
from aldis.identity.pins import FilePins
from aldis.peer.connection import PeerState, PeerTiming
from aldis.peer.engine import EngineConfig, EngineState
from aldis.peer.transport import BUFFER_HIGH, BUFFER_LOW
from aldis.protocol.channel import MAX_FRAME, Ack, Content, encode_ack, encode_message
from aldis.protocol.messages import Description, IceServer
from support.patience import PATIENCE
from support.peers import LOOPBACK, FakeTimers, Link, Passed, Side, connected, nothing_left_behind

ENGINES = ("wrtc", "aiortc")
across = pytest.mark.parametrize(("first", "second"), list(itertools.product(ENGINES, ENGINES)))
NONSENSE = "m=application nonsense\r\na=fingerprint:nonsense\r\n"  # what the engine itself has to turn down
QUICK = PeerTiming(attempt=3.0, heal=2.0, heartbeat=0.1, silence=0.5, probe=0.3, linger=0.5)


def pair(first: str = "wrtc", second: str = "wrtc", **options: object) -> tuple[Link, Side, Side]:
    link = Link()
    alice = Side(link, "alice", "bob", engine=first, **options)  # type: ignore[arg-type]
    bob = Side(link, "bob", "alice", engine=second, **options)  # type: ignore[arg-type]
    return link, alice, bob


async def end(*sides: Side) -> None:
    for side in sides:
        await side.peer.close()
        assert side.peer.state is PeerState.CLOSED
        assert not side.open


# --- how it goes when all is well -------------------------------------------------------------------------------------


@across
async def test_two_peers_connect_and_exchange_frames(first: str, second: str) -> None:
    async with nothing_left_behind():
        _, alice, bob = pair(first, second)
        alice.peer.connect()
        await connected(alice, bob)
        assert alice.told.states == bob.told.states == [PeerState.CONNECTING, PeerState.CONNECTED]
        assert alice.told.hellos[0].stream.startswith("bob-")
        assert bob.told.hellos[0].stream.startswith("alice-")
        for frame in encode_message(Content.TEXT, 1, b"hello"):
            assert alice.peer.send_frame(frame)
        assert bob.peer.send_frame(encode_ack(1))
        await bob.until(lambda: len(bob.told.frames) == 1)
        await alice.until(lambda: alice.told.frames == [Ack(1)])
        await end(alice, bob)


@across
@pytest.mark.parametrize("swapped", [False, True])
async def test_both_connecting_at_once_end_with_one_connection(first: str, second: str, swapped: bool) -> None:
    async with nothing_left_behind():
        link, alice, bob = pair(first, second)
        for side in (bob, alice) if swapped else (alice, bob):
            side.peer.connect()
        await connected(alice, bob)
        assert len(link.of(AnswerReceived)) == 1
        assert len(alice.told.hellos) == len(bob.told.hellos) == 1
        assert alice.peer.send_frame(encode_ack(7))
        await bob.until(lambda: bob.told.frames == [Ack(7)])
        assert alice.told.closings == bob.told.closings == 0
        await end(alice, bob)


async def test_connecting_again_while_connected_does_nothing() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        alice.peer.connect()
        alice.peer.connect()
        await connected(alice, bob)
        alice.peer.connect()
        bob.peer.connect()
        assert len(link.of(OfferReceived)) == 1
        await end(alice, bob)


async def test_the_round_trip_time_is_measured() -> None:
    async with nothing_left_behind():
        _, alice, bob = pair(timing=QUICK)
        assert alice.peer.round_trip_time is None
        alice.peer.connect()
        await connected(alice, bob)
        ticks = asyncio.Event()
        while alice.peer.round_trip_time is None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ticks.wait(), 0.02)
        assert 0 < alice.peer.round_trip_time < PATIENCE
        await end(alice, bob)


async def test_the_stats_and_the_address_belong_to_the_current_connection() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        link.middle = lambda message: [from_device(message, "phone") if message.sender == "bob" else message]
        assert alice.peer.address == "bob"
        assert await alice.peer.stats() is None
        alice.peer.connect()
        await connected(alice, bob)
        assert alice.peer.address == "bob/phone"
        stats = await alice.peer.stats()
        assert stats is not None
        assert stats.local is not None
        await end(alice, bob)
        assert alice.peer.address == "bob"
        # What follows the answer goes to the device that gave it.
        assert {m.to for m in link.of(ByeReceived, "alice")} == {"bob/phone"}


def from_device(message: Passed, device: str) -> Passed:
    event = message.event
    changed = type(event)(**{**{f: getattr(event, f) for f in event.__slots__}, "sender": f"{event.sender}/{device}"})
    return Passed(message.sender, message.to, changed)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_sender_is_held_back_and_told_when_there_is_room(engine: str) -> None:
    async with nothing_left_behind():
        _, alice, bob = pair(engine, engine)
        alice.peer.connect()
        await connected(alice, bob)
        frame = encode_message(Content.BYTES, 1, bytes(MAX_FRAME - 14), chunk=MAX_FRAME - 14)[0]
        assert len(frame) == MAX_FRAME
        sent = 0
        for _ in range(2):
            while alice.peer.send_frame(frame):
                sent += 1
            told = alice.told.writable
            await alice.until(lambda before=told: alice.told.writable > before, "room")
        assert sent * MAX_FRAME > BUFFER_HIGH > BUFFER_LOW
        await bob.until(lambda: len(bob.told.frames) == sent, "all frames")
        await end(alice, bob)


async def test_frames_are_refused_while_there_is_no_channel() -> None:
    async with nothing_left_behind():
        _, alice, bob = pair()
        assert not alice.peer.send_frame(encode_ack(1))
        alice.peer.connect()
        assert not alice.peer.send_frame(encode_ack(1))
        await connected(alice, bob)
        await end(alice)
        assert not alice.peer.send_frame(encode_ack(1))
        await end(bob)


# --- the end ----------------------------------------------------------------------------------------------------------


@across
async def test_closing_says_goodbye_with_its_reason(first: str, second: str) -> None:
    async with nothing_left_behind():
        link, alice, bob = pair(first, second)
        link.middle = lambda message: [] if isinstance(message.event, ByeReceived) else [message]
        alice.peer.connect()
        await connected(alice, bob)
        await alice.peer.close("going home")
        assert alice.told.states[-1] is PeerState.CLOSED
        await bob.until_state(PeerState.CLOSED)
        assert bob.told.errors == []
        assert bob.told.closings == alice.told.closings == 1
        await end(bob)


async def test_after_the_other_side_has_left_both_may_connect_again() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        alice.peer.connect()
        await connected(alice, bob)
        await alice.peer.close()
        await bob.until_state(PeerState.CLOSED)
        again = Side(link, "alice", "bob", identity=alice.identity)
        bob.peer.connect()
        await connected(again, bob)
        assert bob.told.closings == 1
        assert len(bob.told.hellos) == 2
        await end(again, bob)


async def test_after_close_nothing_happens_any_more() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        alice.peer.connect()
        await connected(alice, bob)
        await asyncio.gather(alice.peer.close(), alice.peer.close())
        told = len(alice.told.states)
        for message in link.passed:
            if message.to == "alice":
                alice.receive(message.event)
        with pytest.raises(StateError):
            alice.peer.connect()
        await alice.peer.close()
        assert len(alice.told.states) == told
        await end(bob)


async def test_closing_in_the_middle_of_an_attempt_tells_the_other_side() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        link.middle = lambda message: [] if isinstance(message.event, AnswerReceived) else [message]
        alice.peer.connect()
        await bob.until_state(PeerState.CONNECTING)
        await link.until_sent(AnswerReceived)
        await alice.peer.close("changed my mind")
        await bob.until_state(PeerState.FAILED)
        assert "changed my mind" in str(bob.told.errors[-1])
        await end(bob)


async def test_closing_before_anything_has_begun_is_fine() -> None:
    async with nothing_left_behind():
        _, alice, bob = pair()
        alice.peer.connect()
        await end(alice, bob)
        assert alice.told.states[-1] is PeerState.CLOSED


async def test_twenty_connections_leave_nothing_behind() -> None:
    import psutil

    process = psutil.Process()
    async with nothing_left_behind():
        files = threads = 0
        for number in range(21):
            _, alice, bob = pair()
            alice.peer.connect()
            await connected(alice, bob)
            await end(alice, bob)
            if number == 0:  # what is made once for the process is there now
                files, threads = process.num_fds(), process.num_threads()
        assert process.num_fds() <= files + 2
        assert process.num_threads() <= threads + 2


# --- signaling that fails ---------------------------------------------------------------------------------------------


async def test_a_server_that_takes_no_more_messages_says_until_when() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        link.down = RequestFailed("rate-limited", "enough from you waits", temporary=True, retry_after=7.0)
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        error = alice.told.errors[-1]
        assert isinstance(error, PeerRefused)
        assert (error.code, error.retry_after, error.temporary) == ("rate-limited", 7.0, True)
        await end(alice, bob)


async def test_a_peer_that_is_not_online_is_said_to_be_offline() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        link.down = RequestFailed("not-online", "User bob is not online")
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        assert isinstance(alice.told.errors[-1], PeerOffline)
        # The same once more: nothing of the first attempt is in the way, and the failure is told again.
        alice.peer.connect()
        await alice.until(lambda: len(alice.told.errors) == 2)
        link.down = None
        alice.peer.connect()
        await connected(alice, bob)
        await end(alice, bob)


async def test_a_lost_server_fails_the_attempt_but_not_the_connection() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        link.down = ConnectionLost("the server is gone")
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        assert "the server is gone" in str(alice.told.errors[-1])
        link.down = None
        alice.peer.connect()
        await connected(alice, bob)
        link.down = ConnectionLost("the server is gone")
        assert alice.peer.send_frame(encode_ack(3))
        await bob.until(lambda: bob.told.frames == [Ack(3)])
        await end(alice, bob)


async def test_candidates_that_overtake_their_offer_are_kept() -> None:
    """All candidates of both sides arrive before the descriptions that they belong to."""
    async with nothing_left_behind():
        link, alice, bob = pair()
        held: list[Passed] = []
        done: set[str] = set()

        def middle(message: Passed) -> list[Passed]:
            if isinstance(message.event, OfferReceived | AnswerReceived):
                held.append(message)
                return []
            if isinstance(message.event, CandidateReceived) and message.event.candidate is None:
                done.add(message.sender)
                mine = [each for each in held if each.sender == message.sender]
                return [message, *mine]
            return [message]

        link.middle = middle
        alice.peer.connect()
        await connected(alice, bob)
        assert done == {"alice", "bob"}
        await end(alice, bob)


@pytest.mark.parametrize("seed", range(4))
async def test_repeated_and_reordered_messages_do_no_harm(seed: int) -> None:
    """Each message arrives twice, and the second time late."""
    import random

    chance = random.Random(seed)
    async with nothing_left_behind():
        link, alice, bob = pair()
        late: list[Passed] = []

        def middle(message: Passed) -> list[Passed]:
            late.append(message)
            again = late.pop(chance.randrange(len(late))) if len(late) > 3 else None
            return [message] if again is None else [message, again]

        link.middle = middle
        alice.peer.connect()
        bob.peer.connect()
        await connected(alice, bob)
        for message in late:
            link.deliver(message)
        assert alice.peer.send_frame(encode_ack(1))
        await bob.until(lambda: bob.told.frames == [Ack(1)])
        assert alice.told.closings == bob.told.closings == 0
        await end(alice, bob)


async def test_an_attempt_that_nobody_answers_ends() -> None:
    async with nothing_left_behind():
        timers = FakeTimers()
        link = Link()
        alice = Side(link, "alice", "bob", timers=timers)
        alice.peer.connect()
        await alice.until(lambda: alice.told.states == [PeerState.CONNECTING])
        await link.until_sent(OfferReceived)
        timers.advance(29.9)
        assert alice.peer.state is PeerState.CONNECTING
        timers.advance(0.2)
        await alice.until_state(PeerState.FAILED)
        assert str(alice.told.errors[-1]) == "no direct connection to bob: no answer within 30 s"
        await end(alice)
        assert timers.waiting == 0


async def test_a_configuration_that_cannot_be_used_fails_the_attempt() -> None:
    async with nothing_left_behind():
        _, alice, bob = pair()
        alice.config = EngineConfig(ice_servers=(IceServer(["http://nonsense"]),))
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        assert "http://nonsense" in str(alice.told.errors[-1])
        alice.config = LOOPBACK
        alice.peer.connect()
        await connected(alice, bob)
        await end(alice, bob)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("sdp", ["", "v=0\r\n" * 30_000, NONSENSE], ids=["empty", "huge", "nonsense"])
async def test_a_proven_offer_that_is_nonsense_fails_the_attempt_only(engine: str, sdp: str) -> None:
    async with nothing_left_behind():
        _, alice, bob = pair(engine, engine)
        proof = bob.trust.sign_offer("alice", "x" * 22, sdp)
        alice.receive(OfferReceived("bob", Description("offer", sdp), "x" * 22, proof, bob.peer._engine.capabilities))
        await alice.until_state(PeerState.FAILED)
        assert isinstance(alice.told.errors[-1], PeerConnectionFailed)
        alice.peer.connect()
        await connected(alice, bob)
        await end(alice, bob)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_proven_answer_that_is_nonsense_fails_the_attempt_only(engine: str) -> None:
    async with nothing_left_behind():
        link, alice, bob = pair(engine, engine)

        def middle(message: Passed) -> list[Passed]:
            if not isinstance(message.event, OfferReceived):
                return []
            name, offer = message.event.connection, message.event
            assert name is not None
            assert offer.proof is not None
            proof = bob.trust.sign_answer(
                "alice", name, NONSENSE, offer_sdp=offer.description.sdp, nonce=offer.proof.nonce
            )
            event = AnswerReceived("bob", Description("answer", NONSENSE), name, proof, offer.capabilities)
            return [Passed("bob", "alice", event)]

        link.middle = middle
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        assert engine in str(alice.told.errors[-1])
        link.middle = lambda message: [message]
        alice.peer.connect()
        await connected(alice, bob)
        await end(alice, bob)


async def test_pins_that_cannot_be_written_are_no_forgery(tmp_path: Path) -> None:
    async with nothing_left_behind():
        link = Link()
        with closing(FilePins(tmp_path / "pins")) as pins:
            alice, bob = Side(link, "alice", "bob", pins=pins), Side(link, "bob", "alice")
            with closing(sqlite3.connect(tmp_path / "pins")) as vandal:
                vandal.execute("DROP TABLE pins")
            alice.peer.connect()
            await alice.until(lambda: bool(alice.told.refusals))
            refusal = alice.told.refusals[0]
            assert isinstance(refusal, IdentityError)
            assert "cannot use the pinned keys" in str(refusal)
            assert isinstance(refusal.__cause__, sqlite3.Error)
            # And at once: no better answer would come.
            await alice.until_state(PeerState.FAILED)
            assert alice.told.errors == [refusal]
            await end(alice, bob)


async def test_pins_that_fail_when_the_path_is_looked_for_anew_cost_no_connection(tmp_path: Path) -> None:
    async with nothing_left_behind():
        link = Link()
        with closing(FilePins(tmp_path / "pins")) as pins:
            alice, bob = Side(link, "alice", "bob", pins=pins), Side(link, "bob", "alice")
            alice.peer.connect()
            await connected(alice, bob)
            with closing(sqlite3.connect(tmp_path / "pins")) as vandal:
                vandal.execute("DROP TABLE pins")
            transport = alice.peer._current
            assert transport is not None
            transport.state_changed(EngineState.DISCONNECTED)
            await alice.until(lambda: bool(alice.told.refusals))
            bob.peer.send_frame(encode_ack(1))
            await alice.until(lambda: alice.told.frames == [Ack(1)])
            await connected(alice)
            assert alice.told.closings == 0
            await end(alice, bob)


# --- messages that are not for us -------------------------------------------------------------------------------------


async def test_messages_of_others_and_without_a_name_are_left_alone() -> None:
    async with nothing_left_behind():
        link, alice, bob = pair()
        alice.peer.connect()
        await connected(alice, bob)
        offer = link.of(OfferReceived)[0].event
        assert isinstance(offer, OfferReceived)
        bob.receive(OfferReceived("mallory", offer.description, "x", offer.proof, offer.capabilities))
        bob.receive(ByeReceived("mallory", offer.connection, None))
        bob.receive(ByeReceived("alice", None, None))
        bob.receive(CandidateReceived("alice", None, None))
        assert bob.told.refusals == []
        bob.receive(OfferReceived("alice", offer.description, None, offer.proof, offer.capabilities))
        await bob.until(lambda: len(bob.told.refusals) == 1)
        assert isinstance(bob.told.refusals[0], ProofInvalid)
        assert bob.peer.state is PeerState.CONNECTED
        await end(alice, bob)
