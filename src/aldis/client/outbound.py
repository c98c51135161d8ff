"""From what a program says to the messages of a client: `client.inbound` is the other way.

Pure functions. They raise `UsageError` for text that UTF-8 cannot carry, and `InvalidAddress` for what is no user id.
"""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from aldis.errors import UsageError
from aldis.protocol import messages as m
from aldis.protocol.addresses import check_user_id
from aldis.protocol.codec import raw, to_base64
from aldis.protocol.privacy import PrivacyChange


def offer(
    to: str, sdp: str, connection: str | None, proof: m.Proof | None, capabilities: m.Capabilities | None
) -> m.Offer:
    """An offer; what is None is left out."""
    return m.Offer(
        to,
        _raw(m.Description("offer", sdp)),
        connection=_or_unset(connection),
        proof=_raw_or_unset(proof),
        capabilities=_raw_or_unset(capabilities),
    )


def answer(
    to: str, sdp: str, connection: str | None, proof: m.Proof | None, capabilities: m.Capabilities | None
) -> m.Answer:
    """An answer; what is None is left out."""
    return m.Answer(
        to,
        _raw(m.Description("answer", sdp)),
        connection=_or_unset(connection),
        proof=_raw_or_unset(proof),
        capabilities=_raw_or_unset(capabilities),
    )


def ice_candidate(to: str, candidate: m.Candidate | None, connection: str | None) -> m.IceCandidate:
    """An ICE candidate; None means that there are no more."""
    return m.IceCandidate(to, _raw(candidate), connection=_or_unset(connection))


def bye(to: str, connection: str | None, reason: str | None, code: str | None, retry_after: float | None) -> m.Bye:
    """A `bye`; what is None is left out."""
    return m.Bye(
        to,
        connection=_or_unset(connection),
        reason=_or_unset(reason),
        code=_or_unset(code),
        retry_after=UNSET if retry_after is None else retry_after,
    )


def relay(to: str, sealed: bytes) -> m.Relay:
    """A sealed message."""
    if not sealed:
        raise UsageError("a sealed message cannot be empty")
    return m.Relay(to, to_base64(sealed))


def privacy_request(change: PrivacyChange) -> m.PrivacyRequest:
    """A change of the privacy."""

    def listed(names: frozenset[str]) -> list[str] | UnsetType:
        return sorted(map(check_user_id, names)) or UNSET

    return m.PrivacyRequest(
        UNSET if change.presence is None else change.presence,
        UNSET if change.offers is None else change.offers,
        listed(change.add_contacts),
        listed(change.remove_contacts),
        listed(change.block),
        listed(change.unblock),
    )


def _raw(value: object) -> Raw:
    try:
        return raw(value)
    except UnicodeEncodeError as error:
        raise UsageError(f"the text cannot be sent: {error}") from None


def _raw_or_unset(value: object) -> Raw | UnsetType:
    return UNSET if value is None else _raw(value)


def _or_unset(text: str | None) -> str | UnsetType:
    return UNSET if text is None else text
