"""One line of the report of `aldis doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from aldis.cli.exits import ExitCode


class Mark(Enum):
    """The result of a check."""

    OK = "ok"
    NOTE = "note"  # nothing is wrong, but good to know
    WARN = "warn"  # works, or may work, but not as well as it could
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `code` is the exit code if this is the first failure."""

    name: str
    mark: Mark
    text: str
    advice: str = ""
    code: ExitCode = ExitCode.OK
