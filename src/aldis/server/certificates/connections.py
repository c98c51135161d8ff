"""Connections of a certificate authority to the port with TLS: found by their ClientHello, and answered."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import cast

from aldis.server.admission import Place
from aldis.server.certificates import client_hello
from aldis.server.certificates.challenges import Challenges


async def challenge_context(accepted: socket.socket, challenges: Challenges) -> ssl.SSLContext | None:
    """What answers a connection of the authority; None for one of anybody else, of which nothing is read."""
    size = client_hello.size(await _peek(accepted, client_hello.RECORD_HEAD))
    hello = None if size is None else client_hello.read(await _peek(accepted, size))
    return None if hello is None else challenges.context(hello)


async def _peek(accepted: socket.socket, size: int) -> bytes:
    """Look at the first bytes of a connection, once so many have come or no more will come."""
    loop = asyncio.get_running_loop()
    # Or the socket would count as readable from the first byte on, again and again.
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
    readable = asyncio.Event()
    loop.add_reader(accepted, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(accepted)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    return accepted.recv(size, socket.MSG_PEEK)


class Challenged(asyncio.Protocol):
    """A connection of the authority: after the handshake there is nothing to say (RFC 8737 section 3)."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it. The handshake is over, and was all."""
        self._place.end = cast(asyncio.Transport, transport).abort
        transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Give its place free."""
        self._place.leave()
