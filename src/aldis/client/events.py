"""What a `SignalingClient` tells: its events, its state, and the results of its requests.

Rules: everything here is frozen; names are past participles. Bytes are bytes and descriptions are structs: nothing has
to be decoded any more. `sender` is an address as the server wrote it (`alice`, or `alice/phone` for another
device than `main`), proved to the server but not to us: what an offer or answer says is only to be believed after its
`proof` has been checked (`peer.trust`).

Imported by the layers above, so it imports nothing of this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from aldis.errors import AldisError
from aldis.protocol.messages import Candidate, Capabilities, Description, IceServer, Limits, Proof


class SignalingState(Enum):
    """Where a client stands with its server."""

    DISCONNECTED = "disconnected"  # not started yet, or ended
    CONNECTING = "connecting"  # on the way: dialling, waiting for the next attempt, or not registered yet
    CONNECTED = "connected"  # registered


# --- results of requests --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Registration:
    """The server has taken us in.

    `session` is the server's name of the session (for its log and ours). `resumed`: the session of an earlier
    connection goes on, nothing was missed. `limits`: what the server accepts, None when it does not say.
    """

    session: str
    resumed: bool
    limits: Limits | None


@dataclass(frozen=True, slots=True)
class Discovery:
    """What the server knows of a user.

    `public_key` is the 32 bytes that the name is bound to, None when no key was ever proved for it. `devices`
    are the names of the online devices, newest first.
    """

    user_id: str
    online: bool
    public_key: bytes | None
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IceServers:
    """STUN and TURN servers to use, and for how many seconds (`ttl`) the credentials hold."""

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
    """The server has taken us in. Unless `resumed`, messages may have been missed while we were away."""

    resumed: bool


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or an attempt to make one failed.

    `code` is the WebSocket close code, 1006 when there was none. The next attempt comes in `retry_in` seconds; None
    when there will be none (`Closed` follows).
    """

    reason: str
    code: int
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event. `error` tells why the client gave up; None when it was closed on purpose."""

    error: AldisError | None


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The server is about to restart and asks to come back in `reconnect_in` seconds; the client will do so."""

    reconnect_in: float


@dataclass(frozen=True, slots=True)
class WatchEnded:
    """These users are not watched any more: the server did not take the watch over into a new session, for `error`.

    It may have been started anew with a smaller limit of watched names. Call `watch` again when there is room.
    """

    user_ids: tuple[str, ...]
    error: AldisError


# --- from other users -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """A watched user came, went, or changed devices; also told once at the start of a watch. Fields as `Discovery`.

    `initial`: the server answers a watch, ours or one that was restored with a new session. It says how things stand;
    nothing need have happened.
    """

    user_id: str
    online: bool
    public_key: bytes | None
    devices: tuple[str, ...]
    initial: bool = False


@dataclass(frozen=True, slots=True)
class OfferReceived:
    """Somebody wants a peer connection, or wants to renegotiate the one named `connection`."""

    sender: str
    description: Description
    connection: str | None
    proof: Proof | None
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """Somebody answers an offer."""

    sender: str
    description: Description
    connection: str | None
    proof: Proof | None
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class CandidateReceived:
    """An ICE candidate of the other side; None says that there will be no more."""

    sender: str
    candidate: Candidate | None
    connection: str | None


@dataclass(frozen=True, slots=True)
class ByeReceived:
    """The other side has ended the peer connection, or refuses an offer.

    `reason` is a line for people, without what is not seen. A refusal has a `code` (`protocol.codes.RefusalCode`, or
    one of a later version), and may say after how many seconds another offer makes sense: `retry_after`, at most
    `LONGEST_PAUSE`. Each is None when they gave none.
    """

    sender: str
    connection: str | None
    reason: str | None
    code: str | None = None
    retry_after: float | None = None


SignalingEvent: TypeAlias = (
    Connected
    | Registered
    | Disconnected
    | Closed
    | GoingAway
    | WatchEnded
    | PresenceChanged
    | OfferReceived
    | AnswerReceived
    | CandidateReceived
    | ByeReceived
)
