"""The phases of a client and every way from one to the next, in one table.

docs/architecture.md draws it. A registered client that loses its connection goes from WAITING to REGISTERED again by
itself.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from aldis.client.events import SignalingState


class Phase(Enum):
    """Where a client stands."""

    IDLE = auto()  # nothing has been tried, or the very first attempt failed
    DIALING = auto()  # a new connection is being made
    OPEN = auto()  # connected, without a name
    REGISTERING = auto()  # has asked for a name, waits for the challenge
    PROVING = auto()  # has signed the challenge, waits to be let in
    REGISTERED = auto()  # has its name
    CLOSING = auto()  # we have hung up, and come back once the transport is gone
    WAITING = auto()  # no connection; the next attempt has its time
    ENDED = auto()  # over


class Step(Enum):
    """What moves a client on."""

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

# A transport is there, and what it brings is listened to.
LIVE: Final = frozenset({Phase.OPEN, Phase.REGISTERING, Phase.PROVING, Phase.REGISTERED})
# A transport is there, perhaps on its way out.
ATTACHED: Final = LIVE | {Phase.CLOSING}

_STATES: Final = {
    Phase.IDLE: SignalingState.DISCONNECTED,
    Phase.REGISTERED: SignalingState.CONNECTED,
    Phase.ENDED: SignalingState.DISCONNECTED,
}


def state_of(phase: Phase) -> SignalingState:
    """The state that an application sees in this phase."""
    return _STATES.get(phase, SignalingState.CONNECTING)
