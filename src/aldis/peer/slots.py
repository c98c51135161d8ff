"""Slots for attempts: only a few peer connections of an event loop are being made at the same time.

A new connection costs a processor some 10 ms. Hundreds that start together delay each other until all time out, and no
peer is connected. So an attempt waits for a slot, and its time starts when it gets the slot.

Rules:

* Our calls and our answers have separate slots. An answer never waits for a call, so two programs that have used all
  their slots for calls to each other still answer.
* A slot ends with the attempt, when its channel opens, or after some time (`SLOT_SECONDS`). So a peer that is far away
  or gone does not delay others. The attempt itself goes on.
* When attempts take long because the machine is busy, slots last as long as the attempts, up to `MAX_SLOT_SECONDS`.
  Otherwise all attempts would be under way together in the end, and delay each other.
* An attempt that has sent its offer costs nothing until the answer comes, so it does not count meanwhile, up to
  `MAX_UNANSWERED`. It does count while offers of others wait here, because then this program is too slow already.
* Calls are fair between their owners (`owner`), however many an owner wants. For each peer one offer waits, the newest.
* Every queue is bounded. An offer that cannot wait, or has waited too long, gets a refusal, so that its sender need not
  wait for a time-out and may come back.

It does not know what a connection is, or how one is made.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from aldis.peer.clock import LoopClock

_T = TypeVar("_T")

# How many calls, and how many answers, may be under way at once. On two cores, more are not faster, and delay each
# other. Fewer would leave processors idle while a peer is waited for.
CALLS: Final = 8
ANSWERS: Final = 8
# On a quiet machine an attempt takes 0.02 s with a near peer, and 1 s with a peer on the other side of the world.
SLOT_SECONDS: Final = 1.0
MAX_SLOT_SECONDS: Final = 8.0
# A slot lasts so many times as long as recent successful attempts; each new one has this weight.
_PATIENCE: Final = 2.0
_SMOOTHING: Final = 0.125
# Our attempts with a slot, including those that wait for an answer. Each has a few open sockets, and its peer may keep
# the offer waiting.
MAX_UNANSWERED: Final = 64
# Waiting offers of all peers together. Each has at most 64 KiB.
MAX_WAITING: Final = 128
# The other side gives its attempt 30 s, in which it also has to find a path. Only reached when all slots are in use.
MAX_WAIT: Final = 10.0


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


class Slot:
    """One attempt's slot, or its place in the queue. End it with `release`."""

    def __init__(self, queue: SlotQueue, owner: Hashable, start: Callable[[], None]) -> None:
        self.granted = False
        self.owner: Final = owner
        self.start: Final = start
        self.timer: Timer | None = None
        self.since = 0.0  # when it was granted, or when the answer came
        self._queue: SlotQueue | None = queue

    def release(self, *, opened: bool = False) -> None:
        """Free the slot, or leave the queue. Idempotent. `opened`: the attempt has succeeded."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.released(self, opened=opened)

    def set_unanswered(self, unanswered: bool) -> None:
        """Set whether the attempt only waits for the other side's answer. Ignored unless it has the slot."""
        if self._queue is not None and self.granted:
            self._queue.set_unanswered(self, unanswered)


