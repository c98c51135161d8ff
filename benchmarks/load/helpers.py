"""Processes beside the server that do work for a benchmark, told line by line what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.load.process import running_on

FINISH_SECONDS: Final = 60.0


class Helper:
    """Another process, on a core of its own. It answers each line that it is told by one of its own."""

    def __init__(self, core: int, *words: str) -> None:
        with running_on(core):
            self._process = subprocess.Popen(
                [sys.executable, "-m", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    def hear(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark has ended; see above")
        return line

    def tell(self, line: str) -> None:
        """Say a line, and wait for its answer."""
        self.ask(line)

    def ask(self, line: str) -> str:
        """Say a line, and return its answer."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self.hear()

    def finish(self) -> str:
        """End its input, and return what it says last."""
        output, _ = self._process.communicate(timeout=FINISH_SECONDS)
        return output

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def helper(core: int, *words: str) -> Iterator[Helper]:
    """Such a process for the length of the block."""
    process = Helper(core, *words)
    try:
        process.hear()
        yield process
    finally:
        process.kill()
