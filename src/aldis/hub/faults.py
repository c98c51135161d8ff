"""Messages that the hub cannot read, and questions that nobody answers: what the client is told."""

from __future__ import annotations

from msgspec import UnsetType

from aldis.hub.cluster import EnterDevice, FindUsers
from aldis.hub.costs import UNREADABLE_COST
from aldis.hub.limits import TokenBucket
from aldis.hub.lookups import Question
from aldis.hub.outcomes import RequestRefused
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.protocol.codes import CloseCode, ErrorCode
from aldis.protocol.messages import RequestId


def unreadable(
    session: Session, text: str, settings: HubSettings, now: float
) -> tuple[RequestId | UnsetType, RequestRefused]:
    """The id of a request that cannot be read, as far as it can be, and its refusal."""
    failure = session.dialect.why_not(text)
    session.charged += UNREADABLE_COST
    if failure.code == ErrorCode.UNKNOWN_TYPE:
        # A newer client may send an unknown type, so it is never a reason to disconnect.
        if session.unknowns is None:
            session.unknowns = TokenBucket(settings.invalid_burst, settings.invalid_per_second, now)
        if session.unknowns.spend(now):
            return failure.re, RequestRefused(failure.code, failure.text)
        return failure.re, RequestRefused(ErrorCode.RATE_LIMITED, failure.text, silent=True)
    if session.faults is None:
        session.faults = TokenBucket(settings.invalid_burst, settings.invalid_per_second, now)
    close = None if session.faults.spend(now) else (CloseCode.BAD_PROTOCOL, "too many invalid messages")
    return failure.re, RequestRefused(failure.code, failure.text, close=close)


def not_answered(question: Question) -> RequestRefused:
    """The refusal of a request whose question to the directory, or to the cluster, has no answer."""
    if isinstance(question, FindUsers | EnterDevice):
        text = "the server cannot reach the others of its cluster now; try again in a moment"
        return RequestRefused(ErrorCode.OVER_CAPACITY, text, retry_after=1.0, limit="cluster")
    text = "the server cannot look up names now; try again in a moment"
    return RequestRefused(ErrorCode.INTERNAL, text, retry_after=1.0)
