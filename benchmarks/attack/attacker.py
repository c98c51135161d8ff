"""The attacker, in a process of its own: `python -m benchmarks.attack.attacker TARGET ATTACK`.

It says `ready`, strikes at each line `strike`, rests at each line `rest`, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from contextlib import suppress

import uvloop

from benchmarks.attack.catalogue import ATTACKS
from benchmarks.attack.wire import Target


async def obey(target: Target, name: str) -> None:
    """Do as the lines say."""
    loop = asyncio.get_running_loop()
    attack = ATTACKS[name](target)
    await attack.prepare()
    print("ready", flush=True)
    striking: asyncio.Task[None] | None = None
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if striking is not None:
            striking.cancel()
            await asyncio.wait([striking])
            if not striking.cancelled() and (error := striking.exception()) is not None:
                raise error
            striking = None
        if line == "strike\n":
            striking = asyncio.create_task(attack.strike())
        print("done", flush=True)
    attack.end()


def main() -> None:
    """The command."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # an attacker has a core for itself
    uvloop.run(obey(Target.read(sys.argv[1]), sys.argv[2]))


if __name__ == "__main__":
    main()
