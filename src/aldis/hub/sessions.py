"""A session: what the hub knows of one client, from its connection to the end of its resume window.

Rules: a session is in exactly one `Stage`, and only `hub.lifecycle` changes it. `connection` is None once the
connection is gone. This module decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol, TypeAlias

from msgspec import Struct, UnsetType

from aldis.hub.backlog import Backlog
from aldis.hub.budgets import Pause, UserRates
from aldis.hub.dialects import Dialect
from aldis.hub.limits import TokenBucket
from aldis.hub.outcomes import RequestOutcome, RequestRefused
from aldis.hub.privacy import UserPrivacy
from aldis.hub.resume import Replay
from aldis.hub.shares import Shares
from aldis.hub.stages import START
from aldis.protocol.frames import Opcode
from aldis.protocol.messages import Register, RequestId, SealKey

# Room for the largest WebSocket header of a server (RFC 6455 section 5.2: 10 bytes; picows needs 14). So a frame can be
# sent from the buffer in which the message was encoded, without a copy.
HEADROOM: Final = 14
# The kind of frame that all messages are sent in.
TEXT: Final = int(Opcode.TEXT)

Write: TypeAlias = Callable[[int, bytearray, int], object]
"""See `Connection.write`."""


class Connection(Protocol):
    """What the hub needs of a transport. No method raises; after `close` the others do nothing.

    `full`: so many bytes wait that messages which can wait should not be sent now. `Hub.writable` is called when it is
    no longer full, never from within a call of the hub.
    """

    full: bool
    kept: int
    """Bytes that the transport keeps for the client, beyond what an idle connection costs."""

    @property
    def address(self) -> str:
        """The IP address that the client comes from; empty when it is not known."""

    @property
    def write(self) -> Write:
        """`write(TEXT, frame, HEADROOM)`: send the message `frame[HEADROOM:]`; the bytes before it may be overwritten.

        The call uses up the frame before it returns, because the hub uses the buffer again. The arguments are those of
        picows, so that a relayed message goes there without a call between.
        """

    def cork(self) -> None:
        """Many small messages follow: they may wait, to be sent together, until `uncork`. `full` may be behind by what
        waits."""

    def uncork(self) -> None:
        """Send what waits. Without a `cork` before it does nothing."""

    def ping(self, payload: bytes = b"") -> None:
        """Send a WebSocket ping. `Hub.heard` is called with the payload of its pong."""

    def pause_reading(self) -> None:
        """Stop reading, so that TCP slows the client. Messages that were read already still come."""

    def resume_reading(self) -> None:
        """Read again. `close` does this by itself."""

    def close(self, code: int, reason: str) -> None:
        """Start closing. `Hub.lost` is called exactly once, later, and never from within this call."""


class RelayResult(Enum):
    """The result of relaying a message."""

    SENT = auto()  # handed to the recipient's connection
    ABSENT = auto()  # the recipient is not online, or has not come back in time
    LIMITED = auto()  # the sender has its share of what waits for the recipient; it may try again
    UNREACHABLE = auto()  # the node of the recipient, or the table of users, cannot be reached; it may have arrived
    PENDING = auto()  # the recipient may come back, or the router asks another process


Receipt: TypeAlias = "tuple[Session, type[Struct], str, RequestId | UnsetType]"
"""A message to another user, while its result matters: its sender, type, address and request id.

