"""Detects a dead connection to the server (docs/protocol.md, "Heartbeat").

Any input is a sign of life, also the server's WebSocket pings. After a silence the client sends the protocol's `ping`
(a browser cannot send a WebSocket ping). If the silence goes on, the connection is dead.

A process that was stopped, or a machine that slept, looks at its clock late, while the answer may be waiting unread. So
if a look comes `LATE` seconds after its time, the client asks once more, and only the second silence counts.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

# Seconds. A server pings every 20 s, so the client never has to ask on a healthy connection.
SILENCE: Final = 25.0
PATIENCE: Final = 10.0
LATE: Final = 5.0


class Verdict(Enum):
    """What to do about the silence."""

    WAIT = "wait"
    ASK = "ask"
    DEAD = "dead"


class Keepalive:
    """Measures the silence on one connection; times are in seconds."""

    __slots__ = ("_asked", "deadline")

    def __init__(self, now: float) -> None:
        self._asked = 0
        self.deadline = now + SILENCE
        """When to look again."""

    def heard(self, now: float) -> None:
        """Something has come."""
        self._asked = 0
        self.deadline = now + SILENCE

    def look(self, now: float) -> Verdict:
        """Return what to do. `ASK` comes once for each silence, and once more after a late look."""
        late = now - self.deadline
        if late < 0:
            return Verdict.WAIT
        if self._asked > 1 or (self._asked and late < LATE):
            return Verdict.DEAD
        self._asked += 1
        self.deadline = now + PATIENCE
        return Verdict.ASK
