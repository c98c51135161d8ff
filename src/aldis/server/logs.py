"""Logging: one line for each event, on stderr, for a person (`console`) or a machine (`json`).

Rules: modules log through `get_logger`, which uses the standard library's `logging`. So a program that uses the server
as a library gets its log lines like any others. Only the command line calls `configure`. Text from outside cannot start
a new line or control a terminal. Events that a client can cause at will are `debug` or throttled. No secret and no SDP
is logged, and each line goes through `log_addresses`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Literal, TypeAlias, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from aldis.hub.limits import TokenBucket
from aldis.server.log_addresses import ShownAddresses
from aldis.server.log_levels import apply_levels, read_levels

Log: TypeAlias = structlog.stdlib.BoundLogger

# Libraries whose debug lines hold whole requests and answers of the certificate authority.
_TALKATIVE: Final = ("acme", "urllib3")
# Tracebacks of our own faults: the first one is enough, and a client may be able to cause a thousand.
FAULTS_PER_SECOND: Final = 1
# While something fails, a line once in so many seconds: enough for an alert on the log.
OUTAGE_SECONDS: Final = 60.0
# How often it is told at once that something works again.
RECOVERIES: Final = 3


def get_logger(name: str) -> Log:
    """The logger of an area, by the name `aldis.AREA` (`log_levels.AREAS`): `log.info("started", port=8080)`."""
    processors: list[Processor] = [structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs]
    return cast(
        Log,
        structlog.wrap_logger(
            logging.getLogger(name), processors=processors, wrapper_class=structlog.stdlib.BoundLogger
        ),
    )


def moment(seconds: float | None) -> str | None:
    """A time since the epoch as the log writes its own times; None stays."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def escape_values(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape control characters in all texts, so that a value cannot look like anything else."""
    return {key: _escape(value) for key, value in event.items()}


def _escape(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in value)
    return value


def _name_area(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Say which area a line is from, so that an operator knows which level to set."""
    record = event.get("_record")
    if record is not None and record.name.startswith("aldis."):
        event["area"] = record.name.removeprefix("aldis.")
    return event


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Shows addresses as the settings say, wherever they are in a line."""

    addresses = ShownAddresses("short")

    def format(self, record: logging.LogRecord) -> str:
        return self.addresses.in_text(super().format(record))


def configure(
    log_format: Literal["console", "json"],
    levels: str,
    addresses: ShownAddresses = _Formatter.addresses,
    worker: int | None = None,
) -> None:
    """Send all logging of this process to stderr, one line each. For programs, not for libraries.

    `levels` as in `log_levels.read_levels`. `addresses` says how the addresses of clients look. Each line names the
    `worker`, if this process is one.
    """

    def name_worker(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        if worker is not None:
            event["worker"] = worker
        return event

    tail: list[Processor]
    if log_format == "json":
        # Without local variables, because they include secrets and what users say to each other.
        traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        tail = [structlog.processors.ExceptionRenderer(traces), structlog.processors.JSONRenderer()]
    else:
        tail = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    formatter = _Formatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(),
            _name_area,
            name_worker,
            escape_values,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *tail,
        ],
    )
    formatter.addresses = addresses
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    apply_levels(read_levels(levels))
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(True)


class Throttle:
    """Lets one event pass in `seconds`, and counts the others."""

    def __init__(self, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = 0.0
        self._stopped = 0

    def pass_now(self) -> int | None:
        """The number of events dropped since the last one that passed; None when this one must not pass."""
        now = self._clock()
        if now < self._next:
            self._stopped += 1
            return None
        self._next = now + self._seconds
        stopped, self._stopped = self._stopped, 0
        return stopped

    def open(self) -> None:
        """Let the next event pass, whenever it comes."""
        self._next = 0.0


class OutageLog:
    """Logs that something fails, once in `seconds` while it lasts, and that it works again.

    The line says how many failures came since the last one, so that an operator sees that it goes on. After "answers
    again" the next failure is always told. What comes and goes is told to work `RECOVERIES` times, and once in
    `seconds` from then on: meanwhile the last word is that it fails.
    """

    def __init__(self, log: Log, what: str, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._what = what
        self._clock = clock
        self._failures = Throttle(seconds, clock)
        self._recoveries = TokenBucket(RECOVERIES, 1 / seconds, clock())
        # What the log has said last.
        self._failing = False

    def failed(self, error: Exception) -> None:
        """It has failed once more."""
        if not self._failing:
            self._failures.open()
        before = self._failures.pass_now()
        if before is not None:
            self._failing = True
            more = {"failures_before": before} if before else {}
            self._log.error(f"{self._what} fails", reason=str(error), **more)

    def works(self) -> None:
        """It works again, or still."""
        if self._failing and self._recoveries.spend(self._clock()):
            self._failing = False
            self._log.info(f"{self._what} answers again")


class FaultLog:
    """Logs unexpected exceptions with their traceback, at most `FAULTS_PER_SECOND`, and counts all of them."""

    def __init__(self, log: Log, clock: Callable[[], float] = monotonic) -> None:
        self._log = log
        self._throttle = Throttle(1.0 / FAULTS_PER_SECOND, clock)
        self.count = 0

    def __call__(self, error: BaseException) -> None:
        """Log and count one exception, which is a bug of ours or of a library."""
        self.count += 1
        unlogged = self._throttle.pass_now()
        if unlogged is not None:
            self._log.error("unexpected fault", exc_info=error, unlogged_before=unlogged)
