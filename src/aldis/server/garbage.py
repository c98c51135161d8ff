"""When Python looks for garbage, so that the event loop does not stand still for it.

Python counts references, and its collector finds what refers to itself in a circle. To look at all objects takes 10 ms
in a server without a client, and 5 us more for each connection. Connections leave no circles behind
(`tests/integration/test_server_garbage.py`), so there is nearly nothing to find.

Rules:

* What is there after the start, and what is older than a second, is not looked at (`gc.freeze`).
* All of it is looked at every `FULL_EVERY` seconds, or earlier when there have become many more objects.
* Only a process that is a server has this, not a program that runs a server among other things.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

# Seconds. A stop of 60 ms with 10,000 connections is nothing at this pace.
FULL_EVERY: Final = 600.0
# Blocks of memory that may come to those after the last full look, beside as many again: some 300 MB if all of it
# were garbage.
MANY: Final = 3_000_000
# The youngest generation is looked at when there are so many more objects. Each object is looked at once in it, so few
# at a time cost no more in all. Python's own 700 take 5 ms when each is a set of 1,000 names (the privacy of a user).
YOUNG: Final = 100
# The middle generation is looked at after so many looks at the youngest. Python's own are 10, each of 700 objects: that
# takes 3 ms.
MIDDLE: Final = 3
# What Python calls a full collection comes after so many of the middle one: never, since a tick comes before.
_NEVER: Final = 1_000_000


class Collector(Protocol):
    """The module `gc`, as far as it is needed."""

    def collect(self, generation: int = 2, /) -> int: ...
    def freeze(self) -> None: ...
    def unfreeze(self) -> None: ...
    def get_threshold(self) -> tuple[int, int, int]: ...
    def set_threshold(self, first: int, second: int, third: int, /) -> None: ...


class Garbage:
    """The collector of a process. Times are monotonic seconds."""

    def __init__(self, collector: Collector, blocks: Callable[[], int]) -> None:
        """`blocks` is how many blocks of memory there are (`sys.getallocatedblocks`). `gc.get_freeze_count` would go
        through all objects, too."""
        self._collector = collector
        self._blocks = blocks

    def start(self, now: float) -> None:
        """The process serves now."""
        first, second, _ = self._collector.get_threshold()
        self._collector.set_threshold(min(first, YOUNG), min(second, MIDDLE), _NEVER)
        self._look_at_all(now)

    def tick(self, now: float) -> None:
        """Call this about once a second."""
        if now >= self._due or self._blocks() > 2 * self._blocks_then + MANY:
            self._look_at_all(now)
        else:
            self._collector.collect(1)
            self._collector.freeze()

    def _look_at_all(self, now: float) -> None:
        self._collector.unfreeze()
        self._collector.collect()
        self._collector.freeze()
        self._blocks_then = self._blocks()
        self._due = now + FULL_EVERY
