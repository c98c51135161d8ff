"""Tokens of the operator's accounts: a real server that wants them, and a client that gets them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
from aldis.client.events import Closed, Disconnected, Registered
from aldis.errors import RequestFailed, TokenUnavailable
from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from aldis.server.tuning import Tuning
from aldis.store.store import NetworkStore
from support.settings import config
from support.tokens import an_hour_passes, jwks, public_jwk, token

AT_ONCE = Backoff(first=0.01, most=0.05)


def token_for(name: str, seconds: float = 600) -> str:
    return token({"sub": name, "exp": int(time.time()) + seconds})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[SignalingServer]:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(public_jwk("EdDSA")))
    settings: dict[str, Any] = {"token_leeway": 0, "token_grace": 0, "ping_interval": 1}
    async with SignalingServer(config(auth="token", jwks=path, **settings), tuning=Tuning(tick=0.05)) as server:
        yield server


async def test_a_server_that_wants_a_token_says_so_and_takes_the_right_one_only(server: SignalingServer) -> None:
    cases = {"token-required": None, "token-expired": token_for("alice", -5), "token-invalid": token_for("bob")}
    for code, text in cases.items():
        async with SignalingClient(server.url, "alice", token=text) as client:
            with pytest.raises(RequestFailed) as refused:
                await client.register(Identity.generate())
            assert refused.value.code == code
    async with NetworkStore() as store:
        await store.connect_to_signaling(server.url, "alice", token=token_for("alice"))


async def test_a_client_gets_another_token_when_its_own_has_expired_and_its_session_goes_on(
    server: SignalingServer,
) -> None:
    lives = [600, 7200]

    async def fresh() -> str:
        return token_for("alice", lives.pop(0))

    async with SignalingClient(server.url, "alice", token=fresh, backoff=AT_ONCE) as client:
        await client.register(Identity.generate())
        an_hour_passes(server, "alice")
        events = client.events()
        lost = await anext(event async for event in events if isinstance(event, Disconnected))
        assert (lost.code, lost.reason) == (4006, "the token has expired")
        assert (await anext(event async for event in events if isinstance(event, Registered))).resumed
        assert lives == []


async def test_a_client_with_a_fixed_token_ends_when_that_has_expired(server: SignalingServer) -> None:
    async with SignalingClient(server.url, "alice", token=token_for("alice"), backoff=AT_ONCE) as client:
        await client.register(Identity.generate())
        an_hour_passes(server, "alice")
        closed = await anext(event async for event in client.events() if isinstance(event, Closed))
        assert isinstance(closed.error, RequestFailed)
        assert closed.error.code == "token-expired"


async def test_a_function_that_gives_no_token_fails_the_registration_and_may_be_called_again(
    server: SignalingServer,
) -> None:
    def fails() -> str:
        raise OSError("the secret of the program")

    async def hangs() -> str:
        await asyncio.Event().wait()
        return ""

    given: list[Any] = [fails, lambda: 5, lambda: "x" * 4097, hangs, lambda: token_for("alice")]
    async with SignalingClient(
        server.url, "alice", token=lambda: given.pop(0)(), connect_timeout=0.5, backoff=AT_ONCE
    ) as client:
        for reason in ("raised OSError", "no text, but int", "more than 4096 bytes", r"none within 0.5 s"):
            with pytest.raises(TokenUnavailable, match=reason) as failed:
                await client.register(Identity.generate())
            assert "secret" not in str(failed.value)
        await client.register(Identity.generate())


async def test_a_client_whose_program_has_no_token_for_a_while_comes_back_later(server: SignalingServer) -> None:
    calls = 0

    def fresh() -> str:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise OSError
        return token_for("alice", 600 if calls == 1 else 7200)

    async with SignalingClient(server.url, "alice", token=fresh, backoff=AT_ONCE) as client:
        await client.register(Identity.generate())
        an_hour_passes(server, "alice")
        events = client.events()
        codes = []
        async for event in events:
            if isinstance(event, Disconnected):
                codes.append(event.code)
            if isinstance(event, Registered):
                assert event.resumed
                break
        assert codes == [4006, 1006, 1006]


async def test_a_client_that_is_closed_while_it_waits_for_a_token_is_closed(server: SignalingServer) -> None:
    waits = asyncio.Event()
    given = [token_for("alice")]

    async def fresh() -> str:
        if given:
            return given.pop()
        waits.set()
        await asyncio.Event().wait()
        return ""

    client = SignalingClient(server.url, "alice", token=fresh, backoff=AT_ONCE)
    await client.connect()
    await client.register(Identity.generate())
    an_hour_passes(server, "alice")
    await waits.wait()
    await client.close()
