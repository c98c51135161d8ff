"""How long to wait before the next attempt to reconnect: exponential, with full jitter.

After Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the wait is drawn evenly from zero
to a ceiling that grows with each attempt. Of the variants compared there it has the least contention and the least
work. That matters when a server restarts and all its clients come back at once.

Pure: the random number and the time are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

from aldis.errors import ConfigError
from aldis.settings import check_count, check_number, check_seconds

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
    most: float = 30.0
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


class Retries:
    """The attempts that one client makes in a row, and the time of the next one. Times are in seconds."""

    __slots__ = ("_backoff", "attempts", "due", "not_before")

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.attempts = 0
        """The number of attempts since a connection last lasted long enough, including the next one."""
        self.due = 0.0
        """When the next attempt is due."""
        self.not_before = 0.0
        """The time until which the server wants no connection."""

    def stood(self, seconds: float) -> None:
        """A connection that was useful for so long is lost."""
        if seconds >= self._backoff.settled:
            self.attempts = 0

    @property
    def exhausted(self) -> bool:
        """Whether no further attempt is allowed."""
        return self._backoff.exhausted(self.attempts)

    def schedule(self, now: float, random: float, *, invited: float | None) -> float:
        """Set the time of the next attempt, and return the seconds until then.

        `invited` is the time at which the server has asked this client to come back. Each client gets a different time,
        so the first attempt is made exactly then. Later ones wait as usual.
        """
        self.attempts += 1
        due = max(now if invited is None else invited, self.not_before, now)
        if invited is None or self.attempts > 1:
            due = max(due, now + self._backoff.delay(self.attempts, random))
        self.due = due
        return due - now
