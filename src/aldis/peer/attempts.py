"""One connection in the negotiation: the small steps of `negotiation`, and how an attempt ends.

`PHASES` is the table of the phases; nothing else changes a phase. docs/architecture.md draws it.

Rules: nothing here decides which offer stands or which connection is current, and nothing here knows the time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from aldis.protocol.messages import Candidate, Capabilities

_FINGERPRINT: Final = re.compile(r"^a=fingerprint:(\S+ +\S+)\s*$", re.MULTILINE)
_FRAGMENT: Final = re.compile(r"^a=ice-ufrag:(\S+)\s*$", re.MULTILINE)


class Phase(Enum):
    """The phase of an attempt's descriptions."""

    NEW = "new"
    OFFERING = "offering"  # the engine is making our offer
    OFFERED = "offered"  # our offer was sent, and its answer has not come
    ANSWERING = "answering"  # the engine is making our answer
    SETTLED = "settled"  # the engine has both descriptions, or is taking them


class Step(Enum):
    """What happens to the descriptions of an attempt."""

    OFFER = "offer"  # we offer: for the first time, or to restart ICE
    OFFER_MADE = "offer made"
    ANSWER_RECEIVED = "answer received"
    OFFER_RECEIVED = "offer received"  # and we take it
    ANSWER_MADE = "answer made"
    FAILED = "failed"  # the engine or the server refuses a description of an open connection
    EXPIRED = "expired"  # no answer to our offer has come


PHASES: Final[Mapping[Phase, Mapping[Step, Phase]]] = {
    Phase.NEW: {Step.OFFER: Phase.OFFERING, Step.OFFER_RECEIVED: Phase.ANSWERING},
    Phase.OFFERING: {
        Step.OFFER_MADE: Phase.OFFERED,
        Step.OFFER_RECEIVED: Phase.ANSWERING,
        Step.FAILED: Phase.SETTLED,
        Step.EXPIRED: Phase.SETTLED,
    },
    Phase.OFFERED: {
        Step.ANSWER_RECEIVED: Phase.SETTLED,
        Step.OFFER_RECEIVED: Phase.ANSWERING,
        Step.FAILED: Phase.SETTLED,
        Step.EXPIRED: Phase.SETTLED,
    },
    Phase.ANSWERING: {
        Step.ANSWER_MADE: Phase.SETTLED,
        Step.OFFER_RECEIVED: Phase.ANSWERING,
        Step.FAILED: Phase.SETTLED,
    },
    Phase.SETTLED: {
        Step.OFFER: Phase.OFFERING,
        Step.OFFER_MADE: Phase.OFFERED,  # after it has expired
        Step.OFFER_RECEIVED: Phase.ANSWERING,
        Step.FAILED: Phase.SETTLED,
    },
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last attempt ended: its name, whether on purpose, why in plain words, and whether there was no path to
    the other side."""

    name: str
    orderly: bool
    reason: str
    no_path: bool = False


@dataclass(frozen=True, slots=True)
class Refused(Outcome):
    """The other side has refused our offer: a `RefusalCode`, and in how many seconds it may take another offer."""

    code: str = ""
    retry_after: float | None = None


@dataclass(slots=True)
class Attempt:
    """One connection, as the negotiation sees it."""

    name: str
    deadline: float | None  # when to give up: the attempt, or a lost path
    phase: Phase = Phase.NEW
    serial: int = 0
    opened: bool = False  # its channel is open
    ready: bool = False  # and HELLOs have been exchanged
    lost: bool = False  # and nothing arrives
    left: bool = False  # and the messages go another way, so only another connection is of use
    offer_sdp: str = ""
    offer_deadline: float | None = None  # of a restart offer
    capabilities: Capabilities = field(default_factory=Capabilities)  # the other side's
    fingerprints: frozenset[str] = frozenset()  # of the other side's certificate; empty: no description yet
    fragments: frozenset[str] = frozenset()
    incoming: list[Candidate | None] = field(default_factory=list)  # before their description
    outgoing: list[Candidate | None] = field(default_factory=list)  # before ours is on its way
    candidates: int = 0

    @property
    def answered(self) -> bool:
        """Whether the other side's description has come, so that an offer of ours is no longer a first offer."""
        return bool(self.fingerprints)

    @property
    def offering(self) -> bool:
        return self.phase in (Phase.OFFERING, Phase.OFFERED)

    def advance(self, step: Step) -> None:
        """Take a step of `PHASES`."""
        self.phase = PHASES[self.phase][step]

    def described(self, sdp: str, capabilities: Capabilities) -> list[Candidate | None]:
        """Note that the engine gets the other side's description; return the candidates that waited for it."""
        self.capabilities = capabilities
        self.fingerprints = fingerprints(sdp) or frozenset({""})  # an engine refuses one without; see `answered`
        self.fragments = fragments(sdp)
        self.candidates = 0
        waiting, self.incoming = self.incoming, []
        return [candidate for candidate in waiting if self.owns(candidate)]

    def is_of_same(self, sdp: str) -> bool:
        """Whether a description has the certificate of the other side's first one, so is from the same program."""
        return fingerprints(sdp) == self.fingerprints

    def owns(self, candidate: Candidate | None) -> bool:
        """Whether a candidate belongs to the engine's description, and not to a later one."""
        if candidate is None or not isinstance(candidate.username_fragment, str) or not self.fragments:
            return True
        return candidate.username_fragment in self.fragments

    def overdue(self, attempt_seconds: float, heal_seconds: float) -> str:
        """Why the attempt or the lost path is given up at its deadline."""
        if self.lost:
            return f"the path to the other side did not come back within {heal_seconds:g} s"
        if self.left:
            return "the messages go another way"
        if self.opened:
            return f"the channel opened, but no HELLO came within {attempt_seconds:g} s"
        if self.phase is Phase.SETTLED:
            return f"no path to the other side was found within {attempt_seconds:g} s"
        if self.phase is Phase.OFFERED:
            return f"no answer within {attempt_seconds:g} s"
        return f"the WebRTC engine made no description within {attempt_seconds:g} s"


def fingerprints(sdp: str) -> frozenset[str]:
    """The certificate fingerprints in a description."""
    return frozenset(each.lower() for each in _FINGERPRINT.findall(sdp))


def fragments(sdp: str) -> frozenset[str]:
    """The ICE user names of a description; each of its candidates names one of them."""
    return frozenset(_FRAGMENT.findall(sdp))
