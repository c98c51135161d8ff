"""The directory in several Redis servers: behind a Sentinel, and in a Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from aldis.backends.base import Binding, Claim, DirectoryUnavailable
from aldis.backends.opening import open_directory
from aldis.protocol.privacy import Privacy, PrivacyChange
from support.patience import PATIENCE
from support.redis_server import Cluster, Sentinels

KEY_A = b"a" * 32
KEY_B = b"b" * 32
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):
            pass


async def test_names_go_on_at_the_new_master_that_a_sentinel_names(tmp_path: Path) -> None:
    with Sentinels(tmp_path, *DURABLE) as sentinels:
        await until(sentinels.has_replica)
        directory = await open_directory(sentinels.url)
        await directory.claim("alice", KEY_A)
        await until(lambda: sentinels.replica.say("exists", "aldis:{u:alice}:binding") == "1")
        sentinels.master.kill()
        await until(lambda: sentinels.masters_port() == sentinels.replica.port)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    claim = await directory.claim("bob", KEY_B)
                    break
                except DirectoryUnavailable:
                    continue
        assert claim.public_key == KEY_B
        assert await directory.find("alice") == KEY_A
        assert directory.healthy
        # The old master comes back, and is told to be a replica: it does not answer as a master with old data.
        sentinels.master.start()
        assert await directory.claim("alice", KEY_B) == Claim(KEY_A, new=False)
        await directory.close()


async def test_names_of_all_slots_are_in_a_cluster(tmp_path: Path) -> None:
    with Cluster(tmp_path, *DURABLE) as cluster:
        await until(lambda: all("cluster_state:ok" in server.say("cluster", "info") for server in cluster.servers))
        warned: list[str] = []
        directory = await open_directory(cluster.url, warn=warned.append)
        assert warned == []
        names = [f"user{number:03}" for number in range(300)]
        assert await asyncio.gather(*(directory.claim(name, KEY_A) for name in names)) == [Claim(KEY_A, True)] * 300
        hidden = await directory.change_privacy("user000", KEY_A, PrivacyChange(presence="hidden"))
        assert hidden == Privacy("hidden")
        assert await directory.rotate("user001", KEY_A, KEY_B)
        expected = [Binding(name, KEY_A) for name in names]
        expected[0], expected[1] = Binding("user000", KEY_A, Privacy("hidden")), Binding("user001", KEY_B)
        assert await directory.bindings("", 400) == expected
        assert all(int(server.say("dbsize")) > 50 for server in cluster.servers)
        await directory.list_name("carol")
        assert await directory.listed_names("", 10) == ["carol"]
        cluster.servers[2].kill()
        found = await asyncio.gather(*map(directory.find, names), return_exceptions=True)
        assert any(isinstance(answer, DirectoryUnavailable) for answer in found)
        cluster.servers[2].start()
        await until(lambda: all("cluster_state:ok" in server.say("cluster", "info") for server in cluster.servers))
        found = await asyncio.gather(*map(directory.find, names))
        assert found == [binding.public_key for binding in expected]
        await directory.close()
