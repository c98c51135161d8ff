"""Proves that both sides of a code know its words, before any file is offered. See `codes` for what it promises.

recipient -> pake      the one guess is taken
sender    -> pake
recipient -> proof     a wrong one ends it: the code is used up
sender    -> proof     or `wrong`
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from aldis.cli import codes
from aldis.errors import AldisError, PeerOffline
from aldis.store.state import Message, PeerView, StoreState
from aldis.store.store import NetworkStore

_STEP_SECONDS: Final = 30.0  # for one message of the exchange: a slow path takes a few
_FAREWELL: Final = 3.0  # seconds for a refusal to arrive; who has guessed may not wait for it
_ATTEMPT: Final = 30.0  # seconds for one connection


async def confirm_recipient(store: NetworkStore, code: str, limit: float | None) -> str | None:
    """Wait for a recipient that knows the code; None when a guess was wrong. Raises `PeerOffline` after `limit`
    seconds without anybody."""
    messages = store.messages()
    try:
        async with asyncio.timeout(limit):
            while True:
                first = await anext(messages)
                pake = codes.read(first.content, "pake")
                if pake is not None and first.sender.startswith(codes.RECIPIENT):
                    break
    except TimeoutError:
        raise PeerOffline("the recipient") from None
    peer = first.sender
    exchange = codes.Exchange(code, store.identity.public_key, _key_of(store, peer), sending=True)
    right = exchange.received(pake)
    try:
        store.send(peer, codes.write(pake=exchange.message))
        async with asyncio.timeout(_STEP_SECONDS):
            proof = await _next(messages, peer, "proof")
        right = right and exchange.check(proof)
        if right:
            store.set_path(peer, "auto")
        store.send(peer, codes.write(proof=exchange.proof) if right else {"aldis": "code", "wrong": True})
        if not right:
            await store.drain(peer, timeout=_FAREWELL)
    except (TimeoutError, AldisError):
        return None  # whoever it was had its guess
    return peer if right else None


async def confirm_sender(store: NetworkStore, code: str, peer: str) -> bool:
    """Show a connected sender that we know the code; False when it is wrong. Raises `TimeoutError`."""
    exchange = codes.Exchange(code, _key_of(store, peer), store.identity.public_key, sending=False)
    messages = store.messages()
    store.send(peer, codes.write(pake=exchange.message))
    async with asyncio.timeout(_STEP_SECONDS):
        if not exchange.received(await _next(messages, peer, "pake")):
            return False
        store.send(peer, codes.write(proof=exchange.proof))
        proof = await _next(messages, peer, "proof")
    if not exchange.check(proof):
        return False
    store.set_path(peer, "auto")
    return True


async def find_sender(store: NetworkStore, code: str, limit: float | None) -> str | None:
    """Connect to the sender of a code, and return its name; None when there is none after `limit` seconds. Raises
    `PeerError` when there is no way to it."""
    names = codes.sender_names(code, time.time())
    await store.watch(*names)
    try:
        async with asyncio.timeout(limit):
            async for state in store.states():
                online = [name for name in names if _is_online(state, name)]
                if online:
                    await store.connect_to_peer(online[0], timeout=_ATTEMPT)
                    return online[0]
    except TimeoutError:
        pass
    return None


def _is_online(state: StoreState, name: str) -> bool:
    view: PeerView | None = state.peers.get(name)
    return view is not None and view.online is True


def _key_of(store: NetworkStore, peer: str) -> bytes:
    """The identity key with which the connection was made; it is pinned, so it stays the same."""
    view = store.state.peers.get(peer)
    return b"" if view is None or view.public_key is None else view.public_key


async def _next(messages: AsyncIterator[Message], peer: str, name: str) -> bytes:
    """The next part of the exchange from this peer; empty when it says that the code is wrong."""
    async for message in messages:
        if message.sender != peer:
            continue
        part = codes.read(message.content, name)
        if part is not None:
            return part
        if isinstance(message.content, dict) and message.content.get("wrong") is True:
            return b""
    raise TimeoutError
