"""The error codes and close codes of the wire protocol (docs/protocol.md), and how a client may react to each.

This module knows only the numbers and words; the hub knows which situation leads to which code.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ErrorCode:
    """The `code` of an `error` message. Plain strings, so that a client accepts an unknown one of a newer server."""

    INVALID_MESSAGE: Final = "invalid-message"
    UNKNOWN_TYPE: Final = "unknown-type"
    MISSING_FIELDS: Final = "missing-fields"
    INVALID_FIELD: Final = "invalid-field"
    NOT_REGISTERED: Final = "not-registered"
    ALREADY_REGISTERED: Final = "already-registered"
    BAD_SIGNATURE: Final = "bad-signature"
    KEY_MISMATCH: Final = "key-mismatch"
    UNAUTHORIZED: Final = "unauthorized"
    FORBIDDEN: Final = "forbidden"
    TOKEN_REQUIRED: Final = "token-required"  # noqa: S105 - no secrets, these three
    TOKEN_INVALID: Final = "token-invalid"  # noqa: S105
    TOKEN_EXPIRED: Final = "token-expired"  # noqa: S105
    REGISTRATION_REFUSED: Final = "registration-refused"
    NOT_ONLINE: Final = "not-online"
    BLOCKED: Final = "blocked"
    RELAY_DISABLED: Final = "relay-disabled"
    RATE_LIMITED: Final = "rate-limited"
    TOO_LARGE: Final = "too-large"
    OVER_CAPACITY: Final = "over-capacity"
    TIMEOUT: Final = "timeout"
    INTERNAL: Final = "internal"


# A client may repeat a request only after one of these.
TEMPORARY: Final = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.OVER_CAPACITY, ErrorCode.TIMEOUT, ErrorCode.INTERNAL})


class RefusalCode:
    """The `code` of a `bye` that refuses an offer. Plain strings, like the error codes."""

    NOT_ACCEPTED: Final = "not-accepted"
    TOO_MANY_PEERS: Final = "too-many-peers"
    RATE_LIMITED: Final = "rate-limited"
    BUSY: Final = "busy"
    KEY_REFUSED: Final = "key-refused"
    BAD_PROOF: Final = "bad-proof"
    INVALID_OFFER: Final = "invalid-offer"
    SEAL_UNKNOWN: Final = "seal-unknown"
    NO_RELAY: Final = "no-relay"
    INTERNAL: Final = "internal"


# The `code` of a `bye` that ends an attempt because it found no path; this is no refusal.
NO_PATH: Final = "no-path"

# After these, calling again is useless until a person has decided otherwise.
FINAL_REFUSALS: Final = frozenset({RefusalCode.NOT_ACCEPTED})

MAX_REFUSAL_CODE: Final = 64  # characters
# Seconds. A longer `retryAfter` is cut to this, because the other side may make it up.
LONGEST_PAUSE: Final = 300.0


class CloseCode(IntEnum):
    """WebSocket close codes: RFC 6455 section 7.4.1 below 4000, Aldis's own from 4000 (section 7.4.2)."""

    NORMAL = 1000
    LEAVING = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_UTF8 = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    GOING_AWAY = 4000
    REPLACED = 4001
    SLOW_CONSUMER = 4002
    NO_PONG = 4003
    REGISTRATION_TIMEOUT = 4004
    SESSION_LOST = 4005
    TOKEN_EXPIRED = 4006
    OUT_OF_MEMORY = 4007
    BAD_PROTOCOL = 4500
    UNAUTHORIZED = 4501
    ORIGIN_NOT_ALLOWED = 4502
    BANNED = 4503
    OVER_LIMITS = 4504
    UNKNOWN_HOST = 4505


_OWN_FIRST = 4000
_OWN_FINAL_FIRST = 4500


def may_reconnect(code: int) -> bool:
    """Whether a client may reconnect by itself after the connection was closed with `code`.

    After 4000 to 4499 it may, except after 4001: two programs with one address would replace each other for ever. After
    4500 and above, and after the codes for a violation of the protocol, a person has to change something first. After
    4504 it may, but not soon (`client.backoff`): the client was too fast, and nothing is wrong with it otherwise.
    """
    if code == CloseCode.OVER_LIMITS:
        return True
    if code >= _OWN_FIRST:
        return code < _OWN_FINAL_FIRST and code != CloseCode.REPLACED
    return code not in (
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_UTF8,
        CloseCode.TOO_BIG,
    )
