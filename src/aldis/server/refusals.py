"""Why the public port refuses a connection, in the words of the metrics."""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    """Why a connection is refused. `server.routes` has the answer to each."""

    FULL = "full"
    """All places are taken."""
    ADDRESS = "address"
    """The client's address has all the connections that it may have."""
    ADDRESS_RATE = "address-rate"
    """The client's address makes new connections too fast."""
    MEMORY = "memory"
    """All memory for clients is in use."""
    RATE = "rate"
    """All clients together make new connections too fast."""
