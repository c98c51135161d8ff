"""Slots of attempts: how many at once, in which order, and that nothing waits for ever or without a word."""

from __future__ import annotations

import pytest

from aldis.peer.slots import (
    MAX_SLOT_SECONDS,
    MAX_UNANSWERED,
    MAX_WAIT,
    MAX_WAITING,
    SLOT_SECONDS,
    AttemptSlots,
    PeerSlots,
    Slot,
    SlotQueue,
)
from support.peers import FakeTimers


class Attempts:
    """A queue, and which slots have come."""

    def __init__(self, limit: int) -> None:
        self.timers = FakeTimers()
        self.queue = SlotQueue(limit, self.timers)
        self.came: list[str] = []
        self.slots: dict[str, Slot] = {}

    def ask(self, *names: str) -> None:
        """Names such as `alice-1`; what is before the hyphen is the owner."""
        for name in names:
            slot = self.queue.ask(name.partition("-")[0], lambda name=name: self.came.append(name))
            self.slots[name] = slot
            if slot.granted:
                self.came.append(name)

    def release(self, *names: str) -> None:
        for name in names:
            self.slots[name].release()
        self.timers.advance(0)

    def unanswered(self, *names: str) -> None:
        for name in names:
            self.slots[name].set_unanswered(True)
        self.timers.advance(0)

    def answered(self, *names: str) -> None:
        for name in names:
            self.slots[name].set_unanswered(False)
        self.timers.advance(0)


def test_no_more_turns_are_taken_than_there_are_and_the_next_comes_when_one_ends() -> None:
    attempts = Attempts(2)
    attempts.ask("alice-1", "alice-2", "alice-3", "alice-4")
    assert attempts.came == ["alice-1", "alice-2"]
    attempts.release("alice-2")
    assert attempts.came == ["alice-1", "alice-2", "alice-3"]
    attempts.release("alice-1", "alice-3")
    assert attempts.came[3:] == ["alice-4"]
    assert (attempts.queue.held, attempts.queue.waiting, attempts.queue.most) == (1, 0, 2)


def test_who_wants_much_does_not_hold_up_who_wants_little() -> None:
    attempts = Attempts(1)
    attempts.ask("alice-1", "alice-2", "alice-3", "alice-4", "bob-1", "carol-1", "bob-2")
    while attempts.queue.waiting:
        attempts.release(attempts.came[-1])
    assert attempts.came == ["alice-1", "alice-2", "bob-1", "carol-1", "alice-3", "bob-2", "alice-4"]


def test_a_turn_that_is_not_released_ends_by_itself() -> None:
    attempts = Attempts(1)
    attempts.ask("alice-1", "bob-1")
    attempts.timers.advance(SLOT_SECONDS - 0.01)
    assert attempts.came == ["alice-1"]
    attempts.timers.advance(0.01)
    assert attempts.came == ["alice-1", "bob-1"]
    attempts.release("alice-1", "alice-1")  # that it is released afterwards takes nothing from others
    assert attempts.queue.held == 1


def held_at_once(takes: float, opens: bool, attempts: int = 200) -> int:
    """How many attempts are under way at most, of many that all take so long."""
    timers = FakeTimers()
    queue = SlotQueue(2, timers)
    under_way: set[int] = set()
    most = 0

    def start(number: int) -> None:
        nonlocal most
        under_way.add(number)
        most = max(most, len(under_way))
        timers.call_later(takes, lambda: end(number))

    def end(number: int) -> None:
        under_way.discard(number)
        slots[number].release(opened=opens)

    slots = [queue.ask(number, lambda number=number: start(number)) for number in range(attempts)]
    for number in (0, 1):
        start(number)
    while under_way:
        timers.advance(0.125)
    return most


