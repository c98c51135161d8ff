"""Turns of attempts: how many at once, in which order, and that nothing waits for ever or without a word."""

from __future__ import annotations

import pytest

from aldis.peer.turns import MAX_WAIT, MAX_WAITING, TURN_SECONDS, Lane, PeerTurns, Turn, Turns
from support.peers import FakeTimers


class Attempts:
    """A lane, and which turns have come."""

    def __init__(self, limit: int) -> None:
        self.timers = FakeTimers()
        self.lane = Lane(limit, self.timers)
        self.came: list[str] = []
        self.turns: dict[str, Turn] = {}

    def ask(self, *names: str) -> None:
        """Names such as `alice-1`; what is before the hyphen is the owner."""
        for name in names:
            turn = self.lane.ask(name.partition("-")[0], lambda name=name: self.came.append(name))
            self.turns[name] = turn
            if turn.has_come:
                self.came.append(name)

    def release(self, *names: str) -> None:
        for name in names:
            self.turns[name].release()
        self.timers.advance(0)


def test_no_more_turns_are_taken_than_there_are_and_the_next_comes_when_one_ends() -> None:
    attempts = Attempts(2)
    attempts.ask("alice-1", "alice-2", "alice-3", "alice-4")
    assert attempts.came == ["alice-1", "alice-2"]
    attempts.release("alice-2")
    assert attempts.came == ["alice-1", "alice-2", "alice-3"]
    attempts.release("alice-1", "alice-3")
    assert attempts.came[3:] == ["alice-4"]
    assert (attempts.lane.held, attempts.lane.waiting, attempts.lane.most) == (1, 0, 2)


def test_who_wants_much_does_not_hold_up_who_wants_little() -> None:
    attempts = Attempts(1)
    attempts.ask("alice-1", "alice-2", "alice-3", "alice-4", "bob-1", "carol-1", "bob-2")
    while attempts.lane.waiting:
        attempts.release(attempts.came[-1])
    assert attempts.came == ["alice-1", "alice-2", "bob-1", "carol-1", "alice-3", "bob-2", "alice-4"]


def test_a_turn_that_is_not_released_ends_by_itself() -> None:
    attempts = Attempts(1)
    attempts.ask("alice-1", "bob-1")
    attempts.timers.advance(TURN_SECONDS - 0.01)
    assert attempts.came == ["alice-1"]
    attempts.timers.advance(0.01)
    assert attempts.came == ["alice-1", "bob-1"]
    attempts.release("alice-1", "alice-1")  # that it is released afterwards takes nothing from others
    assert attempts.lane.held == 1


def test_who_leaves_the_queue_is_not_called() -> None:
    attempts = Attempts(1)
    attempts.ask("alice-1", "alice-2", "bob-1")
    attempts.release("alice-2", "alice-1")
    assert attempts.came == ["alice-1", "bob-1"]
    attempts.release("bob-1")
    assert attempts.timers.waiting == 0


def test_a_fault_in_one_attempt_does_not_take_its_turn_along() -> None:
    timers = FakeTimers()
    lane = Lane(1, timers)
    first = lane.ask("alice", lambda: None)

    def broken() -> None:
        raise RuntimeError("broken")

    came: list[str] = []
    lane.ask("bob", broken)
    lane.ask("carol", lambda: came.append("carol"))
    first.release()
    with pytest.raises(RuntimeError):
        timers.advance(0)
    timers.advance(0)
    assert came == ["carol"]


class Peer:
    """The turns of one peer, and what came of them."""

    def __init__(self, turns: Turns, owner: str = "us") -> None:
        self.log: list[str] = []
        self.turns = PeerTurns[str](
            turns,
            owner,
            call=lambda: self.log.append("call"),
            answer=lambda offer: self.log.append(f"answer {offer}"),
            refuse=lambda name, offer, reason: self.log.append(f"refuse {name}: {reason}"),
        )


