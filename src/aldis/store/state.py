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
from aldis.errors import AldisError
from aldis.identity.keys import fingerprint
from aldis.peer.connection import PeerState
from aldis.peer.engine import EngineStats
from aldis.protocol.channel import MAX_MESSAGE
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


@dataclass(frozen=True, slots=True)
class PeerView:
    """How things stand with one other user.

    `devices`, by name: those that are online, the one that registered last first, then others that are connected or
    have messages waiting. `state`, `round_trip_time`, `error` and `features` are those of the device that was heard
    from last, or that the store calls.

    `online` is what the server says, None when it has not been asked or has not said. `round_trip_time` in seconds,
    None unless connected. `public_key` is the pinned key (32 bytes), None before the first contact. `queued` counts
    the messages that are not acknowledged yet. `error` says what went wrong last, until it goes right. `connections`
    counts those that have opened so far, so a device that reconnects counts again. `features` is what the peer's
    program can do beyond messages (`files`, `calls`), as it says; empty while not connected.
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
    devices: Mapping[str, DeviceView] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def fingerprint(self) -> str | None:
        """The pinned key for people to compare."""
        return None if self.public_key is None else fingerprint(self.public_key)


@dataclass(frozen=True, slots=True)
class PeerStats:
    """How the connection with a peer runs now.

    `path` is `direct`, or `turn` when it leads through a TURN server at either end; `protocol` is `udp` or `tcp`;
    `local` and `remote` say what kind of address the two ends have: `host`, `srflx`, `prflx` or `relay` (RFC 8445
    section 4). `round_trip_time` in seconds. None where the engine does not tell.
    """

    path: str
    protocol: str | None
    local: str | None
    remote: str | None
    bytes_sent: int | None
    bytes_received: int | None
    round_trip_time: float | None


def peer_stats(found: EngineStats, round_trip_time: float | None) -> PeerStats:
    """What an application wants to know of what the engine tells."""
    return PeerStats(
        path="turn" if found.relayed else "direct",
        protocol=None if found.local is None else found.local.protocol or None,
        local=None if found.local is None else found.local.kind,
        remote=None if found.remote is None else found.remote.kind,
        bytes_sent=found.bytes_sent,
        bytes_received=found.bytes_received,
        round_trip_time=round_trip_time,
    )


@dataclass(frozen=True, slots=True)
class StoreState:
    """How things stand with the server and with every peer (by user id)."""

    signaling: SignalingState = SignalingState.DISCONNECTED
    signaling_error: AldisError | None = None
    user_id: str | None = None
    peers: Mapping[str, PeerView] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Message:
    """A message that has arrived.

    `sender` is the user, `device` the device of theirs: `send(f"{sender}/{device}", ...)` answers exactly this one.
    `sequence` counts the messages of one run of the sender's program to us, from 1; numbers of messages that were
    given up, or went to another device of ours, are missing.
    """

    sender: str
    device: str
    content: Received
    sequence: int


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much a store keeps at most; sizes in bytes. Raises `ConfigError` for what is no integer from 1 on.

    `peers`: users at a time, so that one who comes under many names cannot fill the memory; those with whom nothing
    is going on make place for others. A quarter of them is kept for users whom the application itself has called or
    written to (see `callers`). `queue_messages`, `queue_size`: what waits for one peer; a message of any size
    is taken when none is waiting. `unread_messages`, `unread_size`: what has arrived and waits for the application;
    beyond it nothing is acknowledged, and the senders hold back. `arriving_size`: all that has arrived in part, or
    waits behind the unread messages, of all peers together, at least the largest message (16 MiB); beyond it the
    channel with most of it is ended, and its peer sends again later.
    """

    peers: int = 256
    queue_messages: int = 10_000
    queue_size: int = 64 * 1024 * 1024
    unread_messages: int = 1_000
    unread_size: int = 32 * 1024 * 1024
    arriving_size: int = 128 * 1024 * 1024

    @property
    def callers(self) -> int:
        """How many of the `peers` may be users who have come by themselves, and to whom nothing was sent; and how many
        devices these may have together, besides the first of each."""
        return self.peers - self.peers // _OF_WHICH_OURS

    def __post_init__(self) -> None:
        for name in self.__slots__:
            # With less room than that a large message would never arrive, nor anything behind it.
            check_count(f"limits.{name}", getattr(self, name), MAX_MESSAGE if name == "arriving_size" else 1)
