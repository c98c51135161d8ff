"""The order of the suite's processes on a machine that does other work, too: server and honest users come first.

The honest users have a real-time priority: they are the clock, they need little of their core, and so the attacker, on
the same core, does not delay them. The server may need all of its core, so it keeps the usual scheduler: from a process
with a real-time priority that needs a whole core the kernel takes 50 ms of each second (sched(7); since Linux 6.12 also
when `sched_rt_runtime_us` allows everything). It gets the highest nice value instead.

In a cluster, the other server and Redis are on the core of attacker and honest users. Nobody attacks them, but what the
honest pair says passes through them. They have the real-time priority, too: a program that only goes before another
still waits up to 4 ms for its core, which is what the attack would be blamed for.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from benchmarks.attack.wire import KEEP_PRIORITIES

_HIGHEST: Final = -20  # setpriority(2)


def put_server_first(pid: int) -> None:
    """Give a server, which has a session of its own, its core before other programs, where we may."""
    if KEEP_PRIORITIES in os.environ:
        return
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, _HIGHEST)
    # Where sessions share the processor (sched(7), "The autogroup feature"), a nice value counts in its session only.
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(_HIGHEST))


def put_users_first(pid: int = 0) -> None:
    """Let this process, with the honest users, go before others, where we may; or another that needs as little."""
    if KEEP_PRIORITIES not in os.environ:
        with suppress(PermissionError):
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def waited_seconds(pid: int) -> float:
    """How long the first thread of a process, a server's event loop, was ready to run so far, and did not."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
