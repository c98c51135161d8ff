"""The settings of a client machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from aldis.client.backoff import Backoff


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """`host` is the text of the `Host` header, because the proof signs it. Times are in seconds."""

    host: str
    user_id: str
    device: str = "main"
    token: str | None = None
    backoff: Backoff = field(default_factory=Backoff)
    request_timeout: float = 10.0
