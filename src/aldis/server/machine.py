"""How much memory this machine has for the server."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

# The part of the memory that may be kept for clients. The rest is for the program, the kernel's socket buffers, a TURN
# server, and what else runs there.
_PART: Final = 0.5
# Where the system does not tell.
_UNKNOWN: Final = 1024 * 1024 * 1024
# The limit of the control group, in a container and under systemd (cgroup-v2, and its first version).
_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_budget() -> int:
    """Bytes that may be kept for clients: half of what this process can have."""
    known = []
    with suppress(OSError, ValueError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            known.append(int(Path(path).read_text(encoding="ascii")))
    return int(_PART * min(known)) if known else _UNKNOWN
