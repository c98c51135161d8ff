"""From the messages of a server to the events and results of a client.

Pure functions. Two kinds of fault must be kept apart. The server is responsible for what it writes itself (a sender's
address, a reply): a fault there is a `ProtocolViolation`, which ends the connection. A *peer* is responsible for what
it puts into a relayed message, which every server passes on unread: a `PeerFault` only drops that message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias, cast

from msgspec import UNSET, Raw, UnsetType

from aldis.client.events import (
    AnswerReceived,
    ByeReceived,
    CandidateReceived,
    Discovery,
    OfferReceived,
    PresenceChanged,
    RelayReceived,
    SignalingEvent,
    WatchEnded,
)
from aldis.errors import ProtocolViolation, RequestFailed
from aldis.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from aldis.identity.seal_keys import PublishedSealKey
from aldis.protocol import messages as m
from aldis.protocol.addresses import device_problem, split, user_id_problem
from aldis.protocol.codec import from_base64, read_candidate, read_capabilities, read_description, read_proof
from aldis.protocol.codes import LONGEST_PAUSE, TEMPORARY, ErrorCode
from aldis.protocol.privacy import Privacy, Visibility
from aldis.protocol.texts import clean

# docs/protocol.md, "What is signed". Our own names have 22.
MAX_CONNECTION: Final = 128

# The messages that count for resume (docs/protocol.md, "Resume").
Numbered: TypeAlias = m.PresenceMessage | m.Relayed


class PeerFault(ProtocolViolation):
    """Another user has sent something that cannot be read."""


def event_of(message: Numbered, states: Callable[[str], bool]) -> SignalingEvent:
    """The event for a numbered message.

    `states(user_id)` returns whether a presence answers a `watch`.

    Raises `PeerFault` when the sender is at fault, else `ProtocolViolation`.
    """
    if isinstance(message, m.PresenceMessage) and message.ended is not UNSET:
        return WatchEnded((message.user_id,), failure_of(message.ended, "watch"))
    if isinstance(message, m.PresenceMessage):
        return PresenceChanged(
            message.user_id,
            message.online,
            public_key_of(message.public_key),
            device_names(message.devices),
            initial=states(message.user_id),
            seal_keys=seal_keys_of(message.devices),
        )
    sender = _sender(message.from_)
    try:
        match message:
            case m.Offer():
                return OfferReceived(
                    sender,
                    _description(message.offer, "offer"),
                    _connection(message.connection),
                    _proof(message.proof),
                    read_capabilities(message.capabilities),
                )
            case m.Answer():
                return AnswerReceived(
                    sender,
                    _description(message.answer, "answer"),
                    _connection(message.connection),
                    _proof(message.proof),
                    read_capabilities(message.capabilities),
                )
            case m.IceCandidate():
                return CandidateReceived(sender, read_candidate(message.candidate), _connection(message.connection))
            case m.Bye():
                retry_after = None if message.retry_after is UNSET else min(message.retry_after, LONGEST_PAUSE)
                return ByeReceived(
                    sender, _connection(message.connection), _line(message.reason), _line(message.code), retry_after
                )
            case m.Relay():
                return RelayReceived(sender, _sealed(message.sealed))
    except ProtocolViolation as error:
        raise PeerFault(f"{sender} sent {error}") from None


def discovery_of(message: m.DiscoverResponse) -> Discovery:
    """The content of a `discover-response`."""
    devices = message.devices
    key = public_key_of(message.public_key)
    return Discovery(message.user_id, message.online, key, device_names(devices), seal_keys_of(devices))


def privacy_of(message: m.PrivacyMessage | m.PrivacySettings) -> Privacy:
    """The content of a `privacy`. A newer server may have more words for a visibility; they stay as they are."""
    presence, offers = cast(Visibility, message.presence), cast(Visibility, message.offers)
    return Privacy(presence, offers, frozenset(message.contacts), frozenset(message.blocked))


def failure_of(error: m.Error | m.WatchFault, request: str) -> RequestFailed:
    """The exception for an `error` reply to a `request`, its type, or for the end of a watch.

    If the server does not say whether the error is temporary, the code decides.
    """
    code = ErrorCode.INTERNAL if error.code is UNSET else error.code
    temporary = code in TEMPORARY if error.temporary is UNSET else error.temporary
    retry_after = None if error.retry_after is UNSET else max(0.0, error.retry_after)
    return RequestFailed(code, error.message, temporary=temporary, retry_after=retry_after, request=request)


def public_key_of(text: str | UnsetType) -> bytes | None:
    """The key, or None. A classic client may register any string as its key; such a string gives None."""
    if text is UNSET:
        return None
    try:
        return from_base64(text, PUBLIC_KEY_BYTES)
    except ValueError:
        return None


def device_names(devices: Iterable[m.Device] | UnsetType) -> tuple[str, ...]:
    """The names of the newest devices, in the server's order. No server of this project sends more of them."""
    return () if devices is UNSET else tuple(device.device for device in devices)[: m.MAX_DEVICES]


def seal_keys_of(devices: Iterable[m.Device] | UnsetType) -> dict[str, PublishedSealKey]:
    """The sealing keys of the devices of `device_names` that have a readable one."""
    found: dict[str, PublishedSealKey] = {}
    for device in () if devices is UNSET else list(devices)[: m.MAX_DEVICES]:
        if device.seal_key is UNSET:
            continue
        try:
            key = from_base64(device.seal_key.public_key)
            found[device.device] = PublishedSealKey(key, from_base64(device.seal_key.signature, SIGNATURE_BYTES))
        except ValueError:
            continue
    return found


def _sealed(text: str) -> bytes:
    try:
        return from_base64(text)
    except ValueError as error:
        raise ProtocolViolation(f"a sealed message that is {error}") from None


def _sender(address: str | UnsetType) -> str:
    if address is UNSET:
        raise ProtocolViolation("the server relayed a message without saying from whom")
    user_id, device = split(address)
    problem = user_id_problem(user_id) or (None if device is None else device_problem(device))
    if problem:
        raise ProtocolViolation(f"the server relayed a message from {address[:200]!r}: {problem}")
    return address


def _connection(text: str | UnsetType) -> str | None:
    """The name of a connection. Its length is limited, because it is kept while candidates wait for their offer."""
    if text is UNSET:
        return None
    if len(text) > MAX_CONNECTION:
        raise ProtocolViolation(f"a connection with a name of {len(text)} characters")
    return text


def _line(text: str | UnsetType) -> str | None:
    """A stranger's text for people, made safe for the text of an error. None when nothing is left of it."""
    return None if text is UNSET else clean(text) or None


def _description(raw: Raw, kind: str) -> m.Description:
    description = read_description(raw)
    if description.type != kind:
        raise ProtocolViolation(f"a session description of the type {description.type[:64]!r} as {kind}")
    return description


def _proof(raw: Raw | UnsetType) -> m.Proof | None:
    return None if raw is UNSET else read_proof(raw)
