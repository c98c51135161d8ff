"""The messages of the wire protocol as msgspec structs, one class for each `type`.

Rules of this module:

* A struct has the fields of the JSON and nothing more. Defaults are `UNSET`, which is left out on the wire.
* What peers say to each other (`offer`, `answer`, `candidate`, `proof`, `capabilities`) stays `Raw`: the server
  relays it without parsing it, and the peers parse it with `codec`.
* Relayed messages are one class for both directions: the server fills `from_`, clears `id`, and encodes the same
  object again ("as sent, with `from`, without `id`").
* No field has the name of a Python keyword: `from` on the wire is `from_` here.

It does not know which side may send which message when; the hub decides that.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from aldis.protocol.codes import MAX_REFUSAL_CODE
from aldis.protocol.privacy import Visibility

MAX_WATCHED_PER_MESSAGE: Final = 1000
MAX_ID_LENGTH: Final = 64
# Browsers lose digits of integers beyond this (ECMA-262, Number.MAX_SAFE_INTEGER).
MAX_SAFE_INTEGER: Final = 2**53 - 1

# Online devices of one user: some phones, computers and tabs. Each `presence` lists all of them.
MAX_DEVICES: Final = 16
# Bytes of a sealing key: a hybrid of X25519 and ML-KEM-768 has 1,216, ML-KEM-1024 has 1,568.
MAX_SEAL_KEY: Final = 2 * 1024
# Bytes of a token in UTF-8: a JWT with the claims of an identity provider has 1 to 2 KiB.
MAX_TOKEN: Final = 4 * 1024
# Bytes of a classic client's key in UTF-8, which may be any text: the PEM of an RSA key of 16,384 bits has 2.8 KB.
MAX_CLASSIC_KEY: Final = 4 * 1024

RequestId: TypeAlias = (
    Annotated[str, Meta(max_length=MAX_ID_LENGTH)] | Annotated[int, Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
)
Text: TypeAlias = Annotated[str, Meta(min_length=1)]
# The server's random names of a session; ours have 22 and 43 characters.
MAX_TICKET_TEXT: Final = 128
TicketText: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_TICKET_TEXT)]
# A user id and a device with the slash between them. Registration checks the exact rules.
AddressText: TypeAlias = Annotated[str, Meta(min_length=1, max_length=193)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]


class _Message(Struct, tag_field="type", gc=False):
    """The base of all messages: the tag is the wire's `type`. No cycles, so the garbage collector can skip them."""


class _Request(_Message):
    pass


# --- values inside messages -----------------------------------------------------------------------------------------


class SealKey(Struct, rename="camel", gc=False):
    """An HPKE public key of one registration and its signature by the identity key, both base64."""

    public_key: Text
    signature: Text


class ResumeTicket(Struct, gc=False):
    """Shown by a client to resume a session: `received` is how many numbered messages it has received."""

    session: TicketText
    secret: TicketText
    received: Count


# Characters. Candidates come from strangers and are kept until their connection is known. RFC 8839 section 5.1 leads to
# some 200, section 5.4 allows 256 for a fragment; RFC 9143 has no limit for a mid, which has 1 or 2. The fields of a
# proof are the base64 of a key, nonce or signature: 44 or 88.
MAX_CANDIDATE: Final = 1024
_CandidateText: TypeAlias = Annotated[str, Meta(max_length=MAX_CANDIDATE)]
_PeerField: TypeAlias = Annotated[str, Meta(max_length=256)]


_RefusalText: TypeAlias = Annotated[str, Meta(max_length=MAX_REFUSAL_CODE)]
_Seconds: TypeAlias = Annotated[float, Meta(ge=0)]


class Description(Struct, gc=False):
    """A session description (W3C `RTCSessionDescriptionInit`): `type` is `offer` or `answer`."""

    type: str
    sdp: str


class Candidate(
    Struct,
    gc=False,
    rename={"sdp_mid": "sdpMid", "sdp_m_line_index": "sdpMLineIndex", "username_fragment": "usernameFragment"},
):
    """An ICE candidate (W3C `RTCIceCandidateInit`)."""

    candidate: _CandidateText
    sdp_mid: _PeerField | None = None
    sdp_m_line_index: int | None = None
    username_fragment: _PeerField | UnsetType | None = UNSET


