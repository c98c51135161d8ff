"""The directory in Redis, where the server ends, stops answering, or does not promise enough."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aldis.backends import redis, redis_lane
from aldis.backends.base import Binding, Claim, DirectoryUnavailable
from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX, DirectoryOptions
from aldis.backends.opening import open_directory
from aldis.backends.redis import SYNC_MS, RedisDirectory
from aldis.backends.redis_client import Command, RedisServers
from aldis.backends.redis_url import RedisUrl
from aldis.errors import ConfigError
from aldis.protocol.privacy import Privacy, PrivacyChange
from support.loop_turns import Turns
from support.redis_server import RedisServer

KEY_A = b"a" * 32
KEY_B = b"b" * 32


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
async def directory(server: RedisServer) -> AsyncIterator[RedisDirectory]:
    warned: list[str] = []
    directory = await RedisDirectory.open(RedisUrl.parse(server.url()), warn=warned.append)
    assert warned == []
    yield directory
    await directory.close()


async def test_what_has_returned_survives_kill_9(directory: RedisDirectory, server: RedisServer) -> None:
    names = [f"user{number}" for number in range(300)]
    claims = [asyncio.ensure_future(directory.claim(name, KEY_A)) for name in names]
    await asyncio.wait(claims, return_when=asyncio.FIRST_COMPLETED)
    await directory.change_privacy(names[0], KEY_A, PrivacyChange(block=frozenset({"eve"})))
    await directory.list_name("carol")
    server.kill()
    ended = await asyncio.gather(*claims, return_exceptions=True)
    server.start()
    returned = [name for name, claim in zip(names, ended, strict=True) if isinstance(claim, Claim)]
    assert returned
    assert await asyncio.gather(*map(directory.find, returned)) == [KEY_A] * len(returned)
    assert await directory.load(names[0]) == Claim(KEY_A, False, Privacy(blocked=frozenset({"eve"})))
    assert await directory.is_listed("carol")


async def test_a_server_that_is_away_is_told_and_used_again_when_it_is_back(
    directory: RedisDirectory, server: RedisServer
) -> None:
    await directory.claim("alice", KEY_A)
    server.kill()
    for call in (directory.find("alice"), directory.claim("bob", KEY_B), directory.check()):
        with pytest.raises(DirectoryUnavailable, match=f"Redis at 127.0.0.1:{server.port} cannot be reached"):
            await call
    assert not directory.healthy
    server.start()
    assert await directory.find("alice") == KEY_A
    assert await directory.claim("bob", KEY_B) == Claim(KEY_B, new=True)  # the server has forgotten all scripts
    assert directory.healthy


async def test_a_server_that_does_not_answer_is_an_error_and_blocks_nobody(
    directory: RedisDirectory, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_lane, "PATIENCE", 0.2)
    await directory.claim("alice", KEY_A)
    server.pause()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    # More than one batch: those that wait fail with the first.
    calls = (directory.find(f"user{number}") for number in range(3 * redis_lane.MAX_BATCH))
    answers = await asyncio.gather(*calls, directory.rotate("alice", KEY_A, KEY_B), return_exceptions=True)
    counting.cancel()
    assert all(isinstance(answer, DirectoryUnavailable) for answer in answers)
    assert "does not answer in time" in str(answers[0]), answers[0]
    assert turns > 100
    assert not directory.healthy
    server.resume()
    assert await directory.find("alice") in (KEY_A, KEY_B)
    assert await directory.rotate("alice", KEY_A, KEY_B)
    assert directory.healthy


class LateDisk(RedisServers):
    """A Redis 7.2 whose disk is late while `late` is set: all takes effect, and nothing is on the disk."""

    def __init__(self, where: RedisUrl) -> None:
        super().__init__(where)
        self.late: asyncio.Event | None = None
        self.synced = 0

    async def run(self, commands: Sequence[Command], *, sync_ms: int | None = None, ordered: bool = False) -> list[Any]:
        answers = await super().run(commands, ordered=ordered)
        if sync_ms is None:
            return answers
        self.synced += 1
        if self.late is None:
            return answers
        await self.late.wait()
        return [TimeoutError("its append-only file was not synced in time")] * len(answers)


@pytest.fixture
async def late_disk(server: RedisServer) -> LateDisk:
    return LateDisk(RedisUrl.parse(server.url()))


@pytest.fixture
async def late_directory(late_disk: LateDisk) -> AsyncIterator[RedisDirectory]:
    directory = RedisDirectory(late_disk, DEFAULT_REDIS_PREFIX)
    directory._writes.sync_ms = SYNC_MS
    yield directory
    await directory.close()


async def test_a_claim_that_is_made_again_waits_for_the_disk_again(
    late_directory: RedisDirectory, late_disk: LateDisk
) -> None:
    late_disk.late = asyncio.Event()
    late_disk.late.set()
    for _ in range(2):
        with pytest.raises(DirectoryUnavailable, match="not synced in time"):
            await late_directory.claim("alice", KEY_A)
    late_disk.late = None
    assert await late_directory.claim("alice", KEY_A) == Claim(KEY_A, new=False)
    assert late_disk.synced == 3
    assert await late_directory.claim("alice", KEY_A) == Claim(KEY_A, new=False)
    assert late_disk.synced == 3


async def test_a_claim_beside_another_one_of_the_name_does_not_return_before_the_disk_has_it(
    late_directory: RedisDirectory, late_disk: LateDisk
) -> None:
    late_disk.late = asyncio.Event()
    claims = [asyncio.ensure_future(late_directory.claim("alice", KEY_A))]
    while await late_directory.find("alice") is None:
        pass
    claims.append(asyncio.ensure_future(late_directory.claim("alice", KEY_A)))
    while late_disk.synced < 2 and not claims[1].done():
        await late_directory.find("alice")
    assert not claims[1].done()
    late_disk.late.set()
    ended = await asyncio.gather(*claims, return_exceptions=True)
    assert all(isinstance(each, DirectoryUnavailable) for each in ended)


async def test_a_key_that_was_rotated_counts_at_a_claim_once_the_disk_has_it(
    late_directory: RedisDirectory, late_disk: LateDisk
) -> None:
    await late_directory.claim("alice", KEY_A)
    late_disk.late = asyncio.Event()
    late_disk.late.set()
    with pytest.raises(DirectoryUnavailable, match="not synced in time"):
        await late_directory.rotate("alice", KEY_A, KEY_B)
    with pytest.raises(DirectoryUnavailable, match="not synced in time"):
        await late_directory.claim("alice", KEY_B)
    late_disk.late = None
    assert await late_directory.claim("alice", KEY_B) == Claim(KEY_B, new=False)


async def test_a_claim_and_a_rotation_that_are_made_again_write_for_waitaof(
    directory: RedisDirectory, server: RedisServer
) -> None:
    def written() -> int:
        lines = server.say("info", "persistence").splitlines()
        return next(int(line.split(":")[1]) for line in lines if line.startswith("aof_current_size:"))

    await directory.rotate("alice", KEY_A, KEY_B)  # free: nothing to write
    sizes = [written()]
    await directory.claim("alice", KEY_B)
    sizes.append(written())
    again = Command(redis._CLAIM, directory._key("alice"), (KEY_A,))
    assert await directory._bind("alice", again) == [0, KEY_B, None, None, None, None]
    sizes.append(written())
    assert await directory.rotate("alice", KEY_A, KEY_B)
    sizes.append(written())
    assert sizes == sorted(set(sizes))
    assert not await directory.rotate("alice", KEY_A, b"c" * 32)
    assert written() == sizes[-1]


async def test_calls_beyond_the_limit_are_refused_at_once(
    directory: RedisDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_lane, "MAX_WAITING", 2)
    answers = await asyncio.gather(*(directory.find("alice") for _ in range(3)), return_exceptions=True)
    assert answers[:2] == [None, None]
    assert isinstance(answers[2], DirectoryUnavailable)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (("maxmemory", "1"), "has no memory left"),
        (("min-replicas-to-write", "1"), "refuses a command"),
    ],
)
async def test_a_server_that_takes_no_writes_is_still_read(
    directory: RedisDirectory, server: RedisServer, setting: tuple[str, str], words: str
) -> None:
    await directory.claim("alice", KEY_A)
    server.say("config", "set", *setting)
    assert await directory.claim("alice", KEY_B) == Claim(KEY_A, new=False)
    for call in (directory.claim("bob", KEY_B), directory.check()):
        with pytest.raises(DirectoryUnavailable, match=words):
            await call
    assert not directory.healthy
    server.say("config", "set", setting[0], "0")
    await directory.check()
    assert directory.healthy


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("--appendonly", "no"), "has no append-only file"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "may lose the names of the last second"),
        (("--appendonly", "yes", "--appendfsync", "no"), "leaves it to its machine"),
    ],
)
async def test_what_the_settings_of_the_server_do_not_promise_is_said_at_the_start(
    tmp_path: Path, settings: tuple[str, ...], words: str
) -> None:
    warned: list[str] = []
    with RedisServer(tmp_path / "redis", *settings) as server:
        directory = await open_directory(server.url(), warn=warned.append)
        await directory.close()
        if "everysec" in settings and server.say("command", "info", "waitaof"):
            assert warned == []  # each call waits for the sync
        else:
            (text,) = warned
            assert words in text


async def test_a_server_that_evicts_names_is_refused(server: RedisServer) -> None:
    server.say("config", "set", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(DirectoryUnavailable, match=r"removes names .*allkeys-lru.*: set noeviction"):
        await open_directory(server.url())


async def test_nobody_at_the_port_is_said_at_the_start(server: RedisServer) -> None:
    server.kill()
    with pytest.raises(DirectoryUnavailable, match="cannot be reached"):
        await open_directory(server.url())


async def test_a_user_of_the_acl_needs_no_more_than_the_documented_rules(server: RedisServer, tmp_path: Path) -> None:
    rules = "~aldis:* +@read +@write +@scripting +@connection -@dangerous +info +config|get"
    server.say("acl", "setuser", "aldis", "on", ">p@ss/word", *rules.split())
    server.say("acl", "setuser", "reader", "on", ">p@ss/word", "~aldis:*", "+@read", "+@connection")
    warned: list[str] = []
    directory = await open_directory(server.url("aldis:p%40ss%2Fword@"), warn=warned.append)
    assert await directory.claim("alice", KEY_A) == Claim(KEY_A, new=True)
    await directory.list_name("alice")
    assert len(await directory.bindings("", 10)) == 1
    await directory.close()
    assert warned == []
    file = tmp_path / "password"
    file.write_text("p@ss/word\n")
    directory = await open_directory(server.url("aldis@"), DirectoryOptions(redis_password_file=file))
    assert await directory.find("alice") == KEY_A
    await directory.close()
    for login, words in {
        "aldis:wrong@": "refuses the user",
        "reader:p%40ss%2Fword@": "does not allow its user",
    }.items():
        with pytest.raises(DirectoryUnavailable, match=words) as refused:
            await open_directory(server.url(login))
        assert "p@ss" not in str(refused.value)
        assert "wrong" not in str(refused.value)


async def test_the_keys_of_another_prefix_are_not_seen(server: RedisServer) -> None:
    one = await open_directory(server.url(), DirectoryOptions(redis_prefix="a:"))
    other = await open_directory(server.url(), DirectoryOptions(redis_prefix="a:b:"))
    await one.claim("alice", KEY_A)
    await other.claim("bob", KEY_B)
    assert [binding.user_id for binding in await one.bindings("", 10)] == ["alice"]
    assert [binding.user_id for binding in await other.bindings("", 10)] == ["bob"]
    await one.close()
    await other.close()


async def test_a_file_without_a_password_is_an_error_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    for name in ("missing", "empty"):
        with pytest.raises(ConfigError, match="redis_password_file"):
            await open_directory("redis://127.0.0.1:1", DirectoryOptions(redis_password_file=tmp_path / name))


async def test_a_turn_of_the_loop_reads_few_long_lists(
    directory: RedisDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Privacy(contacts=frozenset(f"{number}".ljust(44, "x") for number in range(1000)))
    names = [f"user{number}" for number in range(60)]
    for name in names:
        await directory.put(Binding(name, KEY_A, long))
    turns, read = Turns(), redis._privacy

    def reading(fields: list[bytes | None]) -> Privacy:
        turns.happens()
        return read(fields)

    monkeypatch.setattr(redis, "_privacy", reading)
    async with turns:
        assert await asyncio.gather(*map(directory.load, names)) == [Claim(KEY_A, False, long)] * 60
    assert turns.busiest <= 3


async def test_a_turn_of_the_loop_wakes_some_of_the_many_who_ask_at_once(
    directory: RedisDirectory, server: RedisServer
) -> None:
    turns = Turns()

    async def find(name: str) -> None:
        try:
            await directory.find(name)
        except DirectoryUnavailable:
            failed.append(name)
        turns.happens()

    failed: list[str] = []
    async with turns:
        await asyncio.gather(*[find(f"user{number}") for number in range(1500)])
        assert not failed
        assert turns.busiest <= 64
        server.kill()
        await asyncio.gather(*[find(f"user{number}") for number in range(1500)])
        assert len(failed) == 1500
        assert turns.busiest <= 64


async def test_long_lists_go_to_the_server_in_several_batches(
    directory: RedisDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Privacy(contacts=frozenset(f"{number}".ljust(44, "x") for number in range(1000)))
    sent, run = [0], RedisServers.run

    async def running(servers: RedisServers, commands: Sequence[Command], **options: Any) -> list[Any]:
        sent.append(sum(len(word) for each in commands for word in each.words if not isinstance(word, int)))
        return await run(servers, commands, **options)

    monkeypatch.setattr(RedisServers, "run", running)
    await asyncio.gather(*[directory.put(Binding(f"user{number}", KEY_A, long)) for number in range(100)])
    assert max(sent) < redis_lane.MAX_BYTES + 50_000
    assert (await directory.load("user99")) == Claim(KEY_A, False, long)


async def test_changes_of_one_privacy_at_two_servers_all_count(directory: RedisDirectory, server: RedisServer) -> None:
    other = await RedisDirectory.open(RedisUrl.parse(server.url()))
    await directory.claim("alice", KEY_A)
    names = [f"user{number}" for number in range(60)]
    changes = [
        place.change_privacy("alice", KEY_A, PrivacyChange(block=frozenset({name})))
        for place, name in zip([directory, other] * 30, names, strict=True)
    ]
    assert all(isinstance(each, Privacy) for each in await asyncio.gather(*changes))
    assert await directory.load("alice") == Claim(KEY_A, False, Privacy(blocked=frozenset(names)))
    await other.close()


@pytest.mark.parametrize("before", [Privacy(), Privacy("hidden", "contacts", frozenset({"carol"}))])
async def test_a_change_of_a_server_that_knows_no_revisions_is_kept(
    directory: RedisDirectory, server: RedisServer, monkeypatch: pytest.MonkeyPatch, before: Privacy
) -> None:
    await directory.put(Binding("alice", KEY_A, before))
    ask, between = directory._writes.ask, ["contacts", "carol\nbob\n", "presence", "hidden", "offers", "hidden"]

    async def beaten(command: Command) -> Any:
        if between:
            server.say("hset", command.key, *between)
            between.clear()
        return await ask(command)

    monkeypatch.setattr(directory._writes, "ask", beaten)
    changed = await directory.change_privacy("alice", KEY_A, PrivacyChange(block=frozenset({"eve"})))
    kept = Privacy("hidden", "hidden", frozenset({"carol", "bob"}), frozenset({"eve"}))
    assert changed == kept
    assert await directory.load("alice") == Claim(KEY_A, False, kept)


async def test_a_privacy_that_others_change_all_the_time_is_told(
    directory: RedisDirectory, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await directory.claim("alice", KEY_A)
    monkeypatch.setattr(redis, "_TRIES", 3)
    ask = directory._writes.ask

    async def beaten(command: Command) -> Any:
        server.say("hset", command.key, "revision", os.urandom(4).hex())
        return await ask(command)

    monkeypatch.setattr(directory._writes, "ask", beaten)
    with pytest.raises(DirectoryUnavailable, match="changed all the time"):
        await directory.change_privacy("alice", KEY_A, PrivacyChange(presence="hidden"))
