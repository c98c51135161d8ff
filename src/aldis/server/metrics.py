"""Metrics for Prometheus, read from plain counters at each scrape.

Label values come from the protocol and from this code, never from a client. The metric names are part of the interface:
alert rules and dashboards depend on them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from aldis.hub.hub import Hub
from aldis.hub.stats import Histogram
from aldis.protocol.codes import CloseCode, ErrorCode
from aldis.server.accounts import Accounts
from aldis.server.admission import Admission
from aldis.server.certificate_updates import CertificateUpdates
from aldis.server.cluster_member import ClusterMember
from aldis.server.config import ServerConfig
from aldis.server.scheduler import FairScheduler
from aldis.server.stun_port import StunPort
from aldis.server.turn_check import RelayAnswer
from aldis.server.turn_server import TurnServer
from aldis.server.turn_watch import TurnWatch
from aldis.version import VERSION

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# Seconds. A read takes tens of microseconds, a disk sync milliseconds, and a lock at most sqlite.PATIENCE.
_DIRECTORY_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0)
# The settings that alerts compare with what is used.
_LIMITS: Final = ("max_connections", "handshakes", "detached_bytes", "stun_per_second")
# Counters begin with 0, because `increase` in a rule does not see what a series begins with.
_REGISTRATIONS: Final = (
    *("new", "resumed", "replaced"),
    *(ErrorCode.KEY_MISMATCH, ErrorCode.BAD_SIGNATURE, ErrorCode.RATE_LIMITED, ErrorCode.INTERNAL),
)
_REQUESTS: Final = ("full", "busy", "misdirected", "admin-crowded")
_QUESTIONS: Final = ("claim", "find", "rotate", "release", "privacy")


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
        turn_watch: TurnWatch,
        stun: StunPort,
        faults: Callable[[], int],
        accounts: Accounts,
        certificates: CertificateUpdates,
        config: Callable[[], ServerConfig],
        member: ClusterMember | None = None,
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._closes = closes
        self._requests = requests
        self._admission = admission
        self._scheduler = scheduler
        self._turn = turn
        self._turn_watch = turn_watch
        self._stun = stun
        self._faults = faults
        self._accounts = accounts
        self._certificates = certificates
        self._config = config
        self._member = member

    def collect(self) -> Iterator[Metric]:
        stats = self._hub.stats
        info = GaugeMetricFamily("aldis_info", "Always 1; the label tells the version.", labels=["version"])
        info.add_metric([VERSION], 1)
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
        yield CounterMetricFamily(
            "aldis_sealed_bytes", "Bytes of sealed messages that were passed on, in base64.", stats.sealed_bytes
        )
        yield _counter(
            "aldis_registrations",
            "Registrations, by what became of them.",
            ["outcome"],
            _labelled(dict.fromkeys(_REGISTRATIONS, 0) | stats.registrations),
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
        # All of ours, and those of WebSocket that there were.
        codes = sorted({code for code in CloseCode if code >= CloseCode.GOING_AWAY} | {*stats.closes, *self._closes})
        yield _counter(
            "aldis_closes",
            "Connections that the server closed, by close code.",
            ["code"],
            {(str(code),): stats.closes[code] + self._closes[code] for code in codes},
        )
        yield _counter(
            "aldis_http_requests",
            "Requests on the public port that became no WebSocket, by what they got.",
            ["outcome"],
            _labelled(dict.fromkeys(_REQUESTS, 0) | self._requests),
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
        yield from _of_turn(self._turn, self._turn_watch.found)
        if self._stun.wanted:
            yield GaugeMetricFamily("aldis_stun_up", "Whether our own STUN port is open.", int(self._stun.port > 0))
            self._stun.count()
            yield _counter(
                "aldis_stun_requests",
                "Datagrams on the STUN port, by what became of them.",
                ["outcome"],
                _labelled(self._stun.answers.outcomes),
            )
        tls, manager = self._certificates.tls, self._certificates.manager
        expires = None if tls is None else tls.expires
        if expires is not None:
            yield GaugeMetricFamily(
                "aldis_certificate_expires_timestamp_seconds",
                "When the certificate in use expires, in seconds since 1970.",
                expires.timestamp(),
            )
        yield _counter(
            "aldis_limited",
            "How often a client has met a limit, by the limit.",
            ["limit"],
            {(limit,): count for limit, count in stats.limited.items()},
        )
        yield CounterMetricFamily(
            "aldis_presence_folded",
            "Changes of presence that were told with a later one, so shortly after an earlier one they came.",
            self._hub.presence_windows.folded,
        )
        yield from _of_accounts(self._accounts)
        leaf = None if tls is None else tls.leaf
        if leaf is not None:
            yield GaugeMetricFamily(
                "aldis_certificate_starts_timestamp_seconds",
                "When the certificate in use became valid, in seconds since 1970.",
                leaf.not_valid_before_utc.timestamp(),
            )
        if tls is not None:
            yield GaugeMetricFamily(
                "aldis_certificate_ready",
                "Whether there is a certificate, so that clients can connect.",
                int(tls.files is not None),
            )
        if manager is not None:
            yield _counter(
                "aldis_certificate_orders",
                "Certificates ordered by the server itself, by what became of it.",
                ["outcome"],
                {(outcome,): count for outcome, count in manager.attempts.items()},
            )
            yield GaugeMetricFamily(
                "aldis_certificate_failures_in_a_row",
                "Failed orders since the last one that succeeded.",
                manager.failures,
            )
        config = self._config()
        limits = GaugeMetricFamily("aldis_limit", "Limits in the settings, by name.", labels=["setting"])
        for name in _LIMITS:
            limits.add_metric([name], getattr(config, name))
        yield limits
        memory = self._hub.memory.bytes()
        family = GaugeMetricFamily("aldis_memory_bytes", "What is kept for clients, by what it is.", labels=["kind"])
        for kind, size in memory.items():
            family.add_metric([kind], size)
        yield family
        yield GaugeMetricFamily(
            "aldis_memory_budget_bytes",
            "How much of that there may be; beyond, nothing new is taken on, and clients are given up.",
            self._hub.settings.memory_budget,
        )
        yield CounterMetricFamily(
            "aldis_memory_ended", "Clients that were given up because of that budget.", stats.memory_ended
        )
        yield GaugeMetricFamily("aldis_watches_bytes", "Memory of all watches.", memory["watches"])
        yield GaugeMetricFamily(
            "aldis_privacy_bytes",
            "Memory of the contacts and blocked users of those online.",
            memory["privacy"],
        )
        yield GaugeMetricFamily(
            "aldis_detached_sessions", "Lost clients that may resume.", len(self._hub.detached_sessions)
        )
        yield GaugeMetricFamily(
            "aldis_detached_bytes", "Memory that is kept for them.", self._hub.detached_sessions.bytes
        )
        yield CounterMetricFamily(
            "aldis_detached_ended", "Lost clients given up because of these bytes.", stats.detached_ended
        )
        if self._member is not None:
            yield from _of_cluster(self._member)
        yield CounterMetricFamily("aldis_faults", "Unexpected exceptions: bugs, all of them.", self._faults())


def _of_turn(own: TurnServer | None, others: Mapping[str, RelayAnswer]) -> Iterator[Metric]:
    """Whether TURN servers answer and relay. Those that are asked (`turn_check`) have the label `server`."""
    found = {name: (answer.answers, not answer.problem) for name, answer in others.items()}
    if own is not None:
        # For Prometheus, an empty label is none.
        found[""] = (own.up, own.allocation_checked is not None and not own.allocation_problem)
        yield CounterMetricFamily(
            "aldis_turn_restarts", "How often our own TURN server was started again.", own.restarts
        )
    if not found:
        return
    labels = ["server"] if others else []
    up = GaugeMetricFamily("aldis_turn_up", "Whether a TURN server answers.", labels=labels)
    relays = GaugeMetricFamily(
        "aldis_turn_relays",
        "Whether it gave a relay when it was last asked for one, at least each minute.",
        labels=labels,
    )
    for name, (answers, relayed) in found.items():
        up.add_metric([name] if labels else [], int(answers))
        relays.add_metric([name] if labels else [], int(relayed))
    yield from (up, relays)


def _of_accounts(accounts: Accounts) -> Iterator[Metric]:
    """What the operator's accounts do; nothing of what is not in use."""
    keys, hook, presence = accounts.keys, accounts.hook, accounts.presence
    if keys is not None:
        yield _counter("aldis_tokens", "Tokens, by what became of them.", ["outcome"], _labelled(accounts.tokens))
        yield GaugeMetricFamily(
            "aldis_token_keys", "Keys of tokens that are in use.", 0 if keys.keys is None else len(keys.keys.keys)
        )
        yield _counter(
            "aldis_token_key_reads", "Attempts to read the keys of tokens anew.", ["outcome"], _labelled(keys.looks)
        )
        if keys.age is not None:
            yield GaugeMetricFamily("aldis_token_keys_age_seconds", "How old the keys of tokens are.", keys.age)
    if hook is not None:
        yield _counter(
            "aldis_hook_calls",
            "Registrations that the application was asked about, by what it said.",
            ["outcome"],
            _labelled(hook.calls),
        )
        yield _histogram(
            "aldis_hook_seconds",
            "How long asking the application took, with the wait, also in vain.",
            [],
            {(): hook.seconds},
        )
    if presence is not None:
        yield _counter(
            "aldis_presence_events",
            "Events for the application that is told who is online.",
            ["outcome"],
            _labelled(presence.events),
        )
        yield GaugeMetricFamily("aldis_presence_events_waiting", "Such events not delivered yet.", len(presence))