class Proof(Struct, rename="camel", gc=False):
    """The end-to-end proof of an offer or answer; all three fields are base64."""

    public_key: _PeerField
    nonce: _PeerField
    signature: _PeerField


class Capabilities(Struct, gc=False):
    """What the sender's WebRTC engine can do. Both are true when absent."""

    trickle: bool = True
    restart: bool = True


class Device(Struct, rename="camel", gc=False):
    """One online device of a user."""

    device: str
    seal_key: SealKey | UnsetType = UNSET


class IceServer(Struct, omit_defaults=True, gc=False):
    """One STUN or TURN server (W3C `RTCIceServer`)."""

    urls: list[str]
    username: str | None = None
    credential: str | None = None


class Limits(Struct, rename="camel", omit_defaults=True, gc=False):
    """The server's limits: sizes in bytes, times in seconds."""

    max_message_bytes: int
    max_watches: int
    resume_window: float
    # Absent from servers that relay no sealed messages.
    relay: bool = False
    max_relay_file_bytes: int = 0


class PrivacySettings(Struct, gc=False):
    """Who may see a user, and who may call. `presence` and `offers` are a `Visibility`, or a word of a newer server."""

    presence: str
    offers: str
    contacts: list[str]
    blocked: list[str]


# --- client to server -----------------------------------------------------------------------------------------------


class Register(_Request, tag="register", rename="camel"):
    user_id: Text
    public_key: Text
    device: str | UnsetType = UNSET
    token: str | UnsetType = UNSET
    seal_key: SealKey | UnsetType = UNSET
    resume: ResumeTicket | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


class Prove(_Request, tag="prove"):
    signature: Text
    id: RequestId | UnsetType = UNSET


class Rotate(_Request, tag="rotate", rename="camel"):
    new_public_key: Text
    signature: Text
    id: RequestId | UnsetType = UNSET


class Discover(_Request, tag="discover", rename="camel"):
    user_id: Text
    id: RequestId | UnsetType = UNSET


class Watch(_Request, tag="watch", rename="camel"):
    user_ids: list[str]
    id: RequestId | UnsetType = UNSET


class Unwatch(_Request, tag="unwatch", rename="camel"):
    user_ids: list[str]
    id: RequestId | UnsetType = UNSET


class IceServersRequest(_Request, tag="ice-servers"):
    id: RequestId | UnsetType = UNSET


class PrivacyRequest(_Request, tag="privacy", rename="camel"):
    """Without any field it asks for the privacy; with some it changes it first."""

    presence: Visibility | UnsetType = UNSET
    offers: Visibility | UnsetType = UNSET
    add_contacts: list[str] | UnsetType = UNSET
    remove_contacts: list[str] | UnsetType = UNSET
    block: list[str] | UnsetType = UNSET
    unblock: list[str] | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


class SealKeyRequest(_Request, tag="seal-key", rename="camel"):
    """Publish another sealing key while registered."""

    seal_key: SealKey
    id: RequestId | UnsetType = UNSET


class Received(_Request, tag="received"):
    count: Count
    id: RequestId | UnsetType = UNSET


class Ping(_Request, tag="ping"):
    id: RequestId | UnsetType = UNSET


class Unregister(_Request, tag="unregister"):
    id: RequestId | UnsetType = UNSET


# --- relayed: both directions ---------------------------------------------------------------------------------------


class Offer(_Request, tag="offer", rename={"from_": "from"}):
    to: AddressText
    offer: Raw
    from_: str | UnsetType = UNSET
    connection: str | UnsetType = UNSET
    proof: Raw | UnsetType = UNSET
    capabilities: Raw | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


class Answer(_Request, tag="answer", rename={"from_": "from"}):
    to: AddressText
    answer: Raw
    from_: str | UnsetType = UNSET
    connection: str | UnsetType = UNSET
    proof: Raw | UnsetType = UNSET
    capabilities: Raw | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


