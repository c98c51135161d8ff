"""Metrics of a store for Prometheus, on the side of the client. Optional: nothing else of the store imports this.

    from prometheus_client import REGISTRY, start_http_server

    async with StoreMetrics(store) as metrics:
        REGISTRY.register(metrics)
        start_http_server(9000)

Readings are taken on the loop of the store each `every` seconds. A scrape, which mostly comes from another thread, gets
the last ones. By default no name of a peer is in a label: who talks to whom is nobody's business. `by_peer` changes
that.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aldis.client.events import SignalingState
from aldis.errors import StateError
from aldis.settings import check_number
from aldis.store.quality import Grade, PeerQuality
from aldis.store.store import NetworkStore

_PATHS: Final = ("direct", "turn", "relay")


@dataclass(frozen=True, slots=True)
class _Readings:
    """What a scrape gets: made on the loop, and never changed."""

    connected: bool = False
    queued: int = 0
    transfers: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # by direction
    journal_fails: bool = False
    peers: Mapping[str, PeerQuality] = field(default_factory=lambda: MappingProxyType({}))


class StoreMetrics(Collector):
    """Collects the readings of one store. Register it with a registry of `prometheus_client`."""

    def __init__(self, store: NetworkStore, *, every: float = 15.0, by_peer: bool = False) -> None:
        """`every`: seconds between two readings. `by_peer`: also tell of each peer, by its name.

        Raises `ConfigError` for an `every` that is not from 0.25 s to an hour.
        """
        check_number("every", every, 0.25, 3600, " of seconds")
        self._store = store
        self._every = every
        self._by_peer = by_peer
        self._readings = _Readings()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StoreMetrics:
        await self.read()
        self._reading = asyncio.create_task(self._keep_reading(), name="aldis store metrics")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self.read()

    async def read(self) -> None:
        """Take a reading now. Without a login, and at the end, there are no peers to tell of."""
        state = self._store.state
        peers = {}
        with suppress(StateError):
            for user_id, view in state.peers.items():
                if view.connections:
                    peers[user_id] = await self._store.quality(user_id)
        self._readings = _Readings(
            connected=state.signaling is SignalingState.CONNECTED,
            queued=sum(view.queued for view in state.peers.values()),
            transfers=MappingProxyType(Counter(transfer.direction for transfer in self._store.transfers)),
            journal_fails=state.journal_error is not None,
            peers=MappingProxyType(peers),
        )

    def collect(self) -> Iterator[Metric]:
        """The metrics of the last reading."""
        readings = self._readings
        yield GaugeMetricFamily(
            "aldis_store_connected", "Whether the store is registered with its server.", int(readings.connected)
        )
        yield GaugeMetricFamily("aldis_store_queued", "Messages that no peer has confirmed yet.", readings.queued)
        yield GaugeMetricFamily(
            "aldis_store_journal_failing", "Whether the journal cannot be written.", int(readings.journal_fails)
        )
        yield _gauge(
            "aldis_store_transfers",
            "Files on offer or under way, by direction.",
            "direction",
            {direction: readings.transfers.get(direction, 0) for direction in ("in", "out")},
        )
        grades = Counter(quality.grade for quality in readings.peers.values())
        yield _gauge(
            "aldis_store_peers",
            "Peers that have been connected, by how well the connection runs.",
            "grade",
            {grade: grades[grade] for grade in Grade},
        )
        paths = Counter(quality.path for quality in readings.peers.values())
        yield _gauge("aldis_store_paths", "Connections, by their path.", "path", {path: paths[path] for path in _PATHS})
        if self._by_peer:
            yield from _each_peer(readings.peers)


def _each_peer(peers: Mapping[str, PeerQuality]) -> Iterator[Metric]:
    for name, text, value in (
        ("round_trip_seconds", "The median of the last round trips.", "round_trip_time"),
        ("jitter_seconds", "By how much the last round trips differ.", "jitter"),
        ("lost_heartbeats", "Heartbeats without an answer in time, of the last 20.", "lost_heartbeats"),
        ("sent_bytes_per_second", "What is sent.", "sent_per_second"),
        ("received_bytes_per_second", "What is received.", "received_per_second"),
    ):
        values = {user_id: getattr(quality, value) for user_id, quality in peers.items()}
        known = {user_id: number for user_id, number in values.items() if number is not None}
        yield _gauge(f"aldis_store_peer_{name}", text, "peer", known)


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
