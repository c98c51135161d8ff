"""The events of a `SignalingClient`, its state, and the results of its requests.

Rules: everything here is frozen, and names are past participles. Values are decoded: bytes are bytes, and descriptions
are structs. `sender` is an address as the server wrote it (`alice`, or `alice/phone` for a device other than `main`).
The sender has proved it to the server but not to us: do not trust an offer or answer before its `proof` has been
checked (`peer.trust`).

The layers above import this module, so it imports nothing of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from aldis.errors import AldisError, RequestFailed
from aldis.identity.seal_keys import PublishedSealKey
from aldis.protocol.messages import Candidate, Capabilities, Description, IceServer, Limits, Proof
from aldis.protocol.privacy import Privacy


class SignalingState(Enum):
    """The state of the connection to the server."""

    DISCONNECTED = "disconnected"  # not started yet, or ended
    CONNECTING = "connecting"  # dialling, waiting for the next attempt, or not registered yet
    CONNECTED = "connected"  # registered


# --- results of requests --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Registration:
    """The server has registered the name.

    `session` is the server's name of the session, for the logs. `resumed`: the session of an earlier connection goes
    on, and nothing was missed. `limits` are the server's limits, None when it does not tell them.
    """

    session: str
    resumed: bool
    limits: Limits | None


@dataclass(frozen=True, slots=True)
class Discovery:
    """The server's knowledge of a user.

    `public_key` is the 32 bytes that the name is bound to, None when no key was ever proved for it. `devices` are the
    names of the online devices, newest first. `seal_keys` has the sealing keys of those that have one, by device. The
    server may have made them up: `identity.seal_keys.checked_seal_key` checks them.
    """

    user_id: str
    online: bool
    public_key: bytes | None
    devices: tuple[str, ...]
    seal_keys: Mapping[str, PublishedSealKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IceServers:
    """STUN and TURN servers, and for how many seconds (`ttl`) their credentials are valid."""

    ice_servers: tuple[IceServer, ...]
    ttl: int


# --- the connection to the server -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """The WebSocket is open; registration comes next.

    `attempt` counts from 1 since a connection last stood for a while (`Backoff.settled`).
    """

    attempt: int


@dataclass(frozen=True, slots=True)
class Registered:
    """The server has registered the name. Unless `resumed`, messages may have been missed.

    `limits` are the server's limits, None when it does not tell them.
    """

    resumed: bool
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection has ended, or an attempt to connect has failed.

    `code` is the WebSocket close code, 1006 without one. The next attempt comes in `retry_in` seconds; None when there
    is no further attempt (`Closed` follows).
    """

    reason: str
    code: int
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event. `error` is why the client gave up; None when it was closed on purpose."""

    error: AldisError | None


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The server is about to restart. The client comes back in `reconnect_in` seconds, as the server asks."""

    reconnect_in: float


@dataclass(frozen=True, slots=True)
class WatchEnded:
    """These users are not watched any more: the server refused the watch in a new session, or ended it, for `error`.

    The server may have restarted with a smaller limit of watched names, or the users have too many watchers. Call
    `watch` again when there is room.
    """

    user_ids: tuple[str, ...]
    error: AldisError


@dataclass(frozen=True, slots=True)
class RequestsDelayed:
    """The server has limited requests, for `error`. They are sent again, in order, in `retry_in` seconds.

    `request` is their type in the protocol, such as `discover`. For messages to another user, `to` is the address, and
    messages to other addresses go on. This event comes once for each pause. The calls wait. They raise `error` when
    their time is over before the server takes them.
    """

    request: str
    to: str | None
    retry_in: float
    error: RequestFailed


# --- from other users -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """A watched user came, went, or changed devices; also sent once at the start of a watch. Fields as in `Discovery`.

    `initial`: the server answers a watch, a new one or one restored in a new session. It reports the current state;
    perhaps nothing has changed.
    """

    user_id: str
    online: bool
    public_key: bytes | None
    devices: tuple[str, ...]
    initial: bool = False
    seal_keys: Mapping[str, PublishedSealKey] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PrivacyChanged:
    """Who may see our user, and who may call, has changed, by this device or another one of the user."""

    privacy: Privacy


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """A user wants a peer connection, or wants to renegotiate the one named `connection`."""

    sender: str
    description: Description
    connection: str | None
    proof: Proof | None
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """A user answers an offer."""

    sender: str
    description: Description
    connection: str | None
    proof: Proof | None
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class CandidateReceived:
    """An ICE candidate of the other side; None means that there are no more."""

    sender: str
    candidate: Candidate | None
    connection: str | None


@dataclass(frozen=True, slots=True)
class ByeReceived:
    """The other side has ended the peer connection, or refuses an offer.

    `reason` is a line for people, without invisible characters. A refusal has a `code` (`protocol.codes.RefusalCode`,
    or one of a later version). `retry_after` says after how many seconds another offer makes sense, at most
    `LONGEST_PAUSE`. Each is None when it was not given.
    """

    sender: str
    connection: str | None
    reason: str | None
    code: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class RelayReceived:
    """A sealed message. Nothing in it is checked yet: the server says from whom it is, and anybody may send one."""

    sender: str
    sealed: bytes


SignalingEvent: TypeAlias = (
    Connected
    | Registered
    | Disconnected
    | Closed
    | GoingAway
    | WatchEnded
    | RequestsDelayed
    | PresenceChanged
    | PrivacyChanged
    | OfferReceived
    | AnswerReceived
    | CandidateReceived
    | ByeReceived
    | RelayReceived
)
