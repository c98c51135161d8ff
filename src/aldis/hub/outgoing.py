"""What goes out to clients: encoded in the dialect of each, and numbered for resume.

Every message to a client goes through here. It does not decide what a client may say.
"""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from aldis.hub.dialects import Dialect
from aldis.hub.outcomes import RequestRefused
from aldis.hub.sessions import HEADROOM, Session
from aldis.hub.stats import HubStats
from aldis.protocol.codes import TEMPORARY, CloseCode
from aldis.protocol.messages import Ack, Error, RequestId


class Outgoing:
    """Sends messages to sessions. One buffer serves them all: a transport consumes a frame before `send` returns."""

    def __init__(self, stats: HubStats) -> None:
        self._stats = stats
        self._buffer = bytearray(HEADROOM)

    def send(self, session: Session, message: Struct) -> None:
        """Send a message that is not numbered: a reply, or news of this connection only."""
        connection = session.connection
        if connection is not None:
            session.dialect.encode(message, self._buffer, HEADROOM)
            connection.send(self._buffer)

    def send_numbered(self, session: Session, message: Struct) -> bool:
        """Send a numbered message, and keep it until it is confirmed.

        False when the session is detached and can keep no more: it cannot be resumed then.
        """
        buffer = self._buffer
        session.dialect.encode(message, buffer, HEADROOM)
        replay = session.replay
        # With the headroom, so that a frame can be sent again as it is.
        kept = replay is None or replay.add(buffer.copy())
        connection = session.connection
        if connection is None:
            return kept
        connection.send(buffer)
        return True

    def encode(self, message: Struct, dialect: Dialect) -> bytearray:
        """Encode a message for `send_numbered_frame`: once, however many sessions it is for."""
        dialect.encode(message, self._buffer, HEADROOM)
        return self._buffer.copy()

    def send_numbered_frame(self, session: Session, frame: bytearray) -> bool:
        """As `send_numbered`, with a message that is encoded already. Sessions may share a frame."""
        replay = session.replay
        kept = replay is None or replay.add(frame)
        self.resend(session, frame)
        return kept or session.connection is not None

    def resend(self, session: Session, frame: bytearray) -> None:
        """Send a frame that is numbered and kept already."""
        connection = session.connection
        if connection is not None:
            connection.send(frame)

    def acknowledge(self, session: Session, re: RequestId | UnsetType) -> None:
        """Send an `ack`, to a client that asked for one."""
        if re is not UNSET:
            self.send(session, Ack(re))

    def refuse(self, session: Session, kind: str, refused: RequestRefused, re: RequestId | UnsetType) -> None:
        """Answer a request of the type `kind` with an error."""
        code = refused.code
        self._stats.refused[kind, code] += 1
        self.send(session, Error(refused.text, code, code in TEMPORARY, refused.retry_after, re))

    def close(self, session: Session, code: CloseCode, reason: str) -> None:
        """Close the connection; from here on the session has none."""
        connection = session.connection
        if connection is not None:
            session.connection = None
            self._stats.closes[code] += 1
            connection.close(code, reason)
