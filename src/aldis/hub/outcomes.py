"""The outcome of a request: the value that each handler of the hub returns.

The hub answers and counts by it, in one place. After success, the handler itself sends the reply.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from msgspec import UNSET, UnsetType

from aldis.protocol.codes import CloseCode


class Progress(Enum):
    """The outcome of a request that was not refused."""

    DONE = auto()
    PENDING = auto()  # the outcome comes later, with the answer of the directory


DONE: Final = Progress.DONE
PENDING: Final = Progress.PENDING


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """Answer the request with an error. With `close`, also close the connection.

    `retry_after` is in seconds. `close` is a close code and its reason. `silent`: count it without an answer. `limit`:
    the limit that was met, one of `stats.LIMITS`.
    """

    code: str
    text: str
    retry_after: float | UnsetType = UNSET
    close: tuple[CloseCode, str] | None = None
    silent: bool = False
    limit: str = ""


RequestOutcome: TypeAlias = Progress | RequestRefused
