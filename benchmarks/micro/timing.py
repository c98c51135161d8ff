"""How long a small thing takes: many times in a row, several rows, the median row and the fastest."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

ROWS = 7


@dataclass(frozen=True)
class Case:
    """One thing that was timed; times in nanoseconds for one call."""

    name: str
    median_ns: float
    fastest_ns: float


def time_all(things: Mapping[str, Callable[[], object]], seconds: float) -> list[Case]:
    """Time every callable for about `seconds` seconds, their rows interleaved, the garbage collector held."""
    loops = {name: _loops(thing, seconds / ROWS) for name, thing in things.items()}
    rows: dict[str, list[float]] = {name: [] for name in things}
    enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(ROWS):
            for name, thing in things.items():
                rows[name].append(_row(thing, loops[name]) / loops[name])
    finally:
        if enabled:
            gc.enable()
    return [Case(name, median(row) * 1e9, min(row) * 1e9) for name, row in rows.items()]


def _row(thing: Callable[[], object], loops: int) -> float:
    # Processor time: what another process on this core takes is not this thing's.
    began = time.process_time()
    for _ in range(loops):
        thing()
    return time.process_time() - began


def _loops(thing: Callable[[], object], seconds: float) -> int:
    loops = 1
    while (taken := _row(thing, loops)) < seconds / 8:
        loops *= 2
    return max(1, round(loops * seconds / max(taken, 1e-9)))
