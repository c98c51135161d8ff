"""When the keys of tokens are read, by a clock that the test turns."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aldis.errors import ConfigError
from aldis.server.http_calls import HttpCalls
from aldis.server.key_source import KeySource
from aldis.server.logs import get_logger
from support.application import Application
from support.tokens import jwks, public_jwk

LOG = get_logger("aldis.test")


class Clock:
    """Seconds; the test turns it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_file_that_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "jwks.json", Clock()
    path.write_bytes(jwks(public_jwk("EdDSA")))
    source = KeySource(path, HttpCalls(), LOG, refresh=1000, clock=clock)
    await source.start()
    first = source.keys
    clock.now += 11
    assert source.age == 11
    assert await source.look() == "done"
    assert source.keys is first
    assert source.age == 0
    path.write_bytes(jwks(public_jwk("ES256", "k2")))
    assert await source.look() == 10.0
    clock.now += 4
    assert await source.look() == 6.0
    clock.now += 6
    assert await source.look() == "done"
    assert source.keys is not None
    assert [key.kid for key in source.keys.keys] == ["k2"]
    await source.close()


async def test_a_file_that_is_broken_for_a_while_changes_nothing(tmp_path: Path) -> None:
    path, clock = tmp_path / "jwks.json", Clock()
    text = jwks(public_jwk("EdDSA"))
    path.write_bytes(text)
    source = KeySource(path, HttpCalls(), LOG, refresh=1000, clock=clock)
    await source.start()
    first = source.keys
    for broken in (b"{", None):
        if broken is None:
            path.unlink()
        else:
            path.write_bytes(broken)
        assert await source.look(now=True) == "failed"
        assert source.keys is first
    clock.now += 100
    assert source.age == 100
    path.write_bytes(text)
    assert await source.look(now=True) == "done"
    assert (source.failing, source.age) == (None, 0)
    assert dict(source.looks) == {"read": 2, "failed": 2}
    await source.close()


async def test_all_that_wait_for_a_look_wait_for_the_same_one() -> None:
    clock = Clock()
    async with Application(jwks=jwks(public_jwk("EdDSA"))) as app:
        calls = HttpCalls()
        source = KeySource(app.url("/jwks"), calls, LOG, refresh=1000, clock=clock)
        await source.start()
        clock.now += 10
        app.hanging.add("/jwks")
        looks = [asyncio.create_task(source.look()) for _ in range(100)]
        await app.asked(2)
        app.let_go()
        assert set(await asyncio.gather(*looks)) == {"done"}
        assert len(app.requests) == 2
        assert await source.look() == 10.0
        await source.close()
        await calls.close()


async def test_a_look_that_hangs_ends_with_the_server() -> None:
    async with Application(jwks=jwks(public_jwk("EdDSA"))) as app:
        calls = HttpCalls()
        source = KeySource(app.url("/jwks"), calls, LOG, refresh=1000)
        await source.start()
        app.hanging.add("/jwks")
        look = asyncio.create_task(source.look(now=True))
        await app.asked(2)
        await source.close()
        with pytest.raises(asyncio.CancelledError):
            await look
        await calls.close()


async def test_a_file_that_is_not_there_at_the_start_is_an_error(tmp_path: Path) -> None:
    source = KeySource(tmp_path / "none.json", HttpCalls(), LOG, refresh=1000)
    with pytest.raises(ConfigError, match="No such file"):
        await source.start()
    await source.close()
