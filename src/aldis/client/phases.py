"""The phases of a client and all transitions between them, in one table.

docs/architecture.md draws the table. A registered client that loses its connection goes from WAITING back to REGISTERED
by itself.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from aldis.client.events import SignalingState


class Phase(Enum):
    """The phase of a client."""

    IDLE = auto()  # not started, or the very first attempt failed
    DIALING = auto()  # makes a new connection
    OPEN = auto()  # connected, without a name
    REGISTERING = auto()  # has asked for a name, waits for the challenge
    PROVING = auto()  # has signed the challenge, waits for `registered`
    REGISTERED = auto()  # has its name
    CLOSING = auto()  # has closed the connection; reconnects when the transport is gone
    WAITING = auto()  # no connection; waits for the time of the next attempt
    ENDED = auto()  # over


class Step(Enum):
    """What moves a client to its next phase."""

    CONNECTED = auto()
    ASKED = auto()
    CHALLENGED = auto()
    ADMITTED = auto()
    REFUSED = auto()
    LEFT = auto()
    HUNG_UP = auto()
    LOST = auto()
    DUE = auto()
    ENDED = auto()


TABLE: Final[dict[Phase, dict[Step, Phase]]] = {
    Phase.IDLE: {Step.CONNECTED: Phase.OPEN, Step.ENDED: Phase.ENDED},
    Phase.DIALING: {Step.CONNECTED: Phase.OPEN, Step.LOST: Phase.WAITING, Step.ENDED: Phase.ENDED},
    Phase.OPEN: {
        Step.ASKED: Phase.REGISTERING,
        Step.HUNG_UP: Phase.CLOSING,
        Step.LOST: Phase.WAITING,
        Step.ENDED: Phase.ENDED,
    },
    Phase.REGISTERING: {
        Step.CHALLENGED: Phase.PROVING,
        Step.REFUSED: Phase.OPEN,
        Step.HUNG_UP: Phase.CLOSING,
        Step.LOST: Phase.WAITING,
        Step.ENDED: Phase.ENDED,
    },
    Phase.PROVING: {
        Step.ADMITTED: Phase.REGISTERED,
        Step.REFUSED: Phase.OPEN,
        Step.HUNG_UP: Phase.CLOSING,
        Step.LOST: Phase.WAITING,
        Step.ENDED: Phase.ENDED,
    },
    Phase.REGISTERED: {
        Step.LEFT: Phase.OPEN,
        Step.HUNG_UP: Phase.CLOSING,
        Step.LOST: Phase.WAITING,
        Step.ENDED: Phase.ENDED,
    },
    Phase.CLOSING: {Step.LOST: Phase.WAITING, Step.ENDED: Phase.ENDED},
    Phase.WAITING: {Step.DUE: Phase.DIALING, Step.ENDED: Phase.ENDED},
    Phase.ENDED: {},
}

# A transport is open, and its input is handled.
LIVE: Final = frozenset({Phase.OPEN, Phase.REGISTERING, Phase.PROVING, Phase.REGISTERED})
# A transport is open, or closing.
ATTACHED: Final = LIVE | {Phase.CLOSING}

_STATES: Final = {
    Phase.IDLE: SignalingState.DISCONNECTED,
    Phase.REGISTERED: SignalingState.CONNECTED,
    Phase.ENDED: SignalingState.DISCONNECTED,
}


def state_of(phase: Phase) -> SignalingState:
    """The state that the application sees in this phase."""
    return _STATES.get(phase, SignalingState.CONNECTING)
