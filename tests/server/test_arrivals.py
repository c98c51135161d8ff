"""Of new connections the addresses take turns."""

from __future__ import annotations

from collections.abc import Callable

from aldis.server.arrivals import Arrivals
from aldis.server.scheduler import SLICE, FairScheduler


class Timer:
    def cancel(self) -> None:
        pass


class World:
    """A loop and a clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.soon: list[Callable[[], None]] = []
        self.log: list[str] = []
        self.arrivals = Arrivals(
            FairScheduler(soon=self.soon.append, later=lambda seconds, call: Timer(), clock=lambda: self.now)
        )

    def add(self, address: str, seconds: float = 0.0) -> None:
        """Work that takes so long."""

        def work() -> None:
            self.now += seconds
            self.log.append(address)

        self.arrivals.add(address, work)

    def turn(self) -> None:
        due, self.soon[:] = self.soon[:], []
        for call in due:
            call()


def test_an_address_with_a_thousand_connections_keeps_no_other_address_waiting() -> None:
    world = World()
    for _ in range(1000):
        world.add("attacker")
    world.add("somebody")
    world.turn()
    assert world.log.index("somebody") == 1
    assert len(world.log) == 1001
    assert not len(world.arrivals)


def test_the_addresses_of_one_customer_of_a_provider_are_one() -> None:
    world = World()
    for number in range(100):
        world.add(f"2001:db8::{number}:1")
        world.add(f"2001:db8:0:{number}::1")
    for address in ("2001:db8:1::1", "192.0.2.1", "192.0.2.2", "127.0.0.1", "::1"):
        world.add(address)
    world.turn()
    assert {*world.log[1:6]} == {"2001:db8:1::1", "192.0.2.1", "192.0.2.2", "127.0.0.1", "::1"}
    assert not len(world.arrivals)


def test_only_a_slice_of_each_turn_of_the_loop_goes_to_new_connections() -> None:
    world = World()
    for _ in range(1000):
        world.add("attacker", SLICE / 4)
    world.turn()
    assert len(world.log) <= 5
    assert len(world.arrivals) == 1000 - len(world.log)
    world.add("somebody", SLICE / 4)
    world.turn()
    assert "somebody" in world.log


def test_an_address_that_has_had_all_its_turns_gets_others_later() -> None:
    world = World()
    for _ in range(2):
        world.add("somebody")
        world.turn()
    assert world.log == ["somebody"] * 2


def test_work_that_makes_more_work_for_the_same_address_has_to_wait_for_it() -> None:
    world = World()
    world.arrivals.add("a", lambda: world.add("a"))
    world.add("b")
    world.turn()
    assert world.log == ["b", "a"]
