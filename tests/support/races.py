"""Several processes that do one thing at the same moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from support.patience import PATIENCE

_WAIT = "import sys; print('ready', flush=True); sys.stdin.readline()\n"


def at_once(prepare: str, act: str, arguments: Sequence[str]) -> list[str]:
    """Start one process for each argument (its `sys.argv[1]`); each runs `prepare`, and when all have, `act`.

    Both are Python. Returns what each process printed; one that fails makes the call fail.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"{prepare}\n{_WAIT}{act}", argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for argument in arguments
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        printed = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            output, _ = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
            printed.append(output.strip())
        return printed
    finally:
        for process in processes:
            process.kill()
            process.communicate()
