"""Attempts take turns: only a few peer connections are in the making at once, of all stores of an event loop.

A connection costs a processor some 10 ms, so hundreds that start together make each other too late: all of them time
out, and nothing is connected. So an attempt waits for its slot, and its clock starts when it has it.

Rules:

* Calls of ours and answers to calls of others have slots of their own. An answer never waits for a call of ours, so
  two programs that have given all their slots to calls of each other still answer.
* A slot ends when the attempt does, when its channel opens, or after some time (`SLOT_SECONDS`): a peer that is far
  away or gone does not hold up others. The attempt itself goes on.
* Where attempts take long because the machine is busy, slots last as long as those take, up to `MAX_SLOT_SECONDS`. Or
  all would be under way together in the end, each making the others too late.
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
# Offers that wait, of all peers together. Each has at most 64 KiB.
MAX_WAITING: Final = 128
# The other side gives its attempt 30 s, and has to find a path within them. Not reached unless all slots run out.
MAX_WAIT: Final = 10.0


class _Timer(Protocol):
    def cancel(self) -> None: ...


class _Timers(Protocol):
    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> _Timer: ...


class Slot:
    """One attempt's slot, or its place in the queue. Ends by `release`."""

    def __init__(self, queue: SlotQueue, owner: Hashable, granted: Callable[[], None]) -> None:
        self.held = False
        self.owner: Final = owner
        self.granted: Final = granted
        self.timer: _Timer | None = None
        self.since = 0.0  # when it was taken
        self._queue: SlotQueue | None = queue

    def release(self, *, opened: bool = False) -> None:
        """Let others have it, or leave the queue. Idempotent. `opened`: the attempt has succeeded."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.released(self, opened=opened)


class SlotQueue:
    """The slots of one kind."""

    def __init__(self, limit: int, timers: _Timers) -> None:
        self.most = 0  # that were held at once, for those who watch
        self._limit = limit
        self._timers = timers
        self._usual = 0.0  # seconds that an attempt takes
        self._held: set[Slot] = set()
        self._waiting: OrderedDict[Hashable, deque[Slot]] = OrderedDict()  # by owner; the first one is next
        self._soon: _Timer | None = None

    @property
    def held(self) -> int:
        """How many slots are taken now."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def ask(self, owner: Hashable, granted: Callable[[], None]) -> Slot:
        """A slot, which has come already if nobody waits. Otherwise `granted` is called later, not from within."""
        slot = Slot(self, owner, granted)
        if len(self._held) < self._limit and not self._waiting:
            self._take(slot)
        else:
            self._waiting.setdefault(owner, deque()).append(slot)
        return slot

    def released(self, slot: Slot, *, opened: bool) -> None:
        """For `Slot.release`."""
        if slot.held:
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

    def _take(self, slot: Slot) -> None:
        slot.held = True
        self._held.add(slot)
        self.most = max(self.most, len(self._held))
        slot.since = self._timers.time()
        seconds = min(max(SLOT_SECONDS, _PATIENCE * self._usual), MAX_SLOT_SECONDS)
        slot.timer = self._timers.call_later(seconds, lambda: self._end(slot))

    def _end(self, slot: Slot) -> None:
        self._held.discard(slot)
        if self._waiting and self._soon is None:
            self._soon = self._timers.call_later(0, self._next)

    def _next(self) -> None:
        self._soon = None
        while self._waiting and len(self._held) < self._limit:
            owner, line = self._waiting.popitem(last=False)
            slot = line.popleft()
            if line:
                self._waiting[owner] = line  # behind all others
            self._take(slot)
            try:
                slot.granted()
            except BaseException:
                self._end(slot)  # the others still have their slots
                raise


class AttemptSlots:
    """All slots of an event loop: `AttemptSlots.of(loop)`."""

    def __init__(self, timers: _Timers, *, calls: int = CALLS, answers: int = ANSWERS) -> None:
        self.calls: Final = SlotQueue(calls, timers)
        self.answers: Final = SlotQueue(answers, timers)
        self.timers: Final = timers

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> AttemptSlots:
        """The slots of this loop, made when they are first asked for."""
        slots = _slots.get(loop)
        if slots is None:
            slots = _slots[loop] = cls(LoopClock.of(loop))
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
        self._patience: _Timer | None = None

    @property
    def calling(self) -> bool:
        """Whether a call of ours waits."""
        return self._call is not None and not self._call.held

    def keeps(self, name: str) -> bool:
        """Whether the offer of that name waits."""
        return self._offer is not None and self._offer[0] == name

    def call(self) -> None:
        """Start a call of ours when its slot comes, unless one waits."""
        if self._call is None:
            self._call = self._slots.calls.ask(self._owner, self._call_granted)
            if self._call.held:
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
        if self._answer.held:
            self._answer_granted()
        else:
            self._patience = self._slots.timers.call_later(MAX_WAIT, lambda: self._drop_offer("busy"))

    def withdrawn(self, name: str) -> None:
        """The other side has given that attempt up."""
        if self.keeps(name):
            self._drop_offer(None)

    def settled(self, *, opened: bool) -> None:
        """No attempt is under way any more: it failed, or its channel is open."""
        if self._call is not None and self._call.held:
            self._call.release(opened=opened)
            self._call = None
        if self._answer is not None and self._answer.held:
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
        return any(slot is not None and slot.held for slot in (self._call, self._answer))

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
        if self._answer is not None and not self._answer.held:
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
