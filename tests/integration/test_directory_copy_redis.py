"""`aldis directory copy` between a SQLite file and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from aldis.backends.sqlite_file import FILE_NAME
from support.commands import Piped, aldis
from support.directories import content, fill
from support.patience import PATIENCE
from support.redis_server import RedisServer, Sentinels

PASSWORD = "s3cret-of-redis"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    settings = ("--appendonly", "yes", "--appendfsync", "always", "--requirepass", PASSWORD)
    with RedisServer(tmp_path / "redis", *settings) as server:
        yield server


@pytest.fixture
def url(server: RedisServer) -> str:
    return server.url(f"default:{PASSWORD}@")


async def first_names(server: RedisServer) -> None:
    """Wait until a copy has written the first names: the probe and the mark are none."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if int(server.say("-a", PASSWORD, "DBSIZE")) > 2:
                return
            await asyncio.sleep(0)


async def test_names_go_to_redis_and_back_whole(tmp_path: Path, url: str) -> None:
    source, back = await fill(tmp_path / "data" / FILE_NAME, 2500), tmp_path / "back.sqlite3"
    for words in (("--dry-run", source, url), (source, url), ("--verify", source, url), ("--exact", url, back)):
        done = aldis("directory", "copy", *words, home=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("2500 names at FROM")
        assert PASSWORD not in done.stdout + done.stderr
    assert content(back) == content(source)
    same = aldis("directory", "copy", url, url.replace("127.0.0.1", "localhost"), home=tmp_path)
    assert (same.returncode, same.stderr) == (2, "aldis: FROM and TO are the same directory\n")


async def test_the_password_may_be_in_a_file(tmp_path: Path, server: RedisServer) -> None:
    source = await fill(tmp_path / "data" / FILE_NAME, 10)
    wrong = aldis("directory", "copy", source, server.url("default:not-that@"), home=tmp_path)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("aldis: TO cannot be used: ")
    assert "not-that" not in wrong.stderr
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    words = ("--redis-password-file", tmp_path / "password", "--redis-prefix", "other:")
    done = aldis("directory", "copy", *words, source, server.url(), home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert server.say("-a", PASSWORD, "EXISTS", "other:{u:user000001}:binding") == "1"


async def test_a_redis_that_is_killed_in_the_middle_is_told_and_the_same_command_goes_on(
    tmp_path: Path, server: RedisServer, url: str
) -> None:
    source, back = await fill(tmp_path / "data" / FILE_NAME, 20_000), tmp_path / "back.sqlite3"
    async with Piped("directory", "copy", source, url, home=tmp_path) as command:
        await first_names(server)
        server.kill()
        said = await command.says("the same command goes on")
        assert "TO cannot be used: " in said
        assert PASSWORD not in said
        assert await command.end() == 1
    server.start()
    again = aldis("directory", "copy", source, url, home=tmp_path)
    assert again.returncode == 0, again.stderr
    assert 0 < int(again.stdout.split(": ")[1].split()[0]) < 20_000, "what was written before is there"
    assert aldis("directory", "copy", url, back, home=tmp_path).returncode == 0
    assert content(back) == content(source)


async def test_a_failover_in_the_middle_loses_no_name(tmp_path: Path) -> None:
    source, back = await fill(tmp_path / "data" / FILE_NAME, 5000), tmp_path / "back.sqlite3"
    with Sentinels(tmp_path / "redis", "--appendonly", "yes") as sentinels:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(sentinels.has_replica):
                pass
        async with Piped("directory", "copy", source, sentinels.url, home=tmp_path) as command:
            async with asyncio.timeout(PATIENCE):
                while int(sentinels.master.say("DBSIZE")) <= 2:
                    pass
                sentinels.fail_over()
                # What it had written may be lost: either it finds that out, or it was broken off and says so.
                if await command.end():
                    assert "the same command goes on" in command.errors
                while await asyncio.to_thread(sentinels.masters_port) != sentinels.replica.port:
                    pass
        # On a busy machine the Sentinel may do it again.
        while (done := aldis("directory", "copy", source, sentinels.url, home=tmp_path)).returncode:
            assert "the same command goes on" in done.stderr
        done = aldis("directory", "copy", sentinels.url, back, home=tmp_path)
        assert done.returncode == 0, done.stderr
    assert content(back) == content(source)
