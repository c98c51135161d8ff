"""The commands of a `peer.negotiation.Negotiation`: values, to carry out in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from aldis.protocol.messages import Candidate


@dataclass(frozen=True, slots=True)
class CreateConnection:
    """Make an engine connection; the offerer also makes the channel."""

    name: str
    open_channel: bool


@dataclass(frozen=True, slots=True)
class MakeOffer:
    """Let the engine make an offer; `offer_made` or `operation_failed` follows with the same `serial`."""

    name: str
    serial: int
    restart: bool


@dataclass(frozen=True, slots=True)
class MakeAnswer:
    """Let the engine answer; `answer_made` or `operation_failed` follows with the same `serial`."""

    name: str
    serial: int
    sdp: str


@dataclass(frozen=True, slots=True)
class ApplyAnswer:
    """Give the engine the other side's answer; `operation_failed` follows if the engine refuses it."""

    name: str
    serial: int
    sdp: str


@dataclass(frozen=True, slots=True)
class AddCandidate:
    """Give the engine a candidate of the other side; if the engine refuses it, nothing is lost."""

    name: str
    candidate: Candidate | None


@dataclass(frozen=True, slots=True)
class SendOffer:
    """Sign and send our offer; `operation_failed` follows with the same `serial` if it did not arrive."""

    name: str
    serial: int
    sdp: str


@dataclass(frozen=True, slots=True)
class SendAnswer:
    """Sign and send our answer; `operation_failed` follows with the same `serial` if it did not arrive."""

    name: str
    serial: int
    sdp: str


@dataclass(frozen=True, slots=True)
class SendCandidate:
    name: str
    candidate: Candidate | None


@dataclass(frozen=True, slots=True)
class SendBye:
    name: str
    reason: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse an offer: a `RefusalCode`, and in how many seconds another offer may come."""

    name: str
    reason: str
    code: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Check soon whether the open channel still works: a message says that it is over."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class DropConnection:
    """Close the engine connection, and forget everything planned for it."""

    name: str


Command: TypeAlias = (
    CreateConnection
    | MakeOffer
    | MakeAnswer
    | ApplyAnswer
    | AddCandidate
    | SendOffer
    | SendAnswer
    | SendCandidate
    | SendBye
    | Refuse
    | Probe
    | DropConnection
)
