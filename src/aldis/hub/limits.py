"""Limits on how often something may happen."""

from __future__ import annotations


class TokenBucket:
    """`burst` tokens at once, and `per_second` new ones.

    It has no clock: the caller passes the time.
    """

    __slots__ = ("_burst", "_per_second", "_since", "_tokens")

    def __init__(self, burst: int, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = float(burst)
        self._since = now

    def spend(self, now: float) -> bool:
        """Take a token; False when no token is left."""
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._per_second)
        self._since = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
