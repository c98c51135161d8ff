"""What became of a request: the value that each handler of the hub returns.

The hub answers and counts by it, in one place. A handler sends what it has to say on success itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from msgspec import UNSET, UnsetType

from aldis.protocol.codes import CloseCode


class Progress(Enum):
    """What became of a request that was not refused."""

    DONE = auto()
    PENDING = auto()  # its outcome comes later, with the answer that it waits for


DONE: Final = Progress.DONE
PENDING: Final = Progress.PENDING


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The request is answered with an error; with `close` the connection is closed after that.

    `retry_after` is in seconds. `close` is a close code and its reason.
    """

    code: str
    text: str
    retry_after: float | UnsetType = UNSET
    close: tuple[CloseCode, str] | None = None


RequestOutcome: TypeAlias = Progress | RequestRefused
