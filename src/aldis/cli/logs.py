"""The log of a command for people: on standard error, one line for each record, and mostly silent.

Rules: without `--verbose` it shows only errors of Aldis itself, and tracebacks only with ALDIS_DEBUG=1. Nothing is
written to standard output, not even by a library.
"""

from __future__ import annotations

import logging
import os

import structlog
from structlog.typing import EventDict

from aldis.cli.exits import complain
from aldis.cli.text import safe_line


class _Lines(logging.Handler):
    """Writes each record as a diagnostic, to the current standard error, which an editor may replace."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if os.environ.get("ALDIS_DEBUG", "") in ("", "0"):
            error = record.exc_info[1] if record.exc_info else None
            text = safe_line(f"{record.levelname.lower()}: {record.getMessage()}")
            complain(text if error is None else f"{text}: {safe_line(repr(error))}")
        else:
            complain(self.format(record))


def _as_arguments(logger: object, method: str, event: EventDict) -> tuple[tuple[str], dict[str, object]]:
    """A structured event for the standard library: `event key=value ...`."""
    exc_info = event.pop("exc_info", None)
    text = " ".join([str(event.pop("event", "")), *(f"{key}={value}" for key, value in event.items())])
    return (text.replace("%", "%%"),), {"exc_info": exc_info}


def log_to_stderr(*, verbose: bool) -> None:
    """Send the log of this process to standard error."""
    root = logging.getLogger()
    root.handlers = [_Lines()]
    root.setLevel(logging.WARNING if verbose else logging.CRITICAL)
    # Errors of asyncio and other libraries, such as a failed handshake, also come as exceptions.
    logging.getLogger("aldis").setLevel(logging.DEBUG if verbose else logging.ERROR)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            _as_arguments,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
