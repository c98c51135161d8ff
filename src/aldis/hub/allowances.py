"""How often something may happen for each of many: networks, names.

Rules: each may use its whole allowance at once, and gets it back evenly over a period. The table is bounded: when it is
full, the one that has used nothing for longest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from math import inf
from typing import Final, Generic, TypeVar, cast

from aldis.hub.usage import Key, SharedUsage

DAY: Final = 86_400.0
HOUR: Final = 3_600.0
# 200 bytes each. More than so many use something within the period only in an attack, or on a server with other
# worries.
MAX_KNOWN: Final = 10_000


class _EachUse:
    """What is used seldom is told in full; not at once, because most of it is given back."""

    per_second = 0.0
    burst = inf


_EACH_USE: Final = _EachUse()

K = TypeVar("K", bound=Hashable)


class Allowances(Generic[K]):
    """`most` uses at once for each, and as many again in each `period` (seconds). `most` of 0 switches the limit off.

    Times are those of the caller.
    """

    def __init__(self, most: int, period: float, *, limit: str = "", usage: SharedUsage | None = None) -> None:
        """`usage`: what is used counts at other nodes too, under this name of the limit."""
        self._period = period
        self._name = limit
        self._usage = usage
        if usage is not None:
            usage.share(limit, self._used_elsewhere, _EACH_USE)
        self.limit(most)
        # What each may still use, and when that was worked out. In the order of use.
        self._left: OrderedDict[K, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def limit(self, most: int) -> None:
        """Allow so many from now on."""
        self._most = most
        self._per_second = most / self._period

    def wait(self, key: K, now: float) -> float:
        """0 when one use is left, else the seconds until one is."""
        left = self._of(key, now)
        return 0.0 if left >= 1 or not self._most else (1 - left) / self._per_second

    def has_used(self, key: K, now: float) -> bool:
        """Whether some of the allowance is used."""
        return self._of(key, now) < self._most

    def take(self, key: K, now: float) -> float:
        """Take one use. 0 when one was left, else the seconds until one is, and nothing is taken."""
        if not self._most:
            return 0.0
        left = self._of(key, now)
        taken = left >= 1
        self._set(key, left - taken, now)
        if taken and self._usage is not None:
            self._usage.count(self._name, cast(Key, key), 1)
        return 0.0 if taken else (1 - left) / self._per_second

    def give_back(self, key: K) -> None:
        """What was taken was not used."""
        if key in self._left:
            left, since = self._left[key]
            self._left[key] = (left + 1, since)
        if self._usage is not None:
            self._usage.count(self._name, cast(Key, key), -1)

    def _used_elsewhere(self, key: Key, amount: float, now: float) -> None:
        if self._most:
            known = cast(K, key)  # of the same limit at another node
            self._set(known, max(min(self._of(known, now) - amount, self._most), -self._most), now)

    def _set(self, key: K, left: float, now: float) -> None:
        self._left[key] = (left, now)
        self._left.move_to_end(key)
        while len(self._left) > MAX_KNOWN or self._has_all(now):
            self._left.popitem(last=False)

    def _of(self, key: K, now: float) -> float:
        left, since = self._left.get(key, (float(self._most), now))
        return min(float(self._most), left + (now - since) * self._per_second)

    def _has_all(self, now: float) -> bool:
        """Whether the one that has used nothing for longest has its whole allowance again."""
        _, since = next(iter(self._left.values()))
        return now - since >= self._period
