"""Whose turn it is: no connection keeps the others waiting, however much it sends at once.

A connection may say so much in one go (`TURN`). What it has sent beyond that waits in its own backlog, and is not read
on, so that TCP slows the sender down. All connections with a backlog take turns (deficit round robin: Shreedhar and
Varghese, 1995), within `SLICE` seconds of each turn of the event loop. So connections that say little, which are nearly
all, never stand behind one that says much (as in FQ-CoDel, RFC 8290 section 4.1).

A connection that has used up its rate is parked until it may go on.

There are three lanes, which have every third turn while all are in use, so none keeps the others out: connections with
a backlog, connections that are to be read on, and new connections (`server.arrivals`). To read a connection on costs
much more than to handle a small message.

Rules: it has no loop and no clock of its own; `soon` and `later` call back. It does not know what is said.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final, Protocol

# Units that a connection may spend in one go: a message is one, or more when it is large or costly. 32 relayed messages
# take about a millisecond.
TURN: Final = 32
# Seconds of each turn of the event loop for connections with a backlog. What the others send meanwhile waits for as
# long at most.
SLICE: Final = 0.0003
# Units of one turn of a connection with a backlog: a quarter of a millisecond, so that the slice is hardly overrun.
QUANTUM: Final = 8
# Seconds for the first read of a connection that is read again: 4 KB of tiny messages. It comes in the next turn,
# with those of all others that may go on.
READING: Final = 0.00028
# Seconds for the answer to a costly message, which the loop brings later: mostly that of the directory.
ANSWERING: Final = 0.0001


class Flow(Protocol):
    """A connection with a backlog."""

    def run(self, units: int, now: float) -> float | None:
        """Handle what waits, for so many units at most. Return when it may go on: `now` or earlier if at once, None
        when nothing waits any more."""


class Timer(Protocol):
    """What `later` returns."""

    def cancel(self) -> None:
        """Do not call back."""


class FairScheduler:
    """The connections that have a backlog, in the order of their turns."""

    def __init__(
        self,
        *,
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float],
    ) -> None:
        """`soon(call)`: in the next turn of the loop. `later(seconds, call)`. `clock()` in monotonic seconds."""
        self._soon = soon
        self._later = later
        self._clock = clock
        self._ready: deque[Flow] = deque()
        self._unread: deque[Flow] = deque()
        self._arriving: deque[Flow] = deque()
        # The next one first. That stays over the end of a slice, or one long turn in each would keep the others out.
        self._lanes = deque((self._arriving, self._ready, self._unread))
        self._end = 0.0  # of the slice
        self._running = False  # `_run` is due
        # With a number before each, since flows cannot be compared.
        self._parked: list[tuple[float, int, Flow]] = []
        self._numbers = count()
        self._timer: Timer | None = None
        self._timer_due = 0.0
        self.throttled = 0  # how often a connection had to wait because it had used up its rate

    def __len__(self) -> int:
        """How many connections wait for a turn or are parked."""
        return len(self._ready) + len(self._unread) + len(self._parked)

    def add(self, flow: Flow, when: float, now: float) -> None:
        """A connection has a backlog now, and may go on at `when`. Not to be called again before `run` has returned
        None."""
        if when > now:
            self._park(flow, when, now)
        else:
            self._ready.append(flow)
            self._run_soon()

    def add_unread(self, flow: Flow, when: float, now: float) -> None:
        """The same for a connection that has no backlog yet, and is to be read on."""
        if when > now:
            self._park(flow, when, now)
        else:
            self._unread.append(flow)
            self._run_soon()

    def arrive(self, flow: Flow) -> None:
        """New connections have something to be done. Not to be called again before `run` has returned None."""
        self._arriving.append(flow)
        self._run_soon()

    def charge(self, seconds: float) -> None:
        """Shorten the slice by work that was started in it, and that the loop does later."""
        self._end -= seconds

    def close(self) -> None:
        """Forget everything."""
        self._ready.clear()
        self._unread.clear()
        self._arriving.clear()
        self._parked.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _run_soon(self) -> None:
        if not self._running:
            self._running = True
            self._soon(self._run)

    def _run(self) -> None:
        self._running = False
        now = self._clock()
        self._end = now + SLICE
        while now < self._end and (self._ready or self._arriving or self._unread):
            lane = self._lanes[0]
            self._lanes.rotate(-1)
            if lane:
                flow = lane.popleft()
                when = flow.run(QUANTUM, now)
                now = self._clock()
                if when is None:
                    continue
                if when > now:
                    self._park(flow, when, now)
                else:
                    lane.append(flow)
        if self._ready or self._arriving or self._unread:
            self._run_soon()

    # --- parked ---------------------------------------------------------------------------------------------------

    def _park(self, flow: Flow, when: float, now: float) -> None:
        self.throttled += 1
        heapq.heappush(self._parked, (when, next(self._numbers), flow))
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        due = self._parked[0][0]
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._later(max(due - now, 0.0), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self._clock()
        while self._parked and self._parked[0][0] <= now:
            self._ready.append(heapq.heappop(self._parked)[2])
        if self._parked:
            self._set_timer(now)
        if self._ready:
            self._run_soon()
