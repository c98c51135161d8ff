"""Metrics for Prometheus, read from plain counters at each scrape.

Label values come from the protocol and from this code, never from a client. The metric names are part of the interface:
alert rules and dashboards depend on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from aldis.hub.hub import Hub
from aldis.hub.stats import Histogram
from aldis.server.admission import Admission
from aldis.server.scheduler import FairScheduler
from aldis.server.turn_server import TurnServer

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# Seconds. A read takes tens of microseconds, a disk sync milliseconds, and a lock at most sqlite.PATIENCE.
_DIRECTORY_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
_QUESTIONS: Final = ("claim", "find", "rotate", "release")


class DirectoryStats:
    """How long the directory takes to answer, and how often it fails, by the kind of question."""

    def __init__(self) -> None:
        self.seconds = {question: Histogram(_DIRECTORY_BUCKETS) for question in _QUESTIONS}
        self.failures: Counter[str] = Counter(dict.fromkeys(_QUESTIONS, 0))


class ServerCollector(Collector):
    """Collects all counters of one server. The arguments are the objects that hold them."""

    def __init__(
        self,
        hub: Hub,
        *,
        directory: DirectoryStats,
        closes: Counter[int],
        requests: Counter[str],
        admission: Admission,
        scheduler: FairScheduler,
        turn: TurnServer | None,
        faults: Callable[[], int],
        certificate_expires: Callable[[], datetime | None],
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._closes = closes
        self._requests = requests
        self._admission = admission
        self._scheduler = scheduler
        self._turn = turn
        self._faults = faults
        self._certificate_expires = certificate_expires

    def collect(self) -> Iterator[Metric]:
        stats = self._hub.stats
        info = GaugeMetricFamily("aldis_info", "Always 1; the label tells the version.", labels=["version"])
        info.add_metric([version("aldis")], 1)
        yield info
        yield GaugeMetricFamily(
            "aldis_users_online", "Users with a device online, or in its resume window.", self._hub.users_online
        )
        yield GaugeMetricFamily("aldis_connections", "Open WebSockets.", stats.connections_now)
        yield GaugeMetricFamily(
            "aldis_connections_accepted", "Open TCP connections of the public port, of any kind.", len(self._admission)
        )
        yield GaugeMetricFamily(
            "aldis_handshakes_pending", "Connections that have not sent a whole request yet.", self._admission.pending
        )
        yield _counter(
            "aldis_connections_refused",
            "Connections that were refused, or closed before their request, by reason.",
            ["reason"],
            {(reason,): count for reason, count in self._admission.refusals.items()},
        )
        yield _counter(
            "aldis_messages",
            "Messages from clients, by type and what became of them.",
            ["type", "outcome"],
            {(kind, outcome): count for (kind, outcome), count in stats.messages.items()},
        )
        yield _counter(
            "aldis_registrations",
            "Registrations, by what became of them.",
            ["outcome"],
            {(outcome,): count for outcome, count in stats.registrations.items()},
        )
        yield _histogram(
            "aldis_relay_seconds",
            "From a message read to it written to its recipient's socket, of one message in 16.",
            [],
            {(): stats.relay_seconds},
        )
        yield _histogram(
            "aldis_handshake_seconds",
            "From an open WebSocket to its registration.",
            [],
            {(): stats.handshake_seconds},
        )
        yield _counter(
            "aldis_closes",
            "Connections that the server closed, by close code.",
            ["code"],
            {(str(code),): count for code, count in (self._hub.stats.closes + self._closes).items()},
        )
        yield _counter(
            "aldis_http_requests",
            "Requests on the public port that became no WebSocket, by what they got.",
            ["outcome"],
            {(outcome,): count for outcome, count in self._requests.items()},
        )
        yield _histogram(
            "aldis_directory_seconds",
            "How long the directory took to answer.",
            ["question"],
            {(question,): seconds for question, seconds in self._directory.seconds.items()},
        )
        yield _counter(
            "aldis_directory_failures",
            "Questions that the directory could not answer.",
            ["question"],
            {(question,): count for question, count in self._directory.failures.items()},
        )
        yield GaugeMetricFamily(
            "aldis_directory_pending", "Questions that the directory has not answered yet.", self._hub.pending
        )
        yield GaugeMetricFamily(
            "aldis_connections_waiting", "Connections that are not read until it is their turn.", len(self._scheduler)
        )
        yield CounterMetricFamily(
            "aldis_throttled", "How often a connection had to wait for its rate.", self._scheduler.throttled
        )
        if self._turn is not None:
            yield GaugeMetricFamily("aldis_turn_up", "Whether our own TURN server answers.", int(self._turn.up))
            yield CounterMetricFamily(
                "aldis_turn_restarts", "How often our own TURN server was started again.", self._turn.restarts
            )
        expires = self._certificate_expires()
        if expires is not None:
            yield GaugeMetricFamily(
                "aldis_certificate_expires_timestamp_seconds",
                "When the certificate in use expires, in seconds since 1970.",
                expires.timestamp(),
            )
        yield GaugeMetricFamily("aldis_watches_bytes", "Memory of all watches.", self._hub.watches_bytes)
        yield GaugeMetricFamily("aldis_detached_sessions", "Lost clients that may resume.", self._hub.detached)
        yield GaugeMetricFamily(
            "aldis_detached_bytes", "Memory that is kept for them.", self._hub.detached_sessions.bytes
        )
        yield CounterMetricFamily(
            "aldis_detached_ended", "Lost clients given up because of these bytes.", stats.detached_ended
        )
        yield CounterMetricFamily("aldis_faults", "Unexpected exceptions: bugs, all of them.", self._faults())


def _counter(name: str, text: str, labels: list[str], counts: Mapping[tuple[str, ...], int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(list(values), count)
    return family


def _histogram(name: str, text: str, labels: list[str], series: Mapping[tuple[str, ...], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in series.items():
        bounds = [*map(str, histogram.bounds), "+Inf"]
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(bounds, histogram.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(list(values), buckets, histogram.total)
    return family


class Metrics:
    """The metrics page of one server, with the metrics of its process."""

    def __init__(self, collector: Collector) -> None:
        # A separate registry, because several servers may run in one process.
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def page(self) -> bytes:
        """The page in Prometheus's text format, of the type `CONTENT_TYPE`."""
        return generate_latest(self._registry)
