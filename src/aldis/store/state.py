"""What a store tells of itself: immutable values, made anew at each change.

Rules: frozen all the way down, so that a subscriber may keep what it was given, compare it with the next one, and
hand it to another thread. It does not know how any of it comes about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from aldis.client.events import SignalingState
from aldis.errors import AldisError, JournalError
from aldis.identity.keys import fingerprint
from aldis.peer.connection import PeerState
from aldis.peer.engine import EngineStats
from aldis.protocol.channel import MAX_MESSAGE
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy
from aldis.settings import check_count
from aldis.store.messages.content import Received

# The share of the peers that strangers cannot fill: enough for the people that somebody knows, while a program that is
# called by many has most of its places for them.
_OF_WHICH_OURS: Final = 4


@dataclass(frozen=True, slots=True)
class DeviceView:
    """How things stand with one device of another user; the fields are those of `PeerView`.

    `online` is None while the server has not said which devices are online.
    """

    device: str
    state: PeerState = PeerState.NEW
    online: bool | None = None
    round_trip_time: float | None = None
    queued: int = 0
    error: AldisError | None = None
    connections: int = 0
    features: tuple[str, ...] = ()
    path: str | None = None


@dataclass(frozen=True, slots=True)
class PeerView:
    """How things stand with one other user.

    `devices`, by name: those that are online, the one that registered last first, then others that are connected or
    have messages waiting. `state`, `path`, `round_trip_time`, `error` and `features` are those of the device that was
    heard from last, or that the store calls.

    `online` is what the server says, None when it has not been asked or has not said. `round_trip_time` in seconds,
    None unless connected. `public_key` is the pinned key (32 bytes), None before the first contact. `queued` counts
    the messages that are not acknowledged yet. `error` says what went wrong last, until it goes right. `connections`
    counts the direct ones that have opened so far, so a device that reconnects counts again. `features` is what the
    peer's program can do beyond messages (`files`, `calls`), as it says; empty while not connected. `blocked`: our user
    wants nothing to do with this one (`NetworkStore.block`). `path` is what carries the messages: `direct`, `turn`
    (direct, through a TURN server at either end) or `relay` (sealed, through the signaling server); None unless
    connected.
    """

    user_id: str
    state: PeerState = PeerState.NEW
    online: bool | None = None
    round_trip_time: float | None = None
    public_key: bytes | None = None
    queued: int = 0
    error: AldisError | None = None
    connections: int = 0
    features: tuple[str, ...] = ()
    blocked: bool = False
    path: str | None = None
    devices: Mapping[str, DeviceView] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def fingerprint(self) -> str | None:
        """The pinned key for people to compare."""
        return None if self.public_key is None else fingerprint(self.public_key)


@dataclass(frozen=True, slots=True)
class PeerStats:
    """How the connection with a peer runs now.

    `path` is `direct`, `turn` when it leads through a TURN server at either end, or `relay` when it leads sealed
    through the signaling server; then all but `round_trip_time` is None. `protocol` is `udp` or `tcp`; with
    a TURN server at our end it is our way to that server, which may also be `tls`. `local` and `remote` say what kind
    of address the two ends have: `host`, `srflx`, `prflx` or `relay` (RFC 8445 section 4). `round_trip_time` in
    seconds. None where the engine does not tell.
    """

    path: str
    protocol: str | None
    local: str | None
    remote: str | None
    bytes_sent: int | None
    bytes_received: int | None
    round_trip_time: float | None


def peer_stats(found: EngineStats, round_trip_time: float | None) -> PeerStats | None:
    """What an application wants to know of what the engine tells; None while ICE has no path, as after it was lost."""
    if found.local is None or found.remote is None:
        return None
    return PeerStats(
        path="turn" if found.relayed else "direct",
        protocol=found.local.relay_protocol or found.local.protocol or None,
        local=found.local.kind,
        remote=found.remote.kind,
        bytes_sent=found.bytes_sent,
        bytes_received=found.bytes_received,
        round_trip_time=round_trip_time,
    )


@dataclass(frozen=True, slots=True)
class StoreState:
    """How things stand with the server and with every peer (by user id).

    `privacy` says who may see and call our user, and whom the user has blocked, on all devices. `journal_error`: why
    the journal cannot be written now, if so. New messages fail then, and what arrives is not acknowledged.
    """

    signaling: SignalingState = SignalingState.DISCONNECTED
    signaling_error: AldisError | None = None
    user_id: str | None = None
    privacy: Privacy = DEFAULT_PRIVACY
    journal_error: JournalError | None = None
    peers: Mapping[str, PeerView] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Message:
    """A message that has arrived.

    `sender` is the user, `device` the device of theirs: `send(f"{sender}/{device}", ...)` answers exactly this one.
    `sequence` counts the messages of one stream of the sender's to us, from 1; numbers of messages that were given up,
    or went to another device of ours, are missing. A stream is one run of the sender's program, or all its runs with
    one journal.

    `id` names the message, among all of this sender's device. It stays the same when the message comes again, so an
    application that keeps the ids of what it has done does each message once. `redelivered`: this message was given to
    the application by an earlier run of our program, which ended before it asked for the next one.
    """

    sender: str
    device: str
    content: Received
    sequence: int
    id: str = ""
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much a store keeps at most; sizes in bytes. Raises `ConfigError` for what is no integer from 1 on.

    `peers`: users at a time, so that one who comes under many names cannot fill the memory; those with whom nothing
    is going on make place for others. A quarter of them is kept for users whom the application itself has called or
    written to (see `callers`). `queue_messages`, `queue_size`: what waits for one peer; a message of any size
    is taken when none is waiting. `unread_messages`, `unread_size`: what has arrived and waits for the application;
    beyond it nothing is acknowledged, and the senders hold back. `arriving_size`: all that has arrived in part, or
    waits behind the unread messages, of all peers together, at least the largest message (16 MiB); beyond it the
    channel with most of it is ended, and its peer sends again later. `journal_messages`, `journal_size`: what waits in
    the journal for all peers together. `journal_files`: files that the journal keeps while they are sent, and as many
    while they are received. `queue_age`: seconds after which a message or a file that waits is given up
    (`DeliveryExpired`, `TransferExpired`).
    """

    peers: int = 256
    queue_messages: int = 10_000
    queue_size: int = 64 * 1024 * 1024
    unread_messages: int = 1_000
    unread_size: int = 32 * 1024 * 1024
    arriving_size: int = 128 * 1024 * 1024
    journal_messages: int = 100_000
    journal_size: int = 256 * 1024 * 1024
    journal_files: int = 1_000
    queue_age: int = 30 * 24 * 3600

    @property
    def callers(self) -> int:
        """How many of the `peers` may be users who have come by themselves, and to whom nothing was sent; and how many
        devices these may have together, besides the first of each."""
        return self.peers - self.peers // _OF_WHICH_OURS

    def __post_init__(self) -> None:
        for name in self.__slots__:
            # With less room than that a large message would never arrive, nor anything behind it.
            check_count(f"limits.{name}", getattr(self, name), MAX_MESSAGE if name == "arriving_size" else 1)
