"""Commands that are shown to be typed: they work as they stand, from where this process was started."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def typed(*words: str) -> str:
    """The command line for `aldis` with these words, quoted for a shell."""
    return " ".join([*_program(), *map(shlex.quote, words)])


def _program() -> list[str]:
    """How to call this very program: `aldis` where a shell would find it, else as it was called now."""
    called = Path(sys.argv[0])
    if called.name == "aldis":
        found = shutil.which("aldis")
        if found and os.path.realpath(found) == os.path.realpath(called):
            return ["aldis"]
        if called.exists():
            return [shlex.quote(sys.argv[0])]
    if getattr(sys, "frozen", False):  # PyInstaller: the program is no interpreter
        return [shlex.quote(sys.executable)]
    return [shlex.quote(sys.executable), "-m", "aldis"]
