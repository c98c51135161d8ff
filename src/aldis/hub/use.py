"""The counters of memory that are kept by what uses it; `hub.memory` adds them up."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

# Bytes of a kept frame beside its content: a bytearray, and its place in a list.
FRAME_BYTES: Final = 80


def text_bytes(text: str) -> int:
    """The most bytes that the content of a text takes."""
    return len(text) if text.isascii() else 4 * len(text)


def texts_bytes(texts: Collection[str]) -> int:
    """The most bytes that the content of some texts takes."""
    joined = "".join(texts)
    if joined.isascii():
        return len(joined)
    return sum([len(text) if text.isascii() else 4 * len(text) for text in texts])  # `text_bytes`, without a call


class MemoryUse:
    """Bytes in use. Each part of the server that keeps some for a client adds and subtracts them."""

    __slots__ = ("backlogs", "connections", "replays", "transports")

    def __init__(self) -> None:
        self.connections = 0
        """The number of open connections, without those that are being closed."""
        self.replays = 0
        """Messages that are not confirmed, of sessions with a connection."""
        self.backlogs = 0
        """Frames that wait for an answer, or for a turn."""
        self.transports = 0
        """What the connections keep, beyond what an idle one costs."""
