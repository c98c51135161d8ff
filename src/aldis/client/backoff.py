"""How long to wait before the next attempt to reconnect: exponential, with full jitter.

After Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the wait is drawn evenly from zero
to a ceiling that grows with each attempt. Of the variants compared there it has the least contention and the least
work. That matters when a server restarts and all its clients come back at once.

The highest ceiling decides how late the last client is after a server was away: 10 s by default. So the 10,000 clients
that a server takes by default come back at 1,000 a second, and it registers more than that. With 30 s the last one came
after 28 s.

While somebody waits for the server (a message, a call, a peer whose path is lost), the ceiling is much lower
(`URGENT`), but not for ever: a server that is away for long is dialled less and less often even then. When only the
server fails, peers stay connected and nobody waits, so the whole crowd of its clients does not hurry.

Pure: the random number and the time are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aldis.errors import ConfigError
from aldis.settings import check_count, check_number, check_seconds

# Seconds. A client that was far over a server's limits stays away for this time, and twice as long each time after.
OFFENCE_PAUSE = 60.0
LONGEST_OFFENCE_PAUSE = 600.0
# And up to so much longer, at random: others were sent away in the same moment.
OFFENCE_SPREAD = 0.5
# The highest ceiling while somebody waits, and until how many seconds after the loss it holds. Within the first minute
# a client is back 0.75 s after its server at the latest.
URGENT: Final = ((60.0, 0.75), (600.0, 2.0))
# A larger factor changes nothing: the second wait has the highest ceiling already.
_LARGEST_FACTOR = 1e300


@dataclass(frozen=True, slots=True)
class Backoff:
    """When a client reconnects; times in seconds.

    The ceiling of attempt n (from 1) is `first * factor ** (n - 1)`, and at most `most`. After `attempts` attempts in a
    row the client gives up (None: never). A connection that lasts for `settled` resets the count. A connection that is
    lost sooner counts as a failure, so a server that closes each connection at once is dialled less and less often.
    Raises `ConfigError` for values that make no sense.
    """

    first: float = 0.5
    factor: float = 2.0
    most: float = 10.0
    attempts: int | None = None
    settled: float = 10.0

    def __post_init__(self) -> None:
        check_seconds("backoff.first", self.first, zero=True)
        check_number("backoff.factor", self.factor, 1, _LARGEST_FACTOR)  # below 1 the waits would shrink
        check_seconds("backoff.most", self.most, zero=True)
        if self.most < self.first:
            raise ConfigError("backoff.most", f"{self.most!r} is below the first wait")
        if self.attempts is not None:
            check_count("backoff.attempts", self.attempts, 0)
        check_seconds("backoff.settled", self.settled, zero=True)

    def ceiling(self, attempt: int) -> float:
        """The longest wait before attempt `attempt`, which counts from 1."""
        try:
            return min(self.most, self.first * self.factor ** (attempt - 1))
        except OverflowError:
            return self.most

    def delay(self, attempt: int, random: float) -> float:
        """The wait before attempt `attempt`. `random` is drawn evenly from 0 to 1."""
        return random * self.ceiling(attempt)

    def exhausted(self, made: int) -> bool:
        """Whether `made` attempts are all that are allowed."""
        return self.attempts is not None and made >= self.attempts


# Between calls to a peer, which cost both programs and the server more than dialling a server that is away.
CALLS = Backoff(most=30.0)


class Retries:
    """The attempts that one client makes in a row, and the time of the next one. Times are in seconds."""

    __slots__ = ("_backoff", "_earliest", "_offences", "_since", "attempts", "due", "not_before", "urgent")

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.attempts = 0
        """The number of attempts since a connection last lasted long enough, including the next one."""
        self.due = 0.0
        """When the next attempt is due."""
        self.not_before = 0.0
        """The time until which the server wants no connection."""
        self.urgent = False
        """Whether somebody waits for the server."""
        self._earliest = 0.0  # when the server allows the next attempt
        self._since = 0.0  # when the first of these attempts was scheduled
        self._offences = 0

    def stood(self, seconds: float) -> None:
        """A connection that was useful for so long is lost."""
        if seconds >= self._backoff.settled:
            self.attempts = 0
        if seconds >= LONGEST_OFFENCE_PAUSE:
            self._offences = 0

    def offended(self, now: float, random: float) -> None:
        """The server has ended the connection because the client was far over its limits."""
        pause = min(OFFENCE_PAUSE * 2.0**self._offences, LONGEST_OFFENCE_PAUSE)
        self._offences = min(self._offences + 1, 10)
        self.not_before = now + pause * (1 + OFFENCE_SPREAD * random)

    @property
    def exhausted(self) -> bool:
        """Whether no further attempt is allowed."""
        return self._backoff.exhausted(self.attempts)

    def schedule(self, now: float, random: float, *, invited: float | None) -> float:
        """Set the time of the next attempt, and return the seconds until then.

        `invited` is the time at which the server has asked this client to come back. Each client gets a different time,
        so the first attempt is made exactly then. Later ones wait as usual. After `not_before` they wait as well,
        because others were told the same at the same time.
        """
        self.attempts += 1
        if self.attempts == 1:
            self._since = now
        due = max(now, self.not_before)
        self._earliest = due if invited is None else max(due, invited)
        if invited is None or self.attempts > 1:
            due += random * self._ceiling(now)
        self.due = max(due, self._earliest)
        return self.due - now

    def _ceiling(self, now: float) -> float:
        ceiling = self._backoff.ceiling(self.attempts)
        most = [most for until, most in URGENT if self.urgent and now - self._since < until]
        return min([ceiling, *most])

    def hurry(self, now: float, random: float) -> None:
        """Somebody waits for the server from now on: the next attempt may be due earlier."""
        if not self.urgent:
            self.urgent = True
            self.due = max(self._earliest, min(self.due, now + random * self._ceiling(now)))

    def hasten(self, now: float) -> float:
        """The network has changed: try at once, unless the server has asked for a later time. Returns the seconds until
        then."""
        self.due = self._earliest
        return max(self.due - now, 0.0)
