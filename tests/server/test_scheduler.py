"""Connections with a backlog take turns, and those that have used up their rate wait."""

from __future__ import annotations

from collections.abc import Callable

from aldis.server.scheduler import QUANTUM, SLICE, FairScheduler


class World:
    """A loop and a clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self.timers: list[Timer] = []
        self.log: list[str] = []
        self.scheduler = FairScheduler(soon=self.soon.append, later=self.later, clock=lambda: self.now)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(self.now + seconds, call)
        self.timers.append(timer)
        return timer

    def turn(self) -> int:
        """One turn of the loop; how many calls there were."""
        due, self.soon[:] = self.soon[:], []
        for call in due:
            call()
        return len(due)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for timer in [timer for timer in self.timers if timer.when <= self.now and not timer.cancelled]:
            self.timers.remove(timer)
            timer.call()


class Timer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Flow:
    """A connection with so many messages, each of which takes so long."""

    def __init__(self, world: World, name: str, messages: int, seconds: float = 0.0) -> None:
        self.world = world
        self.name = name
        self.messages = messages
        self.seconds = seconds
        self.not_before = 0.0

    def run(self, units: int, now: float) -> float | None:
        if self.not_before > now:
            return self.not_before
        done = min(units, self.messages)
        self.messages -= done
        self.world.now += done * self.seconds
        self.world.log.append(f"{self.name}{done}")
        return self.world.now if self.messages else None


def test_connections_take_turns_and_none_is_served_to_its_end_before_the_others() -> None:
    world = World()
    for name in "ab":
        world.scheduler.add(Flow(world, name, 2 * QUANTUM), world.now, world.now)
    assert len(world.scheduler) == 2
    assert world.turn() == 1
    assert world.log == [f"a{QUANTUM}", f"b{QUANTUM}", f"a{QUANTUM}", f"b{QUANTUM}"]
    assert len(world.scheduler) == 0
    assert world.turn() == 0


def test_all_of_them_together_get_a_slice_of_each_turn_of_the_loop() -> None:
    world = World()
    for name in "abc":
        world.scheduler.add(Flow(world, name, QUANTUM, SLICE), world.now, world.now)
    for name in "abc":
        world.turn()
        assert world.log[-1] == f"{name}{QUANTUM}"
    assert len(world.log) == 3


def test_a_connection_without_rate_waits_and_the_others_do_not() -> None:
    world = World()
    poor, rich = Flow(world, "p", 1), Flow(world, "r", 1)
    poor.not_before = world.now + 2
    world.scheduler.add(poor, poor.not_before, world.now)
    world.scheduler.add(rich, world.now, world.now)
    world.turn()
    assert world.log == ["r1"]
    world.advance(1)
    assert world.turn() == 0
    world.advance(1)
    world.turn()
    assert world.log == ["r1", "p1"]
    assert world.scheduler.throttled == 1


def test_the_one_that_may_go_on_first_is_woken_first_whenever_it_came() -> None:
    world = World()
    for name, seconds in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        world.scheduler.add(Flow(world, name, 1), world.now + seconds, world.now)
    for name in "bca":
        world.advance(1)
        world.turn()
        assert world.log[-1] == f"{name}1"


def test_one_that_uses_up_its_rate_in_its_turn_is_parked() -> None:
    world = World()
    flow = Flow(world, "a", 2)
    world.scheduler.add(flow, world.now, world.now)
    flow.not_before = world.now + 5
    world.turn()
    assert world.log == []
    world.advance(5)
    world.turn()
    assert world.log == ["a2"]


def test_nobody_has_a_turn_after_the_end() -> None:
    world = World()
    world.scheduler.add(Flow(world, "a", 1), world.now, world.now)
    world.scheduler.add(Flow(world, "b", 1), world.now + 1, world.now)
    world.scheduler.close()
    world.turn()
    assert world.log == []
    assert world.timers[0].cancelled


def test_a_backlog_does_not_wait_for_all_connections_that_are_to_be_read_on() -> None:
    world = World()
    for name in "abcdef":
        world.scheduler.add_unread(Flow(world, name, 1, SLICE), world.now, world.now)
    assert len(world.scheduler) == 6
    world.turn()
    world.scheduler.add(Flow(world, "small", 1), world.now, world.now)
    world.turn()
    assert world.log == ["a1", "small1", "b1"]
    later = Flow(world, "later", 1)
    later.not_before = world.now + 10
    world.scheduler.add_unread(later, later.not_before, world.now)
    for _ in "cdef":
        world.turn()
    assert world.turn() == 0
    world.advance(10)
    world.turn()
    assert world.log[2:] == ["b1", "c1", "d1", "e1", "f1", "later1"]


def test_new_connections_and_open_ones_have_every_second_turn() -> None:
    world = World()
    for name in "ab":
        world.scheduler.add(Flow(world, name, QUANTUM), world.now, world.now)
    for name in "xy":
        world.scheduler.arrive(Flow(world, name, QUANTUM))
    world.turn()
    assert world.log == [f"{name}{QUANTUM}" for name in "xayb"]


def test_a_turn_that_takes_the_whole_slice_keeps_nobody_out_for_good() -> None:
    world = World()
    world.scheduler.add(Flow(world, "a", QUANTUM, SLICE), world.now, world.now)
    world.scheduler.arrive(Flow(world, "x", 3 * QUANTUM, SLICE))
    for _ in range(4):
        world.turn()
    assert world.log == [f"{name}{QUANTUM}" for name in "xaxx"]


def test_work_that_the_loop_does_later_counts_where_it_was_started() -> None:
    world = World()

    class Starting(Flow):
        def run(self, units: int, now: float) -> float | None:
            world.scheduler.charge(SLICE)
            return super().run(units, now)

    world.scheduler.arrive(Starting(world, "x", 4 * QUANTUM))
    for count in (1, 2):
        world.turn()
        assert len(world.log) == count
