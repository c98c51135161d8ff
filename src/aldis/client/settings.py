"""What a client is told of itself and its server."""

from __future__ import annotations

from dataclasses import dataclass, field

from aldis.client.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """`host` is what the `Host` header says, since that is what is signed. Times are in seconds."""

    host: str
    user_id: str
    device: str = "main"
    token: str | None = None
    backoff: Backoff = field(default_factory=Backoff)
    request_timeout: float = 10.0
