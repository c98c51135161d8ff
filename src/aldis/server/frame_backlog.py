"""What one connection has said that waits for its turn: its messages, and the control frames among them."""

from __future__ import annotations

from typing import Final

from aldis.hub.backlog import Backlog

# Pings of the hub that a client has not answered yet: one for each limit of a user (`hub.budgets`).
MAX_PINGS: Final = 3


class FrameBacklog(Backlog):
    """The texts of the messages; of the pings, only the last one is to be answered (RFC 6455 section 5.5.3)."""

    __slots__ = ("_pongs", "farewell", "ping")

    def __init__(self) -> None:
        super().__init__()
        self.ping: bytes | None = None
        """The payload of the last ping."""
        self.farewell: int | None = None
        """The code of the CLOSE that came after all of them."""
        self._pongs: tuple[tuple[int, bytes], ...] = ()  # with the number of messages before each

    def add_pong(self, payload: bytes) -> None:
        """A pong came behind the messages that wait now. The hub has few pings under way; a client may make up more."""
        self._pongs = (*self._pongs, (len(self), payload))[-MAX_PINGS:]

    def pass_pongs(self) -> list[bytes]:
        """A message has been handled: the pongs that have none before them any more, which are taken out."""
        if not self._pongs:
            return []
        due = [pong for before, pong in self._pongs if before == 1]
        self._pongs = tuple((before - 1, pong) for before, pong in self._pongs if before > 1)
        return due
