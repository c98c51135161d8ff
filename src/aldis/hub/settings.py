"""The settings of the hub, and the reason for each default."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal, Protocol

from aldis.errors import ConfigError
from aldis.protocol.messages import MAX_DEVICES, IceServer
from aldis.protocol.privacy import MAX_PRIVACY_NAMES


class IceSource(Protocol):
    """Supplies the STUN and TURN servers that clients request with `ice-servers`."""

    def servers(
        self, user_id: str, wall_time: float, *, host: str = "", address: str = ""
    ) -> tuple[list[IceServer], int]:
        """The servers for one user, with fresh credentials, and the seconds for which these are valid.

        `wall_time` is in seconds since 1970, UTC. `host` is what the client has dialled, `address` its IP address.
        """


class NoIceServers:
    """The default: no servers, so peers connect only where no NAT is between them."""

    def servers(
        self, user_id: str, wall_time: float, *, host: str = "", address: str = ""
    ) -> tuple[list[IceServer], int]:
        return [], 86_400


# Bytes of a `presence` or `discover-response`: the same as for a client's message, so that a program which can read the
# one can read the other. MAX_DEVICES of the largest devices need three quarters of them.
MAX_PRESENCE: Final = 64 * 1024


@dataclass(slots=True, kw_only=True)
class HubSettings:
    """All times are in seconds, all sizes in bytes. A hub has one object for all its parts, see `Hub.configure`."""

    # `verify`: every client proves its key. `open`: classic clients, which cannot, are admitted too.
    auth: Literal["verify", "open"] = "verify"
    # A large SDP with video is around 10 KiB. 64 KiB leaves room, and limits the cost of one frame.
    max_message_bytes: int = 64 * 1024
    # At most MAX_DEVICES, or a `presence` might exceed MAX_PRESENCE.
    max_devices: int = MAX_DEVICES
    # Enough for a person's address book; each entry costs 400 bytes to 1 KiB here.
    max_watches: int = 10_000
    # All devices of a user together: two of them may watch as much as one session may.
    max_user_watches: int = 20_000
    # Sessions that watch one user. Each change of that user is told to all of them.
    max_watchers: int = 5_000
    # What all watches cost: a million of them, if the watched names are shared by some watchers each.
    watches_bytes: int = 256 * 1024 * 1024
    # When a client may try again that found no room for its watches.
    watch_pause: float = 60.0
    # What the contacts and blocked users of all users online cost: a thousand users with full lists, or a hundred
    # thousand with some.
    privacy_bytes: int = 256 * 1024 * 1024
    # Contacts of a user, and as many blocked users.
    max_privacy_names: int = MAX_PRIVACY_NAMES
    # When a client may try again that found no room for them.
    privacy_pause: float = 60.0
    # Seconds between two `presence` of one user to one watcher. A person does not see the difference, and a program
    # that comes and goes without end costs each of its watchers four messages a second.
    presence_interval: float = 0.25
    # One round trip and a signature; enough for a phone on a bad line.
    challenge_seconds: float = 30.0
    registration_seconds: float = 30.0
    # Most NATs and proxies forget an idle TCP connection after 60 s or more: two pings fit into that.
    ping_interval: float = 20.0
    pong_timeout: float = 20.0
    # How long a lost client may resume: a switch from Wi-Fi to mobile takes a few seconds, a tunnel longer.
    resume_window: float = 30.0
    # Detached sessions: all connected clients may lose their network at once.
    max_detached: int = 10_000
    # What is kept for all of them, and for those of one user. A client that confirms as it reads leaves a few KiB, so
    # ten thousand of them fit. With 64 KiB for each, a thousand do.
    detached_bytes: int = 64 * 1024 * 1024
    detached_user_bytes: int = 2 * 1024 * 1024
    # What is kept for all clients together, and what of it an idle registered connection costs: 7.8 KiB are measured,
    # and 31 KiB with TLS. See `hub.memory`.
    memory_budget: int = 1024 * 1024 * 1024
    connection_bytes: int = 8 * 1024
    # When a client may try again for which there is no memory.
    memory_pause: float = 30.0
    # Unconfirmed messages that are kept for a client: ICE gathering sends 10 to 30 messages for each peer. No operator
    # changes this: clients are told of no other window, and confirm in time for this one (docs/protocol.md).
    resume_messages: int = 256
    resume_bytes: int = 256 * 1024
    # The same for sealed messages, which have a window of their own. A client confirms each 32 KiB, so a line with a
    # round trip of 100 ms carries 2 MB a second.
    sealed_messages: int = 256
    sealed_bytes: int = 256 * 1024
    # What all sessions of a user may send in a second, twice as many at once: messages and their bytes, bytes that are
    # passed on to others, questions about others. See `ServerConfig`.
    user_messages_per_second: int = 800
    user_bytes_per_second: int = 1024 * 1024
    user_relayed_bytes_per_second: int = 1024 * 1024
    user_discovers_per_second: int = 100
    # Bytes of sealed messages from all sessions of a user, and of those to one other user. See `ServerConfig`.
    user_sealed_bytes_per_second: int = 256 * 1024
    pair_sealed_bytes_per_second: int = 128 * 1024
    # Messages of a client that it sends although it has read that it is to wait: so many at once, and so many a second
    # without end. A page in a browser may send some before its script sees the refusal.
    offence_burst: int = 100
    offences_per_second: float = 1.0
    # Bytes that others may send to a client which does not read, beyond those after which a connection is full. A
    # transport closes a connection with twice as many.
    unsent_bytes: int = 512 * 1024
    # When a sender with too much in wait for one recipient may try again.
    share_pause: float = 2.0
    # Whether users may send each other sealed messages, and how large a file they may send so. A larger one needs a
    # direct path, because each byte passes this server twice.
    relay: bool = True
    max_relay_file_bytes: int = 1024 * 1024
    # Frames of one session that wait while the directory answers. With more, the hub stops reading the connection.
    backlog_messages: int = 256
    backlog_bytes: int = 512 * 1024
    # Unreadable messages before the connection is closed: so many at once, and so many a second without end.
    invalid_burst: int = 100
    invalid_per_second: float = 1.0
    # Sessions whose tokens expire at the same moment end spread over this time, and come back one after the other.
    token_grace: float = 60.0
    # A client that signs wrongly has a fault that another try does not mend.
    bad_proofs: int = 3
    # Failed proofs of one network, and for one name, at once and in an hour; 0 for any number. See `hub.failed_proofs`.
    failed_proofs_per_address: int = 0
    failed_proofs_per_name: int = 0
    # New names that one network may bind at once, and a day; 0 for any number. See `ServerConfig`.
    new_names_per_address: int = 0
    # When the server stops, clients come back spread over this time, so that they do not all connect at once.
    drain_spread: float = 5.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_devices <= MAX_DEVICES:
            raise ConfigError("max_devices", f"{self.max_devices} is not from 1 to {MAX_DEVICES}")

    def take_over(self, other: HubSettings) -> None:
        """Have the values of `other` from now on."""
        for one in fields(self):
            setattr(self, one.name, getattr(other, one.name))
