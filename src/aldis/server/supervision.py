"""Which workers are started, drained and killed, and when: the decisions of a supervisor, without any process.

    slot      a place for a worker, with its part of the public port: 0 to N-1, `worker=` in the log
    worker    one process, by a number that is never used again

    start      slot 0 alone, so that a setting that cannot be used is told once; then all others
    a death    started again at once; when it dies again soon, after 1, 2, 4, ... seconds, `LONGEST_PAUSE` at most
    hang-up    the settings are read; then slot by slot: start the new worker, wait until it serves, drain the old one,
               wait until that has ended. Asked for meanwhile, it is done once more after that
    stop       all at once

When a new worker does not come up, the replacement ends, and the old workers stay. If it was the first one, the earlier
settings hold again; after that the new ones have proved to be usable, and whoever is started gets them.

Rules: no clock, no process, no signal. Times are seconds of one clock that the caller reads. Each call returns what to
do, in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

# The pause before the third start in a row, and the longest one.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
# A worker that has served for so long has nothing to do with the deaths before.
STEADY_SECONDS: Final = 60.0
# A start takes a second, and half a minute on a machine that has too much to do.
START_SECONDS: Final = 120.0
# How long a worker may take beyond `drain_seconds`: to end its connections, and to leave the cluster.
CLOSING_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker. `renewed`: with the settings that were read last; else with those that hold."""

    slot: int
    worker: int
    renewed: bool = False


@dataclass(frozen=True, slots=True)
class Drain:
    """Have a worker stop in good order. `replaced`: another one of its slot serves already."""

    worker: int
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """End a worker at once: it took too long."""

    worker: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Nobody serves this slot for so many seconds."""

    slot: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Close:
    """This slot is gone."""

    slot: int


@dataclass(frozen=True, slots=True)
class Reread:
    """Read the settings, and call `replace` or `keep`."""


@dataclass(frozen=True, slots=True)
class Serving:
    """All workers serve, for the first time."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A replacement is over. `complete`: all workers are new. `usable`: one of them serves with the new settings."""

    complete: bool
    usable: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """No worker is left, and none will be started: the exit code of it all."""

    code: int


Command: TypeAlias = Start | Drain | Kill | Pause | Close | Reread | Serving | Replaced | Finished


class Phase(Enum):
    """What the supervisor is about."""

    STARTING = "starting"
    RUNNING = "running"
    READING = "reading"
    REPLACING = "replacing"
    STOPPING = "stopping"


class _State(Enum):
    STARTING = 1
    SERVING = 2
    DRAINING = 3
    KILLED = 4


@dataclass(slots=True)
class _Worker:
    number: int
    slot: int
    state: _State
    since: float
    deadline: float | None

    @property
    def counts(self) -> bool:
        """Whether it serves, or will."""
        return self.state in (_State.STARTING, _State.SERVING)


@dataclass(slots=True)
class _Slot:
    deaths: int = 0
    start_at: float | None = None


