"""The dialects that clients speak: how each is read and written, and what it admits.

A dialect is a value. The hub asks it instead of asking which one it is, so that a new one is one more value here:

    decode      text to message; what the dialect does not know is `unknown-type`
    why_not     why a text could not be decoded
    encode      message to bytes, without what the dialect does not know
    admits      whether a message may come before a registration
    proves      whether its names are proven by keys

It does not know who says what and when: that is the hub's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec import UNSET, Struct

from aldis.protocol import messages as m
from aldis.protocol.codec import (
    DecodeFailed,
    decode_classic_frame,
    decode_client_frame,
    encode_into,
    why_not_classic_message,
    why_not_client_message,
)
from aldis.protocol.codes import ErrorCode
from aldis.protocol.names import PROTOCOL


# Compared by identity: it is looked up for each presence and each upgrade.
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Dialect:
    """One dialect of the protocol. Its functions are fields, so that a call costs no more than the function does."""

    name: str
    """For people and logs."""
    subprotocol: str | None
    """The WebSocket sub-protocol that a client offers to speak it; None for the dialect of those that offer none."""
    proves: bool
    """True: a key proves each name and is bound to it, sessions can be resumed, and a client has to register in time.

    False: a name lasts as long as its connection, and a client need not have one.
    """
    decode: Callable[[str], m.ClientMessage]
    """Read a message; raises one of `codec.UNREADABLE`."""
    why_not: Callable[[str], DecodeFailed]
    """Say why a text could not be read."""
    encode: Callable[[Struct, bytearray, int], None]
    """`encode(message, buffer, offset)`: write a message into a buffer, which is resized to fit."""
    first: frozenset[type[Struct]]
    """The messages that are admitted before a registration."""
    unsaid: frozenset[type[Struct]] = frozenset()
    """The messages of a server that its clients have no word for: they are not sent."""

    def admits(self, kind: type[Struct]) -> bool:
        """Whether a message of this type may come before a registration."""
        return kind in self.first

    def __repr__(self) -> str:
        return f"<Dialect {self.name}>"


# Clients of the classic dialect compare these texts for equality.
_CLASSIC_TEXTS: Final = {
    ErrorCode.INVALID_MESSAGE: "Invalid message format",
    ErrorCode.UNKNOWN_TYPE: "Unknown message type",
    ErrorCode.MISSING_FIELDS: "Missing required fields",
}


def _decode_classic(text: str) -> m.ClientMessage:
    """Read a message; an `id` means nothing in this dialect, so no reply repeats it and nothing is acknowledged."""
    message = decode_classic_frame(text)
    message.id = UNSET
    return message


def _why_not_classic(text: str) -> DecodeFailed:
    failure = why_not_classic_message(text)
    return DecodeFailed(failure.code, failure.text)


def _encode_classic(message: Struct, buffer: bytearray, offset: int) -> None:
    match message:
        case m.Error(text, code):
            message = m.Error(text if code is UNSET else _CLASSIC_TEXTS.get(code, text))
        case m.PresenceMessage(user_id, online, public_key):
            message = m.PresenceMessage(user_id, online, public_key)
        case m.DiscoverResponse(user_id, online, public_key):
            message = m.DiscoverResponse(user_id, online, public_key)
        case m.Registered(success, user_id):
            message = m.Registered(success, user_id)
    encode_into(message, buffer, offset)


V1: Final = Dialect(
    name=PROTOCOL,
    subprotocol=PROTOCOL,
    proves=True,
    decode=decode_client_frame,
    why_not=why_not_client_message,
    encode=encode_into,
    first=frozenset({m.Register, m.Prove, m.Ping}),
)
"""The dialect of docs/protocol.md."""

CLASSIC: Final = Dialect(
    name="classic",
    subprotocol=None,
    proves=False,
    decode=_decode_classic,
    why_not=_why_not_classic,
    encode=_encode_classic,
    first=frozenset({m.Register, m.Discover, m.Ping}),
    unsaid=frozenset({m.GoingAway}),
)
"""The dialect of clients that exist already: no proofs, no resume, no rotation, no ids (docs/protocol.md)."""

ALL: Final = (V1, CLASSIC)

_OFFERED: Final = {dialect.subprotocol: dialect for dialect in ALL}


def chosen(offered: list[str]) -> Dialect:
    """The dialect for a client that offers these sub-protocols; the first that is known counts."""
    return next((_OFFERED[name] for name in offered if name in _OFFERED), CLASSIC)
