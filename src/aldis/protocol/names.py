"""Names on the wire that more than one module says."""

from __future__ import annotations

from typing import Final

PROTOCOL: Final = "aldis.v1"
"""The sub-protocol of the WebSocket, and the label of the data channel: one version for both."""

# What a HELLO says that a program can do (docs/protocol.md, "Data channel"). Calls are in browsers only.
FILES: Final = "files"
