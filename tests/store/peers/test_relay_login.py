"""What a login says to the server for sessions of the sealed relay."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from aldis.store.peers import relay_login
from aldis.store.peers.relay_login import RelayLogin


def login(client: SimpleNamespace) -> RelayLogin:
    """Nothing but sending is of interest."""
    anything: Any = None
    client_like: Any = client
    return RelayLogin(client_like, anything, anything, anything, anything)


async def test_a_server_that_does_not_take_a_message_is_asked_whether_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_login, "TAKEN", 0.01)
    suspected = asyncio.Event()

    async def relay(_to: str, _sealed: bytes) -> None:
        await suspected.wait()  # forever, if nobody asks

    await login(SimpleNamespace(relay=relay, suspect=suspected.set)).send("bob/main", b"")


async def test_a_server_that_takes_messages_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_login, "TAKEN", 0.0)
    suspected: list[str] = []

    async def relay(_to: str, _sealed: bytes) -> None:
        pass

    await login(SimpleNamespace(relay=relay, suspect=lambda: suspected.append("asked"))).send("bob/main", b"")
    for _ in range(3):
        await asyncio.sleep(0)
    assert suspected == []
