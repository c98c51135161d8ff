"""Asks a TURN server for a relay, as a client would (RFC 8656), and gives it back: whether it still relays.

A Binding request tells that the server runs. Only an allocation tells that it knows our secret and has free ports.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
from dataclasses import dataclass
from hashlib import md5, sha1
from typing import Final

from aldis.protocol.codec import to_base64
from aldis.protocol.stun import Attribute, StunMessage, read_message, write_attribute, write_head, write_message

PATIENCE: Final = 2.0  # seconds for one answer
_AGAIN: Final = 0.5  # seconds until a request is sent once more: a datagram may be lost
_ALLOCATE, _REFRESH = 0x0003, 0x0004
_SUCCESS, _ERROR = 0x0100, 0x0110
_UDP: Final = b"\x11\0\0\0"
_UNAUTHENTICATED: Final = 401
_SIGNATURE: Final = 24  # bytes of MESSAGE-INTEGRITY


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """What a TURN server says when it is asked for a relay: whether it answers at all, and why it gives none.

    `problem` is empty when it gives one.
    """

    answers: bool
    problem: str = ""


async def ask_for_relay(host: str, port: int, username: str, password: str) -> RelayAnswer:
    """Ask the server at this address or name for a relay over UDP, and give it back."""
    loop = asyncio.get_running_loop()
    try:
        family, *_, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
    except OSError as error:
        return RelayAnswer(answers=False, problem=f"it cannot be asked: {_in_words(error)}")
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        try:
            await loop.sock_connect(datagrams, address)
            wanted = {Attribute.REQUESTED_TRANSPORT: _UDP}
            told = await _ask(datagrams, _ALLOCATE, wanted)
            if told.kind != _ALLOCATE | _ERROR or told.error_code != _UNAUTHENTICATED:
                return RelayAnswer(answers=True, problem=f"asked without a password, it answers {_shown(told)}")
            realm, nonce = told.value(Attribute.REALM) or b"", told.value(Attribute.NONCE) or b""
            key = md5(f"{username}:{realm.decode()}:{password}".encode(), usedforsecurity=False).digest()
            signed = {Attribute.USERNAME: username.encode(), Attribute.REALM: realm, Attribute.NONCE: nonce}
            told = await _ask(datagrams, _ALLOCATE, {**wanted, **signed}, key)
            if told.kind != _ALLOCATE | _SUCCESS:
                return RelayAnswer(answers=True, problem=f"it gives no relay: {_shown(told)}")
            await _ask(datagrams, _REFRESH, {Attribute.LIFETIME: bytes(4), **signed}, key)
        except TimeoutError:
            return RelayAnswer(answers=False, problem=f"it does not answer within {PATIENCE:g} s")
        except (OSError, ValueError) as error:
            return RelayAnswer(answers=isinstance(error, ValueError), problem=f"it cannot be asked: {_in_words(error)}")
    return RelayAnswer(answers=True)


def _in_words(error: Exception) -> str:
    """Without the number of an error of the system."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def credentials(secret: str, user: str, until: int) -> tuple[str, str]:
    """User name and password that a TURN server with this secret takes until then (draft-uberti-behave-turn-rest-00).

    coturn computes SHA-1; collisions of SHA-1 do not weaken an HMAC.
    """
    username = f"{until}:{user}"
    return username, to_base64(hmac.digest(secret.encode(), username.encode(), sha1))


async def _ask(
    datagrams: socket.socket, method: int, attributes: dict[Attribute, bytes], key: bytes = b""
) -> StunMessage:
    """The answer to a request."""
    transaction = os.urandom(12)
    request = (
        _signed(method, transaction, attributes, key) if key else write_message(method, transaction, attributes.items())
    )
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        while True:
            await loop.sock_sendall(datagrams, request)
            try:
                async with asyncio.timeout(_AGAIN):
                    while True:
                        answer = read_message(await loop.sock_recv(datagrams, 2048))
                        if answer is not None and answer.transaction == transaction:
                            return answer
            except TimeoutError:
                continue


def _signed(method: int, transaction: bytes, attributes: dict[Attribute, bytes], key: bytes) -> bytes:
    """RFC 8489 section 14.5: the length counts the signature, which signs all before it."""
    body = b"".join(write_attribute(kind, value) for kind, value in attributes.items())
    before = write_head(method, len(body) + _SIGNATURE, transaction) + body
    return before + write_attribute(Attribute.MESSAGE_INTEGRITY, hmac.digest(key, before, sha1))


def _shown(answer: StunMessage) -> str:
    reason = (answer.value(Attribute.ERROR_CODE) or b"")[4:].decode(errors="replace").strip("\0 ")
    if answer.kind & _ERROR == _ERROR:
        return f"{answer.error_code} {reason}".strip()
    return f"a message of type {answer.kind:#06x}"
