"""Attempts of a PeerConnection that wait for their slot, in front of real engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.peer.connection import PeerState
from aldis.peer.slots import CALLS, MAX_WAIT, AttemptSlots
from support.patience import PATIENCE
from support.peers import FakeTimers, Link, Side, connected, nothing_left_behind


class Busy:
    """Slots that others have all taken."""

    def __init__(self) -> None:
        self.timers = FakeTimers()
        self.slots = AttemptSlots(self.timers, calls=1, answers=1)
        self._others = [queue.ask("others", lambda: None) for queue in (self.slots.calls, self.slots.answers)]

    def free(self) -> None:
        for slot in self._others:
            slot.release()
        self.timers.advance(0)


@asynccontextmanager
async def two(busy: Busy) -> AsyncIterator[tuple[Link, Side, Side]]:
    """alice, who has all the time in the world, and bob, who is busy."""
    async with nothing_left_behind():
        link = Link()
        alice, bob = Side(link, "alice", "bob"), Side(link, "bob", "alice", slots=busy.slots)
        try:
            yield link, alice, bob
        finally:
            await alice.peer.close()
            await bob.peer.close()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_offer_waits_with_its_candidates_and_connects_when_its_turn_comes() -> None:
    busy = Busy()
    async with two(busy) as (link, alice, bob):
        alice.peer.connect()
        await link.signal.until(
            lambda: any(event.candidate is None for event in link.events(CandidateReceived)), "the last"
        )
        for repeated in link.of(OfferReceived):  # as an impolite side does, and a server may
            link.deliver(repeated)
        assert link.of(AnswerReceived) == []
        assert bob.peer.state is PeerState.NEW
        busy.free()
        await connected(alice, bob)
        assert len(link.of(AnswerReceived)) == 1
        assert bob.told.refusals == []


async def test_a_call_that_waits_is_connecting_and_its_clock_has_not_begun() -> None:
    busy = Busy()
    async with two(busy) as (link, alice, bob):
        bob.peer.connect()
        bob.peer.connect()
        await bob.until_state(PeerState.CONNECTING)
        assert bob.peer.clock_from is None
        assert link.passed == []
        busy.free()
        assert bob.peer.clock_from is not None
        await connected(alice, bob)
        assert busy.slots.calls.held == 0


async def test_an_offer_that_has_waited_too_long_fails_at_its_sender_at_once() -> None:
    busy = Busy()
    others = 40
    for number in range(others):  # each has the slot for a second
        busy.slots.answers.ask(number, lambda: None)
    async with two(busy) as (link, alice, bob):
        alice.peer.connect()
        await link.until_sent(OfferReceived)
        await settle()
        assert busy.slots.answers.waiting == others + 1
        busy.timers.advance(MAX_WAIT)
        await alice.until_state(PeerState.FAILED)
        assert [str(error) for error in alice.told.errors] == [
            "no direct connection to bob: the other side refuses: busy"
        ]
        assert bob.told.states == []


async def test_closing_tells_whoever_waits_for_an_answer() -> None:
    busy = Busy()
    async with two(busy) as (link, alice, bob):
        alice.peer.connect()
        await link.until_sent(CandidateReceived, "alice")
        await bob.peer.close("the other side has left")
        await alice.until_state(PeerState.FAILED)
        assert [event.reason for event in link.events(ByeReceived, "bob")] == ["the other side has left"]
        assert busy.slots.answers.waiting == 0


async def test_peers_that_never_answer_do_not_hold_up_those_that_do() -> None:
    timers = FakeTimers()  # no slot ends by itself
    slots = AttemptSlots(timers)
    async with nothing_left_behind():
        link, silent = Link(), Link()
        silent.middle = lambda _: []
        gone = [Side(silent, f"us-{number}", "gone", slots=slots) for number in range(3 * CALLS)]
        alice, bob = Side(link, "alice", "bob", slots=slots), Side(link, "bob", "alice")
        try:
            for side in (*gone, alice):
                side.peer.connect()
            async with asyncio.timeout(PATIENCE):
                while alice.peer.state is not PeerState.CONNECTED:
                    timers.advance(0)
                    await asyncio.sleep(0)
            assert all(side.peer.state is PeerState.CONNECTING for side in gone)
        finally:
            await asyncio.gather(*(side.peer.close() for side in (*gone, alice, bob)))
