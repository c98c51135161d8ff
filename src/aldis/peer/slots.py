"""Attempts wait for slots: only a few peer connections are in the making at once, of all stores of an event loop.

A connection costs a processor some 10 ms, so hundreds that start together make each other too late: all of them time
out, and nothing is connected. So an attempt waits for its slot, and its clock starts when it has it.

Rules:

* Calls of ours and answers to calls of others have slots of their own. An answer never waits for a call of ours, so
  two programs that have given all their slots to calls of each other still answer.
* A slot ends when the attempt does, when its channel opens, or after some time (`SLOT_SECONDS`): a peer that is far
  away or gone does not hold up others. The attempt itself goes on.
* Where attempts take long because the machine is busy, slots last as long as those take, up to `MAX_SLOT_SECONDS`. Or
  all would be under way together in the end, each making the others too late.
* An attempt that has sent its offer costs nothing until the answer comes, so it does not count meanwhile; there are at
  most `MAX_UNANSWERED` of these. While offers of others wait here it does count: this program is too slow already.
* Calls are fair between those who make them (`owner`), whoever of them wants most. Of each peer one offer waits, the
  newest.
* Whatever waits is bounded, and an offer that cannot wait, or has waited too long, is refused aloud: its sender may
  come back, and does not wait for a time-out.

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

# How many calls of ours, and how many answers, may be in the making at once. On two cores more are not faster, and
# each more makes all of them slower; fewer would leave processors idle while a peer is waited for.
CALLS: Final = 8
ANSWERS: Final = 8
# On a quiet machine an attempt with a peer that is near takes 0.02 s, with one on the other side of the world 1 s.
SLOT_SECONDS: Final = 1.0
MAX_SLOT_SECONDS: Final = 8.0
# A slot lasts so many times as long as the attempts that succeeded lately; each of them counts for so much.
_PATIENCE: Final = 2.0
_SMOOTHING: Final = 0.125
# Attempts of ours with a slot, also those that wait for an answer. Each has a few open sockets, and its peer may keep
# the offer waiting.
MAX_UNANSWERED: Final = 64
# Offers that wait, of all peers together. Each has at most 64 KiB.
MAX_WAITING: Final = 128
# The other side gives its attempt 30 s, and has to find a path within them. Not reached unless all slots run out.
MAX_WAIT: Final = 10.0


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


class Slot:
    """One attempt's slot, or its place in the queue. Ends by `release`."""

    def __init__(self, queue: SlotQueue, owner: Hashable, start: Callable[[], None]) -> None:
        self.granted = False
        self.owner: Final = owner
        self.start: Final = start
        self.timer: Timer | None = None
        self.since = 0.0  # when it was taken, or the answer came
        self._queue: SlotQueue | None = queue

    def release(self, *, opened: bool = False) -> None:
        """Let others have it, or leave the queue. Idempotent. `opened`: the attempt has succeeded."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.released(self, opened=opened)

    def set_unanswered(self, unanswered: bool) -> None:
        """Whether the attempt only waits for the other side's answer. Ignored unless it has the slot."""
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
        """`busy` says whether attempts that wait for an answer count like the others. `drained` is called when nobody
        waits any more. `seconds` is how long a slot lasts on a quiet machine."""
        self.most = 0  # that were held at once, for tests and benchmarks
        self._limit = limit
        self._seconds = seconds
        self._timers = timers
        self._busy = busy
        self._drained = drained
        self._usual = 0.0  # seconds that an attempt takes
        self._held: set[Slot] = set()
        self._unanswered: set[Slot] = set()  # had a slot, and wait for the other side
        self._waiting: OrderedDict[Hashable, deque[Slot]] = OrderedDict()  # by owner; the first one is next
        self._soon: Timer | None = None

    @property
    def held(self) -> int:
        """How many attempts with a slot are at work now."""
        return len(self._held)

    @property
    def unanswered(self) -> int:
        """How many attempts with a slot wait for an answer now."""
        return len(self._unanswered)

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return sum(map(len, self._waiting.values()))

    def ask(self, owner: Hashable, start: Callable[[], None]) -> Slot:
        """A slot, granted at once if one is free and nobody waits. Otherwise `start` is called later, not from
        within."""
        slot = Slot(self, owner, start)
        if not self._waiting and self._free():
            self._take(slot)
        else:
            self._waiting.setdefault(owner, deque()).append(slot)
        return slot

    def released(self, slot: Slot, *, opened: bool) -> None:
        """For `Slot.release`."""
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
        """For `Slot.set_unanswered`. An answer takes the slot back even when others have got all: what has begun is
        finished first."""
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
        """Give slots to those that wait, soon, as far as some are free."""
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
    """All slots of an event loop: `AttemptSlots.of(loop)`."""

    def __init__(
        self, timers: Timers, *, calls: int = CALLS, answers: int = ANSWERS, seconds: float = SLOT_SECONDS
    ) -> None:
        self.answers: Final = SlotQueue(answers, timers, drained=lambda: self.calls.look(), seconds=seconds)
        # While offers of others wait here, this program is too slow already, and the answers that it waits for may
        # have to be made by itself.
        self.calls: Final = SlotQueue(calls, timers, busy=lambda: self.answers.waiting > 0, seconds=seconds)
        self.timers: Final = timers

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop, *, seconds: float = SLOT_SECONDS) -> AttemptSlots:
        """The slots of this loop, made when they are first asked for; what they last is then settled."""
        slots = _slots.get(loop)
        if slots is None:
            slots = _slots[loop] = cls(LoopClock.of(loop), seconds=seconds)
        return slots


_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, AttemptSlots] = WeakKeyDictionary()


class PeerSlots(Generic[_T]):
    """What waits between us and one peer: a call of ours, an offer of theirs, each at most once."""

    def __init__(
        self,
        slots: AttemptSlots,
        owner: Hashable,
        *,
        call: Callable[[], None],
        answer: Callable[[_T], None],
        refuse: Callable[[str, _T, str], None],
    ) -> None:
        """`call` and `answer` start the attempt, at once or when its slot has come. `refuse(name, offer, reason)` tells
        the other side that its offer is not answered."""
        self._slots = slots
        self._owner = owner
        self._start_call = call
        self._start_answer = answer
        self._refuse = refuse
        self._call: Slot | None = None
        self._answer: Slot | None = None
        self._offer: tuple[str, _T] | None = None  # that waits
        self._patience: Timer | None = None

    @property
    def calling(self) -> bool:
        """Whether a call of ours waits."""
        return self._call is not None and not self._call.granted

    def keeps(self, name: str) -> bool:
        """Whether the offer of that name waits."""
        return self._offer is not None and self._offer[0] == name

    def call(self) -> None:
        """Start a call of ours when its slot comes, unless one waits."""
        if self._call is None:
            self._call = self._slots.calls.ask(self._owner, self._call_granted)
            if self._call.granted:
                self._start_call()

    def offered(self, name: str, offer: _T) -> None:
        """An offer of theirs that starts an attempt: answer it when its slot comes."""
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
        """The other side has given that attempt up."""
        if self.keeps(name):
            self._drop_offer(None)

    def set_unanswered(self, unanswered: bool) -> None:
        """Whether the call of ours that is under way only waits for its answer."""
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
        """Nothing is started any more."""
        self._drop_offer(reason)
        for slot in (self._call, self._answer):
            if slot is not None:
                slot.release()
        self._call = self._answer = None

    def _has_slot(self) -> bool:
        return any(slot is not None and slot.granted for slot in (self._call, self._answer))

    def _call_granted(self) -> None:
        if self._offer is not None:
            self._answer_granted()  # their call is there already: one of ours would cross it
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
