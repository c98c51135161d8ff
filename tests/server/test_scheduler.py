"""Connections with a backlog take turns, and those that have used up their rate wait."""

from __future__ import annotations

from collections.abc import Callable

from aldis.server.scheduler import SLICE, TURN, FairScheduler


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
        world.scheduler.add(Flow(world, name, 2 * TURN), world.now, world.now)
    assert len(world.scheduler) == 2
    assert world.turn() == 1
    assert world.log == [f"a{TURN}", f"b{TURN}", f"a{TURN}", f"b{TURN}"]
    assert len(world.scheduler) == 0
    assert world.turn() == 0


def test_all_of_them_together_get_a_slice_of_each_turn_of_the_loop() -> None:
    world = World()
    for name in "abc":
        world.scheduler.add(Flow(world, name, TURN, SLICE), world.now, world.now)
    for name in "abc":
        world.turn()
        assert world.log[-1] == f"{name}{TURN}"
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
