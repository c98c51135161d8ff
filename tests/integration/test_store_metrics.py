"""The metrics of a store for Prometheus."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from aldis.errors import ConfigError
from aldis.peer.connection import PeerState
from aldis.store.metrics import StoreMetrics
from aldis.store.store import NetworkStore
from support.stores import running_server, stores, until_state


def scraped(metrics: StoreMetrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    found = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in found}


async def test_a_store_tells_of_its_connections_without_names() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        async with StoreMetrics(alice) as metrics:
            assert scraped(metrics)['aldis_store_peers{grade="good"}'] == 0
            await alice.connect_to_peer("bob")
            await until_state(bob, "alice", PeerState.CONNECTED)
            await metrics.read()
            found = scraped(metrics)
        assert found["aldis_store_connected"] == 1
        assert found["aldis_store_queued"] == 0
        assert found["aldis_store_journal_failing"] == 0
        assert sum(found[f'aldis_store_peers{{grade="{grade}"}}'] for grade in ("good", "fair", "poor")) == 1
        assert found['aldis_store_paths{path="direct"}'] == 1
        assert not [name for name in found if "bob" in name]
        await alice.disconnect_from_peer("bob")
        await metrics.read()
        assert scraped(metrics)['aldis_store_peers{grade="lost"}'] == 1
    await metrics.read()
    assert scraped(metrics)["aldis_store_connected"] == 0


async def test_the_names_of_peers_are_told_where_that_is_wanted() -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, _):
        async with StoreMetrics(alice, by_peer=True) as metrics:
            await alice.connect_to_peer("bob")
            await alice.send("bob", "hello")
            await metrics.read()
            found = scraped(metrics)
        assert found['aldis_store_peer_lost_heartbeats{peer="bob"}'] == 0
        assert 'aldis_store_peer_sent_bytes_per_second{peer="bob"}' not in found  # that takes two readings


async def test_files_that_are_under_way_are_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"waits")
    async with running_server() as server, stores(server.url, "alice") as (alice,), StoreMetrics(alice) as metrics:
        await alice.send_file("bob", tmp_path / "file")
        await metrics.read()
        found = scraped(metrics)
    assert found['aldis_store_transfers{direction="out"}'] == 1
    assert found['aldis_store_transfers{direction="in"}'] == 0


def test_readings_are_not_taken_all_the_time() -> None:
    with pytest.raises(ConfigError, match="every"):
        StoreMetrics(NetworkStore(), every=0)
