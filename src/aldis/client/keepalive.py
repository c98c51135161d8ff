"""Is there still somebody at the other end? (docs/protocol.md, "Heartbeat")

Whatever comes counts as life, WebSocket pings of the server included. After a silence the client asks with a `ping` of
the protocol (a browser could not send one of WebSocket's); silence after that means that the connection is dead.

A process that was stopped, or a machine that slept, looks at its clock late, while the answer may lie unread beside it.
So a look that comes `LATE` seconds after its time asks once more; only the second silence counts.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

# Seconds. A server pings every 20 s, so a healthy connection is never asked.
SILENCE: Final = 25.0
PATIENCE: Final = 10.0
LATE: Final = 5.0


class Verdict(Enum):
    """What to do about the silence."""

    WAIT = "wait"
    ASK = "ask"
    DEAD = "dead"


class Keepalive:
    """The silence on one connection; times are in seconds."""

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
        """Say what to do; `ASK` is said once for each silence, and once more after a late look."""
        late = now - self.deadline
        if late < 0:
            return Verdict.WAIT
        if self._asked > 1 or (self._asked and late < LATE):
            return Verdict.DEAD
        self._asked += 1
        self.deadline = now + PATIENCE
        return Verdict.ASK
