"""Is there still somebody at the other end? (docs/protocol.md, "Heartbeat")

Whatever comes counts as life, WebSocket pings of the server included. After a silence the client asks with a `ping` of
the protocol (a browser could not send one of WebSocket's); silence after that means that the connection is dead.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

# Seconds. A server pings every 20 s, so a healthy connection is never asked.
SILENCE: Final = 25.0
PATIENCE: Final = 10.0


class Verdict(Enum):
    """What to do about the silence."""

    WAIT = "wait"
    ASK = "ask"
    DEAD = "dead"


class Keepalive:
    """The silence on one connection; times are in seconds."""

    __slots__ = ("_asked_at", "_heard_at")

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._asked_at: float | None = None

    def heard(self, now: float) -> None:
        """Something has come."""
        self._heard_at = now
        self._asked_at = None

    @property
    def deadline(self) -> float:
        """When to look again."""
        return self._heard_at + SILENCE if self._asked_at is None else self._asked_at + PATIENCE

    def look(self, now: float) -> Verdict:
        """Say what to do; `ASK` is said once for each silence."""
        if now < self.deadline:
            return Verdict.WAIT
        if self._asked_at is not None:
            return Verdict.DEAD
        self._asked_at = now
        return Verdict.ASK
