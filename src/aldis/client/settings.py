"""The settings of a client machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aldis.client.backoff import Backoff
from aldis.identity.keys import Identity
from aldis.protocol.messages import SealKey


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSettings:
    """`host` is the text of the `Host` header, because the proof signs it. Times are in seconds."""

    host: str
    user_id: str
    device: str = "main"
    # A function: the program gets another token before each registration, and the function returns the newest one.
    token: str | Callable[[], str] | None = None
    # `seal_key(identity, resuming)`: the sealing key for a registration, signed; a new one unless it resumes. None: the
    # client has none, and nobody can send it sealed messages.
    seal_key: Callable[[Identity, bool], SealKey] | None = None
    backoff: Backoff = field(default_factory=Backoff)
    request_timeout: float = 10.0
