"""Names on the wire that several modules use."""

from __future__ import annotations

from typing import Final

PROTOCOL: Final = "aldis.v1"
"""The sub-protocol of the WebSocket, and the label of the data channel: one version for both."""

# The features of a program in its HELLO (docs/protocol.md, "Data channel"). Only browsers have calls.
FILES: Final = "files"
BUNDLES: Final = "bundles"
"""It reads BUNDLE frames."""
# Transfers that are checked and resumed, folders, and streams.
FILES_2: Final = "files-2"
FILES_3: Final = "files-3"
"""It skips a piece of a file that has come before."""