class World:
    """Turns of which all are taken by others, until `free`."""

    def __init__(self) -> None:
        self.timers = FakeTimers()
        self.turns = Turns(self.timers, calls=1, answers=1)
        self.others = [lane.ask("others", lambda: None) for lane in (self.turns.calls, self.turns.answers)]

    def free(self, *lanes: str) -> None:
        for lane, turn in zip(("calls", "answers"), self.others, strict=True):
            if lane in lanes:
                turn.release()
        self.timers.advance(0)


def test_an_answer_does_not_wait_for_calls_of_ours() -> None:
    world = World()
    peer = Peer(world.turns)
    world.free("answers")
    peer.turns.call()
    peer.turns.offered("one", "sdp")
    assert peer.log == ["answer sdp"]
    assert peer.turns.calling


def test_a_call_whose_turn_comes_while_an_offer_waits_answers_it() -> None:
    world = World()
    peer = Peer(world.turns)
    peer.turns.call()
    peer.turns.offered("one", "sdp")
    assert peer.log == []
    assert peer.turns.keeps("one")
    world.free("calls")
    assert peer.log == ["answer sdp"]
    assert world.turns.answers.waiting == 0
    assert not peer.turns.keeps("one")


def test_an_offer_that_crosses_our_call_is_taken_at_once() -> None:
    world = World()
    peer = Peer(world.turns)
    world.free("calls")
    peer.turns.call()
    peer.turns.offered("one", "sdp")
    assert peer.log == ["call", "answer sdp"]
    peer.turns.settled()
    assert world.turns.calls.held == 0


def test_the_newest_offer_waits_and_the_one_before_is_refused() -> None:
    world = World()
    peer = Peer(world.turns)
    peer.turns.offered("one", "1")
    peer.turns.offered("two", "2")
    assert peer.log == ["refuse one: replaced by a newer attempt"]
    world.free("answers")
    assert peer.log[1:] == ["answer 2"]


def test_an_offer_that_was_withdrawn_is_not_answered() -> None:
    world = World()
    peer = Peer(world.turns)
    peer.turns.offered("one", "1")
    peer.turns.withdrawn("another")
    assert peer.turns.keeps("one")
    peer.turns.withdrawn("one")
    world.free("answers")
    assert peer.log == []
    assert world.turns.answers.held == 0


def test_an_offer_that_has_waited_too_long_is_refused_as_busy() -> None:
    world = World()
    peer = Peer(world.turns)
    calls = []
    while world.timers.time() < 1000 + MAX_WAIT:  # others before it that all take their time
        calls.append(world.turns.answers.ask(len(calls), lambda: None))
        world.timers.advance(0.25)
    peer.turns.offered("one", "1")
    world.timers.advance(MAX_WAIT)
    assert peer.log == ["refuse one: busy"]


def test_an_offer_beyond_those_that_may_wait_is_refused_as_busy() -> None:
    world = World()
    peers = [Peer(world.turns, f"owner {number}") for number in range(MAX_WAITING + 1)]
    for number, peer in enumerate(peers):
        peer.turns.offered(f"{number}", "sdp")
    assert [peer.log for peer in peers[:-1]] == [[]] * MAX_WAITING
    assert peers[-1].log == [f"refuse {MAX_WAITING}: busy"]


def test_closing_refuses_what_waits_and_leaves_all_queues() -> None:
    world = World()
    peer = Peer(world.turns)
    peer.turns.call()
    peer.turns.offered("one", "1")
    peer.turns.close("the other side has left")
    assert peer.log == ["refuse one: the other side has left"]
    assert (world.turns.calls.waiting, world.turns.answers.waiting) == (0, 0)
    world.free("calls", "answers")
    assert len(peer.log) == 1


def test_calls_that_are_asked_for_twice_are_one() -> None:
    world = World()
    peer = Peer(world.turns)
    peer.turns.call()
    peer.turns.call()
    world.free("calls")
    peer.turns.call()
    assert peer.log == ["call"]
    peer.turns.settled()
    peer.turns.call()
    assert peer.log == ["call", "call"]
