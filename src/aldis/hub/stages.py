"""The stages of a session, and all transitions between them, in one table.

docs/architecture.md draws the table. Only `hub.lifecycle` moves a session along it.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class Stage(Enum):
    """How far a session has come."""

    OPEN = auto()  # no name
    CHALLENGED = auto()  # has a nonce to sign
    CLAIMING = auto()  # the operator's side decides, then the directory looks up the owner of the name
    REGISTERED = auto()  # has a name, and a connection
    RECLAIMING = auto()  # has a name without a proof, and the directory looks up another (or the same) name
    DETACHED = auto()  # has a name; the connection is lost, and another one may resume the session
    CLOSED = auto()  # over


class StageEvent(Enum):
    """What moves a session on."""

    CHALLENGED = auto()
    CLAIMED = auto()
    REFUSED = auto()
    ADMITTED = auto()
    UNREGISTERED = auto()
    DETACHED = auto()
    TAKEN_OVER = auto()  # another connection of the same address has resumed or replaced it
    ENDED = auto()


START: Final = Stage.OPEN
"""The stage of a new session."""

TABLE: Final[dict[Stage, dict[StageEvent, Stage]]] = {
    Stage.OPEN: {
        StageEvent.CHALLENGED: Stage.CHALLENGED,
        StageEvent.CLAIMED: Stage.CLAIMING,  # without a proof
        StageEvent.ENDED: Stage.CLOSED,
    },
    Stage.CHALLENGED: {
        StageEvent.CHALLENGED: Stage.CHALLENGED,
        StageEvent.CLAIMED: Stage.CLAIMING,
        StageEvent.REFUSED: Stage.OPEN,
        StageEvent.ENDED: Stage.CLOSED,
    },
    Stage.CLAIMING: {
        StageEvent.ADMITTED: Stage.REGISTERED,
        StageEvent.REFUSED: Stage.OPEN,
        StageEvent.ENDED: Stage.CLOSED,
    },
    Stage.REGISTERED: {
        StageEvent.CLAIMED: Stage.RECLAIMING,
        StageEvent.UNREGISTERED: Stage.OPEN,
        StageEvent.DETACHED: Stage.DETACHED,
        StageEvent.TAKEN_OVER: Stage.CLOSED,
        StageEvent.ENDED: Stage.CLOSED,
    },
    Stage.RECLAIMING: {
        StageEvent.ADMITTED: Stage.REGISTERED,
        StageEvent.REFUSED: Stage.REGISTERED,
        StageEvent.TAKEN_OVER: Stage.CLOSED,
        StageEvent.ENDED: Stage.CLOSED,
    },
    Stage.DETACHED: {
        StageEvent.TAKEN_OVER: Stage.CLOSED,
        StageEvent.ENDED: Stage.CLOSED,
    },
    Stage.CLOSED: {},
}