def _of_cluster(member: ClusterMember) -> Iterator[Metric]:
    status = member.status()
    yield GaugeMetricFamily(
        "aldis_cluster_up",
        "Whether the Redis of the cluster answers, and all that this server wants to hear comes.",
        int(status.healthy),
    )
    yield GaugeMetricFamily(
        "aldis_cluster_servers", "Servers of the cluster that are alive, with this one.", 1 + len(status.others)
    )
    yield GaugeMetricFamily(
        "aldis_cluster_users_known", "Users whose place in the cluster this server knows.", status.users
    )
    yield GaugeMetricFamily(
        "aldis_cluster_messages_queued", "Messages to other servers that Redis has not taken yet.", status.queued
    )
    yield GaugeMetricFamily("aldis_cluster_queued_bytes", "Their bytes.", status.queued_bytes)
    yield CounterMetricFamily(
        "aldis_cluster_unreadable", "Messages and states of other servers that could not be read.", status.unreadable
    )
    yield CounterMetricFamily(
        "aldis_cluster_unknown",
        "Messages of a newer release of which this one knows nothing, and need not.",
        status.unknown,
    )
    yield _histogram(
        "aldis_cluster_redis_seconds",
        "How long Redis took to answer a batch of calls about who is where.",
        ["kind"],
        {(calls.kind,): calls.seconds for calls in status.calls},
    )
    yield _counter(
        "aldis_cluster_redis_failures",
        "Such calls that Redis did not answer, or refused.",
        ["kind"],
        {(calls.kind,): calls.failures for calls in status.calls},
    )
    waiting = GaugeMetricFamily("aldis_cluster_redis_waiting", "Such calls without an answer yet.", labels=["kind"])
    for calls in status.calls:
        waiting.add_metric([calls.kind], calls.open)
    yield waiting


def _labelled(counts: Mapping[str, int]) -> dict[tuple[str, ...], int]:
    return {(label,): count for label, count in counts.items()}


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
