"""A session: what the hub knows of one client, from its connection to the end of its resume window.

Rules: a session is in exactly one `Stage`; only `hub.lifecycle` moves it. `connection` is None once the transport is
gone. This module decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Protocol, TypeAlias

from msgspec import Struct, UnsetType

from aldis.hub.backlog import Backlog
from aldis.hub.dialects import Dialect
from aldis.hub.limits import TokenBucket
from aldis.hub.resume import Replay
from aldis.hub.stages import START
from aldis.protocol.messages import Register, RequestId, SealKey

# Room for the largest WebSocket header of a server (RFC 6455 section 5.2: 10 bytes; picows wants 14), so that a frame
# can be sent from the buffer in which the message was encoded, without a copy.
HEADROOM: Final = 14


class Connection(Protocol):
    """What the hub needs of a transport. No method raises; after `close` the others do nothing.

    `full`: so much waits to be sent that what can wait should. `Hub.writable` follows when it is not so any more, never
    from within a call of the hub.
    """

    full: bool

    def send(self, frame: bytearray) -> None:
        """Send the message `frame[HEADROOM:]`; the bytes before it may be overwritten.

        The frame is consumed before the call returns: the hub uses the buffer again.
        """

    def ping(self) -> None:
        """Send a WebSocket ping."""

    def pause_reading(self) -> None:
        """Stop reading, so that TCP slows the client. What has been read already still comes."""

    def resume_reading(self) -> None:
        """Read on. `close` does so by itself."""

    def close(self, code: int, reason: str) -> None:
        """Begin to close. `Hub.lost` follows exactly once, later, and never from within this call."""


class RelayResult(Enum):
    """What has become of a message to another user."""

    SENT = auto()  # handed to its recipient's connection
    ABSENT = auto()  # the recipient is not online, or has not come back in time
    PENDING = auto()  # the recipient may come back; or another process is asked


Receipt: TypeAlias = "tuple[Session, type[Struct], str, RequestId | UnsetType]"
"""A message to another user, as long as it matters what becomes of it: its sender, type, address and request id.

Not the message itself, which would keep all of the text that it came in.
"""
Delivered: TypeAlias = Callable[[Receipt, RelayResult], None]
"""What is called with what has become of a message."""


class WatchRequest:
    """A `watch` whose `ack` is due: each is another one, whatever its id."""

    __slots__ = ("id",)

    def __init__(self, request_id: RequestId) -> None:
        self.id = request_id


class Session:
    """One client. All times are those that the hub was given."""

    __slots__ = (
        "address",
        "backlog",
        "bad_proofs",
        "connected_at",
        "connection",
        "device",
        "dialect",
        "faults",
        "heard",
        "host",
        "id",
        "key",
        "nonce",
        "nonce_expires",
        "pinged_at",
        "registering",
        "replay",
        "seal_key",
        "secret",
        "stage",
        "unsettled",
        "untold",
        "user_id",
        "waiting",
        "watches",
    )

    def __init__(self, connection: Connection, dialect: Dialect, host: str, now: float) -> None:
        self.connection: Connection | None = connection
        self.dialect = dialect
        self.host = host
        self.stage = START
        self.connected_at = now
        self.heard = now
        self.pinged_at = 0.0  # 0: no ping is unanswered
        self.faults: TokenBucket | None = None
        self.bad_proofs = 0
        # While registering
        self.registering: Register | None = None
        self.nonce = b""
        self.nonce_expires = 0.0
        # Once registered
        self.user_id = ""
        self.device = ""
        self.address = ""
        self.key = ""
        self.seal_key: SealKey | None = None
        self.id = ""
        self.secret = ""
        self.replay: Replay | None = None
        self.watches: set[str] | None = None
        # Watched names of which it is still to be told, when its connection is not full any more, and between them the
        # requests that are acknowledged then.
        self.untold: dict[str | WatchRequest, None] | None = None
        # Whether the directory is asked on its behalf, and the frames that came meanwhile, in order.
        self.waiting = False
        self.backlog: Backlog | None = None
        # While detached: the messages that are kept for it, and what is to be called with what has become of each.
        self.unsettled: list[tuple[Receipt, Delivered]] | None = None