class IceCandidate(_Request, tag="ice-candidate", rename={"from_": "from"}):
    """`candidate` is the JSON of a `Candidate`, or `null` for the end of candidates (RFC 8838 section 13)."""

    to: AddressText
    candidate: Raw
    from_: str | UnsetType = UNSET
    connection: str | UnsetType = UNSET
    proof: Raw | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


class Bye(_Request, tag="bye", rename={"from_": "from", "retry_after": "retryAfter"}):
    """With a `code` (a `RefusalCode`) it refuses an offer; another offer makes sense after `retry_after` seconds."""

    to: AddressText
    from_: str | UnsetType = UNSET
    connection: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    code: _RefusalText | UnsetType = UNSET
    retry_after: _Seconds | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


class Relay(_Request, tag="relay", rename={"from_": "from"}):
    to: AddressText
    sealed: Text
    from_: str | UnsetType = UNSET
    id: RequestId | UnsetType = UNSET


Relayed: TypeAlias = Offer | Answer | IceCandidate | Bye | Relay
ClientMessage: TypeAlias = (
    Register
    | Prove
    | Rotate
    | Discover
    | Watch
    | Unwatch
    | IceServersRequest
    | PrivacyRequest
    | SealKeyRequest
    | Received
    | Ping
    | Unregister
    | Relayed
)
# The messages of clients of the classic dialect.
ClassicMessage: TypeAlias = Register | Discover | Watch | Unwatch | IceServersRequest | Ping | Unregister | Relayed


# --- server to client -----------------------------------------------------------------------------------------------


class Challenge(_Message, tag="challenge"):
    nonce: str
    re: RequestId | UnsetType = UNSET


class Registered(_Message, tag="registered", rename="camel"):
    success: bool
    user_id: str
    device: str | UnsetType = UNSET
    session: str | UnsetType = UNSET
    secret: str | UnsetType = UNSET
    resumed: bool | UnsetType = UNSET
    server_time: float | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    re: RequestId | UnsetType = UNSET
    privacy: PrivacySettings | UnsetType = UNSET


class Rotated(_Message, tag="rotated", rename="camel"):
    public_key: str
    re: RequestId | UnsetType = UNSET


class DiscoverResponse(_Message, tag="discover-response", rename="camel"):
    user_id: str
    online: bool
    public_key: str | UnsetType = UNSET
    devices: list[Device] | UnsetType = UNSET
    re: RequestId | UnsetType = UNSET


class WatchFault(Struct, omit_defaults=True, rename="camel", gc=False):
    """Why the server has ended a watch; the fields are those of an `error`."""

    message: str
    code: str | UnsetType = UNSET
    temporary: bool | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET


class PresenceMessage(_Message, tag="presence", rename="camel"):
    user_id: str
    online: bool
    public_key: str | UnsetType = UNSET
    devices: list[Device] | UnsetType = UNSET
    ended: WatchFault | UnsetType = UNSET


class Error(_Message, tag="error", rename="camel"):
    message: str
    code: str | UnsetType = UNSET
    temporary: bool | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET
    re: RequestId | UnsetType = UNSET


class Ack(_Message, tag="ack"):
    re: RequestId


class Pong(_Message, tag="pong"):
    re: RequestId | UnsetType = UNSET


class Unregistered(_Message, tag="unregistered"):
    re: RequestId | UnsetType = UNSET


class IceServers(_Message, tag="ice-servers", rename="camel"):
    ice_servers: list[IceServer]
    ttl: int
    re: RequestId | UnsetType = UNSET


class PrivacyMessage(_Message, tag="privacy"):
    """The privacy of the client's own user: a reply, or news of a change by another device. Fields as above."""

    presence: str
    offers: str
    contacts: list[str]
    blocked: list[str]
    re: RequestId | UnsetType = UNSET


class GoingAway(_Message, tag="going-away", rename="camel"):
    reconnect_in: float


ServerMessage: TypeAlias = (
    Challenge
    | Registered
    | Rotated
    | DiscoverResponse
    | PresenceMessage
    | Error
    | Ack
    | Pong
    | Unregistered
    | IceServers
    | PrivacyMessage
    | GoingAway
    | Relayed
)