class Supervision:
    """The workers of one server. Call `start` first, and `tick` when `due` has come.

    `settle_seconds`: how long a worker that is replaced waits for the requests of clients that it has accepted.
    """

    def __init__(self, workers: int, drain_seconds: float, settle_seconds: float) -> None:
        self.phase = Phase.STARTING
        self._count = workers
        self._earlier_count = workers
        self._drain_seconds = drain_seconds
        self._settle_seconds = settle_seconds
        self._slots = {number: _Slot() for number in range(workers)}
        self._workers: dict[int, _Worker] = {}
        self._next = 0
        self._again = False
        self._code = 0
        # A replacement: slots still to do, the new worker that starts, the old one that drains, and whether one serves.
        self._queue: list[int] = []
        self._renewing: int | None = None
        self._leaving: int | None = None
        self._usable = False

    @property
    def due(self) -> float | None:
        """When to call `tick`; None: not before something else happens."""
        times = [worker.deadline for worker in self._workers.values()] + [s.start_at for s in self._slots.values()]
        return min((time for time in times if time is not None), default=None)

    @property
    def ending(self) -> set[int]:
        """The workers that were told to stop, or killed, by number."""
        return {worker.number for worker in self._workers.values() if not worker.counts}

    def start(self, now: float) -> list[Command]:
        """Begin with the first worker."""
        return [self._start(0, now)]

    def serving(self, number: int, now: float) -> list[Command]:
        """A worker serves."""
        worker = self._workers.get(number)
        if worker is None or worker.state != _State.STARTING:
            return []
        worker.state, worker.since, worker.deadline = _State.SERVING, now, None
        if self.phase == Phase.STARTING:
            return self._started(now)
        if number != self._renewing:
            return []
        self._renewing, self._usable = None, True
        old = [each for each in self._in(worker.slot) if each.number != number]
        return self._leave(old, now, replaced=True) or self._go_on(now)

    def ended(self, number: int, code: int, now: float) -> list[Command]:
        """A worker has ended, with this exit code; negative: by this signal."""
        worker = self._workers.pop(number, None)
        if worker is None:
            return []
        if self.phase == Phase.STARTING:
            return self._stop(128 - code if code < 0 else code or 1, now)
        if self.phase == Phase.STOPPING:
            return self._finish()
        if number == self._renewing:
            return self._give_up(worker, now)
        commands: list[Command] = []
        if number == self._leaving:
            self._leaving = None
            commands = self._go_on(now)
        if worker.slot in self._slots and not self._in(worker.slot):
            commands += self._again_after_death(worker, now)
        return commands

    def hang_up(self, now: float) -> list[Command]:
        """The operator has asked for new settings and new workers."""
        if self.phase != Phase.RUNNING:
            self._again = True
            return []
        self.phase = Phase.READING
        return [Reread()]

    def keep(self, now: float) -> list[Command]:
        """The settings that were read cannot be used."""
        if self.phase != Phase.READING:
            return []
        self.phase = Phase.RUNNING
        return self._next_hang_up(now)

    def replace(self, workers: int, drain_seconds: float, settle_seconds: float, now: float) -> list[Command]:
        """Replace all workers by so many new ones, one by one."""
        if self.phase != Phase.READING:
            return []
        self.phase = Phase.REPLACING
        self._earlier_count, self._count = self._count, workers
        self._drain_seconds = max(self._drain_seconds, drain_seconds)
        self._settle_seconds = max(self._settle_seconds, settle_seconds)
        self._usable = False
        for slot in range(workers):
            self._slots.setdefault(slot, _Slot())
        self._queue = sorted(self._slots)
        return self._go_on(now)

    def stop(self, now: float) -> list[Command]:
        """Drain all workers, and start none any more."""
        return [] if self.phase == Phase.STOPPING else self._stop(0, now)

    def tick(self, now: float) -> list[Command]:
        """Start what is due, and kill what takes too long."""
        commands: list[Command] = []
        for worker in self._workers.values():
            if worker.deadline is not None and worker.deadline <= now:
                worker.deadline, worker.state = None, _State.KILLED
                commands.append(Kill(worker.number))
        for number, slot in self._slots.items():
            if slot.start_at is not None and slot.start_at <= now:
                commands.append(self._start(number, now))
        return commands

    # --- internal ---------------------------------------------------------------------------------------------------

    def _in(self, slot: int) -> list[_Worker]:
        """The workers of a slot that serve, or will."""
        return [worker for worker in self._workers.values() if worker.slot == slot and worker.counts]

    def _start(self, slot: int, now: float, *, renewed: bool = False) -> Start:
        # The first workers may take their time, as a single server may: nobody depends on them yet.
        deadline = None if self.phase == Phase.STARTING else now + START_SECONDS
        number, self._next = self._next, self._next + 1
        self._workers[number] = _Worker(number, slot, _State.STARTING, now, deadline)
        self._slots[slot].start_at = None
        return Start(slot, number, renewed)

    def _leave(self, workers: list[_Worker], now: float, *, replaced: bool) -> list[Command]:
        """Drain these workers, as the next step of a replacement."""
        for worker in workers:
            self._leaving = worker.number
            self._drain(worker, now + self._settle_seconds if replaced else now)
        return [Drain(worker.number, replaced) for worker in workers]

    def _drain(self, worker: _Worker, now: float) -> None:
        worker.state, worker.deadline = _State.DRAINING, now + self._drain_seconds + CLOSING_SECONDS

    def _started(self, now: float) -> list[Command]:
        """One of the first workers serves."""
        if self._next < self._count:
            return [self._start(slot, now) for slot in range(self._next, self._count)]
        if any(worker.state != _State.SERVING for worker in self._workers.values()):
            return []
        self.phase = Phase.RUNNING
        return [Serving(), *self._next_hang_up(now)]

    def _next_hang_up(self, now: float) -> list[Command]:
        again, self._again = self._again, False
        return self.hang_up(now) if again else []

    def _go_on(self, now: float) -> list[Command]:
        """The next slot of a replacement."""
        commands: list[Command] = []
        while self._queue:
            slot = self._queue.pop(0)
            if slot < self._count:
                start = self._start(slot, now, renewed=True)
                self._renewing = start.worker
                return [*commands, start]
            commands += self._remove(slot, now)
            if self._leaving is not None:
                return commands
        return [*commands, *self._replaced(now, complete=True)]

    def _remove(self, slot: int, now: float) -> list[Command]:
        del self._slots[slot]
        return [Close(slot), *self._leave(self._in(slot), now, replaced=False)]

    def _replaced(self, now: float, *, complete: bool) -> list[Command]:
        self.phase = Phase.RUNNING
        return [Replaced(complete, self._usable), *self._next_hang_up(now)]

    def _give_up(self, worker: _Worker, now: float) -> list[Command]:
        """A new worker has not come up: the old ones stay, as many as the settings that hold say."""
        self._renewing, self._queue = None, []
        if not self._usable:
            self._count = self._earlier_count
        commands: list[Command] = []
        for slot in sorted(self._slots):
            if slot >= self._count:
                commands += self._remove(slot, now)
            elif not self._in(slot) and self._slots[slot].start_at is None:
                commands += self._again_after_death(worker if slot == worker.slot else None, now, slot)
        self._leaving = None  # nothing waits for their end
        return commands + self._replaced(now, complete=False)

    def _again_after_death(self, worker: _Worker | None, now: float, number: int = 0) -> list[Command]:
        """Start a worker in a slot that has none: at once, or after a pause."""
        number = number if worker is None else worker.slot
        slot = self._slots[number]
        if worker is None or (worker.state == _State.SERVING and now - worker.since >= STEADY_SECONDS):
            slot.deaths = 0
        slot.deaths += 1
        if slot.deaths == 1:
            return [self._start(number, now)]
        pause = min(FIRST_PAUSE * 2.0 ** (slot.deaths - 2), LONGEST_PAUSE)
        slot.start_at = now + pause
        return [Pause(number, pause)]

    def _stop(self, code: int, now: float) -> list[Command]:
        self.phase, self._code, self._queue = Phase.STOPPING, code, []
        for slot in self._slots.values():
            slot.start_at = None
        drained: list[Command] = []
        for worker in self._workers.values():
            if worker.counts:
                self._drain(worker, now)
                drained.append(Drain(worker.number))
        return drained + self._finish()

    def _finish(self) -> list[Command]:
        return [] if self._workers else [Finished(self._code)]