def test_where_attempts_take_long_because_the_machine_is_busy_slots_last_as_long() -> None:
    assert held_at_once(SLOT_SECONDS / 2, opens=True) == 2
    assert held_at_once(3 * SLOT_SECONDS, opens=True) <= 2 * 4
    timers = FakeTimers()
    queue = SlotQueue(1, timers)
    for _ in range(100):
        slot = queue.ask("alice", lambda: None)
        timers.advance(3 * SLOT_SECONDS)
        slot.release(opened=True)
        timers.advance(0)
    queue.ask("alice", lambda: None)
    timers.advance(5.9 * SLOT_SECONDS)
    assert queue.held == 1
    for _ in range(100):
        slot = queue.ask("bob", lambda: None)
        timers.advance(60)
        slot.release(opened=True)
        timers.advance(0)
    queue.ask("bob", lambda: None)
    timers.advance(MAX_SLOT_SECONDS)
    assert queue.held == 0


def test_attempts_that_fail_late_hold_up_nobody() -> None:
    assert held_at_once(30.0, opens=False) >= 2 * 30 / SLOT_SECONDS - 2


def test_who_leaves_the_queue_is_not_called() -> None:
    attempts = Attempts(1)
    attempts.ask("alice-1", "alice-2", "bob-1")
    attempts.release("alice-2", "alice-1")
    assert attempts.came == ["alice-1", "bob-1"]
    attempts.release("bob-1")
    assert attempts.timers.waiting == 0


def test_attempts_that_wait_for_an_answer_hold_up_nobody() -> None:
    attempts = Attempts(1)
    attempts.ask("alice-1", "alice-2", "alice-3")
    attempts.unanswered("alice-1")
    attempts.unanswered("alice-1")
    assert attempts.came == ["alice-1", "alice-2"]
    assert (attempts.queue.held, attempts.queue.unanswered) == (1, 1)
    attempts.answered("alice-1")  # what has begun goes on, even beside another
    attempts.release("alice-2")
    assert attempts.came == ["alice-1", "alice-2"]
    attempts.timers.advance(SLOT_SECONDS)  # counted from the answer
    assert attempts.came == ["alice-1", "alice-2", "alice-3"]
    attempts.answered("alice-1", "alice-3")  # too late, or never unanswered
    assert (attempts.queue.held, attempts.queue.unanswered) == (1, 0)
    attempts.release("alice-3")
    assert attempts.timers.waiting == 0


def test_only_so_many_attempts_wait_for_an_answer_and_none_for_ever() -> None:
    attempts = Attempts(1)
    names = [f"peer-{number}" for number in range(MAX_UNANSWERED + 2)]
    attempts.ask(*names)
    for name in names[:MAX_UNANSWERED]:
        attempts.unanswered(name)
    assert attempts.came == names[:MAX_UNANSWERED]
    attempts.timers.advance(SLOT_SECONDS)
    assert attempts.came == names[: MAX_UNANSWERED + 1]


def test_a_fault_in_one_attempt_does_not_take_its_turn_along() -> None:
    timers = FakeTimers()
    queue = SlotQueue(1, timers)
    first = queue.ask("alice", lambda: None)

    def broken() -> None:
        raise RuntimeError("broken")

    came: list[str] = []
    queue.ask("bob", broken)
    queue.ask("carol", lambda: came.append("carol"))
    first.release()
    with pytest.raises(RuntimeError):
        timers.advance(0)
    timers.advance(0)
    assert came == ["carol"]


class Peer:
    """The slots of one peer, and what came of them."""

    def __init__(self, slots: AttemptSlots, owner: str = "us") -> None:
        self.log: list[str] = []
        self.slots = PeerSlots[str](
            slots,
            owner,
            call=lambda: self.log.append("call"),
            answer=lambda offer: self.log.append(f"answer {offer}"),
            refuse=lambda name, offer, reason: self.log.append(f"refuse {name}: {reason}"),
        )


class World:
    """Slots of which all are taken by others, until `free`."""

    def __init__(self) -> None:
        self.timers = FakeTimers()
        self.slots = AttemptSlots(self.timers, calls=1, answers=1)
        self.others = [queue.ask("others", lambda: None) for queue in (self.slots.calls, self.slots.answers)]

    def free(self, *lanes: str) -> None:
        for queue, slot in zip(("calls", "answers"), self.others, strict=True):
            if queue in lanes:
                slot.release()
        self.timers.advance(0)


