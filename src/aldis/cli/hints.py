"""Commands in messages: the user can type them as they are, in the place where this process was started."""

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
    """How to call this program: `aldis` if a shell finds it, else as it was called now."""
    called = Path(sys.argv[0])
    if called.name == "aldis":
        found = shutil.which("aldis")
        if found and os.path.realpath(found) == os.path.realpath(called):
            return ["aldis"]
        if called.exists():
            return [shlex.quote(sys.argv[0])]
    if getattr(sys, "frozen", False):  # PyInstaller: sys.executable is not an interpreter
        return [shlex.quote(sys.executable)]
    return [shlex.quote(sys.executable), "-m", "aldis"]
