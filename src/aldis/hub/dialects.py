"""The dialects that clients speak: how the hub reads and writes each of them, and what each admits.

A dialect is a value. The hub calls its functions and does not ask which dialect it is, so a new dialect is one more
value here:

    decode      text to message; a type that the dialect does not have is `unknown-type`
    why_not     why a text could not be decoded
    encode      message to bytes, without fields that the dialect does not have
    admits      whether a message may come before a registration
    proves      whether keys prove its names

It does not know which client may send which message when; the hub decides that.
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


# Compared by identity, because each presence and each upgrade looks it up.
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Dialect:
    """One dialect of the protocol. Its functions are fields, so that a call costs no more than the function itself."""

    name: str
    """For people and logs."""
    subprotocol: str | None
    """The WebSocket sub-protocol that a client offers for it; None for the dialect of clients that offer none."""
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
    """The server messages that the dialect does not have; they are not sent."""

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
    """Read a message, without its `id`: this dialect has none, so nothing repeats or acknowledges it."""
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
"""The dialect of clients older than `aldis.v1`: no proofs, resume, rotation or ids (docs/protocol.md)."""

ALL: Final = (V1, CLASSIC)

_OFFERED: Final = {dialect.subprotocol: dialect for dialect in ALL}


def chosen(offered: list[str]) -> Dialect:
    """The dialect for a client that offers these sub-protocols: the first known one."""
    return next((_OFFERED[name] for name in offered if name in _OFFERED), CLASSIC)
