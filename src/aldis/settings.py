"""Checks of the values that a program sets: what cannot work is told where it was written, and never later.

Each raises `ConfigError` with the name of the setting. Python takes any value for any argument, and a wrong one would
otherwise come out much later, as the fault of a peer or of the network.

Pure. It does not know what the settings are for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from aldis.errors import ConfigError

# 31 years. Beyond some such number timers overflow, and no program runs for so long.
LONGEST_SECONDS: Final = 1e9
# What a size in bytes or a number of things can be at most on a machine of 64 bits.
_LARGEST: Final = 2**63 - 1


def check_number(setting: str, value: object, lowest: float, highest: float, unit: str = "") -> None:
    """A number, and neither a bool nor NaN, from `lowest` to `highest`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ConfigError(setting, f"{_shown(value)} is no number{unit} from {lowest:g} to {highest:g}")


def check_seconds(setting: str, value: object, *, zero: bool = False) -> None:
    """A number of seconds above 0, or with `zero` from 0 on, and at most `LONGEST_SECONDS`."""
    if not zero and value == 0:
        raise ConfigError(setting, f"{_shown(value)} is no number of seconds above 0")
    check_number(setting, value, 0, LONGEST_SECONDS, " of seconds")


def check_count(setting: str, value: object, lowest: int = 1) -> None:
    """An integer from `lowest` on; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= _LARGEST:
        raise ConfigError(setting, f"{_shown(value)} is no integer from {lowest} on")


def check_type(setting: str, value: object, kind: type, expected: str) -> None:
    """An instance of `kind`, which the error calls `expected`."""
    if not isinstance(value, kind):
        raise ConfigError(setting, f"{_shown(value)} is not {expected}")


def check_methods(setting: str, value: object, names: tuple[str, ...], expected: str) -> None:
    """An object with these methods. The class itself is a slip: its parentheses were forgotten."""
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in names):
        raise ConfigError(setting, f"{_shown(value)} is not {expected}, with {', '.join(names)}")


def check_path(setting: str, value: object) -> Path:
    """A path that the system can be asked for, whether there is something or not; returned as a `Path`."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(setting, f"{_shown(value)} is no path")
    try:
        path = Path(value)
        encoded = os.fsencode(path)
    except (TypeError, ValueError):  # a path of bytes, a lone surrogate
        raise ConfigError(setting, f"{_shown(value)} is no path") from None
    if b"\0" in encoded:
        raise ConfigError(setting, f"{_shown(value)} has a null character, which no path has")
    return path


def _shown(value: object) -> str:
    """The value for an error: not all of it when it is long, and never an error of its own."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an integer with too many digits for Python, or a faulty __repr__
        return f"a value of the type {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}..."