class SlotQueue:
    """The slots of one kind."""

    def __init__(
        self,
        limit: int,
        timers: Timers,
        *,
        busy: Callable[[], bool] = lambda: False,
        drained: Callable[[], None] = lambda: None,
        seconds: float = SLOT_SECONDS,
    ) -> None:
        """`busy` returns whether attempts that wait for an answer count like the others. `drained` is called when
        nothing waits any more. `seconds` is how long a slot lasts on a quiet machine."""
        self.most = 0  # the most slots held at once, for tests and benchmarks
        self._limit = limit
        self._seconds = seconds
        self._timers = timers
        self._busy = busy
        self._drained = drained
        self._usual = 0.0  # seconds that an attempt usually takes
        self._held: set[Slot] = set()
        self._unanswered: set[Slot] = set()  # had a slot, and wait for the other side
        self._waiting: OrderedDict[Hashable, deque[Slot]] = OrderedDict()  # by owner; the first one is next
        self._soon: Timer | None = None

    @property
    def held(self) -> int:
        """The number of attempts with a slot that are at work now."""
        return len(self._held)

    @property
    def unanswered(self) -> int:
        """The number of attempts with a slot that wait for an answer now."""
        return len(self._unanswered)

    @property
    def waiting(self) -> int:
        """The number of attempts that wait for a slot."""
        return sum(map(len, self._waiting.values()))

    def ask(self, owner: Hashable, start: Callable[[], None]) -> Slot:
        """Return a slot. It is granted at once if one is free and nothing waits. Otherwise `start` is called later,
        never from within this call."""
        slot = Slot(self, owner, start)
        if not self._waiting and self._free():
            self._take(slot)
        else:
            self._waiting.setdefault(owner, deque()).append(slot)
        return slot

    def released(self, slot: Slot, *, opened: bool) -> None:
        """Called by `Slot.release`."""
        if slot.granted:
            if opened:
                self._usual += _SMOOTHING * (self._timers.time() - slot.since - self._usual)
            if slot.timer is not None:
                slot.timer.cancel()
            self._end(slot)
            return
        line = self._waiting[slot.owner]
        line.remove(slot)
        if not line:
            del self._waiting[slot.owner]
            self._look_whether_drained()

    def set_unanswered(self, slot: Slot, unanswered: bool) -> None:
        """Called by `Slot.set_unanswered`. After an answer, the attempt takes its slot back even if all are in use, to
        finish first what was started."""
        before, after = (self._held, self._unanswered) if unanswered else (self._unanswered, self._held)
        if slot not in before:
            return
        before.discard(slot)
        after.add(slot)
        if unanswered:
            self.look()
            return
        if slot.timer is not None:
            slot.timer.cancel()
        self._hold(slot)

    def look(self) -> None:
        """Grant free slots to waiting attempts, soon."""
        if self._waiting and self._soon is None:
            self._soon = self._timers.call_later(0, self._next)

    def _free(self) -> bool:
        both = len(self._held) + len(self._unanswered)
        return (both if self._busy() else len(self._held)) < self._limit and both < MAX_UNANSWERED

    def _take(self, slot: Slot) -> None:
        slot.granted = True
        self._held.add(slot)
        self._hold(slot)

    def _hold(self, slot: Slot) -> None:
        self.most = max(self.most, len(self._held))
        slot.since = self._timers.time()
        seconds = min(max(self._seconds, _PATIENCE * self._usual), MAX_SLOT_SECONDS)
        slot.timer = self._timers.call_later(seconds, lambda: self._end(slot))

    def _end(self, slot: Slot) -> None:
        self._held.discard(slot)
        self._unanswered.discard(slot)
        self.look()

    def _next(self) -> None:
        self._soon = None
        while self._waiting and self._free():
            owner, line = self._waiting.popitem(last=False)
            slot = line.popleft()
            if line:
                self._waiting[owner] = line  # behind all others
            self._take(slot)
            try:
                slot.start()
            except BaseException:
                self._end(slot)  # the others still have their slots
                raise
        self._look_whether_drained()

    def _look_whether_drained(self) -> None:
        if not self._waiting:
            self._drained()


class AttemptSlots:
    """All slots of an event loop. Get them with `AttemptSlots.of(loop)`."""

    def __init__(
        self, timers: Timers, *, calls: int = CALLS, answers: int = ANSWERS, seconds: float = SLOT_SECONDS
    ) -> None:
        self.answers: Final = SlotQueue(answers, timers, drained=lambda: self.calls.look(), seconds=seconds)
        # While offers of others wait here, this program is too slow already. The answers that it waits for may be its
        # own work.
        self.calls: Final = SlotQueue(calls, timers, busy=lambda: self.answers.waiting > 0, seconds=seconds)
        self.timers: Final = timers

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, *, seconds: float = SLOT_SECONDS) -> AttemptSlots:
        """The slots of this loop, made at the first call, which also sets `seconds`."""
        slots = _slots.get(loop)
        if slots is None:
            slots = _slots[loop] = cls(LoopClock.of(loop), seconds=seconds)
        return slots


