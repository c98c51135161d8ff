"""Honest users of the server's other ports: who asks for an address, who is sent on to https, and the operator."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic
from typing import Any, Final

from aldis.protocol.stun import BINDING_REQUEST, BINDING_SUCCESS, read_message, write_message
from benchmarks.attack.wire import ADMIN_TOKEN, Target, Wire

EVERY: Final = 0.3
ADDRESS: Final = "127.0.0.2"
# Seconds until something that has no answer counts as refused.
PATIENCE: Final = 10.0
# RFC 8489 section 6.2.1: seconds until a request is sent again, doubled each time, and how often it is sent.
AGAIN: Final = 0.5
TIMES: Final = 7

Report = Callable[[float, str], None]
"""When something began, and how it was refused."""


async def ask_stun(target: Target) -> None:
    """Ask for the own address, as an ICE agent does."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((ADDRESS, 0))
        transaction, wait = os.urandom(12), AGAIN
        for _ in range(TIMES):
            sock.sendto(write_message(BINDING_REQUEST, transaction), ("127.0.0.1", target.stun))
            try:
                async with asyncio.timeout(wait):
                    message = read_message(await loop.sock_recv(sock, 2048))
            except TimeoutError:
                wait *= 2
                continue
            if message is None or message.kind != BINDING_SUCCESS or message.transaction != transaction:
                raise OSError(f"another answer: {message}")
            return


async def visit(target: Target) -> None:
    """Come to the plain port, and be sent on to https."""
    wire = await Wire.dial(target, ADDRESS, port=target.redirect)
    try:
        await wire.send(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{target.redirect}\r\n\r\n".encode())
        head = await wire.head()
    finally:
        wire.sock.close()
    if b" 308 " not in head[:16]:
        raise OSError(f"the reply is {head[:80]!r}")


async def operate(target: Target) -> None:
    """Look after the server: a probe, and a question to the admin API."""
    for path in ("/readyz", "/api/v1/statistics"):
        wire = await Wire.dial(target, ADDRESS, port=target.admin)
        try:
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
            await wire.send(head.encode())
            reply = await wire.head()
        finally:
            wire.sock.close()
        if b" 200 " not in reply[:16]:
            raise OSError(f"{path}: the reply is {reply[:80]!r}")


async def again(what: Callable[[Target], Awaitable[None]], target: Target, refused: Report) -> None:
    """Do something now and then, and tell when it does not succeed."""
    while True:
        began = monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                await what(target)
        except (OSError, TimeoutError) as error:
            refused(began, f"{what.__name__}: {str(error) or 'no answer'}")
        await asyncio.sleep(EVERY)


def bystanders(target: Target, refused: Report) -> list[Coroutine[Any, Any, None]]:
    """What the users of all open ports do."""
    all_of = ((target.stun, ask_stun), (target.redirect, visit), (target.admin, operate))
    return [again(what, target, refused) for port, what in all_of if port]
