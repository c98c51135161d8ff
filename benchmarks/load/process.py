"""What the kernel knows of a process: processor time, memory, and where it may run. Linux only.

Processor time is read from the process's clock (clock_getcpuclockid(3)): nanoseconds of user and system time over all
its threads, where /proc/<pid>/stat counts in hundredths of a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


def processor_seconds(pid: int) -> float:
    """User and system time of a process so far, over all its threads, in seconds."""
    # The encoding of a process's clock in a clockid_t: glibc's clock_getcpuclockid, with CPUCLOCK_SCHED (2).
    return time.clock_gettime((~pid << 3) | 2)


def busy_seconds(cores: Iterable[int]) -> float:
    """What these cores have worked so far, for anybody, and what the hypervisor took from them; to 10 ms."""
    wanted = {f"cpu{core}" for core in cores}
    total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in wanted:
            user, nice, system, _idle, _waiting, *interrupts_and_steal = map(int, ticks[:8])
            total += user + nice + system + sum(interrupts_and_steal)
    return total / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Resident memory in bytes. `pss` shares out the pages that several processes map; `rss` counts them in full."""

    rss: int
    pss: int


def memory(pid: int) -> Memory:
    """What a process occupies now."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) * 1024
    return Memory(rss=fields["Rss"], pss=fields["Pss"])


@dataclass(frozen=True)
class Cores:
    """The core of the server under test, and the core of the load generator and all else."""

    server: int
    generator: int


def choose_cores() -> Cores:
    """Two cores that do not share an execution unit, where the machine has them; else one for both."""
    allowed = sorted(os.sched_getaffinity(0))
    server = allowed[-1]
    siblings = _siblings(server)
    others = [core for core in allowed if core not in siblings] or [core for core in allowed if core != server]
    return Cores(server=server, generator=others[0] if others else server)


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not path.exists():
        return {core}
    found: set[int] = set()
    for part in path.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


@contextmanager
def running_on(core: int) -> Iterator[None]:
    """Start processes in this block to have them, and all threads they make, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine() -> dict[str, str | float]:
    """What the numbers were taken on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    system = os.uname()
    return {
        "processor": model,
        "cores": os.cpu_count() or 1,
        "memory_gib": round(int(total.split()[1]) / 2**20, 1),
        "system": f"{system.sysname} {system.release} {system.machine}",
    }
