"""How much is logged, in all and by area: `info,tls=debug,http=warning`.

Rules: an area without a level of its own has that of all. The levels are those of the loggers of the standard library
(`aldis.tls`), and are kept nowhere else. What libraries log has the level of all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aldis.errors import UsageError

LEVELS: Final = ("debug", "info", "warning", "error")
DEFAULT: Final = "info"
# The areas, and what each tells of. A module gets its logger by `get_logger("aldis.AREA")`.
AREAS: Final[Mapping[str, str]] = {
    "server": "start, stop, settings, faults",
    "http": "requests that are refused, connections that do not open, broken frames",
    "hub": "clients that connect and leave",
    "directory": "the directory of names, and the sessions of the last run",
    "cluster": "the other servers of a cluster, and their Redis",
    "tls": "certificates",
    "turn": "the TURN server",
    "admin": "what an operator does",
    "accounts": "tokens, and the operator's application",
}
_EXPECTED: Final = f"one of {', '.join(LEVELS)}, also by area: info,tls=debug (areas: {', '.join(AREAS)})"


@dataclass(frozen=True, slots=True)
class LogLevels:
    """`default` is the level of all, None to leave it as it is; `areas` are those with a level of their own."""

    default: str | None
    areas: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [] if self.default is None else [self.default]
        return ",".join([*words, *(f"{area}={level}" for area, level in self.areas.items())])


def read_levels(text: str) -> LogLevels:
    """Read `info,tls=debug`. Without a level of all it is None. Raises `UsageError`: what is expected."""
    default: str | None = None
    areas: dict[str, str] = {}
    for part in text.lower().split(","):
        area, equals, level = (word.strip() for word in part.rpartition("="))
        is_known = area in AREAS and area not in areas if equals else default is None
        if level not in LEVELS or not is_known:
            raise UsageError(_EXPECTED)
        if equals:
            areas[area] = level
        else:
            default = level
    return LogLevels(default, {area: areas[area] for area in AREAS if area in areas})


def apply_levels(levels: LogLevels) -> None:
    """Log so from now on. With a level of all, areas that are not named have it; otherwise they keep theirs."""
    if levels.default is not None:
        logging.getLogger().setLevel(levels.default.upper())
    for area in AREAS:
        if area in levels.areas:
            logging.getLogger(f"aldis.{area}").setLevel(levels.areas[area].upper())
        elif levels.default is not None:
            logging.getLogger(f"aldis.{area}").setLevel(logging.NOTSET)


def current_levels() -> LogLevels:
    """How much is logged now."""
    found = {area: logging.getLogger(f"aldis.{area}").level for area in AREAS}
    return LogLevels(_name(logging.getLogger().level), {area: _name(level) for area, level in found.items() if level})


def _name(level: int) -> str:
    return logging.getLevelName(level).lower()