def test_an_answer_does_not_wait_for_calls_of_ours() -> None:
    world = World()
    peer = Peer(world.slots)
    world.free("answers")
    peer.slots.call()
    peer.slots.offered("one", "sdp")
    assert peer.log == ["answer sdp"]
    assert peer.slots.calling


def test_a_call_whose_turn_comes_while_an_offer_waits_answers_it() -> None:
    world = World()
    peer = Peer(world.slots)
    peer.slots.call()
    peer.slots.offered("one", "sdp")
    assert peer.log == []
    assert peer.slots.keeps("one")
    world.free("calls")
    assert peer.log == ["answer sdp"]
    assert world.slots.answers.waiting == 0
    assert not peer.slots.keeps("one")


def test_attempts_that_wait_for_an_answer_count_while_offers_of_others_wait_here() -> None:
    world = World()
    us, them = Peer(world.slots), Peer(world.slots, "them")
    world.free("calls")
    us.slots.call()
    them.slots.offered("one", "1")
    us.slots.set_unanswered(True)
    them.slots.call()
    world.timers.advance(0)
    assert them.log == []
    them.slots.withdrawn("one")
    world.timers.advance(0)
    assert them.log == ["call"]


def test_an_offer_that_crosses_our_call_is_taken_at_once() -> None:
    world = World()
    peer = Peer(world.slots)
    world.free("calls")
    peer.slots.call()
    peer.slots.offered("one", "sdp")
    assert peer.log == ["call", "answer sdp"]
    peer.slots.settled(opened=True)
    assert world.slots.calls.held == 0


def test_the_newest_offer_waits_and_the_one_before_is_refused() -> None:
    world = World()
    peer = Peer(world.slots)
    peer.slots.offered("one", "1")
    peer.slots.offered("two", "2")
    assert peer.log == ["refuse one: replaced by a newer attempt"]
    world.free("answers")
    assert peer.log[1:] == ["answer 2"]


def test_an_offer_that_was_withdrawn_is_not_answered() -> None:
    world = World()
    peer = Peer(world.slots)
    peer.slots.offered("one", "1")
    peer.slots.withdrawn("another")
    assert peer.slots.keeps("one")
    peer.slots.withdrawn("one")
    world.free("answers")
    assert peer.log == []
    assert world.slots.answers.held == 0


def test_an_offer_that_has_waited_too_long_is_refused_as_busy() -> None:
    world = World()
    peer = Peer(world.slots)
    calls = []
    while world.timers.time() < 1000 + MAX_WAIT:  # others before it that all take their time
        calls.append(world.slots.answers.ask(len(calls), lambda: None))
        world.timers.advance(0.25)
    peer.slots.offered("one", "1")
    world.timers.advance(MAX_WAIT)
    assert peer.log == ["refuse one: busy"]


def test_an_offer_beyond_those_that_may_wait_is_refused_as_busy() -> None:
    world = World()
    peers = [Peer(world.slots, f"owner {number}") for number in range(MAX_WAITING + 1)]
    for number, peer in enumerate(peers):
        peer.slots.offered(f"{number}", "sdp")
    assert [peer.log for peer in peers[:-1]] == [[]] * MAX_WAITING
    assert peers[-1].log == [f"refuse {MAX_WAITING}: busy"]


def test_closing_refuses_what_waits_and_leaves_all_queues() -> None:
    world = World()
    peer = Peer(world.slots)
    peer.slots.call()
    peer.slots.offered("one", "1")
    peer.slots.close("the other side has left")
    assert peer.log == ["refuse one: the other side has left"]
    assert (world.slots.calls.waiting, world.slots.answers.waiting) == (0, 0)
    world.free("calls", "answers")
    assert len(peer.log) == 1


def test_calls_that_are_asked_for_twice_are_one() -> None:
    world = World()
    peer = Peer(world.slots)
    peer.slots.call()
    peer.slots.call()
    world.free("calls")
    peer.slots.call()
    assert peer.log == ["call"]
    peer.slots.settled(opened=True)
    peer.slots.call()
    assert peer.log == ["call", "call"]
