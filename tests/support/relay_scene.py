"""Stores that only have the relay, with a server between them that lies: of Python, or of the browser SDK."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import pytest

from aldis.errors import PeerConnectionFailed
from aldis.identity.keys import Identity
from aldis.peer.connection import PeerTiming
from aldis.store.store import NetworkStore
from support.evil_server import EvilServer, Message, evil_server
from support.sdk_store import SdkError, SdkStore, sdk_store
from support.stores import QUICK, identities, new_store

HASTY = replace(QUICK, silence=0.5)

Talker: TypeAlias = "NetworkStore | SdkStore"
Languages: TypeAlias = "tuple[str, str]"

PYTHON = ("Python", "Python")
SDK = ("SDK", "SDK")
# Each language at either end, and with the other one. Two of the SDK, the slowest pair, show no more of each end.
PAIRS = (PYTHON, ("Python", "SDK"), ("SDK", "Python"))
EACH_LANGUAGE = pytest.mark.parametrize("languages", PAIRS, ids="-".join)


@dataclass
class Scene:
    server: EvilServer
    alice: Talker
    bob: Talker


async def accept_key(store: Talker, user_id: str, public_key: bytes) -> None:
    done = store.accept_key(user_id, public_key)
    if done is not None:
        await done


@asynccontextmanager
async def relay_store(
    language: str,
    server: EvilServer,
    address: str,
    identity: Identity,
    path: str = "relay",
    timing: PeerTiming = HASTY,
) -> AsyncIterator[Talker]:
    """A store that only has the relay, unless a store of Python gets another `path`; it knows nobody's key."""
    user_id, _, device = address.partition("/")
    python = language == "Python"
    made = new_store(timing=timing, path=path, identity=identity) if python else sdk_store(timing, identity)
    async with AsyncExitStack() as stack:
        store: Talker = await stack.enter_async_context(made)
        await store.connect_to_signaling(server.url, user_id, device=device or "main")
        yield store


@asynccontextmanager
async def scene(languages: Languages = PYTHON, path: str = "relay", timing: PeerTiming = HASTY) -> AsyncIterator[Scene]:
    """Alice and bob, who know each other's key."""
    keys = identities("alice", "bob")
    async with (
        evil_server(relay=True) as server,
        relay_store(languages[0], server, "alice", keys["alice"], path, timing) as alice,
        relay_store(languages[1], server, "bob", keys["bob"], path, timing) as bob,
    ):
        await accept_key(alice, "bob", keys["bob"].public_key)
        await accept_key(bob, "alice", keys["alice"].public_key)
        yield Scene(server, alice, bob)


async def cannot_reach(store: Talker, user_id: str, why: str = ".") -> None:
    """Nothing gets through to a user."""
    with pytest.raises((PeerConnectionFailed, SdkError), match=why) as failed:
        await store.connect_to_peer(user_id, timeout=2)
    assert not isinstance(failed.value, SdkError) or failed.value.name == "PeerConnectionFailed"


def sealed(message: Message) -> bytes:
    return b64decode(message["sealed"]) if message["type"] == "relay" else b""


def altered(message: Message, data: bytes) -> Message:
    return {**message, "sealed": b64encode(data).decode()}


def is_kind(message: Message, kind: int) -> bool:
    return sealed(message)[1:2] == bytes((kind,))