_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, AttemptSlots] = WeakKeyDictionary()


class PeerSlots(Generic[_T]):
    """What waits between us and one peer: at most one call of ours, and at most one offer of theirs."""

    def __init__(
        self,
        slots: AttemptSlots,
        owner: Hashable,
        *,
        call: Callable[[], None],
        answer: Callable[[_T], None],
        refuse: Callable[[str, _T, str], None],
    ) -> None:
        """`call` and `answer` start the attempt when its slot is granted, perhaps at once. `refuse(name, offer,
        reason)` tells the other side that its offer is not answered."""
        self._slots = slots
        self._owner = owner
        self._start_call = call
        self._start_answer = answer
        self._refuse = refuse
        self._call: Slot | None = None
        self._answer: Slot | None = None
        self._offer: tuple[str, _T] | None = None  # the waiting offer
        self._patience: Timer | None = None

    @property
    def calling(self) -> bool:
        """Whether a call waits."""
        return self._call is not None and not self._call.granted

    def keeps(self, name: str) -> bool:
        """Whether the offer of that name waits."""
        return self._offer is not None and self._offer[0] == name

    def call(self) -> None:
        """Start a call when its slot is granted, unless one waits already."""
        if self._call is None:
            self._call = self._slots.calls.ask(self._owner, self._call_granted)
            if self._call.granted:
                self._start_call()

    def offered(self, name: str, offer: _T) -> None:
        """Answer an offer that starts an attempt, when its slot is granted."""
        self._drop_offer("replaced by a newer attempt")
        if self._has_slot():
            self._start_answer(offer)
            return
        if self._slots.answers.waiting >= MAX_WAITING:
            self._refuse(name, offer, "busy")
            return
        self._offer = (name, offer)
        self._answer = self._slots.answers.ask(self._owner, self._answer_granted)
        if self._answer.granted:
            self._answer_granted()
        else:
            self._patience = self._slots.timers.call_later(MAX_WAIT, lambda: self._drop_offer("busy"))

    def withdrawn(self, name: str) -> None:
        """The other side has ended that attempt."""
        if self.keeps(name):
            self._drop_offer(None)

    def set_unanswered(self, unanswered: bool) -> None:
        """Set whether our current call only waits for its answer."""
        if self._call is not None:
            self._call.set_unanswered(unanswered)

    def settled(self, *, opened: bool) -> None:
        """No attempt is under way any more: it failed, or its channel is open."""
        if self._call is not None and self._call.granted:
            self._call.release(opened=opened)
            self._call = None
        if self._answer is not None and self._answer.granted:
            self._answer.release(opened=opened)
            self._answer = None

    def close(self, reason: str) -> None:
        """Start nothing any more."""
        self._drop_offer(reason)
        for slot in (self._call, self._answer):
            if slot is not None:
                slot.release()
        self._call = self._answer = None

    def _has_slot(self) -> bool:
        return any(slot is not None and slot.granted for slot in (self._call, self._answer))

    def _call_granted(self) -> None:
        if self._offer is not None:
            self._answer_granted()  # their call is here already, and ours would cross it
        else:
            self._start_call()

    def _answer_granted(self) -> None:
        waited, self._offer = self._offer, None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._answer is not None and not self._answer.granted:
            self._answer.release()
            self._answer = None
        if waited is not None:
            self._start_answer(waited[1])

    def _drop_offer(self, reason: str | None) -> None:
        waited, self._offer = self._offer, None
        if waited is None:
            return
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._answer is not None:
            self._answer.release()
            self._answer = None
        if reason is not None:
            self._refuse(*waited, reason)
