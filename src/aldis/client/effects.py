"""The effects of the machine: commands for its owner, to carry out in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from aldis.client.events import Discovery, IceServers, Registration, SignalingEvent
from aldis.errors import AldisError
from aldis.protocol.privacy import Privacy

Result: TypeAlias = Registration | Discovery | IceServers | Privacy | float | None


@dataclass(frozen=True, slots=True)
class Send:
    """Send one text message."""

    text: str


@dataclass(frozen=True, slots=True)
class CloseTransport:
    """Close the connection. When the transport is gone, call `ClientMachine.lost`, once. `at_once`: do not wait for the
    server, which does not answer."""

    code: int
    reason: str
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Dial:
    """Make a new connection. Then call `ClientMachine.connected` or `unreachable`, once."""


@dataclass(frozen=True, slots=True)
class SealKeyDue:
    """Make a new sealing key, and publish it with `ClientMachine.publish_seal_key`."""


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
    """Give the application an event."""

    event: SignalingEvent


@dataclass(frozen=True, slots=True)
class Noted:
    """Something unexpected, for the log only."""

    text: str


Effect: TypeAlias = Send | CloseTransport | Dial | SealKeyDue | Completed | Failed | Happened | Noted
