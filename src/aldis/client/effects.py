"""What the machine wants done: commands to its owner, in the order in which to carry them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from aldis.client.events import Discovery, IceServers, Registration, SignalingEvent
from aldis.errors import AldisError

Result: TypeAlias = Registration | Discovery | IceServers | float | None


@dataclass(frozen=True, slots=True)
class Send:
    """Send one text message."""

    text: str


@dataclass(frozen=True, slots=True)
class CloseTransport:
    """Close the connection. `ClientMachine.lost` has to follow, once, when the transport is gone."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dial:
    """Make a new connection. `ClientMachine.connected` or `unreachable` has to follow, once."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The request with this number has its result."""

    request: int
    result: Result


@dataclass(frozen=True, slots=True)
class Failed:
    """The request with this number will have no result."""

    request: int
    error: AldisError


@dataclass(frozen=True, slots=True)
class Happened:
    """Tell the application."""

    event: SignalingEvent


@dataclass(frozen=True, slots=True)
class Noted:
    """Something odd, for the log only."""

    text: str


Effect: TypeAlias = Send | CloseTransport | Dial | Completed | Failed | Happened | Noted
