"""Messages to clients: encoded in the dialect of each client, and numbered for resume.

Every message to a client goes through here. This module does not decide which messages are sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from aldis.hub.dialects import Dialect
from aldis.hub.outcomes import RequestRefused
from aldis.hub.sessions import HEADROOM, TEXT, Session
from aldis.hub.stats import HubStats
from aldis.hub.use import MemoryUse
from aldis.protocol.codes import TEMPORARY, CloseCode
from aldis.protocol.messages import Ack, Error, PresenceMessage, RequestId, WatchFault


class Outgoing:
    """Sends messages to sessions. One buffer serves them all: a transport consumes a frame before `send` returns."""

    def __init__(self, stats: HubStats, use: MemoryUse) -> None:
        self._stats = stats
        self._use = use
        self._buffer = bytearray(HEADROOM)

    def send(self, session: Session, message: Struct) -> None:
        """Send a message without a number: a reply, or news about this connection only."""
        connection = session.connection
        if connection is not None:
            session.dialect.encode(message, self._buffer, HEADROOM)
            connection.write(TEXT, self._buffer, HEADROOM)

    def send_numbered(self, session: Session, message: Struct) -> None:
        """Send a numbered message, and keep it until the client confirms it."""
        buffer = self._buffer
        session.dialect.encode(message, buffer, HEADROOM)
        replay = session.replay
        if replay is not None:
            # Keep the headroom, so that the frame can be sent again as it is.
            replay.add(buffer.copy())
        connection = session.connection
        if connection is not None:
            connection.write(TEXT, buffer, HEADROOM)

    def encode(self, message: Struct, dialect: Dialect) -> bytearray:
        """Encode a message once for `send_numbered_frame`, for any number of sessions."""
        dialect.encode(message, self._buffer, HEADROOM)
        return self._buffer.copy()

    def send_numbered_frame(self, session: Session, frame: bytearray) -> None:
        """Like `send_numbered`, with an encoded message. Sessions may share a frame."""
        if session.replay is not None:
            session.replay.add(frame)
        self.resend(session, frame)

    def resend(self, session: Session, frame: bytearray) -> None:
        """Send a frame again that is already numbered and kept."""
        connection = session.connection
        if connection is not None:
            connection.write(TEXT, frame, HEADROOM)

    @contextmanager
    def together(self, session: Session) -> Iterator[None]:
        """Send what goes to the session in the block as few pieces."""
        connection = session.connection
        if connection is None:
            yield
            return
        connection.cork()
        try:
            yield
        finally:
            connection.uncork()

    def acknowledge(self, session: Session, re: RequestId | UnsetType) -> None:
        """Send an `ack` if the client asked for one."""
        if re is not UNSET:
            self.send(session, Ack(re))

    def refuse(self, session: Session, kind: str, refused: RequestRefused, re: RequestId | UnsetType) -> None:
        """Answer a request of the type `kind` with an error."""
        code = refused.code
        self._stats.refused[kind, code] += 1
        self.send(session, Error(refused.text, code, code in TEMPORARY, refused.retry_after, re))

    def end_watch(self, session: Session, presence: PresenceMessage, refused: RequestRefused) -> None:
        """Tell a session that a watch has ended, by the last presence of it, which is numbered like the others."""
        self._stats.limited[refused.limit] += 1
        code = refused.code
        ended = WatchFault(refused.text, code, code in TEMPORARY, refused.retry_after)
        self.send_numbered(session, replace(presence, ended=ended))

    def close(self, session: Session, code: CloseCode, reason: str) -> None:
        """Close the connection; the session has none from then on."""
        connection = session.connection
        if connection is not None:
            session.connection = None
            self._use.connections -= 1
            self._stats.closes[code] += 1
            connection.close(code, reason)
