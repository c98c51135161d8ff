"""Detects a dead connection to the server (docs/protocol.md, "Heartbeat").

Any input is a sign of life, also the server's WebSocket pings. After a silence the client sends the protocol's `ping`
(a browser cannot send a WebSocket ping). If the silence goes on, the connection is dead.

A process that was stopped, or a machine that slept, looks at its clock late, while the answer may be waiting unread. So
if a look comes `LATE` seconds after its time, the client asks once more, and only the second silence counts.

Others may know earlier that the server may be gone: the path to a peer is lost, the network has changed, the machine
has slept. Then `suspect` asks at once, and is less patient. A mistake costs a new connection that resumes the session.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

# Seconds. A server pings every 20 s, so the client never has to ask on a healthy connection.
SILENCE: Final = 25.0
PATIENCE: Final = 10.0
# Seconds for an answer when the path to a peer is lost: a slow line answers within that, also after a lost packet.
SUSPICION: Final = 3.0
# Seconds for an answer when the network has changed: then the connection is dead more often than not.
CHANGE: Final = 1.5
LATE: Final = 5.0


class Verdict(Enum):
    """What to do about the silence."""

    WAIT = "wait"
    ASK = "ask"
    DEAD = "dead"


class Keepalive:
    """Measures the silence on one connection; times are in seconds."""

    __slots__ = ("_asked", "deadline", "patience")

    def __init__(self, now: float) -> None:
        self._asked = 0
        self.patience = PATIENCE
        """Seconds for the answer to the next question, or to the one that is asked."""
        self.deadline = now + SILENCE
        """When to look again."""

    def heard(self, now: float) -> None:
        """Something has come."""
        self._asked = 0
        self.patience = PATIENCE
        self.deadline = now + SILENCE

    def suspect(self, now: float, patience: float) -> None:
        """The connection may be dead: ask at the next look, and wait so many seconds. A question that is asked already
        is not asked again, but its answer has no more time than that."""
        self.patience = min(self.patience, patience)
        self.deadline = min(self.deadline, now + patience if self._asked else now)

    def look(self, now: float) -> Verdict:
        """Return what to do. `ASK` comes once for each silence, and once more after a late look."""
        late = now - self.deadline
        if late < 0:
            return Verdict.WAIT
        if self._asked > 1 or (self._asked and late < LATE):
            return Verdict.DEAD
        self._asked += 1
        self.deadline = now + self.patience
        return Verdict.ASK
