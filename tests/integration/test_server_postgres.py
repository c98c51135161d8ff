"""Servers whose names are in a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from aldis.backends.sqlite import SqliteDirectory
from aldis.identity.keys import Identity
from aldis.protocol.privacy import PrivacyChange
from support.commands import aldis
from support.ports import free_port
from support.postgres_server import PASSWORD, postgres_server
from support.redis_server import RedisServer
from support.registrations import register, reply_to_register
from support.server_process import ServerProcess


async def test_two_servers_share_their_names_while_the_database_comes_and_goes(tmp_path: Path) -> None:
    alice, bob = Identity.generate(), Identity.generate()

    with postgres_server() as database:
        url = f"postgresql://postgres:{quote(PASSWORD)}@127.0.0.1:{database.port}/{database.new_database()}"
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        first, second = (ServerProcess(tmp_path / name, directory=url) for name in ("one", "two"))
        async with first, second:
            assert await register(first, "alice", alice) == "registered"
            assert await register(second, "alice", alice) == "registered"
            assert await register(second, "alice", bob) == "key-mismatch"
            database.kill()
            for server in (first, second):
                refused = await reply_to_register(server, "bob", bob)
                assert (refused["code"], refused["temporary"], refused["retryAfter"]) == ("internal", True, 1.0)
            database.start()
            assert await register(first, "bob", bob) == "registered"
            assert await register(second, "bob", alice) == "key-mismatch"
            assert await first.stop() == 0
            assert await second.stop() == 0
    for server in (first, second):
        text = server.log_text()
        assert "cannot be reached" in text
        assert "the directory of names answers again" in text
        assert "Traceback" not in text
        assert PASSWORD not in text
        assert quote(PASSWORD) not in text


async def test_the_names_move_to_postgresql_to_redis_and_back(tmp_path: Path) -> None:
    before, after = tmp_path / "before.sqlite3", tmp_path / "after.sqlite3"
    names = ["alice", "straße", "zoë", "😀", "a'b", "Ümit"]
    directory = await SqliteDirectory.open(before)
    for number, name in enumerate(names):
        await directory.claim(name, bytes([number]) * 32)
        await directory.list_name(name)
    change = PrivacyChange("contacts", "hidden", add_contacts=frozenset(names), block=frozenset({"eve"}))
    await directory.change_privacy("zoë", b"\x02" * 32, change)
    expected = await directory.bindings("", 100), await directory.listed_names("", 100)
    await directory.close()
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with postgres_server() as database, RedisServer(tmp_path / "redis", *durable) as redis:
        at = f"postgres:{quote(PASSWORD)}@127.0.0.1:{database.port}"
        url, other = (f"postgresql://{at}/{database.new_database()}" for _ in range(2))
        said = ""
        for words in (
            *((before, url), ("--verify", before, url)),
            *((url, redis.url()), ("--verify", url, redis.url())),
            *((redis.url(), other), ("--verify", url, other)),
            *((other, after), ("--verify", url, after)),
        ):
            result = aldis("directory", "copy", *words, home=tmp_path)
            assert result.returncode == 0, result.stderr
            said += result.stdout + result.stderr
        assert PASSWORD not in said
        assert quote(PASSWORD) not in said
        database.kill()
        result = aldis("directory", "copy", "--verify", url, after, home=tmp_path)
        assert result.returncode == 1
        assert "cannot be reached" in result.stderr
        assert quote(PASSWORD) not in result.stderr
    directory = await SqliteDirectory.open(after)
    assert (await directory.bindings("", 100), await directory.listed_names("", 100)) == expected
    await directory.close()


async def test_a_server_whose_database_is_away_does_not_start_and_says_why(tmp_path: Path) -> None:
    url = f"postgresql://aldis:{quote(PASSWORD)}@127.0.0.1:1/names"
    words = ("serve", "--port", str(free_port()), "--admin-port", "none", "--data", tmp_path / "data")
    ended = aldis(*words, home=tmp_path, extra={"ALDIS_DIRECTORY": url})
    assert ended.returncode == 1
    first, *hint = ended.stderr.splitlines()
    assert first.startswith("aldis: the PostgreSQL database names at 127.0.0.1:1 cannot be reached (")
    assert "ALDIS_DIRECTORY" in " ".join(hint)
    assert quote(PASSWORD) not in ended.stdout + ended.stderr
    assert PASSWORD not in ended.stdout + ended.stderr
