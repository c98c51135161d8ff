"""How well a connection with a peer runs: a grade, and what it is made of. Pure: time is an argument.

The limits are for people who talk: ITU-T G.114 calls a delay of up to 150 ms in each direction good, and one of more
than 400 ms too long for most. The worst of three values decides:

|                                             | good  | fair   | poor      | lost                       |
|---------------------------------------------|-------|--------|-----------|----------------------------|
| round-trip time                             | 0.3 s | 0.8 s  | more      |                            |
| jitter of it                                | 0.05 s| 0.2 s  | more      |                            |
| heartbeats lost, of the last 20             | 1     | 4      | more      |                            |
| nothing arrives, or there is no path        |       |        |           | for 5 s, as the state says |

A value that nothing has measured yet does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

GOOD_ROUND_TRIP: Final = 0.3  # seconds: twice what G.114 has for one direction
FAIR_ROUND_TRIP: Final = 0.8
# Seconds. A player's buffer takes 50 ms; with 200 ms a call stutters, and somebody who types sees it.
GOOD_JITTER: Final = 0.05
FAIR_JITTER: Final = 0.2
# Of `peer.quality.HEARTBEATS`. One may be late because a program was busy.
GOOD_LOST: Final = 1
FAIR_LOST: Final = 4
# Seconds. Two readings that are closer together give the same rates, since counters move in steps.
_SHORTEST: Final = 0.25
# Seconds. A rate over more would say nothing of now.
_LONGEST: Final = 60.0


class Grade(StrEnum):
    """How well a connection runs."""

    GOOD = "good"
    FAIR = "fair"
    POOR = "poor"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class PeerQuality:
    """One reading of the connection with a peer. Times in seconds, rates in bytes a second; None where unknown.

    `reason` is what keeps the grade from being better: `round-trip-time`, `jitter`, `heartbeats`, `no-path`, or empty.
    `path`, `protocol`, `local` and `remote` are as in `PeerStats`. `lost_heartbeats` of the last `heartbeats` got no
    answer within 1.5 s. The rates count since the reading before, if that was at most a minute ago.
    """

    grade: Grade
    reason: str = ""
    path: str | None = None
    protocol: str | None = None
    local: str | None = None
    remote: str | None = None
    round_trip_time: float | None = None
    jitter: float | None = None
    lost_heartbeats: int = 0
    heartbeats: int = 0
    sent_per_second: float | None = None
    received_per_second: float | None = None


def grade_of(
    *, connected: bool, round_trip_time: float | None, jitter: float | None, lost_heartbeats: int
) -> tuple[Grade, str]:
    """The grade, and what keeps it from being better."""
    if not connected:
        return Grade.LOST, "no-path"
    grades = (
        (_rank(round_trip_time, GOOD_ROUND_TRIP, FAIR_ROUND_TRIP), "round-trip-time"),
        (_rank(jitter, GOOD_JITTER, FAIR_JITTER), "jitter"),
        (_rank(lost_heartbeats, GOOD_LOST, FAIR_LOST), "heartbeats"),
    )
    worst, reason = max(grades, key=lambda grade: grade[0])
    return (Grade.GOOD, Grade.FAIR, Grade.POOR)[worst], reason if worst else ""


def _rank(value: float | None, good: float, fair: float) -> int:
    if value is None or value <= good:
        return 0
    return 1 if value <= fair else 2


class Throughput:
    """Makes rates of counted bytes."""

    def __init__(self) -> None:
        self._last: tuple[float, int, int] | None = None
        self._rates: tuple[float | None, float | None] = (None, None)

    def measure(self, now: float, sent: int | None, received: int | None) -> tuple[float | None, float | None]:
        """Bytes a second since the measurement before: sent, received. None for the first, and when the counters have
        begun anew with another connection."""
        if sent is None or received is None:
            self._last = None
            self._rates = (None, None)
            return self._rates
        last = self._last
        if last is not None and 0 <= now - last[0] < _SHORTEST and sent >= last[1] and received >= last[2]:
            return self._rates
        self._last = (now, sent, received)
        if last is None or not 0 < now - last[0] <= _LONGEST or sent < last[1] or received < last[2]:
            self._rates = (None, None)
        else:
            seconds = now - last[0]
            self._rates = ((sent - last[1]) / seconds, (received - last[2]) / seconds)
        return self._rates
