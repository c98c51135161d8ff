"""Why the public port refuses a connection, in the words of the metrics."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from aldis.protocol.codes import CloseCode

# Tells the user why a WebSocket of a browser is refused, in at most `frames.MAX_REASON` bytes.
REASONS: Final = {
    CloseCode.ORIGIN_NOT_ALLOWED: "origin not allowed",
    CloseCode.UNKNOWN_HOST: "not a name of this server; if it should be one, its operator has to add it to --names",
}


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
