"""When a supervisor starts, drains and kills workers: the decisions, on a clock of the test."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from aldis.server.supervision import (
    CLOSING_SECONDS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    START_SECONDS,
    STEADY_SECONDS,
    Close,
    Command,
    Drain,
    Finished,
    Kill,
    Pause,
    Phase,
    Replaced,
    Reread,
    Serving,
    Start,
    Supervision,
)

DRAIN, SETTLE = 8.0, 10.0


def running(workers: int = 2) -> Supervision:
    """One whose workers serve: number 0 in slot 0, and so on."""
    supervision = Supervision(workers, DRAIN, SETTLE)
    supervision.start(0.0)
    commands = supervision.serving(0, 0.0)
    for number in range(1, workers):
        commands = supervision.serving(number, 0.0)
    assert commands == [Serving()]
    return supervision


def replacing(workers: int = 2, to: int | None = None) -> Supervision:
    """One that has just started the first new worker."""
    supervision = running(workers)
    assert supervision.hang_up(0.0) == [Reread()]
    first = supervision.replace(to or workers, DRAIN, SETTLE, 0.0)
    assert first == [Start(0, workers, renewed=True)]
    return supervision


def test_the_first_worker_starts_alone_and_the_others_when_it_serves() -> None:
    supervision = Supervision(3, DRAIN, SETTLE)
    assert supervision.start(0.0) == [Start(0, 0)]
    assert supervision.due is None  # it may take its time
    assert supervision.serving(0, 1.0) == [Start(1, 1), Start(2, 2)]
    assert supervision.serving(2, 2.0) == []
    assert supervision.serving(2, 2.0) == []
    assert supervision.serving(1, 2.0) == [Serving()]
    assert supervision.phase == Phase.RUNNING


def test_when_a_worker_does_not_start_the_first_time_all_end_with_its_code() -> None:
    supervision = Supervision(3, DRAIN, SETTLE)
    supervision.start(0.0)
    assert supervision.ended(0, 2, 1.0) == [Finished(2)]
    supervision = Supervision(3, DRAIN, SETTLE)
    supervision.start(0.0)
    supervision.serving(0, 1.0)
    assert supervision.ended(2, -9, 2.0) == [Drain(0), Drain(1)]
    assert supervision.ended(0, 0, 3.0) == []
    assert supervision.ended(1, 0, 3.0) == [Finished(137)]
    supervision = Supervision(1, DRAIN, SETTLE)
    supervision.start(0.0)
    assert supervision.ended(0, 0, 1.0) == [Finished(1)]  # it did not serve, whatever it says


def test_a_dead_worker_is_started_at_once_and_then_after_growing_pauses() -> None:
    supervision = running()
    assert supervision.ended(1, -9, 100.0) == [Start(1, 2)]
    now, number, pauses = 100.0, 2, []
    for _ in range(8):
        (pause,) = supervision.ended(number, 1, now)
        assert isinstance(pause, Pause)
        assert supervision.tick(now + pause.seconds / 2) == []
        now += pause.seconds
        assert supervision.due == now
        (start,) = supervision.tick(now)
        assert isinstance(start, Start)
        assert start.slot == pause.slot == 1
        assert supervision.tick(now) == []
        pauses.append(pause.seconds)
        number = start.worker
    assert pauses == [FIRST_PAUSE, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    # It serves for long enough: its next death has nothing to do with those.
    supervision.serving(number, now)
    assert supervision.ended(number, 1, now + STEADY_SECONDS) == [Start(1, number + 1)]
    # The other slot has not died yet.
    assert supervision.ended(0, 1, now) == [Start(0, number + 2)]


def test_a_worker_that_serves_for_a_moment_again_and_again_is_not_started_at_once() -> None:
    supervision = running(1)
    (start,) = supervision.ended(0, 1, 1.0)
    assert isinstance(start, Start)
    supervision.serving(start.worker, 2.0)
    assert supervision.ended(start.worker, 1, 3.0) == [Pause(0, FIRST_PAUSE)]


def test_a_worker_that_hangs_at_a_later_start_is_killed() -> None:
    supervision = running()
    supervision.ended(1, 1, 10.0)
    assert supervision.due == 10.0 + START_SECONDS
    assert supervision.tick(10.0 + START_SECONDS) == [Kill(2)]
    assert supervision.due is None
    assert supervision.ending == {2}
    assert supervision.ended(2, -9, 11.0 + START_SECONDS) == [Pause(1, FIRST_PAUSE)]


def test_workers_are_replaced_one_by_one_each_new_one_first() -> None:
    supervision = replacing()
    assert supervision.serving(2, 1.0) == [Drain(0, replaced=True)]
    assert supervision.due == 1.0 + SETTLE + DRAIN + CLOSING_SECONDS
    assert supervision.ended(0, 0, 2.0) == [Start(1, 3, renewed=True)]
    assert supervision.serving(3, 3.0) == [Drain(1, replaced=True)]
    assert supervision.ended(1, 0, 4.0) == [Replaced(complete=True, usable=True)]
    assert supervision.phase == Phase.RUNNING
    assert supervision.due is None


def test_an_old_worker_may_wait_for_requests_as_long_as_the_old_or_the_new_settings_say() -> None:
    for settle in (SETTLE / 2, SETTLE, SETTLE * 3):
        supervision = running(1)
        supervision.hang_up(0.0)
        supervision.replace(1, DRAIN, settle, 0.0)
        supervision.serving(1, 0.0)
        assert supervision.due == max(SETTLE, settle) + DRAIN + CLOSING_SECONDS


def test_an_old_worker_that_does_not_end_is_killed() -> None:
    supervision = replacing(1)
    supervision.serving(1, 0.0)
    assert supervision.tick(SETTLE + DRAIN + CLOSING_SECONDS) == [Kill(0)]
    assert supervision.ended(0, -9, 30.0) == [Replaced(complete=True, usable=True)]


def test_hang_ups_meanwhile_are_one_more_replacement_after_this() -> None:
    supervision = Supervision(1, DRAIN, SETTLE)
    assert supervision.hang_up(0.0) == []
    supervision.start(0.0)
    assert supervision.serving(0, 1.0) == [Serving(), Reread()]
    assert supervision.replace(1, DRAIN, SETTLE, 1.0) == [Start(0, 1, renewed=True)]
    assert supervision.hang_up(2.0) == []
    assert supervision.hang_up(2.0) == []
    supervision.serving(1, 3.0)
    assert supervision.ended(0, 0, 4.0) == [Replaced(complete=True, usable=True), Reread()]
    assert supervision.hang_up(4.0) == []
    assert supervision.keep(4.0) == [Reread()]  # the settings cannot be used, and it was asked again
    assert supervision.keep(4.0) == []
    assert supervision.phase == Phase.RUNNING


def test_when_the_first_new_worker_does_not_serve_the_old_ones_and_their_number_stay() -> None:
    supervision = replacing(2, to=4)
    assert supervision.ended(2, 2, 1.0) == [Close(2), Close(3), Replaced(complete=False, usable=False)]
    assert supervision.ended(1, 1, 2.0) == [Start(1, 3)]
    assert supervision.hang_up(3.0) == [Reread()]
    assert supervision.replace(2, DRAIN, SETTLE, 3.0) == [Start(0, 4, renewed=True)]


def test_when_a_later_one_does_not_serve_the_rest_stays_old() -> None:
    supervision = replacing(2, to=3)
    supervision.serving(2, 1.0)
    supervision.ended(0, 0, 2.0)
    # The new slot gets its worker all the same.
    assert supervision.ended(3, 1, 3.0) == [Start(2, 4), Replaced(complete=False, usable=True)]
    assert supervision.ended(1, 1, 4.0) == [Start(1, 5)]


def test_a_new_worker_that_hangs_at_its_start_is_killed_and_the_old_ones_stay() -> None:
    supervision = replacing()
    assert supervision.tick(START_SECONDS) == [Kill(2)]
    assert supervision.ended(2, -9, START_SECONDS) == [Replaced(complete=False, usable=False)]


def test_more_workers_come_and_surplus_ones_go_at_the_end() -> None:
    supervision = replacing(1, to=2)
    supervision.serving(1, 0.0)
    assert supervision.ended(0, 0, 0.0) == [Start(1, 2, renewed=True)]
    assert supervision.serving(2, 0.0) == [Replaced(complete=True, usable=True)]
    supervision.hang_up(0.0)
    supervision.replace(1, DRAIN, SETTLE, 0.0)
    supervision.serving(3, 0.0)
    assert supervision.ended(1, 0, 0.0) == [Close(1), Drain(2)]
    assert supervision.ended(2, 0, 0.0) == [Replaced(complete=True, usable=True)]


def test_a_surplus_slot_that_pauses_is_just_closed() -> None:
    supervision = running(2)
    (start,) = supervision.ended(1, 1, 0.0)
    assert isinstance(start, Start)
    supervision.ended(start.worker, 1, 0.0)
    supervision.hang_up(0.0)
    supervision.replace(1, DRAIN, SETTLE, 0.0)
    supervision.serving(3, 0.0)
    assert supervision.ended(0, 0, 0.0) == [Close(1), Replaced(complete=True, usable=True)]
    assert supervision.due is None


def test_an_old_worker_that_dies_while_its_successor_starts_is_not_started_again() -> None:
    supervision = replacing()
    assert supervision.ended(0, -9, 1.0) == []
    assert supervision.serving(2, 2.0) == [Start(1, 3, renewed=True)]


def test_when_both_are_gone_the_slot_gets_a_worker_with_the_earlier_settings() -> None:
    supervision = replacing()
    supervision.ended(0, -9, 1.0)
    assert supervision.ended(2, 1, 2.0) == [Start(0, 3), Replaced(complete=False, usable=False)]


def test_a_replacement_does_not_wait_for_a_pause() -> None:
    supervision = running(2)
    supervision.ended(0, 1, 0.0)
    assert supervision.ended(2, 1, 0.0) == [Pause(0, FIRST_PAUSE)]
    supervision.hang_up(0.0)
    assert supervision.replace(2, DRAIN, SETTLE, 0.0) == [Start(0, 3, renewed=True)]
    assert supervision.tick(FIRST_PAUSE) == []
    assert supervision.serving(3, 2.0) == [Start(1, 4, renewed=True)]


def test_stopping_drains_all_at_once_starts_none_and_kills_what_does_not_end() -> None:
    supervision = replacing()
    supervision.hang_up(0.0)
    assert supervision.stop(1.0) == [Drain(0), Drain(1), Drain(2)]
    assert supervision.stop(1.0) == []
    assert supervision.hang_up(1.0) == []
    assert supervision.ended(2, -15, 1.0) == []
    assert supervision.serving(1, 1.0) == []
    assert supervision.ended(0, 0, 2.0) == []
    assert supervision.tick(1.0 + DRAIN + CLOSING_SECONDS) == [Kill(1)]
    assert supervision.ended(1, -9, 20.0) == [Finished(0)]
    assert supervision.ended(1, -9, 20.0) == []


def test_stopping_ends_pauses() -> None:
    supervision = running(1)
    supervision.ended(0, 1, 0.0)
    supervision.ended(1, 1, 0.0)
    assert supervision.stop(0.0) == [Finished(0)]
    assert supervision.due is None


def test_settings_that_come_after_a_stop_change_nothing() -> None:
    supervision = running(1)
    supervision.hang_up(0.0)
    supervision.stop(0.0)
    assert supervision.replace(2, DRAIN, SETTLE, 0.0) == []
    assert supervision.keep(0.0) == []


# --- whatever happens -------------------------------------------------------------------------------------------------


class World:
    """Processes that do what the supervision says, and die and start when the test wants it."""

    def __init__(self, workers: int) -> None:
        self.now = 0.0
        self.supervision = Supervision(workers, DRAIN, SETTLE)
        self.wanted = workers
        self.starting: dict[int, int] = {}  # worker: slot
        self.serving: dict[int, int] = {}
        self.draining: set[int] = set()
        self.finished = False
        self.obey(self.supervision.start(0.0))

    def obey(self, commands: Iterable[Command]) -> None:
        for command in commands:
            assert not self.finished
            match command:
                case Start(slot, worker):
                    assert self.supervision.phase != Phase.STOPPING
                    self.starting[worker] = slot
                case Drain(worker, replaced):
                    slot = self.all[worker]
                    others = [each for each in self.serving if self.serving[each] == slot and each != worker]
                    assert not replaced or set(others) - self.draining
                    self.draining.add(worker)
                case Kill(worker):
                    self.draining.add(worker)
                case Reread():
                    self.obey(self.supervision.replace(self.wanted, DRAIN, SETTLE, self.now))
                case Finished():
                    assert not self.all
                    self.finished = True

    @property
    def all(self) -> dict[int, int]:
        return {**self.starting, **self.serving}

    def act(self, what: str, which: int) -> None:
        """`which` chooses a worker, the time that passes, or how many workers are wanted."""
        workers = sorted(self.all)
        match what:
            case "serve" if self.starting:
                worker = sorted(self.starting)[which % len(self.starting)]
                self.serving[worker] = self.starting.pop(worker)
                self.obey(self.supervision.serving(worker, self.now))
            case "die" if workers:
                self.end(workers[which % len(workers)])
            case "hang up":
                self.wanted = which % 4 + 1
                self.obey(self.supervision.hang_up(self.now))
            case "pass":
                self.now += which
                self.obey(self.supervision.tick(self.now))

    def end(self, worker: int) -> None:
        self.starting.pop(worker, None)
        self.serving.pop(worker, None)
        self.draining.discard(worker)
        self.obey(self.supervision.ended(worker, 1, self.now))


ACTS = st.tuples(st.sampled_from(["serve", "serve", "die", "hang up", "pass"]), st.integers(0, 70))


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.lists(ACTS, max_size=60))
def test_whatever_happens_every_slot_gets_a_worker_and_stopping_ends_all(
    workers: int, acts: list[tuple[str, int]]
) -> None:
    world = World(workers)
    for what, which in acts:
        if not world.finished:
            world.act(what, which)
    # From here on all goes well.
    for _ in range(100):
        if world.finished:
            return
        for worker in sorted(world.draining):
            world.end(worker)
        if world.starting:
            world.act("serve", 0)
        elif world.supervision.due is not None:
            world.now = world.supervision.due
            world.obey(world.supervision.tick(world.now))
    if world.supervision.phase != Phase.STOPPING:
        assert world.supervision.phase == Phase.RUNNING
        assert world.supervision.due is None
        assert not world.starting
        slots = sorted(world.serving.values())
        assert slots == list(range(len(slots)))
        assert slots
    world.obey(world.supervision.stop(world.now))
    for worker in sorted(world.all):
        world.end(worker)
    assert world.finished
