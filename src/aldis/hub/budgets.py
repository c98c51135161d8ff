"""What one user may send: budgets, pauses, offences. `hub.rates` has those of all users.

A transport slows a single connection down by not reading it. That does not help against a user with many connections,
so all of them share these budgets. Beyond one the user is *paused*: until the pause is over, the server refuses what
the budget is for with `rate-limited`, and `retryAfter` says when the pause is over.

A client that sends again what was refused, after it has read so and before the pause is over, commits an *offence*
with each message; too many of them end the connection. The server knows what a client has read: a WebSocket ping goes
out behind the refusal, and its pong comes behind all that the client had sent before. So a client that waits when it is
told to never commits one.
"""

from __future__ import annotations

from typing import Final

from aldis.hub.limits import TokenBucket

# How many seconds' worth a user may send at once.
BURST_SECONDS: Final = 2.0
# How many seconds' worth a user may owe that has sent too much at several nodes of a cluster, before they have heard of
# each other. They have after a second, and at all nodes together after a burst.
DEBT_SECONDS: Final = 30.0
# The shortest pause: less would be over before the client has read of it.
PAUSE: Final = 1.0
# When a client counts as having read of a pause although it has answered no ping. It has sent all this time.
UNANSWERED: Final = 60.0

# Lines that are told apart in one pause; with more, all count as read. A client of this project has one for each of its
# peers, and the rate of its connection does not allow so many in a pause.
MOST_LINES: Final = 1024

MESSAGES: Final = "user-messages"
RELAYED: Final = "user-relayed-bytes"
DISCOVERS: Final = "user-discovers"
SEALED: Final = "user-sealed-bytes"
SEALED_PAIR: Final = "pair-sealed-bytes"

# Recipients of one user whose budgets are not full at the moment.
MOST_PAIRS: Final = 256


class RateLimit:
    """A limit: so many a second, and `BURST_SECONDS` times as many at once."""

    __slots__ = ("burst", "name", "per_second")

    def __init__(self, name: str) -> None:
        self.name = name
        self.per_second = self.burst = 1.0

    def set(self, per_second: float) -> None:
        """Allow so many a second from now on."""
        self.per_second = per_second
        self.burst = BURST_SECONDS * per_second


class Budget:
    """What one user may still send under one limit."""

    __slots__ = ("_left", "_since", "_until", "limit")

    def __init__(self, limit: RateLimit) -> None:
        self.limit = limit
        self._left = limit.burst
        self._since = self._until = 0.0  # the user is paused until then

    def take(self, cost: float, now: float, nodes: int = 1) -> float:
        """Use some of it. 0, or the seconds until the pause is over; then nothing is used.

        The last message may cost more than is left, so that even the largest one gets through. A user with devices at
        several nodes may send a part of the burst at each.
        """
        if now < self._until:
            return self._until - now
        limit = self.limit
        left = min(self._left + (now - self._since) * limit.per_second, limit.burst / nodes)
        self._since = now
        if left > 0:
            self._left = left - cost
            return 0.0
        self._left = left
        pause = PAUSE - left / limit.per_second
        self._until = now + pause
        return pause

    def used_elsewhere(self, cost: float, now: float) -> None:
        """Another node has allowed so much. There may be a debt then, of at most `DEBT_SECONDS`."""
        limit = self.limit
        left = min(self._left + (now - self._since) * limit.per_second, limit.burst) - cost
        self._left = max(min(left, limit.burst), -DEBT_SECONDS * limit.per_second)
        self._since = now

    def close(self, until: float) -> None:
        """Refuse everything until then: what comes must not overtake what was refused for another reason."""
        self._until = max(self._until, until)

    def is_full(self, now: float) -> bool:
        """Whether it is as if it had never been used."""
        limit = self.limit
        return now >= self._until and self._left + (now - self._since) * limit.per_second >= limit.burst


class SealedRates:
    """What one user may still send in sealed messages: in all, and to each other user."""

    __slots__ = ("_look_at", "_pair_limit", "_pairs", "user")

    def __init__(self, user: RateLimit, pair: RateLimit) -> None:
        self.user = Budget(user)
        self._pair_limit = pair
        self._pairs: dict[str, Budget] = {}
        self._look_at = 0.0  # when to look again for those that are full

    def pair(self, recipient: str, now: float) -> Budget | None:
        """The budget for one recipient; None when there are too many of them."""
        budget = self._pairs.get(recipient)
        if budget is None:
            if len(self._pairs) >= MOST_PAIRS and now >= self._look_at:
                self._pairs = {name: one for name, one in self._pairs.items() if not one.is_full(now)}
                self._look_at = now + PAUSE
            if len(self._pairs) >= MOST_PAIRS:
                return None
            budget = self._pairs[recipient] = Budget(self._pair_limit)
        return budget


class UserRates:
    """The budgets of one user. Those that it has not used yet are None."""

    __slots__ = ("discovers", "messages", "nodes", "relayed", "sealed", "sessions")

    def __init__(self) -> None:
        self.messages: Budget | None = None
        self.relayed: Budget | None = None
        self.discovers: Budget | None = None
        self.sealed: SealedRates | None = None
        self.sessions = 0
        self.nodes = 1  # at so many nodes of the cluster it has devices


class Pause:
    """What one session has been told of the pauses of its user under one limit.

    A *line* is what a client holds back after a refusal: messages to one address, or requests of one kind. The others
    it sends on, and the server refuses each of them once. So lines are told apart here, too.
    """

    __slots__ = ("_name", "_number", "_offences", "_pinged", "_read", "_unread", "_unread_since", "until")

    def __init__(self, name: str, offences: int, per_second: float, now: float) -> None:
        self._name = name.encode()
        self._offences = TokenBucket(offences, per_second, now)
        self.until = 0.0
        self._number = 0  # of the last ping
        # The lines of whose refusal the session has read, of which the answer to a ping will say so, and the others.
        self._read: set[str] = set()
        self._pinged: set[str] | None = None
        self._unread: set[str] = set()
        self._unread_since: float | None = None

    def begin(self, until: float, now: float) -> None:
        """Another pause has begun."""
        self.until = until
        self._read, self._pinged, self._unread = set(), None, set()
        if self._unread_since is None:
            self._unread_since = now

    def refuse(self, line: str, now: float) -> bool:
        """A message is refused. Returns whether that is an offence too many."""
        known = len(self._read) + len(self._unread) + len(self._pinged or ())
        overdue = self._unread_since is not None and now - self._unread_since > UNANSWERED
        if line in self._read or overdue or known >= MOST_LINES:
            return not self._offences.spend(now)
        if line not in (self._pinged or ()):
            self._unread.add(line)
        return False

    def ping(self) -> bytes | None:
        """The payload of a ping that is to go out behind the refusals; None when none is needed."""
        if self._pinged is not None or not self._unread:
            return None
        self._pinged, self._unread = self._unread, set()
        self._number += 1
        return self._token

    def answered(self, token: bytes) -> None:
        """A pong has come."""
        if self._pinged is not None and token == self._token:
            self._read |= self._pinged
            self._pinged = self._unread_since = None

    @property
    def _token(self) -> bytes:
        return b"%s %d" % (self._name, self._number)
