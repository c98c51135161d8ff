"""`aldis serve-worker`: one of the processes of `aldis serve --workers`. A supervisor starts it, and no person does."""

from __future__ import annotations

from collections.abc import Sequence

from aldis.cli.exits import ExitCode, complain


def run(words: Sequence[str]) -> int:
    """Run a worker whose line to its supervisor is the descriptor in `words`; return the exit code."""
    if len(words) != 1 or not words[0].isdecimal():
        complain("`aldis serve --workers` starts this command; it is not for people.")
        return ExitCode.USAGE

    from aldis.server.process import run_worker

    try:
        return run_worker(int(words[0]))
    except EOFError:
        return ExitCode.FAULT  # nobody is there to be told
