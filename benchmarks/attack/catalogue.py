"""All attacks: each module puts its own on the list when it is imported."""

from __future__ import annotations

from benchmarks.attack import (  # noqa: F401
    accounts,
    admin,
    doors,
    floods,
    impostors,
    phases,
    ports,
    privacy,
    proxied,
    records,
    sealed,
    sessions,
    tls,
    tricks,
)
from benchmarks.attack.attack import ATTACKS

__all__ = ["ATTACKS"]
