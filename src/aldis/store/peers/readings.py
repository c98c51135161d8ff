"""Readings of the connection with one device: its statistics, and how well it runs.

It decides nothing: the grades are in `store.quality`, the paths in `paths`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final, Protocol

from aldis.peer.connection import PeerState
from aldis.peer.session import Measured
from aldis.peer.transport import Timers
from aldis.store.peers.paths import DevicePaths
from aldis.store.quality import PeerQuality, Throughput, grade_of
from aldis.store.state import PeerStats, peer_stats

_NAME_AFTER: Final = 0.05  # seconds: statistics take a millisecond, and a new connection has more urgent work


class ReadingsContext(Protocol):
    """What readings need of the store."""

    @property
    def timers(self) -> Timers:
        """Time."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start a task that the store owns."""


class Readings:
    """Reads the paths of one device."""

    def __init__(self, paths: DevicePaths, context: ReadingsContext, changed: Callable[[], None]) -> None:
        """`changed` is called when the path has another name."""
        self._paths = paths
        self._context = context
        self._changed = changed
        self._throughput = Throughput()

    def name_path(self) -> None:
        """There is another direct connection: find out soon whether it leads through a TURN server."""
        self._context.timers.call_later(_NAME_AFTER, self._name_path)

    def _name_path(self) -> None:
        if self._paths.direct.connection is not None:
            self._context.spawn(self._find_turn(), "look at a new path")

    async def _find_turn(self) -> None:
        connection = self._paths.direct.connection
        found = None if connection is None else await connection.stats()
        if found is not None and connection is self._paths.direct.connection and found.relayed:
            self._paths.through_turn = True
            self._changed()

    async def stats(self) -> PeerStats | None:
        """The path and the traffic; None when there is no path."""
        if self._paths.in_use == "relay":
            return PeerStats("relay", None, None, None, None, None, self._paths.relay.round_trip_time)
        connection = self._paths.direct.connection
        found = None if connection is None else await connection.stats()
        return None if connection is None or found is None else peer_stats(found, connection.round_trip_time)

    async def quality(self) -> PeerQuality:
        """A reading of the path in use."""
        stats = await self.stats()
        measured = self._measured()
        grade, reason = grade_of(
            connected=self._paths.told is PeerState.CONNECTED,
            round_trip_time=measured.round_trip_time,
            jitter=measured.jitter,
            lost_heartbeats=measured.lost_heartbeats,
        )
        counted = (None, None) if stats is None else (stats.bytes_sent, stats.bytes_received)
        sent, received = self._throughput.measure(self._context.timers.time(), *counted)
        return PeerQuality(
            grade=grade,
            reason=reason,
            path=None if stats is None else stats.path,
            protocol=None if stats is None else stats.protocol,
            local=None if stats is None else stats.local,
            remote=None if stats is None else stats.remote,
            round_trip_time=measured.round_trip_time,
            jitter=measured.jitter,
            lost_heartbeats=measured.lost_heartbeats,
            heartbeats=measured.heartbeats,
            sent_per_second=sent,
            received_per_second=received,
        )

    def _measured(self) -> Measured:
        if self._paths.in_use == "relay":
            return self._paths.relay.measured
        connection = self._paths.direct.connection
        return Measured() if connection is None else connection.measured
