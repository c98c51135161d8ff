"""How much wrong a client may do before it is sent away."""

from __future__ import annotations


class FaultBudget:
    """A leaky bucket: `burst` faults at once, and `per_second` for ever.

    It has no clock; the caller says what time it is.
    """

    __slots__ = ("_burst", "_level", "_per_second", "_since")

    def __init__(self, burst: int, per_second: float, now: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._level = 0.0
        self._since = now

    def spend(self, now: float) -> bool:
        """Count one fault; False when that was one too many."""
        self._level = max(0.0, self._level - (now - self._since) * self._per_second) + 1.0
        self._since = now
        return self._level <= self._burst