Not the message itself, which would keep the whole text that it came in.
"""
Delivered: TypeAlias = Callable[[Receipt, RelayResult], None]
"""Called with the result of relaying a message."""


class WatchRequest:
    """A `watch` whose `ack` is due. Each object is another request, also with the same id."""

    __slots__ = ("id",)

    def __init__(self, request_id: RequestId) -> None:
        self.id = request_id


class WatchEnd(NamedTuple):
    """A watch that the server has ended, of which the client is to be told."""

    user_id: str


class Watcher:
    """Who watches names: a session, and who goes on with it on another connection. So nothing moves when a client with
    thousands of watches comes back. `session`: None once it has ended. `group`: with whom it shares the places of a
    name (`hub.networks.group_of`); that of its first connection."""

    __slots__ = ("group", "session")

    def __init__(self, session: Session, group: bytes = b"") -> None:
        self.session: Session | None = session
        self.group = group


class Session:
    """One client. All times are those that the hub's callers passed."""

    __slots__ = (
        "address",
        "backlog",
        "bad_proofs",
        "charged",
        "claim",
        "connected_at",
        "connection",
        "controlled_at",
        "credit",
        "device",
        "dialect",
        "entry",
        "faults",
        "heard",
        "host",
        "id",
        "key",
        "late_news",
        "network",
        "nonce",
        "nonce_expires",
        "order",
        "pauses",
        "penalty",
        "pinged_at",
        "pongs",
        "privacy",
        "privacy_untold",
        "put_off",
        "rates",
        "registering",
        "replay",
        "seal_key",
        "secret",
        "shares",
        "spoke",
        "stage",
        "token_expires",
        "unknowns",
        "unsettled",
        "untold",
        "user_id",
        "waiting",
        "watcher",
        "watches",
    )

    def __init__(self, connection: Connection | None, dialect: Dialect, host: str, now: float) -> None:
        self.connection = connection
        self.dialect = dialect
        self.host = host
        self.stage = START
        self.connected_at = now
        self.heard = now
        # When a WebSocket ping or pong came last, and when a message came before that.
        self.controlled_at = self.spoke = now
        self.pinged_at = 0.0  # 0: no ping is unanswered
        self.faults: TokenBucket | None = None
        self.unknowns: TokenBucket | None = None  # messages of unknown types
        self.bad_proofs = 0
        # Units that its requests have cost beyond being a message, until its transport takes them (`hub.costs`).
        self.charged = 0
        # The same for what cost hardly anything, and was in vain. It slows down nobody else.
        self.penalty = 0
        # While registering
        self.registering: Register | None = None
        # The name and key while somebody is asked whether it may have the name.
        self.claim: tuple[str, str] | None = None
        self.nonce = b""
        self.nonce_expires = 0.0
        # Why its last registration was refused, if it may try again: the same answer goes to what it has sent behind.
        self.put_off: RequestRefused | None = None
        # Once registered
        self.user_id = ""
        self.device = ""
        self.address = ""
        self.key = ""
        self.token_expires: float | None = None  # when to end it, because its token has expired
        self.seal_key: SealKey | None = None
        # None: everybody sees the user and may call. Each relay looks at it, so it stands here too (`hub.presence`).
        self.privacy: UserPrivacy | None = None
        # Whether the client is to be told the privacy, which has changed while the connection was full.
        self.privacy_untold = False
        self.id = ""
        # In a cluster: its registration, and its place among all (`hub.cluster`).
        self.entry = ""
        self.order = 0
        # Where its client is (`networks.customer_of`), if it stands for a sender at another node.
        self.network = b""
        self.secret = ""
        self.replay: Replay | None = None
        # A dict of names alone is not looked at by the collector of garbage, which a set of 10,000 names would delay.
        self.watches: dict[str, None] | None = None
        self.watcher: Watcher | None = None  # if it watches anybody, or is about to
        # Watched names whose presence is not sent yet, because the connection was full. Between them stand the
        # requests that are acknowledged at that point, and watches that have ended.
        self.untold: dict[str | WatchRequest | WatchEnd, None] | None = None
        # What its user may still send, and what it has been told of pauses (`hub.budgets`).
        self.rates: UserRates | None = None
        self.credit = 0  # bytes that it may pass on before its user's budgets are asked again
        self.pauses: dict[str, Pause] | None = None
        # Pongs that came behind frames which wait for an answer.
        self.pongs: tuple[bytes, ...] = ()
        # Whether its frames have to wait, and those that came meanwhile, in order. A question of it is open, names of
        # its `watch` are not entered yet (`hub.watches`), or it is not its turn (`hub.held_back`).
        self.waiting = False
        self.backlog: Backlog | None = None
        # While detached, or not reading: what waits, by its sender.
        self.shares: Shares | None = None
        # While detached: the users whose presence stands among the messages that wait.
        self.late_news: list[str] | None = None
        # While detached: the messages that wait for it, and what to call with the result of each.
        self.unsettled: list[tuple[Receipt, Delivered]] | None = None

    @property
    def client_address(self) -> str:
        """The IP address that the client comes from; empty when it is not known, or the connection is lost."""
        return "" if self.connection is None else self.connection.address

    @property
    def spoke_at(self) -> float:
        """When the last message came, as opposed to a WebSocket ping or pong."""
        return self.spoke if self.heard == self.controlled_at else self.heard

    def charge_in_vain(self, units: int) -> None:
        """It has sent what cannot be passed on now."""
        self.charged = self.charged or 1  # which is what the transport looks at
        self.penalty += units

    def controlled(self, now: float, pong: bytes) -> None:
        """A WebSocket ping or pong has come."""
        self.spoke = self.spoke_at
        self.heard = self.controlled_at = now
        if pong and self.pauses is not None:
            # One for each pause may be under way. A client may make up more.
            self.pongs = (*self.pongs, pong)[-len(self.pauses) :]
            if not self.waiting:
                self.caught_up()

    def caught_up(self) -> None:
        """All that has come is handled."""
        pongs, self.pongs = self.pongs, ()
        for pong in pongs:
            for pause in (self.pauses or {}).values():
                pause.answered(pong)


Settle: TypeAlias = Callable[[Session, str, RequestId | UnsetType, RequestOutcome], None]
"""Counts the outcome of a request of some type, and answers a refused one."""
